"""The three streams: the application can open them again, and nobody has to read them for it to start."""

from __future__ import annotations

import os
import pty
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import shim
from tests.certificates import root
from tests.edge.machine import ANCHORE, CERTIFI
from tests.process.start import PATH, arguments, as_user, events, needs_root, start

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.edge.machine import Machine

pytestmark = needs_root
A = root("A")
USER = ("--user", "anchore", "--")
REOPEN = "echo out > /dev/stdout; echo err > /dev/stderr"


@contextmanager
def pipe() -> Iterator[int]:
    ours, theirs = os.pipe()
    yield theirs
    os.close(ours)
    os.close(theirs)


@contextmanager
def terminal() -> Iterator[int]:
    ours, theirs = pty.openpty()
    yield theirs
    os.close(ours)
    os.close(theirs)


@contextmanager
def connection() -> Iterator[int]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield theirs.fileno()


def owner_after_a_start(machine: Machine, stdout: int, user: str = "anchore", **options: Any) -> tuple[int, int]:
    """Give owner and group of what stdout leads to, whose group was 5 before."""
    os.fchown(stdout, 0, 5)
    words = arguments(machine, "--user", user, "--", "true")
    subprocess.run(words, env=PATH, stdout=stdout, stderr=subprocess.DEVNULL, check=True, timeout=60, **options)
    status = os.fstat(stdout)
    return status.st_uid, status.st_gid


@pytest.mark.parametrize("option", ["--on-error=warn", "--off"])
def test_stdout_and_stderr_open_again_for_the_application(rhel: Machine, option: str) -> None:
    done = start(rhel, option, *USER, "sh", "-c", REOPEN)

    assert (done.stdout, done.stderr.splitlines()[-1]) == (b"out\n", b"err")


def test_a_pipe_and_a_socket_become_the_application_s_and_keep_their_group(rhel: Machine) -> None:
    with pipe() as first, connection() as second:
        assert owner_after_a_start(rhel, first) == (ANCHORE, 5)
        assert owner_after_a_start(rhel, second) == (ANCHORE, 5)


def test_the_terminal_of_the_container_becomes_the_application_s(rhel: Machine) -> None:
    with terminal() as stdout:
        assert owner_after_a_start(rhel, stdout, start_new_session=True) == (ANCHORE, 5)


def test_the_terminal_of_a_shell_of_root_s_stays_root_s(rhel: Machine) -> None:
    """Else whoever the application is could type into that shell."""
    with terminal() as stdout:
        assert owner_after_a_start(rhel, stdout) == (0, 5)


def test_a_file_and_a_device_stay_whose_they_are(rhel: Machine, place: Path) -> None:
    device = place / "device"
    os.mknod(device, 0o020600, os.makedev(1, 3))
    for path in (place / "log", device):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
        assert owner_after_a_start(rhel, descriptor) == (0, 5)
        os.close(descriptor)


def test_when_root_stays_root_so_do_the_streams(rhel: Machine) -> None:
    with pipe() as stdout:
        assert owner_after_a_start(rhel, stdout, user="root") == (0, 5)


@pytest.mark.skipif(not shutil.which("setpriv"), reason="setpriv (util-linux) is missing")
def test_without_the_capability_to_give_them_away_the_application_starts(rhel: Machine) -> None:
    done = start(rhel, *USER, "echo", "x", before=("setpriv", "--bounding-set=-chown"))

    assert (done.returncode, done.stdout) == (0, b"x\n")


def test_closed_streams_keep_nobody_from_starting(rhel: Machine, place: Path) -> None:
    words = " ".join(arguments(rhel, *USER, "touch", str(place / "started")))
    place.chmod(0o777)
    done = subprocess.run(["sh", "-c", f"exec {words} <&- >&- 2>&-"], env=PATH, check=False, timeout=60)

    assert (done.returncode, (place / "started").exists()) == (0, True)


@pytest.fixture
def unread() -> Iterator[int]:
    """A full pipe that nobody reads."""
    with pipe() as stderr:
        os.set_blocking(stderr, False)
        os.write(stderr, b"x" * (1 << 20))
        os.set_blocking(stderr, True)
        yield stderr


def test_a_log_that_nobody_reads_holds_a_start_up_for_two_seconds_at_most(rhel: Machine, unread: int) -> None:
    for number in range(30):
        rhel.mount(**{f"ca{number}": root(f"CA {number}").pem})
    started = time.monotonic()
    words = arguments(rhel, "--user", "root", "--", "echo", "x")
    done = subprocess.run(words, env=PATH, stdout=subprocess.PIPE, stderr=unread, check=False, timeout=30)

    assert (done.returncode, done.stdout, os.get_blocking(unread)) == (0, b"x\n", True)
    assert time.monotonic() - started < 10


def test_a_log_that_nobody_reads_keeps_no_command_from_its_exit_code(rhel: Machine, unread: int) -> None:
    words = arguments(rhel, "--user", "nobody-here", "--", "true")

    assert subprocess.run(words, env=PATH, stderr=unread, check=False, timeout=30).returncode == 67


def test_a_signal_ends_a_start_that_waits_for_a_reader(rhel: Machine, unread: int) -> None:
    words = arguments(rhel, "--user", "root", "--", "echo", "x")
    with subprocess.Popen(words, env=PATH, stdout=subprocess.PIPE, stderr=unread) as process:
        time.sleep(1)
        process.terminate()
        out, _ = process.communicate(timeout=10)

    assert (process.returncode, out) == (143, b"")


# Starts as if modules of ours, or of the standard library, were damaged.
_BROKEN = """\
import sys
sys.argv[0] = "ca-shim"
sys.path.insert(0, sys.argv.pop(1))
for name in sys.argv.pop(1).split(","):
    sys.modules[name] = None
from shim import cli
sys.exit(cli.main())
"""


@pytest.mark.parametrize(
    "modules",
    ["structlog", "difflib", "structlog,difflib", "structlog,difflib,traceback", "select", "structlog,select"],
)
def test_a_log_that_cannot_be_made_keeps_nobody_from_starting(rhel: Machine, modules: str) -> None:
    rhel.mount(a=A.pem)
    parent = str(Path(shim.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-IB", "-c", _BROKEN, parent, modules, *arguments(rhel, *USER, "echo", "x")[5:]],
        env={**PATH, "CA_SHIM_CERT": "/x"},
        capture_output=True,
        check=False,
        timeout=60,
    )

    assert (done.returncode, done.stdout) == (0, b"x\n")
    assert "select" in modules or A.sha256 in rhel.held(CERTIFI)
    assert "select" in modules or [line["event"] for line in events(done.stderr)][-1] == "handover"


def test_who_is_not_root_gives_nothing_away(rhel: Machine) -> None:
    assert as_user(ANCHORE, ANCHORE, ["run", "--root", str(rhel.root), "--", "echo", "x"]).stdout == b"x\n"
