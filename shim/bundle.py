"""PEM bundles as bytes: the certificates in them, and our marked block at their end. Pure."""

from __future__ import annotations

from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from functools import lru_cache

from shim.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT = 64 * 1024 * 1024  # bytes of any file that we read; no larger one is written
BEGIN = b"# BEGIN ca-shim"
END = b"# END ca-shim"
_BEGIN_LINE = BEGIN + b" (managed: changed at every start of the container)\n"
_END_LINE = END + b"\n"
_ASCII = 0x80
_SMALL = 64 * 1024  # bytes: what is larger is rare, and not worth the memory
_REMEMBERED = 25_000  # certificates: every bundle of a machine holds mostly the same ones
_BUNDLES = 6  # that are remembered as wholes: a start asks for the certificates of each again and again
_ORIGIN = b"# ca-shim made this from "
# As OpenSSL reads them: at the start of a line only.
_CERTIFICATE = b"\n-----BEGIN CERTIFICATE-----", b"\n-----END CERTIFICATE-----"
_X509 = b"\n-----BEGIN X509 CERTIFICATE-----", b"\n-----END X509 CERTIFICATE-----"
_TRUSTED = b"\n-----BEGIN TRUSTED CERTIFICATE-----", b"\n-----END TRUSTED CERTIFICATE-----"
_LABELS = ((_CERTIFICATE, b"CERTIFICATE"), (_X509, b"CERTIFICATE"), (_TRUSTED, b"TRUSTED CERTIFICATE"))


class DamagedError(Exception):
    """Our markers do not frame one block: a begin without an end, or two blocks."""


class Item(Record):
    """One certificate for a bundle."""

    sha256: str  # of the DER, in hexadecimal
    pem: bytes
    comment: bytes = b""  # one line of ASCII


def sha256(content: bytes) -> str:
    """Return the SHA-256 of `content` in hexadecimal."""
    from hashlib import sha256 as digest

    return digest(content, usedforsecurity=False).hexdigest()


def to_pem(der: bytes, label: bytes = b"CERTIFICATE") -> bytes:
    """Armour `der` as PEM with 64 columns and a final newline."""
    body = b2a_base64(der, newline=False)
    lines = [body[start : start + 64] for start in range(0, len(body), 64)]
    return b"\n".join([b"-----BEGIN " + label + b"-----", *lines, b"-----END " + label + b"-----", b""])


@lru_cache(_BUNDLES)
def items(content: bytes) -> tuple[Item, ...]:
    """Return every certificate of a bundle once, in order, re-armoured, without the text around the blocks.

    A TRUSTED CERTIFICATE keeps its trailer: it may say that the certificate is *not* to be trusted. Blocks that are
    no base64 are left out, as OpenSSL's users would never get past them.
    """
    found: dict[str, Item] = {}
    for (begin, end), label in _LABELS:
        for body in _bodies(content, begin, end):
            item = _item(body, label) if len(body) <= _SMALL else _item.__wrapped__(body, label)
            if item:
                found.setdefault(item.sha256, item)
    return tuple(found.values())


def _bodies(content: bytes, begin: bytes, end: bytes) -> Iterator[bytes]:
    """Yield what stands between the lines, one at a time: copies of all would take the memory twice."""
    start = 0 if content.startswith(begin[1:]) else content.find(begin) + 1 or -1
    while start >= 0:
        start += len(begin) - 1
        following = content.find(begin, start)
        stop = content.find(end, start, following if following >= 0 else len(content))
        if stop >= 0:
            yield content[start:stop]
        start = following + 1 or -1


def is_broken(content: bytes) -> bool:
    """Return whether a block of a certificate has no end or is not base64: clients then load nothing of the bundle."""
    for (begin, end), _ in _LABELS:
        begins = content.count(begin) + content.startswith(begin[1:])
        if sum(map(_is_base64, _bodies(content, begin, end))) < begins:
            return True
    return False


def _is_base64(body: bytes) -> bool:
    try:
        return bool(a2b_base64(b"".join(body.split()), strict_mode=True))
    except Base64Error:
        return False


@lru_cache(_REMEMBERED)
def _item(body: bytes, label: bytes) -> Item | None:
    try:
        der = a2b_base64(b"".join(body.split()))
    except Base64Error:
        return None
    return Item(sha256(first_element(der)), to_pem(der, label)) if der else None


def fingerprints_of_any(content: bytes) -> frozenset[str]:
    """Return the SHA-256 of every certificate in a file that is a bundle or a single DER."""
    return fingerprints(content) or frozenset({sha256(content)})


