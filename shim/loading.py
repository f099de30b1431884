"""What OpenSSL loads of a bundle, asked of the bytes in memory: never of a path, which somebody could exchange."""

from __future__ import annotations

import os

from shim import bundle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import IO

_WHOLE = 300  # certificates: a bundle of more is loaded in pieces, and of each piece what is not known to load
_PIECE = 100  # certificates: OpenSSL's time grows with the square of those of one subject
_SIZE = 1024 * 1024  # bytes of a piece, or of a bundle loaded whole: OpenSSL takes up to twenty times the memory
_MAX_FOREIGN = 1000  # blocks that are no certificates, such as revocation lists, which OpenSSL would load too
_proven: set[str] = set()  # digests of certificates that OpenSSL has loaded: each takes it as long as all else together


def why_not(content: bytes, count: int) -> str:
    """Return why clients cannot load a bundle of `count` distinct certificates, "" when they can."""
    if len(content) > bundle.LIMIT:
        return f"it would be larger than {bundle.LIMIT >> 20} MiB, and not be read again"
    items = bundle.items(content)
    if content.count(b"-----BEGIN ") > len(items) + _MAX_FOREIGN:
        return "it holds too many blocks that are no certificates"
    whole = len(items) <= _WHOLE and len(content) <= _SIZE
    if not whole and bundle.is_broken(content):
        return "OpenSSL does not load it: a block has no end, or is not base64"
    try:
        loaded = _load(content) if whole else _load_pieces([item.pem for item in items])
    except ValueError as error:
        return str(error)
    return "" if loaded == count else f"OpenSSL loads {loaded} of {count} certificates from it"


def loads(content: bytes) -> bool:
    """Return whether clients get something out of a bundle: OpenSSL loads it, and every certificate in it."""
    count = len(bundle.items(content))
    return count > 0 and not why_not(content, count)


def loadable(pems: Sequence[bytes]) -> list[bool]:
    """Return, for each certificate, whether OpenSSL loads it: together, and one by one where that fails."""
    pieces = [(piece, _are_loaded(piece)) for piece in _pieces(pems)]
    return [good or _are_loaded([pem]) for piece, good in pieces for pem in piece]


def _are_loaded(pems: list[bytes]) -> bool:
    try:
        return _load_piece(pems) == len(set(pems))
    except ValueError:
        return False


def _load_pieces(pems: list[bytes]) -> int:
    new = [pem for pem in pems if bundle.sha256(pem) not in _proven]
    return len(pems) - len(new) + sum(map(_load_piece, _pieces(new)))


def _load_piece(pems: list[bytes]) -> int:
    loaded = _load(b"".join(pems))
    if loaded == len(set(pems)):
        _proven.update(map(bundle.sha256, pems))
    return loaded


def _pieces(pems: Sequence[bytes]) -> Iterator[list[bytes]]:
    piece: list[bytes] = []
    size = 0
    for pem in pems:
        size += len(pem)
        if piece and (len(piece) == _PIECE or size > _SIZE):
            yield piece
            piece, size = [], len(pem)
        piece.append(pem)
    if piece:
        yield piece


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
            raise ValueError(f"OpenSSL does not load it: {error.reason or error}") from error
    return context.cert_store_stats()["x509"]


def private_file() -> IO[bytes]:
    """Open a file without a name: in memory, unless the kernel is older than 3.17, as CentOS 7's is."""
    import tempfile

    try:
        return os.fdopen(os.memfd_create("bundle"), "w+b")
    except OSError:
        return tempfile.TemporaryFile()
