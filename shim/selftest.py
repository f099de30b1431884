"""`ca-shim selftest`: a throwaway CA, TLS servers on loopback, every client before and after; all undone afterwards.

As root in the image the stores are changed in place, as a start would change them; elsewhere a temporary directory
holds override bundles and nothing of the machine is touched. The keys exist in memory only. A selftest that is killed
leaves a CA that is in no source, so the next start, or selftest, removes it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import sys
import tempfile
import time
from contextlib import contextmanager, suppress

from shim import apply, bundle, certs, clients, families, host, probe, reconcile, signals, throwaway, verify
from shim.answers import ABSENT, ACCEPTED, REFUSED, UNUSABLE, Answer, Server
from shim.errors import NotUpdatedError, UsageError
from shim.log import printable, say
from shim.reconcile import Outcome
from shim.record import Record
from shim.sources import Source
from shim.throwaway import HOST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import FrameType, TracebackType
    from typing import Self

    from shim.accounts import Account
    from shim.config import Config
    from shim.snapshot import Snapshot

_SECONDS = 10.0  # a client
_PREFIX = "ca-shim-selftest-"
_MODE = 0o711  # of our directory: the clients' user must reach the bundles in it
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_EXPECTED = (REFUSED, ACCEPTED, REFUSED)


class Row(Record):
    """What one client came to: before and after the CA was installed, and at a server of another CA afterwards."""

    client: str
    before: Answer
    after: Answer
    unknown: Answer

    @property
    def good(self) -> bool:
        """Whether it is as it should be; what the user cannot execute is no client of the application's."""
        return self.skipped or (self.before.state, self.after.state, self.unknown.state) == _EXPECTED

    @property
    def skipped(self) -> bool:
        """Whether it could not be tried."""
        return self.before.state == UNUSABLE


class Report(Record):
    """All that was tried."""

    mode: str
    user: str
    stores: tuple[tuple[str, str], ...]  # (bundle, "in place" or "override")
    rows: tuple[Row, ...]
    problems: tuple[str, ...]
    left: tuple[str, ...]  # what is not as it was before

    @property
    def good(self) -> bool:
        """Whether every client is served by this image, and all is as it was."""
        tried = any(not row.skipped for row in self.rows)
        return tried and all(row.good for row in self.rows) and not self.problems and not self.left


def main(settings: Config, environ: Mapping[str, str], *, as_json: bool) -> int:
    """Prove every client found on this machine. Return 0 when all is well, else 1, or what shells do after a signal."""
    if settings.root:
        raise UsageError("selftest tries the clients of the running system: leave --root out")
    account = clients.runs_as(settings)
    with _alone(settings, environ), _Interruption() as interruption, _directory(environ) as directory:
        report = _try(_bench(settings, environ, account, directory), interruption)
    say(json.dumps(document(report), indent=2) if as_json else text(report))
    return 128 + interruption.number if interruption.number else 0 if report.good else 1


# --- what is tried ----------------------------------------------------------------------------------------------------


class Bench(Record):
    """Where and how it is tried; `config` has no sources."""

    settings: Config
    config: Config
    environ: dict[str, str]
    account: Account | None
    directory: str
    before: Snapshot


def _bench(settings: Config, environ: Mapping[str, str], account: Account | None, directory: str) -> Bench:
    before = host.look(settings, environ, ())
    alone = not any(each.files for each in before.directories)  # else an application reads bundles of ours
    config = settings._replace(sources=(), in_place=_is_in_place(settings), alone=alone, locked=True)
    if not config.in_place:
        config = config._replace(bundle_dir=f"{directory}/bundles")
    installed = certs.parse(verify.installed(before)).certificates
    left = frozenset(each.sha256 for each in installed if throwaway.is_made_here(each.subject))
    if left:  # by a selftest that was killed
        reconcile.reconcile(config, environ, (), time.time(), may_go=left)
        before = host.look(settings, environ, ())
    direct = {"NO_PROXY": HOST, "no_proxy": HOST}
    return Bench(settings, config, {**environ, **direct}, account, directory, before)


def _is_in_place(settings: Config) -> bool:
    return os.geteuid() == 0 and sys.executable.startswith(families.HOME + "/") and not settings.off


@contextmanager
def _alone(settings: Config, environ: Mapping[str, str]) -> Iterator[None]:
    """In place: until this process ends, no other selftest runs, and a start of any user waits before it writes."""
    directories = host.look(settings, environ, ()).directories if _is_in_place(settings) else ()
    directory = next((each.path for each in directories if each.writable), "")
    if not directory:
        yield
        return
    _lock(directory, "selftest", 0, "another selftest is running here: run it again when that one has ended")
    _lock(directory, host.LOCK, apply.LOCK_SECONDS, "a start is still writing: run it again when that has ended")
    apply.unlink(f"{directory}/{apply.SELFTEST}")  # any user may hold that of a selftest that was killed
    os.fchmod(_lock(directory, apply.SELFTEST, 0, "another selftest is running here"), 0o444)  # once it is locked
    try:
        yield
    finally:
        apply.unlink(f"{directory}/{apply.SELFTEST}")


