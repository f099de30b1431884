"""What OpenSSL loads of a bundle, asked of the bytes in memory: never of a path, which somebody could exchange."""

from __future__ import annotations

import os

from shim import bundle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import IO

_PIECE = 1000  # certificates: OpenSSL's time grows with the square of their number
_MAX_FOREIGN = 1000  # blocks that are no certificates, such as revocation lists, which OpenSSL would load too


def why_not(content: bytes, count: int) -> str:
    """Return why clients cannot load a bundle of `count` distinct certificates, "" when they can."""
    items = bundle.items(content)
    if content.count(b"-----BEGIN ") > len(items) + _MAX_FOREIGN:
        return "it holds too many blocks that are no certificates"
    pieces = [items[start : start + _PIECE] for start in range(0, len(items), _PIECE)]
    contents = [b"".join(item.pem for item in piece) for piece in pieces] if len(pieces) > 1 else [content]
    try:
        loaded = sum(map(_load, contents))
    except ValueError as error:
        return str(error)
    return "" if loaded == count else f"OpenSSL loads {loaded} of {count} certificates from it"


def loads(content: bytes) -> bool:
    """Return whether clients get something out of a bundle: OpenSSL loads it, and every certificate in it."""
    count = len(bundle.items(content))
    return count > 0 and not why_not(content, count)


def loadable(pems: Sequence[bytes]) -> list[bool]:
    """Return, for each certificate, whether OpenSSL loads it: together, and one by one where that fails."""
    pieces = [pems[start : start + _PIECE] for start in range(0, len(pems), _PIECE)]
    together = [not why_not(b"".join(piece), len(set(piece))) for piece in pieces]
    return [good or not why_not(pem, 1) for piece, good in zip(pieces, together, strict=True) for pem in piece]


def _load(content: bytes) -> int:
    """Load a bundle as clients do, from a file; `cadata` accepts and refuses other things. Raises ValueError."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with private_file() as file:
        file.write(content)
        file.flush()
        try:
            context.load_verify_locations(cafile=f"/proc/self/fd/{file.fileno()}")
        except ssl.SSLError as error:
            raise ValueError(f"OpenSSL does not load it: {error.reason}") from error
    return context.cert_store_stats()["x509"]


def private_file() -> IO[bytes]:
    """Open a file without a name: in memory, unless the kernel is older than 3.17, as CentOS 7's is."""
    import tempfile

    try:
        return os.fdopen(os.memfd_create("bundle"), "w+b")
    except OSError:
        return tempfile.TemporaryFile()
