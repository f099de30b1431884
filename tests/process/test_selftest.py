"""`ca-shim selftest` on a developer's machine: it proves the clients, touches nothing and leaves nothing."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from shim import apply, bundle, certs, config, families, selftest, throwaway
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
    process = _start_and_hang(environ, tmp_path)

    assert _kill(process) == []
    assert process.returncode == -signal.SIGKILL


def test_a_running_selftest_keeps_its_directory_and_a_killed_one_does_not(
    environ: dict[str, str], tmp_path: Path
) -> None:
    process = _start_and_hang(environ, tmp_path)
    held = os.listdir(tmp_path / "tmp")
    other = {**environ, "PATH": "/nowhere"}
    selftest.main(config.read(environ), other, as_json=False)
    assert os.listdir(tmp_path / "tmp") == held

    _kill(process)
    selftest.main(config.read(environ), other, as_json=False)
    assert os.listdir(tmp_path / "tmp") == []


def test_what_a_killed_selftest_left_goes_at_the_next(environ: dict[str, str], tmp_path: Path) -> None:
    """Of what has the name, only directories that no selftest holds; one that is being made has another mode."""
    temporary = tmp_path / "tmp"
    for name, mode in {"killed": 0o711, "running": 0o711, "new": 0o700}.items():
        (temporary / f"ca-shim-selftest-{name}" / "kept").mkdir(parents=True)
        (temporary / f"ca-shim-selftest-{name}").chmod(mode)
    (temporary / "ca-shim-selftest-link").symlink_to(tmp_path)
    running = apply.lock(os.open(temporary / "ca-shim-selftest-running", os.O_RDONLY), 0)
    selftest.main(config.read(environ), {**environ, "PATH": "/nowhere"}, as_json=False)
    os.close(running)

    assert sorted(os.listdir(temporary)) == [f"ca-shim-selftest-{name}" for name in ("link", "new", "running")]


def test_a_throwaway_ca_of_a_killed_selftest_is_not_kept(environ: dict[str, str], tmp_path: Path) -> None:
    (left,) = certs.parse((("ca.pem", throwaway.site(sends_intermediate=False).root),)).certificates
    (tmp_path / "bundles").mkdir(mode=0o755)
    (tmp_path / "bundles/extra.pem").write_bytes(bundle.merged("", (), (left.item,)))
    _fake(tmp_path / "bin/curl", f'cat "$NODE_EXTRA_CA_CERTS" >> {tmp_path}/seen; exit 60')
    environ |= {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "CA_SHIM_BUNDLE_DIR": f"{tmp_path}/bundles"}
    selftest.main(config.read(environ), environ, as_json=False)

    seen = bundle.fingerprints((tmp_path / "seen").read_bytes())
    assert (len(seen), left.sha256 in seen) == (1, False)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
def test_what_the_refresh_tool_writes_gets_its_owner_and_mode_back(tmp_path: Path) -> None:
    bundle, other = tmp_path / "bundle.pem", tmp_path / "other.pem"
    for path in (bundle, other):
        path.write_bytes(b"")
        path.chmod(0o640)
    os.chown(bundle, 0, 5)
    untouched = other.stat()
    with selftest.modes_kept((str(bundle), str(other), f"{tmp_path}/none")):
        bundle.unlink()
        bundle.write_bytes(b"new")
        bundle.chmod(0o444)
    status = bundle.stat()

    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (0, 5, 0o640)
    assert other.stat() == untouched


@pytest.fixture
def in_place(environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A selftest that would change this machine's stores, and is stopped before it does; gives its lock's directory."""
    monkeypatch.setattr(selftest, "_is_in_place", lambda _: True)
    monkeypatch.setattr(selftest, "_bench", lambda *_: pytest.fail("a second selftest has begun"))
    environ["CA_SHIM_BUNDLE_DIR"] = f"{tmp_path}/bundles"
    return tmp_path / "bundles"


@pytest.mark.parametrize(
    ("name", "reason"), [("selftest", "another selftest is running"), ("lock", "a start is still")]
)
def test_in_place_one_runs_at_a_time_and_beside_no_start(
    environ: dict[str, str], in_place: Path, monkeypatch: pytest.MonkeyPatch, name: str, reason: str
) -> None:
    monkeypatch.setattr(apply, "LOCK_SECONDS", 0.1)
    held = apply.lock(apply.open_lock(str(in_place), name), 0)

    with pytest.raises(NotUpdatedError, match=reason):
        selftest.main(config.read(environ), environ, as_json=False)
    os.close(held)


def test_in_place_a_user_s_start_finds_it_and_holds_up_none(
    environ: dict[str, str], in_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is new each time: whoever has that of a killed selftest open, and locked, holds up nobody."""
    older = apply.lock(apply.open_lock(str(in_place), apply.SELFTEST), 0)
    file = in_place / apply.SELFTEST

    def bench(*_: object) -> None:
        assert stat.S_IMODE(file.stat().st_mode) == 0o444
        with pytest.raises(apply.StoreError):
            apply.lock(os.open(file, os.O_RDONLY), 0)
        raise NotUpdatedError("reached")

    monkeypatch.setattr(selftest, "_bench", bench)

    with pytest.raises(NotUpdatedError, match="reached"):
        selftest.main(config.read(environ), environ, as_json=False)
    os.close(older)
    assert not file.exists()


def test_in_place_a_directory_that_takes_no_lock_is_named(
    environ: dict[str, str], in_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(directory: str, name: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", f"{directory}/{name}")

    monkeypatch.setattr(apply, "open_lock", full)

    with pytest.raises(NotUpdatedError, match=rf"{in_place} cannot be written \(No space left"):
        selftest.main(config.read(environ), environ, as_json=False)


def _start(environ: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "shim", "selftest"]
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, encoding="utf-8")


def _start_and_hang(environ: dict[str, str], tmp_path: Path) -> subprocess.Popen[str]:
    """Start one, and return when it waits for a client."""
    _fake(tmp_path / "bin/curl", f": > {tmp_path}/asked; exec sleep 60")
    process = _start({**environ, "PATH": f"{tmp_path}/bin:/usr/bin:/bin"})
    _wait_for(f"{tmp_path}/asked")
    return process


def _kill(process: subprocess.Popen[str]) -> list[int]:
    """Kill one, and return which of its children go on although they were waited for."""
    children = _children(process.pid)
    process.kill()
    process.communicate(timeout=30)
    deadline = time.monotonic() + 20
    while any(_is_ours(child) for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    return [child for child in children if _is_ours(child)]


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
