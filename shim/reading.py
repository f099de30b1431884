"""The one way in which files are read: without blocking, regular files only, up to a limit."""

from __future__ import annotations

import os
import stat

from shim import bundle

LIMIT = bundle.LIMIT
_MORE = 4096  # bytes: files of /proc have no size
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class NotRegularError(OSError):
    """The path leads to a FIFO, a device, a socket or a directory."""


class TooLargeError(OSError):
    """The file has more bytes than the limit."""


def read(path: str, limit: int = LIMIT) -> bytes:
    """Return the content of a regular file; raises OSError, never waits.

    Checked before the opening, which alone may disturb a device, and after it, since the path may have changed.
    """
    _require_regular(os.stat(path), path)
    descriptor = os.open(path, _FLAGS)
    try:
        status = os.fstat(descriptor)
        _require_regular(status, path)
        if status.st_size > limit:
            raise _too_large(limit, path)
        return _read_up_to(descriptor, limit, path, status.st_size + _MORE)
    finally:
        os.close(descriptor)


def head(path: str, size: int = 256) -> bytes:
    """Return the first bytes of a regular file, b"" when they cannot be had."""
    try:
        _require_regular(os.stat(path), path)
        descriptor = os.open(path, _FLAGS)
    except OSError:
        return b""
    try:
        return os.read(descriptor, size)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def read_or_none(path: str, limit: int = LIMIT) -> bytes | None:
    """Return the content of a regular file, None when it cannot be had."""
    try:
        return read(path, limit)
    except OSError:
        return None


def _require_regular(status: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise NotRegularError(0, "not a regular file", path)


def _too_large(limit: int, path: str) -> TooLargeError:
    return TooLargeError(0, f"larger than {limit} bytes", path)


def _read_up_to(descriptor: int, limit: int, path: str, room: int) -> bytes:
    """Read in one piece what has not grown meanwhile: joining pieces would take the memory twice."""
    pieces, size = [], 0
    while piece := os.read(descriptor, room):
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            raise _too_large(limit, path)
    return b"".join(pieces)
