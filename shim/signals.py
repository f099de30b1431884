"""Signals: as pid 1 we would ignore SIGTERM and SIGINT unless we handled them."""

from __future__ import annotations

# The module behind `signal`, which would import enum for as much as a third of a start.
import _signal as signal
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

_EXIT_CODES: dict[int, int] = {signal.SIGTERM: 143, signal.SIGINT: 130}

running: list[int] = []  # process groups of tools, which must not outlive us


def end_at_once() -> None:
    """Make SIGTERM and SIGINT end this process and its tools; a signal that was ignored before us stays ignored."""
    for number in _EXIT_CODES:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


def _end(number: int, frame: FrameType | None) -> None:
    del frame
    for group in running:
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:  # it has just ended
            continue
    os._exit(_EXIT_CODES[number])


def restore_defaults() -> None:
    """Undo what Python's start ignores, and exec would hand on."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
