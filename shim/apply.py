"""Act: carry out the steps of a plan. Whole files, whole stores, and the one door for subprocesses."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import stat
import time
from contextlib import contextmanager, suppress

from shim import bundle, families, loading, log, reading, signals, writer
from shim import plan as plans
from shim.host import LOCK, identity_of_tool
from shim.record import Record
from shim.snapshot import SAVED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from shim.families import Family
    from shim.plan import Plan, Step

LOCK_SECONDS = 60
SELFTEST = "selftest-running"  # locked by a selftest; readable for starts that are not root's
_PAUSE = 0.05  # seconds
TOOL_SECONDS = 120
_inherited: list[int] = []  # the lock: a tool that outlives a killed start keeps the next one from its store
_PASSING = {"CA_SHIM": "off", "CA_SHIM_USER": "root"}  # for a wrapped program: it would wait for our lock
_TOOL_ENVIRON = {"PATH": ":".join(families.TOOL_PATH), "LC_ALL": "C", "HOME": "/", **_PASSING}
_SAID = 500  # bytes of a tool's output that are told
_CREATE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class StoreError(Exception):
    """A store could not be changed as planned; the message is the reason, and the old store is still there."""


def carry_out(plan: Plan, root: str, lock_directory: str, foreign: Sequence[str] = ()) -> dict[str, str] | None:
    """Carry out all steps under a lock. Return the stores that failed, with the reason. Readers see old or new files.

    After a failing step the store's other steps are left out, those of other stores are not. After waiting for another
    start, which may have done it all, or for a selftest of root's in a `foreign` directory, it does nothing and returns
    None.
    """
    failed: dict[str, str] = {}
    try:
        tested = _wait_for_selftest([root + each for each in foreign])
        lock, waited = _lock(root + lock_directory) if lock_directory else (None, False)
    except (OSError, StoreError) as error:
        return {step.store: _reason(error) for step in plan.steps}
    _inherited[:] = [] if lock is None else [lock]
    for step in () if waited or tested else plan.steps:
        if failed.keys().isdisjoint((step.store, os.path.dirname(step.path))):
            try:
                _ACTIONS[step.action](root, step)
            except (OSError, StoreError) as error:
                failed[step.store] = _reason(error)
    if lock is not None:
        _inherited.clear()
        fcntl.flock(lock, fcntl.LOCK_UN)  # closing is not enough: what a tool has left running has it open as well
        os.close(lock)
    return None if waited or tested else failed


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)


def _lock(directory: str) -> tuple[int, bool]:
    """Take the lock that keeps two starts from writing at once, and tell whether another start had it."""
    descriptor, started = open_lock(directory, LOCK), time.monotonic()
    return lock(descriptor, LOCK_SECONDS), time.monotonic() - started >= _PAUSE


def _wait_for_selftest(directories: Sequence[str]) -> bool:
    """Wait until no selftest of root's runs there, and tell whether one did.

    Root has the lock that selftests take, and passes by what any user could hold.
    """
    started = time.monotonic()
    for directory in directories if os.geteuid() else ():
        with suppress(FileNotFoundError, PermissionError):
            os.close(lock(os.open(f"{directory}/{SELFTEST}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), LOCK_SECONDS))
    return time.monotonic() - started >= _PAUSE


@contextmanager
def locked(directory: str, seconds: float) -> Iterator[None]:
    """Hold the lock of a directory of ours within the block. Raises StoreError when another process keeps it."""
    descriptor = lock(open_lock(directory, LOCK), seconds)
    try:
        yield
    finally:
        os.close(descriptor)


def open_lock(directory: str, name: str) -> int:
    """Open a file to lock in a directory of ours, which is made if missing; nobody else can open it."""
    make_directory(directory)
    return os.open(f"{directory}/{name}", _CREATE, 0o600)


def lock(descriptor: int, seconds: float) -> int:
    """Lock an open file or directory and return its descriptor; raises StoreError when another process keeps it."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(descriptor)
                raise StoreError(f"another start or selftest has held the lock for {seconds} s") from None
            time.sleep(_PAUSE)
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
    """Return the new file the old one's group and mode, by its descriptor, which nobody can exchange.

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


class _Before(Record):
    """What the tool may break, as it was."""

    content: bytes  # of the bundle
    status: os.stat_result | None
    base: frozenset[str]  # fingerprints of the bundle that are not ours
    entries: dict[str, bytes | str | None]  # content or target of every other output
    hashed: tuple[str, ...]  # directories that held all the base


def _refresh(root: str, step: Step) -> None:
    """Run the tool and judge it by what it made; what a failed refresh changed or took is put back.

    Meanwhile a copy of the bundle lies beside it: no disk is too full to put it back, and the start after one that was
    killed has it too.
    """
    family = step.family
    assert family is not None  # noqa: S101 - the planner's promise, for the type checker
    state = reading.read_or_none(root + family.state) or b""
    wanted, touched = bundle.fingerprints(step.content), plans.touched_by(state)
    before = _before(root, family, touched)
    replace(root + family.bundle + SAVED, before.content, writer.ROOT, durable=False)
    for path in family.leftovers:
        unlink(root + path)
    worked, said = run([root + family.tool, *step.arguments], TOOL_SECONDS)
    now, written = _held(root + family.bundle), _identity(before.status) != _identity(_status(root + family.bundle))
    wrong = _why_wrong(root, family, before, wanted, now)
    if not (wrong or worked) and (wanted - now or ((touched - wanted) & now and not written)):
        wrong = "did not bring the bundle up to date"
    if wrong or not worked:
        _put_back(root, family, before, failed=bool(wrong))
    unlink(root + family.bundle + SAVED)
    left_out = f"its tool leaves certificates out ({said})" if wanted - now else ""
    why = f"{plans.TOOL_FAILED}{family.tool} {wrong} ({said})" if wrong else left_out
    # What a refresh without its anchor has left in the bundle comes from somebody else, and is not ours any more.
    _settle(root, family, b"" if written and not wrong else state, why)
    if wrong:
        raise StoreError(why)


def _before(root: str, family: Family, touched: frozenset[str]) -> _Before:
    """Look at all outputs; of the bundle and the copy that a killed start has left, the one with more of the base."""
    path = root + family.bundle
    found = [(_held(each) - touched, each) for each in (path, path + SAVED)]
    base, best = max(found, key=lambda each: len(each[0]))
    names = (f"{each}/{name}" for each in family.directories for name in _names(root + each))
    entries = {each: _entry(root + each) for each in (*family.outputs, *names) if not each.startswith(family.bundle)}
    hashed = tuple(each for each in family.directories if not _lacks(root + each, base))
    return _Before(reading.read_or_none(best) or b"", _status(path), base, entries, hashed)


def _held(path: str) -> frozenset[str]:
    return bundle.fingerprints(reading.read_or_none(path) or b"")


def _names(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def _entry(path: str) -> bytes | str | None:
    """Return the target of a link or the content of a regular file."""
    try:
        return os.readlink(path)
    except OSError:
        return reading.read_or_none(path)


def _lacks(path: str, certificates: frozenset[str]) -> bool:
    """Return whether OpenSSL does not find all of these in a directory, where it looks for <hash>.<number>."""
    names = [name for name in _names(path) if re.fullmatch("[0-9a-f]{8}\\.[0-9]+", name)]
    contents = (reading.read_or_none(f"{path}/{name}") or b"" for name in names)
    return not names or not certificates <= bundle.fingerprints(b"\n".join(contents))


def _identity(status: os.stat_result | None) -> tuple[int, int] | None:
    """Return what shows that a tool has written a file, even with the content it had."""
    return (status.st_ino, status.st_mtime_ns) if status else None


def _why_wrong(root: str, family: Family, before: _Before, wanted: frozenset[str], now: frozenset[str]) -> str:
    if lost := before.base - now:
        return f"lost {len(lost)} certificates of the base"
    for path in family.outputs:
        if before.entries[path] and not _entry(root + path):
            return f"emptied {path}"
    for path in before.hashed:
        if _lacks(root + path, (before.base | wanted) & now):
            return f"left certificates out of {path}"
    made = reading.read_or_none(root + family.bundle) or b""
    reason = loading.why_not(made, len(bundle.items(made)))
    return f"made a bundle that cannot be used: {reason}" if reason else ""


def _put_back(root: str, family: Family, before: _Before, *, failed: bool) -> None:
    """Put back what a failed refresh changed or took; of one that made the bundle, links that still lead somewhere."""
    path = root + family.bundle
    if failed and before.content and reading.read_or_none(path) != before.content:
        descriptor = os.open(path + SAVED, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _restore(descriptor, before.status)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(path + SAVED, path)
        _sync_directory(os.path.dirname(path))
    for name, was in before.entries.items():
        directory = os.path.dirname(root + name)
        now = _entry(root + name)
        leads = isinstance(was, str) and os.path.exists(root + was if was.startswith("/") else f"{directory}/{was}")
        if was and now != was and (failed or (now is None and leads)):
            _put_back_entry(root + name, was)


def _put_back_entry(path: str, was: bytes | str) -> None:
    """Put back a file or a link, into a directory that its tool makes read-only for its owner too."""
    directory = os.path.dirname(path)
    mode = os.stat(directory).st_mode
    os.chmod(directory, mode | stat.S_IRWXU)
    try:
        if isinstance(was, bytes):
            replace(path, was, writer.ROOT, durable=False)
        else:
            unlink(path)
            os.symlink(was, path)
    finally:
        os.chmod(directory, mode)


def _settle(root: str, family: Family, state: bytes, why: str) -> None:
    """Turn the marker: this refresh is over, and would do no more if it was repeated."""
    content, tool = reading.read_or_none(root + family.bundle) or b"", identity_of_tool(root, family)
    replace(root + family.state, plans.settled(state, content, tool, why), writer.ROOT)


def run(command: Sequence[str], seconds: float) -> tuple[bool, str]:
    """Run a program in a process group of its own, to its end or for so long; what it leaves in the group is killed.

    Return whether it ended with 0, and its exit status with the end of what it said.
    """
    import subprocess
    from threading import Timer

    with loading.private_file() as output:
        try:
            process = subprocess.Popen(  # noqa: S603 - from a list, a path of root's
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=_TOOL_ENVIRON,
                cwd="/",
                umask=0o022,
                start_new_session=True,
                pass_fds=_inherited,
            )
        except OSError as error:
            return False, f"it cannot be run: {_reason(error)}"
        signals.running.append(process.pid)
        started = time.monotonic()
        limit = Timer(seconds, os.killpg, (process.pid, signal.SIGKILL))
        limit.start()
        try:
            log.prepare()  # while the tool works: there will be something to tell
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # its end, not that of a child with its output
        finally:
            limit.cancel()
            limit.join()
            os.killpg(process.pid, signal.SIGKILL)  # the tool itself is not reaped yet: nobody else has its number
            signals.running.remove(process.pid)
            status = process.wait()
        late = status == -signal.SIGKILL and time.monotonic() - started >= seconds
        output.seek(max(0, output.seek(0, os.SEEK_END) - _SAID))
        said = output.read().decode("ascii", "backslashreplace").strip()
        return status == 0, f"{f'killed after {seconds} s' if late else f'exit {status}'} {said}".strip()


_ACTIONS = {"mkdir": _mkdir, "write": _write, "remove": _remove, "refresh": _refresh}
