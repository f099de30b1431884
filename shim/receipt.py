"""Remember what exactly these inputs and stores came to, so that a start with nothing to do is cheap.

A receipt says *that* nothing changed, never *what* to trust: it counts only while every byte of the sources and of the
stores is as it was when the stores were verified, and no certificate has reached a date that matters.
"""

from __future__ import annotations

# The module behind hashlib, which would load OpenSSL at a third of the cost of a whole start.
from _blake2 import blake2b

from shim import __version__, reading
from shim.host import RECEIPT
from shim.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from shim.config import Config
    from shim.snapshot import Directory, Snapshot
    from shim.sources import Intake

_FORMAT = b"ca-shim receipt 3"
_MAX_RECEIPTS = 4


class Receipt(Record):
    """The digest of everything looked at, the instant until which it holds, and what it came to."""

    key: str
    until: int
    certificates: int  # accepted
    problems: int  # what cannot be used, and stays so while nothing changes
    variables: dict[str, str]
    stores: dict[str, str]  # the digest of every bundle by its path


def digest(content: bytes) -> str:
    """Return a digest of a store."""
    return blake2b(content, digest_size=16).hexdigest()


def digests(snapshot: Snapshot) -> dict[str, str]:
    """Return the digest of every store and override bundle by its path."""
    bundles = {store.path: store.content for store in snapshot.certifi} | {snapshot.os.path: snapshot.os.content}
    for directory in snapshot.directories:
        bundles |= {f"{directory.path}/{name}": content for name, content in directory.files if name.endswith(".pem")}
    return {path: digest(content) for path, content in bundles.items() if path.startswith("/") and path.isprintable()}


def settled(snapshot: Snapshot, root: str) -> frozenset[str]:
    """Return the paths of the bundles that are as a start without problems has left them."""
    receipts = [each for one in snapshot.directories if one.exists for each in read(f"{root}{one.path}/{RECEIPT}")]
    found = digests(snapshot).items()
    return frozenset(path for path, now in found if any(each.stores.get(path) == now for each in receipts))


def mounted(intake: Intake) -> str:
    """Return a digest of all mounted files and of the sources that were named, "" when there are no files."""
    pieces = (*intake.named, *(piece for file in intake.files for piece in file))
    return _digest_of(pieces) if intake.files else ""


def key(config: Config, mounted: str, snapshot: Snapshot) -> str:
    """Digest all that was looked at, whoever looks: the user and what that user may write are left out."""
    return _digest_of(_pieces(config, mounted, snapshot))


def _digest_of(pieces: Iterable[str | bytes]) -> str:
    digest = blake2b()
    for piece in pieces:
        raw = piece.encode("utf-8", "surrogateescape") if isinstance(piece, str) else piece
        digest.update(b"%d:" % len(raw))
        digest.update(raw)
    return digest.hexdigest()


def _pieces(config: Config, mounted: str, snapshot: Snapshot) -> Iterator[str | bytes]:
    yield from (_FORMAT, __version__, config.bundle_dir, str(snapshot[4:7]))
    yield mounted
    yield from (snapshot.os.path, snapshot.os.content, snapshot.os.state, snapshot.os.tool, str(snapshot.os.doubtful))
    yield from (piece for anchor in snapshot.os.anchors for piece in anchor)
    yield from snapshot.os.blocklist
    for store in sorted(snapshot.certifi):
        yield from (store.path, store.content, store.leftover, str(store.doubtful))
    for directory in snapshot.directories:
        yield from (piece for file in directory.files for piece in (directory.path, *file))
    for setting in snapshot.settings:
        yield from (setting.name, setting.origin, setting.content or b"")


def untouched(intake: Intake, snapshot: Snapshot) -> bool:
    """Return whether there is nothing to trust and nothing of ours anywhere, so that there is nothing to remember."""
    from shim.bundle import BEGIN

    ours = snapshot.os.anchors or snapshot.os.state or any(each.files for each in snapshot.directories)
    blocks = any(BEGIN in store.content or store.leftover for store in snapshot.certifi)
    return not (intake.files or intake.notes or intake.named or ours or blocks)


def find(directories: tuple[Directory, ...], root: str, key: str, now: float) -> Receipt | None:
    """Find a receipt for these inputs that still holds, in any directory that is root's or ours."""
    for directory in directories:
        for receipt in read(f"{root}{directory.path}/{RECEIPT}") if directory.exists else ():
            if receipt.key == key and now < receipt.until:
                return receipt
    return None


def read(path: str) -> tuple[Receipt, ...]:
    """Return the receipts of a file; what is no receipt is left out."""
    text = (reading.read_or_none(path) or b"").decode("utf-8", "surrogateescape")
    return tuple(receipt for part in text.split("\n\n") if (receipt := _parse(part.split("\n"))))


def _parse(lines: list[str]) -> Receipt | None:
    words = lines[0].split()
    try:
        key, until, certificates, problems = words[0], int(words[1]), int(words[2]), int(words[3])
    except (IndexError, ValueError):
        return None
    stores = {path: found for path, _, found in (line.rpartition("=") for line in lines[1:] if line.startswith("/"))}
    named = (line.partition("=") for line in lines[1:] if line and not line.startswith("/"))
    return Receipt(key, until, certificates, problems, {name: value for name, _, value in named}, stores)


def render(newest: Receipt, others: tuple[Receipt, ...] = ()) -> bytes:
    """Write receipts as text, the newest first, of others the newest few: one for each shim of a chain."""
    kept = [newest, *(each for each in others if each.key != newest.key)][:_MAX_RECEIPTS]
    return "\n".join(map(_render, kept)).encode("utf-8", "surrogateescape")


def _render(receipt: Receipt) -> str:
    pairs = {**receipt.variables, **receipt.stores}
    head = f"{receipt.key} {receipt.until} {receipt.certificates} {receipt.problems}"
    return "\n".join([head, *(f"{name}={value}" for name, value in pairs.items()), ""])
