"""Look, plan, apply, verify: bring every store to what the mounted files ask for."""

from __future__ import annotations

from shim import environ as environ_
from shim import families, host, receipt, sources
from shim.record import Note, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from shim.certs import Certificate
    from shim.config import Config
    from shim.plan import Plan
    from shim.snapshot import Snapshot
    from shim.sources import Intake

_MAX_ROUNDS = 5  # stores in place, tidying, overrides for those that failed, and one in reserve


class Outcome(Record):
    """What a reconciliation came to: the variables of the application and everything worth telling."""

    variables: Mapping[str, str]
    restored: Mapping[str, str | None] = {}  # variables that a shim before us had set and that are needed no more
    notes: tuple[Note, ...] = ()
    changes: int = 0  # steps carried out
    certificates: int = 0  # accepted
    stores: tuple[tuple[str, str], ...] = ()  # (bundle, "in place" or "override")
    remembered: bool = False  # nothing changed since a start that verified it all

    @property
    def problems(self) -> tuple[Note, ...]:
        """The notes that CA_SHIM_ON_ERROR=stop makes fatal."""
        return tuple(note for note in self.notes if note.code)


class Decision(Record):
    """What is to be trusted, and why not more."""

    wanted: tuple[Certificate, ...]
    notes: tuple[Note, ...]
    until: int


def reconcile(config: Config, environ: Mapping[str, str], command: Sequence[str], now: float) -> Outcome:
    """Bring every store to what the sources ask for. Killed at any point, the next call converges.

    With nothing to do this reads every file once, writes none, and imports nothing heavy.
    """
    intake = sources.read(config.root, config.sources)
    snapshot = host.look(config, environ, command)
    if receipt.untouched(intake, snapshot):
        return Outcome({}, remembered=True)
    remembered = receipt.find(snapshot.directories, config.root, receipt.key(config, intake, snapshot), now)
    if remembered and intake.complete:
        restored = environ_.restored(environ, snapshot, remembered.variables)
        return Outcome(remembered.variables, restored, certificates=remembered.certificates, remembered=True)
    return _change(config, environ, command, intake, snapshot, decide(config, intake, snapshot, now))


def decide(config: Config, intake: Intake, snapshot: Snapshot, now: float) -> Decision:
    """Decide what to trust. When part of the sources is out of reach, what is installed stays wanted."""
    from shim import apply, certs, verify

    parsed = certs.parse(intake.files)
    base = (snapshot.os.content, *(store.content for store in snapshot.certifi))
    judged = certs.judge(parsed.certificates, now, base)
    notes = [*intake.notes, *parsed.notes, *judged.notes]
    fits = apply.loadable([each.pem for each in judged.accepted])
    wanted = [each for each, loads in zip(judged.accepted, fits, strict=True) if loads]
    for each in (each for each, loads in zip(judged.accepted, fits, strict=True) if not loads):
        details = each.details(reason="OpenSSL cannot load it", remedy="have it reissued")
        notes.append(Note("block.refused", details, code=65))
    named = intake.named and intake.complete and not parsed.certificates
    if not wanted and not named:
        notes += _without_any(config, intake)
    if not intake.complete:
        notes = [_excused(note) for note in notes] if _served_by_root(snapshot) else notes
        have = {each.sha256 for each in wanted}
        kept = [each for each in certs.parse(verify.installed(snapshot)).certificates if each.sha256 not in have]
        wanted += kept
        if kept:
            reason = "part of the sources cannot be read, and unreadable is not withdrawn"
            details = (("certificates", len(kept)), ("reason", reason), ("remedy", "make the sources readable"))
            notes.append(Note("withdrawal.suspended", details))
    if named:
        reason = "no certificate was found there"
        details = (("file", ":".join(intake.named)), ("reason", reason), ("remedy", "mount CA files"))
        notes.append(Note("source.missing", details, code=66))
    return Decision(tuple(wanted), tuple(notes), judged.until)


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


def _served_by_root(snapshot: Snapshot) -> bool:
    """Say whether a start as root has been here: what is out of our reach is then no problem, it was read before us."""
    return any(each.files and not each.writable for each in snapshot.directories)


def _change(  # noqa: PLR0913, PLR0917 - the one place where everything meets
    config: Config,
    environ: Mapping[str, str],
    command: Sequence[str],
    intake: Intake,
    snapshot: Snapshot,
    decision: Decision,
) -> Outcome:
    from shim import apply, plan, report

    found, snapshot = snapshot, with_loadable_settings(snapshot)
    first, failed, changes = snapshot, dict[str, str](), 0
    for _ in range(_MAX_ROUNDS):
        planned = plan.make(decision.wanted, snapshot, failed)
        if not planned.steps:
            break
        changes += len(planned.steps)
        failed.update(apply.carry_out(planned, config.root, _lock_directory(planned, snapshot)))
        found = host.look(config, environ, command)
        snapshot = with_loadable_settings(found)
    notes = (
        *decision.notes,
        *report.changes(decision.wanted, first, snapshot, planned, failed),
        *report.unfinished(planned),
    )
    outcome = Outcome(
        variables=_existing(planned.variables, config.root) if planned.steps else planned.variables,
        restored=environ_.restored(environ, first, planned.variables),
        notes=notes,
        changes=changes,
        certificates=len(decision.wanted),
        stores=tuple(
            (store.path, "override" if store.override else "in place") for store in planned.stores if store.path
        ),
    )
    _remember(config, intake, found, outcome, decision.until)
    return outcome


def _existing(variables: Mapping[str, str], root: str) -> dict[str, str]:
    """Leave out what points to nothing: the last steps were not carried out."""
    from os.path import isfile

    return {name: path for name, path in variables.items() if isfile(root + path)}


def with_loadable_settings(snapshot: Snapshot) -> Snapshot:
    """Leave out of the bundles that somebody chose what OpenSSL cannot load: merging must not spread the damage."""
    settings = (each._replace(content=_loadable(each.content)) if each.content else each for each in snapshot.settings)
    return snapshot._replace(settings=tuple(settings))


def _loadable(content: bytes) -> bytes:
    from shim import apply, bundle

    pems = [item.pem for item in bundle.items(content)]
    return b"".join(pem for pem, loads in zip(pems, apply.loadable(pems), strict=True) if loads)


def _lock_directory(planned: Plan, snapshot: Snapshot) -> str:
    """Choose where to lock: where the override bundles go, else where they were."""
    writable = {each.path: each for each in snapshot.directories if each.writable}
    if planned.directory in writable:
        return planned.directory
    return next((path for path, each in writable.items() if each.exists), next(iter(writable), ""))


def _remember(config: Config, intake: Intake, snapshot: Snapshot, outcome: Outcome, until: int) -> None:
    """Leave a receipt beside the override bundles when all went well; failing at that only costs time."""
    from shim import apply, writer

    ours = [each for each in snapshot.directories if each.exists and each.writable]
    kept = next((each for each in ours if each.files), None) if not outcome.problems else None
    newest = receipt.Receipt(
        key=receipt.key(config, intake, snapshot),
        until=until,
        certificates=outcome.certificates,
        variables=dict(outcome.variables),
        stores=receipt.digests(snapshot),
    )
    for directory in ours:
        path = f"{config.root}{directory.path}/{host.RECEIPT}"
        try:
            if directory is kept:
                apply.replace(path, receipt.render(newest, receipt.read(path)), writer.myself())
            else:
                apply.unlink(path)
        except OSError:
            continue
