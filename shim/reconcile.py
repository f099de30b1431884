"""Look, plan, apply, verify: bring every store to what the mounted files ask for."""

from __future__ import annotations

import os

from shim import environ as environ_
from shim import families, host, receipt, sources
from shim.errors import NotUpdatedError
from shim.record import Note, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from shim.certs import Certificate
    from shim.config import Config
    from shim.plan import Plan
    from shim.snapshot import Directory, Snapshot
    from shim.sources import Intake

_MAX_ROUNDS = 10  # stores in place, tidying, overrides for those that failed; as many that waited for another start


class Outcome(Record):
    """What a reconciliation came to: the variables of the application and everything worth telling."""

    variables: Mapping[str, str]
    restored: Mapping[str, str | None] = {}  # variables that a shim before us had set and that are needed no more
    notes: tuple[Note, ...] = ()
    changes: int = 0  # steps carried out
    certificates: int = 0  # accepted
    stores: tuple[tuple[str, str], ...] = ()  # (bundle, "in place", "override" or "not served")
    remembered: bool = False  # nothing changed since a start that verified it all
    known_problems: int = 0  # that it told of

    @property
    def problems(self) -> tuple[Note, ...]:
        """The notes that CA_SHIM_ON_ERROR=stop makes fatal."""
        return tuple(note for note in self.notes if note.code)


class Decision(Record):
    """What is to be trusted, and why not more."""

    wanted: tuple[Certificate, ...]
    notes: tuple[Note, ...]
    until: int
    may_go: frozenset[str] | None = None  # fingerprints that may leave a store; None: what is ours and not wanted
    kept: int = 0  # certificates that are not wanted, and stay


def reconcile(
    config: Config,
    environ: Mapping[str, str],
    command: Sequence[str],
    now: float,
    may_go: frozenset[str] | None = None,
) -> Outcome:
    """Bring every store to what the sources ask for. Killed at any point, the next call converges.

    With nothing to do this reads every file once, writes none, and imports nothing heavy. `may_go` are the only
    certificates, by fingerprint, that may leave a store; None stands for all that are ours and not wanted.
    """
    intake = sources.read(config.root, config.sources)
    snapshot = host.look(config, environ, command)
    if receipt.untouched(intake, snapshot):
        return Outcome({}, environ_.restored(environ, snapshot, {}), remembered=True)
    mounted = receipt.mounted(intake)
    remembered = receipt.find(snapshot.directories, config.root, receipt.key(config, mounted, snapshot), now)
    told = remembered and not (remembered.problems and config.stop)
    if remembered and told and intake.complete and not snapshot.os.unfinished:
        return Outcome(
            variables=remembered.variables,
            restored=environ_.restored(environ, snapshot, remembered.variables),
            certificates=remembered.certificates,
            remembered=True,
            known_problems=remembered.problems,
        )
    decision = decide(config, intake, snapshot, now, may_go)
    del intake  # tens of MiB, perhaps, that nobody needs any more
    return _change(config, environ, command, mounted, snapshot, decision)


def decide(
    config: Config, intake: Intake, snapshot: Snapshot, now: float, may_go: frozenset[str] | None = None
) -> Decision:
    """Decide what to trust. When part of the sources is out of reach, nothing may leave a store."""
    from shim import certs, loading, verify

    parsed = certs.parse(intake.files)
    complete = intake.complete and parsed.complete
    base = (snapshot.os.content, *(store.content for store in snapshot.certifi))
    judged = certs.judge(parsed.certificates, now, base)
    notes = [*intake.notes, *parsed.notes, *judged.notes]
    fits = loading.loadable([each.pem for each in judged.accepted])
    wanted = [each for each, loads in zip(judged.accepted, fits, strict=True) if loads]
    for each in (each for each, loads in zip(judged.accepted, fits, strict=True) if not loads):
        details = each.details(reason="OpenSSL cannot load it", remedy="have it reissued")
        notes.append(Note("block.refused", details, code=65))
    named = intake.named and complete and not parsed.certificates
    excused = not complete and snapshot.after_root
    if config.sources and not (wanted or named or excused):
        notes += _without_any(config, intake)
    kept = 0
    if not complete:
        may_go = frozenset()
        notes = [_excused(note) for note in notes] if excused else notes
        kept = len(frozenset[str]().union(*verify.ours(snapshot).values()) - {each.sha256 for each in wanted})
        if kept:
            reason = "part of the sources cannot be read, and unreadable is not withdrawn"
            details = (("certificates", kept), ("reason", reason), ("remedy", "make the sources readable"))
            notes.append(Note("withdrawal.suspended", details))
    if named:
        reason = "no certificate was found there"
        details = (("file", ":".join(intake.named)), ("reason", reason), ("remedy", "mount CA files"))
        notes.append(Note("source.missing", details, code=66))
    return Decision(tuple(wanted), tuple(notes), judged.until, may_go, kept)


