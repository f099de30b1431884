"""The steps of becoming the application, where the kernel refuses or helps in an odd way."""

from __future__ import annotations

import builtins
import os
import pty
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from shim import become
from shim.accounts import Account
from shim.errors import NotExecutableError, NotFoundError, PrivilegeError, UnknownUserError
from tests.edge.machine import ANCHORE, Machine, acting, needs_root

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = needs_root
USER = Account("anchore", ANCHORE, ANCHORE, (ANCHORE, 10), "/home/anchore")
SUPERUSER = Account("root", 0, 0, (0,), "/root")


def test_the_environment_is_read_from_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADDED_AFTER_THE_START", "1")

    assert "ADDED_AFTER_THE_START" not in become.started_environment()


def test_without_proc_the_environment_is_python_s(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: str, mode: str) -> None:
        raise FileNotFoundError(2, mode, path)

    monkeypatch.setattr(builtins, "open", fail)
    found = become.started_environment()
    monkeypatch.undo()

    assert found == dict(os.environ)


def test_who_is_root_gets_the_account_of_the_machine_s_own_files(rhel: Machine) -> None:
    assert become.find_account("anchore", str(rhel.root)) == Account("anchore", 1000, 1000, (1000,), "/home/anchore")


def test_without_the_files_nobody_is_known(rhel: Machine) -> None:
    rhel.path("/etc/passwd").unlink()

    with pytest.raises(UnknownUserError):
        become.find_account("anchore", str(rhel.root))


def test_who_is_not_root_needs_no_account(rhel: Machine) -> None:
    with acting(ANCHORE):
        assert become.find_account("nobody-at-all", str(rhel.root)) is None


def test_without_an_account_nothing_changes() -> None:
    environ = {"HOME": "/"}
    become.become(None, environ)

    assert environ == {"HOME": "/"}


def test_root_that_stays_root_keeps_its_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "setgroups", _fail)
    environ = {"HOME": "/"}
    become.become(SUPERUSER, environ)

    assert environ == {"HOME": "/root"}


@pytest.mark.parametrize("call", ["setgroups", "setresgid", "setresuid"])
def test_a_refusal_of_the_kernel_is_fatal(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    for each in ("setgroups", "setresgid", "setresuid"):
        monkeypatch.setattr(os, each, _fail if each == call else lambda *_: None)

    with pytest.raises(PrivilegeError, match=r"root cannot become anchore \(operation not permitted\): allow"):
        become.become(USER, {})


def test_root_that_could_be_had_back_is_fatal(monkeypatch: pytest.MonkeyPatch) -> None:
    for each in ("setgroups", "setresgid", "setresuid", "setuid"):
        monkeypatch.setattr(os, each, lambda *_: None)

    with pytest.raises(PrivilegeError, match="root could be had back"):
        become.become(USER, {})


def test_what_will_be_refused_is_refused_before_anything_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "setgroups", _fail)

    with pytest.raises(PrivilegeError, match="CA_SHIM_USER=root"):
        become.require(USER)


@pytest.mark.parametrize("account", [None, SUPERUSER, USER], ids=["nobody", "root", "anchore"])
def test_what_will_be_granted_leaves_no_trace(account: Account | None) -> None:
    before = os.getresuid(), os.getresgid(), os.getgroups()
    become.require(account)

    assert (os.getresuid(), os.getresgid(), os.getgroups()) == before


def _fail(*_: object) -> None:
    raise PermissionError(1, "Operation not permitted")


def execute(*command: str, path: str = "/absent") -> None:
    child = os.fork()  # the signals of this process stay as they are
    if child == 0:
        try:
            become.execute(command, {"PATH": path})
        except (NotFoundError, NotExecutableError) as error:
            os._exit(error.code)
        os._exit(99)
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


@pytest.fixture
def inside(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


@pytest.mark.parametrize(
    ("content", "mode", "code"),
    [
        pytest.param(b"#!/bin/sh\nexit 7\n", 0o755, 7, id="script"),
        pytest.param(b"exit 8\n", 0o755, 8, id="script without a first line"),
        pytest.param(b"#!/bin/sh\n", 0o644, 126, id="not executable"),
        pytest.param(b"#!/absent\n", 0o755, 126, id="interpreter missing"),
        pytest.param(b"\0", 0o755, 126, id="binary of nobody's"),
    ],
)
@pytest.mark.parametrize("named", ["by path", "on PATH", "in the working directory"])
@pytest.mark.usefixtures("inside")
def test_a_program_is_executed_or_refused_as_shells_do(
    place: Path, content: bytes, mode: int, code: int, named: str
) -> None:
    (place / "program").write_bytes(content)
    (place / "program").chmod(mode)
    how = {
        "by path": (str(place / "program"), "/absent"),
        "on PATH": ("program", f"/absent:{place}"),
        "in the working directory": ("program", "/absent::/other"),
    }
    with pytest.raises(SystemExit) as end:
        execute(how[named][0], path=how[named][1])

    assert end.value.code == code


@pytest.mark.parametrize("name", ["absent", "/absent", "./absent", "/etc/passwd/below", ""])
def test_a_program_that_is_not_there_is_not_found(name: str) -> None:
    with pytest.raises(SystemExit) as end:
        execute(name)

    assert end.value.code == 127


@contextmanager
def streams(*descriptors: int | None) -> Iterator[None]:
    """Exchange descriptors 0, 1, ... of this process; None closes one."""
    kept = [os.dup(number) for number in range(len(descriptors))]
    for number, descriptor in enumerate(descriptors):
        os.close(number) if descriptor is None else os.dup2(descriptor, number)
    try:
        yield
    finally:
        for number, descriptor in enumerate(kept):
            os.dup2(descriptor, number)
            os.close(descriptor)


def owners_after_becoming(monkeypatch: pytest.MonkeyPatch, *descriptors: int | None) -> list[tuple[int, int]]:
    for each in ("setgroups", "setresgid", "setresuid"):
        monkeypatch.setattr(os, each, lambda *_: None)
    monkeypatch.setattr(os, "setuid", _fail)
    with streams(*descriptors):
        become.become(USER, {})
    status = [os.fstat(each) for each in descriptors if each is not None]
    return [(each.st_uid, each.st_gid) for each in status]


def test_a_pipe_is_given_away_and_a_file_is_not(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.pipe()
    with open(place / "log", "wb") as log:
        assert owners_after_becoming(monkeypatch, log.fileno(), theirs) == [(0, 0), (ANCHORE, 0)]
    os.close(ours)
    os.close(theirs)


def test_a_closed_stream_keeps_no_other_from_being_given_away(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.pipe()

    assert owners_after_becoming(monkeypatch, None, theirs) == [(ANCHORE, 0)]
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize("leader", [True, False], ids=["the container's", "of a shell of root's"])
def test_only_a_terminal_that_nobody_else_reads_is_given_away(monkeypatch: pytest.MonkeyPatch, *, leader: bool) -> None:
    ours, theirs = pty.openpty()
    monkeypatch.setattr(os, "getsid", lambda _: os.getpid() if leader else 1)

    assert owners_after_becoming(monkeypatch, theirs)[0][0] == (ANCHORE if leader else 0)
    os.close(ours)
    os.close(theirs)
