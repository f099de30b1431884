"""A log that nobody reads, or that cannot be made, is no reason to wait or to fail."""

from __future__ import annotations

import builtins
import fcntl
import json
import os
import pty
import select
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from shim import log
from shim.record import Note

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 0.2
SIZE = 16384  # bytes; four pages


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = log._Reader()  # noqa: SLF001 - what is known of one reader must not reach the next test
    reader.patience = PATIENCE
    monkeypatch.setattr(log, "_reader", reader)


@contextmanager
def stderr_is(descriptor: int) -> Iterator[None]:
    kept = os.dup(2)
    os.dup2(descriptor, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


class Pipe:
    """A pipe whose reader reads when told to."""

    def __init__(self) -> None:
        self.ours, self.theirs = os.pipe()
        fcntl.fcntl(self.theirs, fcntl.F_SETPIPE_SZ, SIZE)

    def emit(self, event: str, **details: object) -> None:
        with stderr_is(self.theirs):
            log.emit(event, **details)

    def fill(self) -> None:
        os.write(self.theirs, b"\n" * SIZE)

    def read(self) -> bytes:
        os.set_blocking(self.ours, False)
        content = b""
        while select.select([self.ours], [], [], 0)[0]:
            content += os.read(self.ours, 65536)
        return content

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.read().split(b"\n") if line]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    os.close(pipe.ours)
    os.close(pipe.theirs)


def test_all_lines_together_wait_for_a_reader_once(pipe: Pipe) -> None:
    pipe.fill()
    started = time.monotonic()
    for _ in range(20):
        pipe.emit("handover")

    assert PATIENCE <= time.monotonic() - started < 2 * PATIENCE


def test_the_next_line_that_gets_through_says_how_many_did_not(pipe: Pipe) -> None:
    pipe.fill()
    pipe.emit("handover")
    pipe.emit("handover")
    with stderr_is(pipe.theirs):
        log.fixed("trust.ready", changes=0)
    pipe.read()
    pipe.emit("handover", program="x")
    first, second = pipe.lines()

    assert (first["event"], first["lines"]) == ("log.shortened", 3)
    assert (second["event"], second["program"]) == ("handover", "x")


def test_what_was_dropped_is_told_once(pipe: Pipe) -> None:
    pipe.fill()
    pipe.emit("handover")
    pipe.read()
    pipe.emit("handover")
    pipe.emit("handover")

    assert [line["event"] for line in pipe.lines()] == ["log.shortened", "handover", "handover"]


def test_a_line_that_was_cut_off_is_completed_before_the_next(pipe: Pipe) -> None:
    pipe.emit("shim.bug", reason="x" * SIZE)
    pipe.emit("handover")
    beginning = pipe.read()
    pipe.emit("handover")
    lines = [json.loads(line) for line in (beginning + pipe.read()).splitlines()]

    assert [line["event"] for line in lines] == ["shim.bug", "log.shortened", "handover"]
    assert lines[0]["reason"] == "x" * SIZE


def test_a_reader_that_comes_in_time_gets_every_line(pipe: Pipe) -> None:
    pipe.fill()
    child = os.fork()
    if child == 0:
        time.sleep(PATIENCE / 4)
        os.read(pipe.ours, SIZE)
        os._exit(0)
    pipe.emit("handover")
    os.waitpid(child, 0)

    assert [line["event"] for line in pipe.lines()] == ["handover"]


def test_the_descriptor_stays_as_the_application_is_to_find_it(pipe: Pipe) -> None:
    pipe.fill()
    pipe.emit("handover")

    assert os.get_blocking(pipe.theirs)


def test_a_terminal_that_nobody_reads_is_not_waited_for() -> None:
    ours, theirs = pty.openpty()
    with stderr_is(theirs):
        log.emit("shim.bug", traceback="x" * 200_000)
        log.emit("handover")
    os.close(ours)
    os.close(theirs)

    assert (bool(log._reader.cut), log._reader.dropped) == (True, 1)  # noqa: SLF001


def test_a_reader_that_is_gone_is_not_waited_for() -> None:
    gone, theirs = os.pipe()
    os.close(gone)
    started = time.monotonic()
    with stderr_is(theirs):
        log.emit("handover")
    os.close(theirs)

    assert time.monotonic() - started < PATIENCE


@pytest.mark.parametrize("event", [event.name for event in log.EVENTS])
def test_without_the_logging_library_a_line_is_still_a_line(
    event: str, pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "structlog", None)
    log.prepare()
    pipe.emit(event, reason='a "quoted"\nline \\', code=65, stores=["/a"])
    (line,) = pipe.lines()

    assert (line["event"], line["reason"], line["code"]) == (event, 'a "quoted"\\nline \\', 65)


@pytest.mark.parametrize("error", [MemoryError(), RecursionError(), TypeError()], ids=repr)
def test_an_error_of_the_logging_library_costs_the_form_of_a_line_only(
    error: Exception, pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> str:
        raise error

    monkeypatch.setattr(log, "_rendered", fail)
    pipe.emit("handover", program="x")

    assert pipe.lines()[0]["program"] == "x"


def test_when_nothing_can_be_written_nothing_is_raised(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any) -> Any:
        if name in ("structlog", "select"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    pipe.emit("handover")
    monkeypatch.undo()

    assert pipe.lines() == []


def test_when_no_line_can_be_made_nothing_is_raised(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    for form in ("_rendered", "_plain"):
        monkeypatch.setattr(log, form, None)
    pipe.emit("handover")

    assert pipe.lines() == []


def test_a_kind_of_note_is_told_up_to_a_limit_and_then_counted(pipe: Pipe) -> None:
    fcntl.fcntl(pipe.theirs, fcntl.F_SETPIPE_SZ, 1 << 20)
    with stderr_is(pipe.theirs):
        log.notes([Note("ca.installed", (("sha256", "a"),))] * 148 + [Note("store.overridden")] * 20)
    lines = pipe.lines()

    assert [line["event"] for line in lines] == ["ca.installed"] * 20 + ["store.overridden"] * 20 + ["log.shortened"]
    assert (lines[-1]["lines"], lines[-1]["reason"]) == (128, "148 lines are ca.installed")
