"""What a line looks like."""

from __future__ import annotations

import json
import os
import pty
import re
import select
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from shim import log
from shim.record import Note

if TYPE_CHECKING:
    from collections.abc import Iterator

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"


def lines(capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    captured = capfd.readouterr()
    assert captured.out == ""
    return [json.loads(line) for line in captured.err.splitlines()]


@pytest.mark.parametrize("event", log.EVENTS, ids=lambda event: event.name)
def test_every_event_has_its_level(event: log.Event, capfd: pytest.CaptureFixture[str]) -> None:
    log.emit(event.name, reason="why")

    assert lines(capfd)[0] | {"timestamp": ""} == {
        "event": event.name,
        "level": event.level,
        "reason": "why",
        "timestamp": "",
    }


def test_a_line_begins_with_event_and_level(capfd: pytest.CaptureFixture[str]) -> None:
    log.emit("handover", program="x")

    assert capfd.readouterr().err.startswith('{"event": "handover", "level": "info", ')


def test_the_time_is_in_utc(capfd: pytest.CaptureFixture[str]) -> None:
    log.emit("handover")

    assert re.fullmatch(STAMP, lines(capfd)[0]["timestamp"])


def test_an_event_that_is_not_in_the_list_is_an_error() -> None:
    with pytest.raises(KeyError):
        log.emit("unheard.of")


def test_a_note_is_a_line_with_its_details(capfd: pytest.CaptureFixture[str]) -> None:
    log.notes([Note("key.ignored", (("file", "/a"),)), Note("source.missing", (("file", "/b"),), 66)])

    assert [(line["event"], line["file"]) for line in lines(capfd)] == [("key.ignored", "/a"), ("source.missing", "/b")]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        pytest.param("Főtanúsítvány", "Főtanúsítvány", id="letters of any language"),
        pytest.param("\x1b[31mred", "\\x1b[31mred", id="escape sequence"),
        pytest.param("a\nb", "a\\nb", id="newline"),
        pytest.param("a\u202eb", "a\\u202eb", id="right to left"),
        pytest.param("a\u2028b", "a\\u2028b", id="line separator"),
        pytest.param("\udcff", "\\udcff", id="a name that is not UTF-8"),
        pytest.param("\x9b31m", "\\x9b31m", id="escape of eight bits"),
    ],
)
def test_a_stranger_s_text_cannot_steer_a_terminal(value: str, shown: str) -> None:
    assert log.printable(value) == shown


def test_a_list_of_a_stranger_s_texts_cannot_either(capfd: pytest.CaptureFixture[str]) -> None:
    log.emit("ca.installed", stores=["/a\x1b[2J"], certificates=3)

    assert lines(capfd)[0]["stores"] == ["/a\\x1b[2J"]


def test_a_start_with_nothing_to_do_prints_a_line_of_the_same_form(capfd: pytest.CaptureFixture[str]) -> None:
    log.fixed("trust.ready", changes=0)
    log.emit("trust.ready", changes=0)
    first, second = lines(capfd)

    assert [*first] == [*second]
    assert {**first, "timestamp": ""} == {**second, "timestamp": ""}
    assert re.fullmatch(STAMP, first["timestamp"])


def test_a_closed_stderr_raises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(descriptor: int, data: bytes) -> int:
        raise OSError(9, f"bad descriptor {descriptor}", data)

    monkeypatch.setattr(os, "write", closed)

    log.fixed("trust.ready", changes=0)


@contextmanager
def terminal() -> Iterator[list[str]]:
    """Make stderr a terminal; gives the list to which all that was shown is added in the end, without colours."""
    ours, theirs = pty.openpty()
    kept = os.dup(2)
    os.dup2(theirs, 2)
    shown: list[str] = []
    try:
        yield shown
    finally:
        os.dup2(kept, 2)
        text = b""
        while select.select([ours], [], [], 0.1)[0]:
            text += os.read(ours, 65536)
        shown.append(re.sub(r"\x1b\[[0-9;]*m", "", text.decode()))
        for descriptor in (ours, theirs, kept):
            os.close(descriptor)


def test_on_a_terminal_a_line_is_readable_text() -> None:
    with terminal() as shown:
        log.emit("handover", program="anchore-manager")

    assert re.search(r"handover +program=anchore-manager", shown[0])


def test_on_a_terminal_a_start_with_nothing_to_do_is_readable_too() -> None:
    with terminal() as shown:
        log.fixed("trust.ready", changes=0)

    assert re.search(r"trust\.ready +changes=0", shown[0])


def test_no_event_has_two_rows() -> None:
    assert len({event.name for event in log.EVENTS}) == len(log.EVENTS)
