"""Log: fixed events with their details as keys, on stderr; stdout belongs to the application."""

from __future__ import annotations

import os
import sys
import time

from shim.errors import NotPrintedError
from shim.families import COMMAND
from shim.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, MutableMapping

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
    Event("ca.held", "info", "how many CAs every store held already: they are only in our bundles now"),
    Event("ca.withdrawn", "info", "a CA is gone from the stores named"),
    Event("store.overridden", "info", "a store is served by an override bundle and variables"),
    Event("store.failed", "warning", "a store could not be changed in place, or at all"),
    Event("variable.repaired", "warning", "a variable pointed to a missing bundle"),
    Event("trust.ready", "info", "the summary: every store is as wanted, or a line above says why not"),
    Event("trust.exported", "info", "`export` wrote the bundles"),
    Event("env.elsewhere", "warning", "`env`: the variables are those of another user, who must be the one to ask"),
    Event("log.shortened", "info", "how many lines are missing here, and why"),
    Event("handover", "info", "the application starts now"),
    Event("shim.off", "info", "CA_SHIM=off: the stores were not looked at"),
    Event("shim.failed", "error", "the application is not started; `code` is the exit code"),
    Event("shim.bug", "error", "an error of the shim; the application starts, but its CAs may be missing"),
)
_LEVELS = {event.name: event.level for event in EVENTS}
_LINES_OF_A_KIND = 20
_PIPE_PIECE = 4096  # bytes that a pipe takes without blocking when poll calls it writable; a terminal promises one


def fixed(event: str, **details: str | int) -> None:
    """Print a line of plain words of ours, without paying for the logging library unless on a terminal."""
    if os.isatty(2):
        emit(event, **details)
    else:
        _print(event, details, _plain)


def emit(event: str, **details: object) -> None:
    """Print one line: JSON, or readable text on a terminal. An error on the way costs its form, or the line."""
    _print(event, details, _rendered, _plain)


def _print(event: str, details: Mapping[str, object], *forms: Callable[[str, str, Mapping[str, object]], str]) -> None:
    level = _LEVELS[event]
    for form in forms:
        try:
            return _write(form(event, level, details))
        except Exception:  # noqa: BLE001, S112 - the application matters more
            continue
    return None


def _plain(event: str, level: str, details: Mapping[str, object]) -> str:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    line = {"event": event, "level": level, **details, "timestamp": stamp}
    return "{" + ", ".join(f'"{key}": {_quoted(value)}' for key, value in line.items()) + "}"


def _quoted(value: object) -> str:
    if isinstance(value, int):
        return str(value)
    return '"' + printable(str(value)).replace("\\", r"\\").replace('"', r"\"") + '"'


def say(*lines: str) -> None:
    """Print what a command was asked for, on stdout; when nobody reads it any more, the exit code is what is left.

    Raises NotPrintedError when it cannot be written for another reason.
    """
    if sys.stdout is None:  # closed
        return
    try:
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), 1)  # Python flushes once more at its end
        if not isinstance(error, ConnectionError):
            reason = (error.strerror or "unknown").lower()
            raise NotPrintedError(
                f"the output cannot be written ({reason}): make room, or send it elsewhere"
            ) from error


def prepare() -> None:
    """Load the logging library now, because there is nothing else to do."""
    try:
        import structlog
    except Exception:  # noqa: BLE001 - `emit` does without it
        return
    del structlog


def notes(all_notes: Iterable[Note]) -> None:
    """Print a line for every note, of each kind up to a limit, and how many more there are."""
    counts: dict[str, int] = {}
    for note in all_notes:
        counts[note.event] = counts.get(note.event, 0) + 1
        if counts[note.event] <= _LINES_OF_A_KIND:
            emit(note.event, **dict(note.details))
    for event, count in counts.items():
        if count > _LINES_OF_A_KIND:
            lines, remedy = count - _LINES_OF_A_KIND, f"see `{COMMAND} status` for every CA and refusal"
            emit("log.shortened", reason=f"{count} lines are {event}", lines=lines, remedy=remedy)


def _rendered(event: str, level: str, details: Mapping[str, object]) -> str:
    import structlog

    stamp = structlog.processors.TimeStamper("iso", utc=True)
    terminal = structlog.dev.ConsoleRenderer(colors="NO_COLOR" not in os.environ, sort_keys=False)
    render = terminal if os.isatty(2) else structlog.processors.JSONRenderer()
    logger = structlog.wrap_logger(_Line(), processors=[structlog.processors.add_log_level, stamp, _order, render])
    return str(getattr(logger, level)(event, **details))


class _Line:
    """Stands for a logger and returns the line."""

    def info(self, line: str) -> str:
        return line

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


class _Reader:
    """Whoever reads stderr, and what they have not taken."""

    patience = 2.0  # seconds to wait for them, for all lines together
    cut = b""  # the rest of a line whose beginning they have taken
    dropped = 0  # lines


_reader = _Reader()


def _write(line: str) -> None:
    """Write a line to stderr, without Python's buffer, which exec would lose. Raises nothing.

    When the reader has used up our patience, lines are dropped, and the next that gets through says how many.
    """
    data = f"{line}\n".encode("utf-8", "backslashreplace")
    try:
        _reader.cut = _push(_reader.cut)
        if _reader.dropped and not _reader.cut and _takes_more():
            dropped, _reader.dropped = _reader.dropped, 0
            fixed("log.shortened", lines=dropped, reason="nobody read stderr", remedy="read it while it is written")
        rest = data if _reader.cut else _push(data)
    except Exception:  # noqa: BLE001 - nobody listens; the application matters more
        return
    if rest == data:
        _reader.dropped += 1
    else:
        _reader.cut = rest


def _push(data: bytes) -> bytes:
    """Write what the reader takes, and return the rest. The descriptor stays blocking: the application shares it."""
    size = 1 if os.isatty(2) else _PIPE_PIECE
    while data and _takes_more():
        data = data[os.write(2, data[:size]) :]
    return data


def _takes_more() -> bool:
    from select import POLLOUT, poll

    waiter, started = poll(), time.monotonic()
    waiter.register(2, POLLOUT)
    ready = waiter.poll(_reader.patience * 1000)
    _reader.patience = max(0.0, _reader.patience - (time.monotonic() - started))
    return bool(ready)
