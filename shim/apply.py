"""Act: carry out the steps of a plan. Whole files, whole stores, and the one door for subprocesses."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import time

from shim import bundle, loading, log, reading, signals, writer
from shim import plan as plans
from shim.host import LOCK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from shim.families import Family
    from shim.plan import Plan, Step

LOCK_SECONDS = 60
TOOL_SECONDS = 120
_TOOL_ENVIRON = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "HOME": "/"}
_CREATE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class StoreError(Exception):
    """A store could not be changed as planned; the message is the reason, and the old store is still there."""


def carry_out(plan: Plan, root: str, lock_directory: str) -> dict[str, str]:
    """Carry out all steps under a lock; gives the stores that failed, with the reason. Readers see old or new files.

    After a failing step the store's other steps are left out, those of other stores are not.
    """
    failed: dict[str, str] = {}
    try:
        lock = _lock(root + lock_directory) if lock_directory else None
    except (OSError, StoreError) as error:
        return {step.store: _reason(error) for step in plan.steps}
    for step in plan.steps:
        if failed.keys().isdisjoint((step.store, os.path.dirname(step.path))):
            try:
                _ACTIONS[step.action](root, step)
            except (OSError, StoreError) as error:
                failed[step.store] = _reason(error)
    if lock is not None:
        os.close(lock)
    return failed


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)


def _lock(directory: str) -> int:
    """Take the lock that keeps two starts from writing at once; nobody else can open its file."""
    make_directory(directory)
    descriptor = os.open(f"{directory}/{LOCK}", _CREATE, 0o600)
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise StoreError(f"another start has held the lock for {LOCK_SECONDS} s") from None
            time.sleep(0.05)
        else:
            return descriptor


def make_directory(path: str) -> None:
    """Have a directory of ours at `path`; whatever somebody put there since it was looked at is refused."""
    try:
        os.mkdir(path)
        os.chmod(path, 0o755)  # noqa: S103 - whatever the umask is: the application's user must read what is in it
    except FileNotFoundError:
        make_directory(os.path.dirname(path))
        make_directory(path)
    except FileExistsError:
        status = os.lstat(path)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise StoreError(f"{path} is no directory of ours") from None


def _mkdir(root: str, step: Step) -> None:
    make_directory(root + step.path)


def _remove(root: str, step: Step) -> None:
    with writer.Acting(step.owner or writer.myself()):
        unlink(root + step.path)


def unlink(path: str) -> None:
    """Remove a file that may be gone already."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def _write(root: str, step: Step) -> None:
    replace(root + step.path, step.content, step.owner or writer.myself(), durable=step.durable)


def replace(path: str, content: bytes, owner: writer.Owner, *, durable: bool = True) -> None:
    """Write a file whole, acting as `owner`: a reader sees the old file or the new one.

    The owner's own file keeps its mode and group. Raises OSError, and then the old file stands.
    """
    temporary = writer.temporary_of(path)
    with writer.Acting(owner):
        before = _status(path)
        unlink(temporary)
        descriptor = os.open(temporary, _CREATE | os.O_EXCL, 0o600)
    try:
        _write_all(descriptor, content)
        _restore(descriptor, before)
        if durable:
            os.fsync(descriptor)
        with writer.Acting(owner):
            os.rename(temporary, path)
            if durable:
                _sync_directory(os.path.dirname(path))
    except BaseException:
        with writer.Acting(owner):
            unlink(temporary)
        raise
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def _status(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None


def _restore(descriptor: int, before: os.stat_result | None) -> None:
    """Give the new file the old one's group and mode, by its descriptor, which nobody can exchange.

    Where the group cannot be kept and everybody may read the file, it gets our group, which may not write it.
    """
    now = os.fstat(descriptor)
    if before is None or not stat.S_ISREG(before.st_mode) or before.st_uid != now.st_uid:
        os.fchmod(descriptor, 0o644)
        return
    mode = before.st_mode & 0o777
    try:
        os.fchown(descriptor, -1, before.st_gid)
    except PermissionError:
        if not mode & stat.S_IROTH:
            raise
        mode &= ~stat.S_IWGRP
    os.fchmod(descriptor, mode)


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refresh(root: str, step: Step) -> None:
    """Run the tool and judge it by the bundle's content; a refresh that loses a certificate of the base is undone."""
    family = step.family
    assert family is not None  # noqa: S101 - the planner's promise, for the type checker
    state = reading.read_or_none(root + family.state) or b""
    touched = plans.touched_by(state)
    before = {path: reading.read_or_none(root + path) for path in (family.bundle, *family.outputs)}
    base = bundle.fingerprints(before[family.bundle] or b"") - touched
    written = _identity(root + family.bundle)
    said = run([root + family.tool, *step.arguments], TOOL_SECONDS)
    wrong = _why_wrong(root, family, base, before)
    if wrong:
        _put_back(root, before)
    # What a refresh without its anchor has left in the bundle comes from somebody else, and is not ours any more.
    _settle(root, family, state if wrong or written == _identity(root + family.bundle) else b"")
    if wrong:
        raise StoreError(f"{family.tool} {wrong} ({said})")


def _identity(path: str) -> tuple[int, int] | None:
    """Tell whether a tool has written a file at all, even with the content it had."""
    status = _status(path)
    return (status.st_ino, status.st_mtime_ns) if status else None


def _why_wrong(root: str, family: Family, base: frozenset[str], before: dict[str, bytes | None]) -> str:
    lost = base - bundle.fingerprints(reading.read_or_none(root + family.bundle) or b"")
    if lost:
        return f"lost {len(lost)} certificates of the base"
    for path, content in before.items():
        if content and not reading.read_or_none(root + path):
            return f"emptied {path}"
    made = reading.read_or_none(root + family.bundle) or b""
    reason = loading.why_not(made, len(bundle.items(made)))
    return f"made a bundle that cannot be used: {reason}" if reason else ""


def _put_back(root: str, before: dict[str, bytes | None]) -> None:
    for path, content in before.items():
        if content and reading.read_or_none(root + path) != content:
            replace(root + path, content, writer.ROOT)


def _settle(root: str, family: Family, state: bytes) -> None:
    """Turn the marker: this refresh is over, and would change nothing if repeated."""
    content = reading.read_or_none(root + family.bundle) or b""
    replace(root + family.state, plans.settled(state, content), writer.ROOT)


def run(command: Sequence[str], seconds: float) -> str:
    """Run a program to its end, or for so long, in a process group of its own; gives the end of what it said.

    Raises OSError when it cannot be started. Its exit status promises nothing and is only told.
    """
    import subprocess

    with subprocess.Popen(  # noqa: S603 - from a list, a path of root's
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=_TOOL_ENVIRON,
        cwd="/",
        umask=0o022,
        start_new_session=True,
    ) as process:
        signals.running.append(process.pid)
        try:
            log.prepare()  # while the tool works: there will be something to tell
            output, _ = process.communicate(timeout=seconds)
            status = f"exit {process.returncode}"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output = b""  # not read: a descendant outside the group may hold the pipe for ever
            status = f"killed after {seconds} s"
        finally:
            signals.running.remove(process.pid)
    return f"{status} {output[-500:].decode('ascii', 'backslashreplace').strip()}".strip()


_ACTIONS = {"mkdir": _mkdir, "write": _write, "remove": _remove, "refresh": _refresh}
