"""The machine as it was looked at: immutable records. Plain data."""

from __future__ import annotations

from shim import bundle
from shim.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shim.families import Family
    from shim.writer import Owner

ANCHOR_PREFIX = "ca-shim-"
TEMPORARY = ".ca-shim-new"  # in the name of a file that is being written
NAMED = "CA_SHIM_CERTIFI"  # how a certifi was found that an operator has named
SAVED = ".ca-shim-old"  # ends the name of the bundle's copy while its tool works
PENDING = b"pending"


class OsStore(Record):
    """The operating system's store; `blocked` says why it cannot be changed in place, "" when it can."""

    family: Family | None
    path: str  # the bundle, "" when the system has none
    content: bytes
    anchors: tuple[tuple[str, bytes], ...]  # ours, leftovers of a killed start included
    state: bytes
    blocklist: tuple[bytes, ...]
    blocked: str
    doubtful: bool = False  # it could not be read, so a CA of ours may be in it
    tool: bytes = b""  # other bytes once the refresh tool, a program beside it or where it writes has changed

    def makes(self, path: str) -> bool:
        """Return whether the refresh tool makes what lies at a path from the same anchors as the bundle."""
        return self.family is not None and path in (*self.family.outputs, *self.family.directories)

    @property
    def unfinished(self) -> bool:
        """Whether a change was begun and not ended, so that the next start has to."""
        return self.state.startswith(PENDING)


class CertifiStore(Record):
    """A certifi bundle, by its real path; `owner` writes it when it is not blocked.

    One without content cannot be read, holds nothing of its own, or is `hidden`.
    """

    path: str
    found: str
    content: bytes
    owner: Owner | None
    blocked: str
    leftover: str  # the temporary file of a killed start beside it, "" when there is none
    doubtful: bool = False  # it could not be read, so a CA of ours may be in it
    hidden: bool = False  # what its clients read is not looked at: it is inside an archive, or one too many


class Directory(Record):
    """A private directory for override bundles: (name, content) of what is ours in it."""

    path: str
    exists: bool
    writable: bool
    files: tuple[tuple[str, bytes], ...]


class Setting(Record):
    """A client's variable that has a value: `origin` is the bundle somebody else chose, content None if missing."""

    name: str
    origin: str
    real: str
    content: bytes | None
    superseded: bool  # it is the vendor's override, made from files that we read ourselves


class Snapshot(Record):
    """All that deciding needs to know of the machine."""

    os: OsStore
    certifi: tuple[CertifiStore, ...]
    directories: tuple[Directory, ...]
    settings: tuple[Setting, ...]
    curl_needs_bundle: bool
    go_can_be_steered: bool = False  # nobody has chosen the directory that Go reads besides the bundle
    clients: tuple[str, ...] = ()  # of what the table of variables says that a client needs: what is here
    alone: bool = True  # no application is running that reads our bundles
    nowhere: str = ""  # why places for bundles cannot be used
    after_root: bool = False  # a start as root has been here before, and read the sources


def original(value: str, directories: tuple[Directory, ...]) -> str | None:
    """Return the bundle that a value means: one of our files stands for what it was made from, None for a store."""
    for directory in directories:
        name = value.removeprefix(directory.path + "/")
        if name != value:
            return bundle.origin_of(dict(directory.files).get(name, b"")) or None
    return value