def _lock(directory: str, name: str, seconds: float, held: str) -> int:
    try:
        return apply.lock(apply.open_lock(directory, name), seconds)
    except apply.StoreError as error:
        raise NotUpdatedError(held) from error
    except OSError as error:
        raise NotUpdatedError(f"{directory} cannot be written ({error.strerror}): make room there") from error


def _try(bench: Bench, interruption: _Interruption) -> Report:
    trusted, unknown = throwaway.site(sends_intermediate=True), throwaway.site(sends_intermediate=False)
    with modes_kept(_written_by_the_tool(bench)), throwaway.serving([trusted.context, unknown.context]) as ports:
        found = clients.find(bench.environ, [store.path for store in bench.before.certifi])
        asking = _Asking(found, [Server(HOST, port) for port in ports], bench.account, interruption)
        try:
            first = _reconcile(bench, (), trusted.root)
            rows, outcome = _compare(bench, asking, _applied(bench.environ, first), trusted.root)
        finally:
            left = _undo(bench, trusted.root)
    account = bench.account
    user = f"{account.name} ({account.uid})" if account else f"uid {os.geteuid()}"
    problems = [f"{note.event}: {dict(note.details).get('reason')}" for note in outcome.problems]
    problems += [f"stopped by {signal.Signals(interruption.number).name}"] if interruption.number else []
    mode = "in place" if bench.config.in_place else "by override, nothing of this machine is changed"
    return Report(mode, user, outcome.stores, rows, tuple(problems), left)


def _written_by_the_tool(bench: Bench) -> tuple[str, ...]:
    family = bench.before.os.family
    may_change = bench.config.in_place and not bench.before.os.blocked
    return (family.bundle, *family.outputs) if family and may_change else ()


@contextmanager
def modes_kept(paths: Sequence[str]) -> Iterator[None]:
    """Return files their owner and mode after the block: a refresh tool gives what it writes its own."""
    before = {path: _owner_and_mode(path) for path in paths if os.path.isfile(path)}
    try:
        yield
    finally:
        for path, was in before.items():
            if os.path.isfile(path) and _owner_and_mode(path) != was:
                os.chown(path, *was[:2])
                os.chmod(path, was[2])


def _owner_and_mode(path: str) -> tuple[int, int, int]:
    status = os.stat(path)
    return status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)


def _compare(bench: Bench, asking: _Asking, environ: Mapping[str, str], root: bytes) -> tuple[tuple[Row, ...], Outcome]:
    """Ask every client before and after; a signal leaves out what has not begun."""
    before = asking.all(0, environ)
    outcome = _install(bench, root) if before else Outcome({})
    application = _applied(bench.environ, outcome)
    after = asking.all(0, application) if before else {}
    unknown = asking.all(1, application) if after else {}
    rows = (Row(name, before[name], after[name], answer) for name, answer in unknown.items())
    return tuple(row for row in rows if row.before.state != ABSENT), outcome


def _install(bench: Bench, root: bytes) -> Outcome:
    os.mkdir(f"{bench.directory}/ca")
    _write(f"{bench.directory}/ca/ca.pem", root)
    return _reconcile(bench, (Source(f"{bench.directory}/ca"),), root)


def _reconcile(bench: Bench, sources: tuple[Source, ...], root: bytes) -> Outcome:
    """Install what is in `sources`; nothing real leaves a store, whatever is mounted meanwhile."""
    config = bench.config._replace(sources=sources)
    return reconcile.reconcile(config, bench.environ, (), time.time(), may_go=bundle.fingerprints(root))


def _applied(environ: Mapping[str, str], outcome: Outcome) -> dict[str, str]:
    """Return the environment of an application that is started now."""
    kept = {name: value for name, value in environ.items() if name not in outcome.restored}
    restored = {name: value for name, value in outcome.restored.items() if value is not None}
    return {**kept, **restored, **outcome.variables}


def _undo(bench: Bench, root: bytes) -> tuple[str, ...]:
    """Withdraw the throwaway CA and return the stores that are not as before."""
    _reconcile(bench, (), root)
    after = host.look(bench.settings, bench.environ, ())
    return tuple(differing(bench.before, after, bundle.fingerprints(root)))


def differing(before: Snapshot, after: Snapshot, thrown: frozenset[str]) -> Iterator[str]:
    """Return the paths of stores that are not as before, or hold a certificate of `thrown`. Pure."""
    had, have = verify.holdings(before), verify.holdings(after)
    contents = {store.path: store.content for store in before.certifi}
    for store in after.certifi:
        if contents.pop(store.path, None) != store.content:
            yield store.path
    yield from contents
    if before.os.anchors != after.os.anchors or after.os.state not in (b"", before.os.state):
        yield "the operating system's anchors"
    for path in had.keys() | have.keys():
        if had.get(path) != have.get(path) or thrown & have.get(path, frozenset()):
            yield path


