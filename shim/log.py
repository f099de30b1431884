"""Log: fixed events with their details as keys, on stderr; stdout belongs to the application."""

from __future__ import annotations

import os
import sys
import time

from shim.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, MutableMapping

    from shim.record import Note


class Event(Record):
    """A row of the README's table of events."""

    name: str
    level: str
    meaning: str


EVENTS = (
    Event("setting.unknown", "warning", "a CA_SHIM_ variable that does not exist, and the nearest that does"),
    Event("source.missing", "warning", "a source named in CA_SHIM_CERTS does not exist, or holds no certificate"),
    Event("source.unreadable", "warning", "part of a source cannot be read; nothing is removed in this run"),
    Event("source.limit", "warning", "the sources are larger than the limits; nothing is removed in this run"),
    Event("source.unusable", "warning", "files are mounted, and no CA of them can be used"),
    Event("source.elsewhere", "warning", "no CA is mounted, and this mount looks as if it was meant to hold them"),
    Event("file.refused", "info", "a file holds no certificate, or is no regular file"),
    Event("block.refused", "warning", "one block of a file cannot be used; the others are"),
    Event("key.ignored", "warning", "a file holds a private key, which was not copied"),
    Event("certificate.skipped", "info", "a certificate is not installed: expired, or a leaf"),
    Event("certificate.warning", "warning", "a CA is installed, and some client may still refuse it"),
    Event("withdrawal.suspended", "warning", "CAs that cannot be seen to be withdrawn stay"),
    Event("ca.installed", "info", "a CA came into the stores named"),
    Event("ca.withdrawn", "info", "a CA is gone from the stores named"),
    Event("store.overridden", "info", "a store is served by an override bundle and variables"),
    Event("store.failed", "warning", "a store could not be changed in place, or at all"),
    Event("variable.repaired", "warning", "a variable pointed to a missing bundle"),
    Event("trust.ready", "info", "the summary: every store is as wanted, or a line above says why not"),
    Event("trust.exported", "info", "`export` wrote the bundles"),
    Event("handover", "info", "the application starts now"),
    Event("shim.off", "info", "CA_SHIM=off: the stores were not looked at"),
    Event("shim.failed", "error", "the application is not started; `code` is the exit code"),
    Event("shim.bug", "error", "an error of ours; the application starts without its CAs being certain"),
)
_LEVELS = {event.name: event.level for event in EVENTS}


def fixed(event: str, **details: str | int) -> None:
    """Print a line of plain words of ours, without paying for the logging library unless on a terminal."""
    if os.isatty(2):
        emit(event, **details)
        return
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    line = {"event": event, "level": _LEVELS[event], **details, "timestamp": stamp}
    pairs = (f'"{key}": {value}' if isinstance(value, int) else f'"{key}": "{value}"' for key, value in line.items())
    _write("{" + ", ".join(pairs) + "}\n")


def say(*lines: str) -> None:
    """Print what a command was asked for, on stdout; when nobody reads it any more, the exit code is what is left."""
    try:
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), 1)  # Python flushes once more at its end


def prepare() -> None:
    """Load the logging library now, because there is nothing else to do."""
    import structlog

    del structlog


def notes(all_notes: Iterable[Note]) -> None:
    """Print a line for every note."""
    for note in all_notes:
        emit(note.event, **dict(note.details))


def emit(event: str, **details: object) -> None:
    """Print one line: JSON, or readable text on a terminal."""
    import structlog

    stamp = structlog.processors.TimeStamper("iso", utc=True)
    terminal = structlog.dev.ConsoleRenderer(colors="NO_COLOR" not in os.environ, sort_keys=False)
    render = terminal if os.isatty(2) else structlog.processors.JSONRenderer()
    logger = structlog.wrap_logger(_Stderr(), processors=[structlog.processors.add_log_level, stamp, _order, render])
    getattr(logger, _LEVELS[event])(event, **details)


class _Stderr:
    """Where the lines go; without Python's buffer, which would be lost at exec."""

    def info(self, line: str) -> None:
        _write(line + "\n")

    warning = error = info


def _order(logger: object, level: str, line: MutableMapping[str, object]) -> MutableMapping[str, object]:
    """Put what a reader looks for first, and make every value safe to print."""
    del logger, level
    first = {key: line.pop(key) for key in ("event", "level")}
    return {**first, **{key: _safe(value) for key, value in line.items()}}


def _safe(value: object) -> object:
    """Names and subjects are a stranger's."""
    if isinstance(value, list):
        return [_safe(each) for each in value]
    return printable(value) if isinstance(value, str) else value


def printable(value: str) -> str:
    """Escape what could steer a terminal or forge a line."""
    text = value.encode("utf-8", "backslashreplace").decode("utf-8", "backslashreplace")
    return "".join(
        each if each.isprintable() or each == " " else each.encode("unicode_escape").decode() for each in text
    )


def _write(line: str) -> None:
    try:
        os.write(2, line.encode("utf-8", "backslashreplace"))
    except OSError:
        return  # nobody listens; the application matters more