def first_element(der: bytes) -> bytes:
    """Cut OpenSSL's trust settings off: they follow the certificate's own ASN.1 element."""
    if len(der) < 2 or der[1] < 0x80:  # noqa: PLR2004 - X.690: the long form has the top bit set
        return der[: 2 + der[1]] if len(der) > 1 else der
    size = der[1] & 0x7F
    return der[: 2 + size + int.from_bytes(der[2 : 2 + size], "big")]


def fingerprints(content: bytes) -> frozenset[str]:
    """Return the SHA-256 of every certificate in a bundle."""
    return frozenset(item.sha256 for item in items(content))


def split(content: bytes) -> tuple[bytes, bytes]:
    """Divide a bundle into what is somebody else's, byte for byte as shipped, and our block (empty when none).

    Raises DamagedError when the markers do not frame exactly one block.
    """
    begins, ends = _line_starts(content, BEGIN), _line_starts(content, END)
    if not begins and not ends:
        return content, b""
    if len(begins) != 1 or len(ends) != 1 or ends[0] < begins[0]:
        raise DamagedError
    start = begins[0]
    stop = content.find(b"\n", ends[0]) + 1 or len(content)
    before, after = content[:start], content[stop:]
    # The newline in front of the block came with it, unless something was appended that it now keeps apart.
    if before.endswith(b"\n") and (not after or before.endswith(b"\n\n")):
        before = before[:-1]
    return before + after, content[start:stop]


def looks_whole(content: bytes) -> bool:
    """Return whether our markers frame one block or none."""
    try:
        split(content)
    except DamagedError:
        return False
    return True


def join(outside: bytes, wanted: tuple[Item, ...]) -> bytes:
    """Put our block of `wanted` at the end of `outside`; without any the result *is* `outside`."""
    if not wanted:
        return outside
    return b"".join([outside, b"\n", _BEGIN_LINE, *map(_with_comment, wanted), _END_LINE])


def merged(origin: str, base: tuple[Item, ...], wanted: tuple[Item, ...]) -> bytes:
    """Render an override bundle: `base`, then what it lacks of `wanted`; the first line remembers the origin."""
    have = {item.sha256 for item in base}
    ours = [_with_comment(item) for item in wanted if item.sha256 not in have]
    return b"".join([_ORIGIN, _quote(origin), b"\n", *(item.pem for item in base), *ours])


def origin_of(content: bytes) -> str:
    """Return the path that an override bundle was merged from, "" when it was a store."""
    line = content.partition(b"\n")[0]
    return _unquote(line[len(_ORIGIN) :]) if line.startswith(_ORIGIN) else ""


@lru_cache(_BUNDLES)
def marked(content: bytes) -> tuple[Item, ...]:
    """Return the certificates that are ours, with our comments: those that a comment in front of a block names."""
    named = {
        line.rpartition(b"sha256=")[2]: line[2:]
        for line in content.split(b"\n")
        if line.startswith(b"# ") and line.isascii()
    }
    ours = ((item, named.get(item.sha256.encode(), b"")) for item in items(content))
    return tuple(item._replace(comment=line) for item, line in ours if line)


def _line_starts(content: bytes, marker: bytes) -> list[int]:
    starts, position = [], content.find(marker)
    while position >= 0:
        if position == 0 or content[position - 1 : position] == b"\n":
            starts.append(position)
        position = content.find(marker, position + 1)
    return starts


def comment_on(sha256: str, subject: str) -> bytes:
    """Return the comment that marks a certificate as ours.

    It is ASCII only, since one other character makes `certifi.contents()` raise, and never looks like PEM.
    """
    return f"{subject} sha256={sha256}".encode("unicode_escape").replace(b"---", b"- - ")


def _with_comment(item: Item) -> bytes:
    return b"# " + item.comment + b"\n" + item.pem


def _quote(path: str) -> bytes:
    raw = path.encode("utf-8", "surrogateescape")
    return b"".join(
        b"%c" % byte if (chr(byte).isalnum() and byte < _ASCII) or byte in b"/._-" else b"%%%02x" % byte for byte in raw
    )


def _unquote(text: bytes) -> str:
    head, *rest = text.split(b"%")
    try:
        raw = head + b"".join(bytes.fromhex(part[:2].decode("ascii")) + part[2:] for part in rest)
    except ValueError:
        return ""
    return raw.decode("utf-8", "surrogateescape")
