"""Real refresh tools without what they need, killed at any moment, or many at once."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.lab import derived
from tests.lab.subject import Mount, Subject, events, lasting, named

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_SHIM = "/opt/ca-shim/bin/ca-shim"
_KILLS = os.environ.get("CA_SHIM_TEST_KILLS", "5")
_DIRECTORIES = "/etc/pki/ca-trust/extracted /etc/pki/tls/certs"
_ENTRIES = f"find {_DIRECTORIES} ! -type d -printf '%p %l\\n' | sort"
# Runs in the container: kill starts at random moments, with their tool or without, and make each good by the next.
_KILLER = """
import base64, hashlib, os, random, re, signal, ssl, subprocess, sys, time
bundle, capath, kills = sys.argv[1], sys.argv[2], int(sys.argv[3])
chance = random.Random(kills)
start = ["/opt/ca-shim/bin/ca-shim", "install"]
os.environ["CA_SHIM_CERTS"] = "/tmp/cas"
os.mkdir("/tmp/cas")
def held(path):
    blocks = re.findall(b"-----BEGIN CERTIFICATE-----(.*?)-----END", open(path, "rb").read(), re.S)
    return {hashlib.sha256(base64.b64decode(each)).hexdigest() for each in blocks}
def mount(names):
    for name in ("ca-a.pem", "ca-b.pem"):
        if name in names:
            open("/tmp/cas/" + name, "wb").write(open("/ca/" + name, "rb").read())
        elif os.path.exists("/tmp/cas/" + name):
            os.unlink("/tmp/cas/" + name)
base = held(bundle)
before = time.monotonic()
mount(["ca-a.pem"])
subprocess.run(start, check=True, stderr=subprocess.DEVNULL)
seconds = time.monotonic() - before
for number in range(kills):
    name, other = ("ca-b.pem", "ca-a.pem")[:: 1 - number % 2 * 2]
    mount([name])
    shim = subprocess.Popen(start, stderr=subprocess.DEVNULL)
    time.sleep(chance.uniform(0, seconds))
    tools = open(f"/proc/{shim.pid}/task/{shim.pid}/children").read().split() if shim.poll() is None else []
    shim.kill()
    shim.wait()
    for tool in tools if chance.random() < 0.5 else ():
        try:
            os.killpg(int(tool), signal.SIGKILL)
        except ProcessLookupError:
            pass
    assert base <= held(bundle), "a root of the base is lost"
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(bundle)
    said = subprocess.run(start, check=True, capture_output=True, text=True).stderr
    assert held(bundle) == base | held("/ca/" + name), said
    assert subprocess.run([start[0], "plan", "--exit-code"], capture_output=True).returncode == 0
    if capath:
        verify = ["openssl", "verify", "-CApath", capath, "-no-CAfile"]
        assert subprocess.run([*verify, "/ca/" + name], capture_output=True).returncode == 0, "not in " + capath
        assert subprocess.run([*verify, "/ca/" + other], capture_output=True).returncode != 0, "still in " + capath
print("good")
"""
# Runs in the container: starts of two versions at once, and readers of what they write.
_CROWD = """
import os, shutil, ssl, subprocess, sys
bundle, certifi = sys.argv[1:]
shutil.copytree("/opt/ca-shim/site", "/tmp/other", symlinks=True)
with open("/tmp/other/shim/__init__.py", "a") as file:
    file.write("\\n__version__ = '0.0.1'\\n")
run = "import sys; sys.path.append(sys.argv.pop(1)); sys.argv[0] = 'ca-shim'; from shim.cli import *; sys.exit(main())"
least = {path: len(ssl.create_default_context(cafile=path).get_ca_certs()) for path in (bundle, certifi)}
def start(site):
    return subprocess.Popen([sys.executable, "-ISB", "-c", run, site, "install"], stderr=subprocess.PIPE)
starts = [start(("/opt/ca-shim/site", "/tmp/other")[number % 2]) for number in range(20)]
loads = 0
while any([each.poll() is None for each in starts]):
    for path, count in least.items():
        assert len(ssl.create_default_context(cafile=path).get_ca_certs()) >= count, path
        loads += 1
