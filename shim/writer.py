"""Who may write at a path, and how root writes there: as the one who owns it, never with root's own hands."""

from __future__ import annotations

import os
import stat
from errno import ELOOP

from shim import reading
from shim.record import Record
from shim.snapshot import TEMPORARY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
NOBODY = 65534
_MAX_LINKS = 40  # as the kernel's


class Owner(Record):
    """A user and the group it acts with; `groups` are all of them, where it acts with more than one."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


ROOT = Owner(0, 0)


def myself() -> Owner:
    """Return the user and group that this process acts as."""
    return Owner(os.geteuid(), os.getegid())


def temporary_of(path: str) -> str:
    """Return the name under which this user writes a file: two users may write one, and neither takes the other's."""
    return f"{path}{TEMPORARY}-{os.getuid()}"


class Place(Record):
    """Who can write a file safely; `reason` says why nobody can."""

    owner: Owner | None
    reason: str = ""


class Resolved(Record):
    """A path with every link followed: the directories and the file passed, and the links themselves."""

    real: str
    steps: tuple[os.stat_result, ...]
    links: tuple[os.stat_result, ...]


def resolve(root: str, path: str, passed: list[os.stat_result] | None = None) -> Resolved:
    """Follow `path` below `root` one component at a time by lstat; raises OSError when it leads nowhere.

    All that was met until then is in `passed`, in its order.
    """
    pending, current = path.split("/")[::-1], ""
    passed = [] if passed is None else passed
    steps, links = [os.lstat(root or "/")], []
    while pending:
        name = pending.pop()
        if name == "..":
            current = current.rpartition("/")[0]
        if name in ("", ".", ".."):
            continue
        status = os.lstat(f"{root}{current}/{name}")
        passed.append(status)
        if stat.S_ISLNK(status.st_mode):
            target = os.readlink(f"{root}{current}/{name}")
            links.append(status)
            current = "" if target.startswith("/") else current
            pending += target.split("/")[::-1]
        else:
            current = f"{current}/{name}"
            steps.append(status)
        if len(links) > _MAX_LINKS:
            raise OSError(ELOOP, "too many links", path)
    return Resolved(current, tuple(steps), tuple(links))


def place_of(resolved: Resolved, groups: dict[int, int]) -> Place:
    """Find who may write an existing file safely.

    The writer is the owner of the first component that is not root's. All above it is root's and writable by root
    alone; all below it belongs to the writer, and not everybody may write there; a link on the way is root's or the
    writer's. `groups` gives the primary group of a uid.
    """
    owners = [step.st_uid for step in resolved.steps]
    uid = next((owner for owner in owners if owner != 0), 0)
    above = resolved.steps[: owners.index(uid)] if uid else resolved.steps[:-1]
    if any(step.st_mode & OTHERS_WRITE for step in above):
        return Place(None, "a directory of root's above it is writable by others")
    if any(owner != uid for owner in owners[len(above) :]):
        return Place(None, "what is on the way belongs to different users")
    if any(step.st_mode & stat.S_IWOTH for step in resolved.steps[len(above) : -1]):
        return Place(None, "a directory above it is writable by everybody")
    if any(link.st_uid not in (0, uid) for link in resolved.links):
        return Place(None, "a link on the way belongs to another user")
    return Place(Owner(uid, groups.get(uid, NOBODY if uid else 0)))


class Acting:
    """Within the block this process acts as `owner`; afterwards as before. Raises PermissionError when it cannot.

    Groups first, the user last: with the user alone, gid 0 would stay, and a link planted by the owner would reach
    what the root group may write.
    """

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._before: tuple[int, int, list[int]] | None = None

    def __enter__(self) -> None:
        if os.geteuid() == self._owner.uid:
            return
        if os.geteuid() != 0:
            raise PermissionError(1, f"uid {os.geteuid()} cannot act as uid {self._owner.uid}")
        self._before = os.geteuid(), os.getegid(), os.getgroups()
        try:
            os.setgroups(self._owner.groups or [self._owner.gid])
            os.setegid(self._owner.gid)
            os.seteuid(self._owner.uid)
        except OSError:
            self._restore()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _restore(self) -> None:
        if self._before is not None:
            uid, gid, groups = self._before
            os.seteuid(uid)
            os.setegid(gid)
            if os.getgroups() != groups:
                os.setgroups(groups)
            self._before = None


class Seeing(Acting):
    """Within the block, root reads what a path leads to as the first owner on the way who is not root.

    Whatever that user has put there, a link to a file of root's included, shows no more than that user could see. A
    process that cannot become that user reads as what it is.
    """

    def __init__(self, root: str, path: str) -> None:
        super().__init__(_first_stranger(root, path) if os.geteuid() == 0 else myself())

    def __enter__(self) -> None:
        try:
            super().__enter__()
        except OSError:
            return


def _first_stranger(root: str, path: str) -> Owner:
    passed: list[os.stat_result] = []
    try:  # noqa: SIM105 - contextlib costs a start too much
        resolve(root, path, passed)
    except OSError:
        pass  # whoever reads it next learns why
    uid = next((status.st_uid for status in passed if status.st_uid), 0)
    return Owner(uid, _primary_group(root, uid)) if uid else ROOT


def _primary_group(root: str, uid: int) -> int:
    from shim.accounts import primary_groups

    passwd = (reading.read_or_none(f"{root}/etc/passwd") or b"").decode("utf-8", "surrogateescape")
    return primary_groups(passwd).get(uid, NOBODY)