class _Asking:
    """Asks all clients the same, until a signal comes."""

    def __init__(
        self,
        found: tuple[clients.Client, ...],
        servers: list[Server],
        account: Account | None,
        interruption: _Interruption,
    ) -> None:
        self._found = found
        self._servers = servers
        self._account = account
        self._interruption = interruption

    def all(self, number: int, environ: Mapping[str, str]) -> dict[str, Answer]:
        """Return every client's answer by its name, none after a signal."""
        server, answers = self._servers[number], {}
        for client in self._found:
            with self._interruption.killing():
                answers[client.name] = clients.ask(client, server, environ, self._account, _SECONDS)
            if self._interruption.number:
                return {}
        go = probe.ask_go(server, environ, account=self._account)
        return {**answers, go.client: go.answer}


class _Interruption:
    """Within the block a signal is remembered instead of ending us: what was installed has to be undone first."""

    def __init__(self) -> None:
        self.number = 0
        self._kills = False
        self._before: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.getsignal(number) for number in _SIGNALS}
        for number in (number for number, handler in self._before.items() if handler is not signal.SIG_IGN):
            signal.signal(number, self._remember)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.number = number
        for client in signals.running if self._kills else ():
            clients.kill(client)

    @contextmanager
    def killing(self) -> Iterator[None]:
        """Within the block a signal also ends what runs: a client, never a tool that is changing a store."""
        self._kills = True
        try:
            yield
        finally:
            self._kills = False


@contextmanager
def _directory(environ: Mapping[str, str]) -> Iterator[str]:
    """Return a directory of our own that others can pass through and nobody else exchange; it is gone afterwards."""
    temporary = environ.get("TMPDIR") or "/tmp"  # noqa: S108 - used only if nobody else can exchange what is in it
    names = sorted(families.BUNDLE_DIRECTORIES, key=lambda name: "{uid}" not in name)  # those for everybody first
    parents = (os.path.dirname(name).replace("{tmp}", temporary) for name in names)
    directory = next(filter(None, map(_made_in, dict.fromkeys(parents))), "")
    if not directory:
        raise NotUpdatedError("no directory for temporary files is writable and safe: mount a tmpfs on /tmp")
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _made_in(parent: str) -> str:
    if not host.is_safe_directory(parent, os.geteuid()):
        return ""
    try:
        _sweep(parent)
        directory = tempfile.mkdtemp(prefix=_PREFIX, dir=parent)
        apply.lock(os.open(directory, _DIRECTORY), 0)  # until this process ends
        os.chmod(directory, _MODE)  # last: others remove what has this mode and no lock
    except OSError:
        return ""
    return directory


def _sweep(parent: str) -> None:
    """Remove the directories of selftests that were killed: those that nobody holds locked any more."""
    for path in (f"{parent}/{name}" for name in os.listdir(parent) if name.startswith(_PREFIX)):
        with suppress(OSError, apply.StoreError):
            status = os.lstat(path)
            if (status.st_uid, status.st_mode) == (os.geteuid(), stat.S_IFDIR | _MODE):
                descriptor = apply.lock(os.open(path, _DIRECTORY), 0)
                shutil.rmtree(path, ignore_errors=True)
                os.close(descriptor)


def _write(path: str, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)


# --- what is printed --------------------------------------------------------------------------------------------------


def text(report: Report) -> str:
    """Render a report for people; what clients said is escaped. Pure."""
    return "\n".join(map(printable, _lines(report)))


def _lines(report: Report) -> Iterator[str]:
    width = max(len(name) for name in ("client", *(row.client for row in report.rows))) + 2
    yield f"{report.mode}; clients run as {report.user}"
    yield from (f"{path}: {how}" for path, how in report.stores)
    yield f"{'client':{width}}{'before':16}{'after':16}unknown CA"
    for row in report.rows:
        states = "".join(f"{answer.state:16}" for answer in (row.before, row.after, row.unknown))
        yield f"{row.client:{width}}{states}{_verdict(row)}"
    for row in report.rows:
        yield from _complaints(row)
    if skipped := [row.client for row in report.rows if row.skipped]:
        yield f"skipped, since this user cannot execute them: {', '.join(skipped)}"
    yield from (f"problem: {problem}" for problem in report.problems)
    yield from (f"not as before: {path}: restart the container, its start removes the rest" for path in report.left)
    if not report.left:
        yield "undone: every store is as it was before"
    yield "good" if report.good else "NOT good: see the lines above; `ca-shim verify URL` asks about a server of yours"


def _verdict(row: Row) -> str:
    return "skipped" if row.skipped else "ok" if row.good else "WRONG"


def _complaints(row: Row) -> Iterator[str]:
    if row.skipped:
        return
    answers = zip(("before", "after", "unknown CA"), (row.before, row.after, row.unknown), _EXPECTED, strict=True)
    for when, answer, expected in answers:
        if answer.state != expected:
            yield f"{row.client}, {when}: {answer.state}, while all is well when it {expected}: {answer.reason}"


def document(report: Report) -> dict[str, object]:
    """Render a report for programs. Pure."""
    rows = [
        {
            "client": row.client,
            "before": row.before._asdict(),
            "after": row.after._asdict(),
            "unknown": row.unknown._asdict(),
            "good": row.good,
            "skipped": row.skipped,
        }
        for row in report.rows
    ]
    return {**report._asdict(), "rows": rows, "good": report.good}
