"""Look: read the mounted CA files. Only reads, never waits, and ends.

Root reads what lies behind another user's directory or link with that user's eyes.
"""

from __future__ import annotations

import os
import stat

from shim import families, reading, writer
from shim.record import Note, Notes, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_ENTRIES = 20_000
MAX_DEPTH = 16
_KERNELS = ("/proc/self", "/sys/kernel")  # file systems with no files of anybody's
_MOUNT = "mount a directory or a file there, or correct CA_SHIM_CERTS"
_READABLE = "make it readable for the container's user"
_NO_MOUNTS_OF_CAS = ("/dev/", "/etc/", "/proc/", "/sys/", "/usr/", f"{families.HOME}/")


class Source(Record):
    """A file or directory of CA files; a missing one is a problem only if somebody named it."""

    path: str
    named: bool = False


class Intake(Record):
    """What was read: (path, content) in a stable order; `complete` when nothing was out of reach."""

    files: tuple[tuple[str, bytes], ...]
    notes: tuple[Note, ...]
    complete: bool
    named: tuple[str, ...] = ()  # the sources that somebody named: they should hold something


def read(root: str, sources: tuple[Source, ...]) -> Intake:
    """Read every file below the sources; what cannot be read is noted, and makes the intake incomplete."""
    reader = _Reader(root)
    for source in sources:
        reader.read_source(source)
    named = tuple(source.path for source in sources if source.named)
    return Intake(tuple(reader.files), reader.notes.all(), reader.complete, named)


def elsewhere(root: str, sources: tuple[Source, ...]) -> Iterator[Note]:
    """Name each mount that looks as if it was meant for a source. Reads the table of mounts only."""
    from difflib import get_close_matches

    places = [source.path for source in sources if source.path != families.BAKED]
    table = (reading.read_or_none(f"{root}/proc/self/mountinfo") or b"").decode("utf-8", "replace")
    mounts = {words[4] for line in table.splitlines() if len(words := line.split()) > 4}  # noqa: PLR2004 - proc(5)
    known = (*_NO_MOUNTS_OF_CAS, *(f"{place}/" for place in places))
    for mount in sorted(each for each in mounts if not f"{each}/".startswith(known)):
        if "cert" in os.path.basename(mount).lower() or get_close_matches(mount, places, cutoff=0.85):
            reason, remedy = "it is mounted, but it is no source", f"if the CAs are there, mount it on {places[0]}"
            yield Note("source.elsewhere", (("file", mount), ("reason", reason), ("remedy", remedy)))


class _Reader:
    """One walk over all sources, with the limits of all together."""

    def __init__(self, root: str) -> None:
        self.files: list[tuple[str, bytes]] = []
        self.notes = Notes()
        self.complete = True
        self._root = root
        self._budget = reading.LIMIT
        self._entries = 0
        self._seen: set[tuple[int, int]] = set()  # directories, so that a loop of links ends
        self._top = ""

    def read_source(self, source: Source) -> None:
        """Read one source, a file or a directory."""
        with writer.Seeing(self._root, source.path):
            self._read_source(source)

    def _read_source(self, source: Source) -> None:
        path = self._root + source.path
        try:
            self._top = os.path.realpath(path, strict=True)
        except FileNotFoundError:
            if source.named:
                self._missing(path, "the named source does not exist")
            return
        except OSError as error:  # nobody has asked for a default place that lies out of reach
            self._unreadable(path, error, code=66 if source.named else 0)
            return
        if _device(self._top) in map(_device, _KERNELS):
            self._note("file.refused", path, "it leads to the kernel's own files", _MOUNT)
        elif self._within_limits(path, 0):
            self._read(path, 0)

    def _enter(self, path: str, depth: int) -> None:
        """Read what a directory holds; once root has become another user, that user reads all that is below."""
        if self._within_limits(path, depth):
            if os.geteuid() == 0 and _may_be_strangers(path):
                with writer.Seeing(self._root, path[len(self._root) :]):
                    self._read(path, depth)
            else:
                self._read(path, depth)

    def _read(self, path: str, depth: int) -> None:
        try:
            if os.path.isdir(path):
                self._read_directory(path, depth)
            else:
                self._read_file(path)
        except reading.NotRegularError:
            remedy = "mount regular files only"
            self._note("file.refused", path, "it is no regular file (a FIFO, device or socket)", remedy)
        except reading.TooLargeError:
            self._over(path, f"with it the files have more than {reading.LIMIT >> 20} MiB")
        except OSError as error:
            self._unreadable(path, error)

    def _within_limits(self, path: str, depth: int) -> bool:
        self._entries += 1
        if self._entries > MAX_ENTRIES:
            if self._entries == MAX_ENTRIES + 1:
                self._over(path, f"there are more than {MAX_ENTRIES} entries")
            return False
        if depth > MAX_DEPTH:
            self._over(path, f"it lies deeper than {MAX_DEPTH} directories")
        return depth <= MAX_DEPTH

    def _read_directory(self, path: str, depth: int) -> None:
        """Kubernetes keeps its revisions in `..` names and links every other name to them: each file is met once."""
        real = os.path.realpath(path, strict=True)
        if real != self._top and not real.startswith(self._top.rstrip("/") + "/"):
            remedy = "mount that directory itself"
            self._note("file.refused", path, "it is a link to a directory outside of the source", remedy)
            return
        status = os.stat(path)
        if (status.st_dev, status.st_ino) in self._seen:
            return
        self._seen.add((status.st_dev, status.st_ino))
        for name in _names(path):
            self._enter(f"{path}/{name}", depth + 1)

    def _read_file(self, path: str) -> None:
        content = reading.read(path, self._budget)
        self._budget -= len(content)
        self.files.append((path[len(self._root) :], content))

    def _missing(self, path: str, reason: str) -> None:
        self.complete = False
        self._note("source.missing", path, reason, _MOUNT, code=66)

    def _unreadable(self, path: str, error: OSError, code: int = 66) -> None:
        self.complete = False
        remedy = f"root reads it as its owner: make it readable for uid {os.geteuid()}" if _is_seeing() else _READABLE
        remedy += ", in Kubernetes by `defaultMode: 0444`"
        self._note("source.unreadable", path, (error.strerror or "unreadable").lower(), remedy, code)

    def _over(self, path: str, reason: str) -> None:
        self.complete = False
        self._note("source.limit", path, reason, "mount only the CA files that you need", code=65)

    def _note(self, event: str, path: str, reason: str, remedy: str, code: int = 0) -> None:
        details = (("file", path[len(self._root) :]), ("reason", reason), ("remedy", remedy))
        self.notes.add(Note(event, details, code))


def _names(path: str) -> list[str]:
    """List at most one name more than the limit, sorted; the revisions of a Kubernetes volume are left out."""
    names = []
    with os.scandir(path) as entries:
        for entry in entries:
            if not entry.name.startswith(".."):
                names.append(entry.name)
            if len(names) > MAX_ENTRIES:
                break
    return sorted(names)


def _may_be_strangers(path: str) -> bool:
    """Return whether the way to an entry of a directory of root's may end with somebody else."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return status.st_uid != 0 or stat.S_ISLNK(status.st_mode)


def _is_seeing() -> bool:
    return os.getuid() == 0 != os.geteuid()


def _device(path: str) -> int | None:
    try:
        return os.stat(path).st_dev
    except OSError:
        return None
