"""`ca-shim selftest` on a developer's machine: it proves the clients, touches nothing and leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from shim import config, families, selftest, throwaway
from shim.errors import NotUpdatedError, UsageError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "tmp").mkdir()
    tmp_path.chmod(0o755)
    return {
        "PATH": os.environ["PATH"],
        "HOME": "/",
        "TMPDIR": f"{tmp_path}/tmp",
        **({"CA_SHIM_USER": "root"} if os.geteuid() == 0 else {}),
    }


def _state(tmp_path: Path) -> tuple[list[str], dict[str, tuple[int, int]]]:
    """What is left in the temporary directory, and the stores of this machine."""
    files = {}
    for path in (*families.OS_BUNDLES, *(family.anchors for family in families.FAMILIES)):
        if os.path.exists(path):
            status = os.stat(path)
            files[path] = status.st_mtime_ns, status.st_ino
    return os.listdir(tmp_path / "tmp"), files


def test_it_proves_this_machines_clients_and_leaves_no_trace(
    environ: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _state(tmp_path)
    code = selftest.main(config.read(environ), environ, as_json=True)
    document = json.loads(capsys.readouterr().out)

    assert (code, document["good"], document["left"]) == (0, True, []), document
    assert document["mode"].startswith("by override")
    assert any(row["client"].startswith("Python ssl") and not row["skipped"] for row in document["rows"])
    assert _state(tmp_path) == before


def test_people_get_a_table(environ: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    code = selftest.main(config.read(environ), {**environ, "PATH": "/nowhere", "CA_SHIM_CERTIFI": ""}, as_json=False)

    assert code == 0
    assert capsys.readouterr().out.splitlines()[-1] == "good"


def test_mounted_cas_do_not_disturb_it(
    environ: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "certs").mkdir()
    (tmp_path / "certs/ca.pem").write_bytes(throwaway.site(sends_intermediate=False).root)
    environ = {**environ, "CA_SHIM_CERTS": f"{tmp_path}/certs", "PATH": "/nowhere"}

    assert selftest.main(config.read(environ), environ, as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["left"] == []


def test_a_client_that_verifies_nothing_is_found_out(
    environ: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _fake(tmp_path / "bin/curl", 'exec /usr/bin/curl -k "$@"')
    environ["PATH"] = f"{tmp_path}/bin"

    assert selftest.main(config.read(environ), environ, as_json=False) == 1
    assert "curl, before: accepts" in capsys.readouterr().out.replace(f" ({tmp_path}/bin/curl)", "")


def test_a_machine_in_a_directory_cannot_be_tried(environ: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--root"):
        selftest.main(config.read(environ, root=str(tmp_path)), environ, as_json=False)


def test_without_any_temporary_directory_it_says_what_to_mount(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(families, "BUNDLE_DIRECTORIES", ("/nowhere/ca-shim", "/proc/ca-shim-{uid}"))

    with pytest.raises(NotUpdatedError, match="mount a tmpfs"):
        selftest.main(config.read(environ), environ, as_json=False)


def test_it_does_not_work_where_others_could_exchange_its_files(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an emptyDir is: what root reads again there could be a CA of somebody else's."""
    (tmp_path / "tmp").chmod(0o777)
    monkeypatch.setattr(families, "BUNDLE_DIRECTORIES", ("{tmp}/ca-shim-{uid}",))

    with pytest.raises(NotUpdatedError, match="writable and safe"):
        selftest.main(config.read(environ), environ, as_json=False)


def _fake(path: Path, script: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)], ids=["TERM", "INT", "HUP"]
)
def test_a_signal_ends_it_after_everything_is_undone(
    environ: dict[str, str], tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """The second question to curl comes when the CA is installed; it hangs until the signal."""
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip(f"{number.name} was ignored before the tests were started, and stays so")
    asked = tmp_path / "asked"
    _fake(tmp_path / "bin/curl", f"test -e {asked}.1 && {{ : > {asked}.2; exec sleep 60; }}; : > {asked}.1; exit 60")
    environ = {**environ, "PATH": f"{tmp_path}/bin:/usr/bin:/bin"}
    process = _start(environ)
    _wait_for(f"{asked}.2")
    process.send_signal(number)
    output, _ = process.communicate(timeout=30)

    assert process.returncode == code
    assert f"stopped by {number.name}" in output
    assert "undone: every store is as it was before" in output
    assert os.listdir(tmp_path / "tmp") == []


def test_a_selftest_that_is_killed_leaves_nothing_that_serves(environ: dict[str, str], tmp_path: Path) -> None:
    _fake(tmp_path / "bin/curl", f": > {tmp_path}/asked; exec sleep 60")
    process = _start({**environ, "PATH": f"{tmp_path}/bin:/usr/bin:/bin"})
    _wait_for(f"{tmp_path}/asked")
    children = _children(process.pid)
    process.kill()
    process.communicate(timeout=30)

    assert process.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 20
    while any(_is_ours(child) for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [child for child in children if _is_ours(child)]


def _start(environ: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "shim", "selftest"]
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, encoding="utf-8")


def _wait_for(path: str) -> None:
    deadline = time.monotonic() + 60
    while not os.path.exists(path):
        assert time.monotonic() < deadline, path
        time.sleep(0.02)


def _children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(word) for word in file.read().split()]


def _is_ours(pid: int) -> bool:
    """A process of Python's that still runs: the servers; the client is only `sleep`."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return b"selftest" in file.read()
    except OSError:
        return False