assert [each.returncode for each in starts] == [0] * 20, [each.stderr.read() for each in starts if each.returncode]
assert subprocess.run(["/opt/ca-shim/bin/ca-shim", "plan", "--exit-code"], capture_output=True).returncode == 0
print("good", loads)
"""


@pytest.fixture
def waiting(mount: Mount) -> Iterator[Callable[..., Subject]]:
    """Start containers of a row that wait, as root, with CA A mounted."""
    with ExitStack() as stack:

        def start(row: str, *options: str) -> Subject:
            waits = ("--user=0", "--entrypoint=/bin/sleep", mount.option, *options)
            return stack.enter_context(lasting(derived.image(derived.row(row)), "infinity", options=waits))

        yield start


@pytest.mark.parametrize(
    ("row", "program"),
    [
        pytest.param("3.0-ubi8", "p11-kit", id="EL 8 without p11-kit"),
        pytest.param("4.5-ubi9", "trust", id="EL 9.4 without trust"),
        pytest.param("6.1-ubi10", "find", id="EL 10 without find"),
        pytest.param("6.1-ubi10", "readlink", id="EL 10 without readlink"),
    ],
)
def test_a_tool_without_a_program_that_it_needs_takes_nothing_and_is_tried_again_with_it(
    waiting: Callable[..., Subject], row: str, program: str
) -> None:
    subject = waiting(row)
    before = subject.run("sh", "-c", _ENTRIES).stdout
    subject.run("mv", f"/usr/bin/{program}", "/usr/bin/away")
    told = events(subject.run(_SHIM, "install").stderr)
    again = events(subject.run(_SHIM, "install").stderr)
    subject.run("mv", "/usr/bin/away", f"/usr/bin/{program}")
    after = subject.run("sh", "-c", _ENTRIES).stdout
    repaired = events(subject.run(_SHIM, "install").stderr)

    (failed,) = named(told, "store.failed")
    assert f"{program}: " in str(failed["reason"])
    assert "exit 127" in str(failed["reason"])
    assert named(again, "trust.ready")[0]["changes"] == 0
    assert set(before.splitlines()) <= set(after.splitlines())
    stores = named(repaired, "trust.ready")[0]["stores"]
    assert isinstance(stores, dict)
    assert set(stores.values()) == {"in place"}


def test_a_tool_without_a_capability_has_worked_and_what_it_took_is_put_back(waiting: Callable[..., Subject]) -> None:
    """Root owns the directories, which are writable, and so can do all but what the tool does at its end."""
    subject = waiting("4.5-ubi9", "--cap-drop=DAC_OVERRIDE")
    subject.run("sh", "-c", "chmod u+w /etc/pki/ca-trust/extracted /etc/pki/ca-trust/extracted/*")
    before = subject.run("sh", "-c", _ENTRIES).stdout
    told = events(subject.run(_SHIM, "install").stderr)
    after = subject.run("sh", "-c", _ENTRIES).stdout

    os_bundle = "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"
    stores = named(told, "trust.ready")[0]["stores"]
    assert isinstance(stores, dict)
    assert stores[os_bundle] == "in place"
    assert named(told, "store.failed") == []
    assert set(before.splitlines()) <= set(after.splitlines())
    assert "pem/directory-hash/ca-bundle.crt ../tls-ca-bundle.pem" in after


_ROWS = [
    pytest.param("4.5-ubi9", "", id="rhel"),
    pytest.param("6.1-ubi10", "/etc/pki/tls/certs", id="rhel 10"),
    pytest.param("venv-debian12", "/etc/ssl/certs", id="debian"),
]


@pytest.mark.parametrize(("row", "capath"), _ROWS)
def test_a_start_killed_at_any_moment_is_made_good_by_the_next(
    waiting: Callable[..., Subject], ca: Path, row: str, capath: str
) -> None:
    subject = waiting(row, f"--volume={ca}:/ca:ro")
    bundle = derived.row(row).os_bundle
    result = subject.run("/opt/ca-shim/bin/python3", "-ISB", "-c", _KILLER, bundle, capath, _KILLS)

    assert result.stdout == "good\n", result.stderr[-3000:]


@pytest.mark.parametrize("row", ["4.5-ubi9", "venv-debian12"])
def test_twenty_starts_at_once_of_two_versions_leave_readers_alone(waiting: Callable[..., Subject], row: str) -> None:
    subject = waiting(row)
    one = derived.row(row)
    result = subject.run("/opt/ca-shim/bin/python3", "-ISB", "-c", _CROWD, one.os_bundle, one.bundle)

    assert result.stdout.startswith("good"), result.stderr[-3000:]