def _without_any(config: Config, intake: Intake) -> Iterator[Note]:
    """Warn when files are mounted and none of them helps; else name what is mounted where nobody looks."""
    if not intake.files and all(note.event == "source.missing" for note in intake.notes):
        yield from sources.elsewhere(config.root, config.sources)
        return
    places = ":".join(source.path for source in config.sources if source.path != families.BAKED)
    reason, remedy = "files are mounted, and no CA of them can be used", f"mount CA certificates on {places}"
    yield Note("source.unusable", (("file", places), ("reason", reason), ("remedy", remedy)))


def _excused(note: Note) -> Note:
    return note._replace(code=0) if note.event == "source.unreadable" else note


def _change(  # noqa: PLR0913, PLR0917 - the one place where everything meets
    config: Config,
    environ: Mapping[str, str],
    command: Sequence[str],
    mounted: str,
    snapshot: Snapshot,
    decision: Decision,
) -> Outcome:
    from shim import apply, report

    first, failed, changes = snapshot, dict[str, str](), 0
    for _ in range(_MAX_ROUNDS):
        planned = proven(decision, snapshot, failed)
        if not planned.steps:
            break
        lock = "" if config.locked else _lock_directory(planned, snapshot)
        done = apply.carry_out(planned, config.root, lock, [e.path for e in snapshot.directories if not e.writable])
        if done is not None:
            changes += len(planned.steps)
            failed.update(done)
        snapshot = host.look(config, environ, command)
    notes = (
        *decision.notes,
        *report.changes(decision.wanted, first, snapshot, planned, failed),
        *report.unfinished(planned),
    )
    outcome = Outcome(
        variables=_existing(planned.variables, config.root, failed),
        restored=environ_.restored(environ, first, planned.variables),
        notes=notes,
        changes=changes,
        certificates=len(decision.wanted) + decision.kept,
        stores=report.served(planned),
    )
    if not decision.may_go:  # else it is no start, and leaves everything as it was
        _remember(config, mounted, snapshot, outcome, decision)
    return outcome


def proven(decision: Decision, snapshot: Snapshot, failed: dict[str, str]) -> Plan:
    """Plan only what OpenSSL loads, asked of the bytes of every bundle before anything is written.

    Of the bases of our bundles it leaves out what does not load. A store, or a bundle, that does not load for another
    reason is added to `failed`.
    """
    from shim import bundle, loading, plan

    refused, known = frozenset[str](), dict[bytes, str]()
    while True:
        planned = plan.make(decision.wanted, snapshot, failed, decision.may_go, refused)
        steps = [step for step in planned.steps if step.pem]
        known |= {each.content: loading.why_not(each.content, each.pem) for each in steps if each.content not in known}
        wrong = [step for step in steps if known[step.content]]
        if not wrong:
            return planned
        items = {item for step in wrong if step in planned.override for item in bundle.items(step.content)}
        pems = [item.pem for item in items]
        loads = zip(items, loading.loadable(pems), strict=True)
        bad = frozenset(item.sha256 for item, good in loads if not good)
        failed |= {step.path: known[step.content] for step in wrong if step not in planned.override or bad <= refused}
        refused |= bad


def _existing(variables: Mapping[str, str], root: str, failed: Mapping[str, str]) -> dict[str, str]:
    """Leave out what points to nothing, or to what an earlier start has left: its step was not carried out."""
    return {name: path for name, path in variables.items() if path not in failed and os.path.exists(root + path)}


def _lock_directory(planned: Plan, snapshot: Snapshot) -> str:
    """Choose where to lock: where the override bundles go, else where they were."""
    writable = {each.path: each for each in snapshot.directories if each.writable}
    if planned.directory in writable:
        return planned.directory
    return next((path for path, each in writable.items() if each.exists), next(iter(writable), ""))


def _remember(config: Config, mounted: str, snapshot: Snapshot, outcome: Outcome, decision: Decision) -> None:
    """Leave a receipt beside the override bundles, unless a source or a store may do better next time."""
    from shim import apply, writer

    newest = receipt.Receipt(
        key=receipt.key(config, mounted, snapshot),
        until=decision.until,
        certificates=outcome.certificates,
        problems=len(outcome.problems),
        variables=dict(outcome.variables),
        stores=receipt.digests(snapshot),
    )
    failed = any(note.code == NotUpdatedError.code for note in outcome.problems)
    kept = None if failed or decision.may_go is not None else _receipt_directory(mounted, snapshot)
    for directory in (each for each in snapshot.directories if each.writable):
        path = f"{config.root}{directory.path}/{host.RECEIPT}"
        try:
            if directory is kept:
                with apply.locked(os.path.dirname(path), 0):
                    apply.replace(path, receipt.render(newest, receipt.read(path)), writer.myself())
            elif directory.exists:
                apply.unlink(path)
        except (OSError, apply.StoreError):
            continue


def _receipt_directory(mounted: str, snapshot: Snapshot) -> Directory | None:
    """Choose where the bundles are, else what exists; what is mounted and cannot be used is worth a new directory."""
    writable = [each for each in snapshot.directories if each.writable and (each.exists or mounted)]
    return min(writable, key=lambda each: (not each.files, not each.exists), default=None)
