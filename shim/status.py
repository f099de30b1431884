"""`ca-shim status`: every CA in every store, for the container as it is. Only looks."""

from __future__ import annotations

import json

from shim import application, bundle, certs, families, host, loading, log, plan, preview, receipt, reconcile, verify
from shim.certs import timestamp
from shim.errors import SourceMissingError
from shim.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from shim.application import View
    from shim.config import Config
    from shim.families import Variable
    from shim.snapshot import Snapshot

WELL, MISSING, BROKEN = 0, 1, 2  # exit codes
INSTALLED, BY_OVERRIDE, ABSENT, WITHDRAWN, REFUSED = "installed", "by override", "missing", "withdrawn", "refused"
_UNUSED = ("file.refused", "block.refused", "source.limit", "source.unusable")
_NONE = frozenset[str]()


class Store(Record):
    """A bundle that some client of the application reads, and how it was found."""

    path: str
    found: str
    content: bytes
    loads: bool
    settled: bool  # it is as a start without problems has left it
    replaced_by: str = ""  # the bundle that a variable points its clients to instead
    takes: frozenset[str] = _NONE  # fingerprints that it should hold
    refuses: frozenset[str] = _NONE  # wanted ones that its own tool leaves out
    ours: frozenset[str] = _NONE  # that it holds because of us
    read: bool = True  # some variable or client leads to it


class Authority(Record):
    """One CA, and its state in each store by the store's path."""

    subject: str
    sha256: str
    expires: str
    file: str
    states: Mapping[str, str]


class Status(Record):
    """What is where, what was refused, and what this session has otherwise than the application."""

    stores: tuple[Store, ...]
    authorities: tuple[Authority, ...]
    session: tuple[str, ...]  # variables
    sources: tuple[str, ...]
    notes: tuple[Mapping[str, object], ...]
    unread: bool  # a source is missing, or part of one cannot be read
    change: str  # what makes the stores as they should be, "" when nothing does
    off: bool
    strict: bool = False
    uid: int = 0  # whose the bundles are

    @property
    def settled(self) -> bool:
        """Whether all that is read is as a start without problems has left it: the mounted files may have changed."""
        paths = {store.path for store in self.stores if store.settled}
        return all((store.replaced_by or store.path) in paths for store in self.stores if store.read)

    @property
    def states(self) -> set[str]:
        """All states of all CAs."""
        return {state for each in self.authorities for state in each.states.values()}

    @property
    def lacking(self) -> bool:
        """Whether something mounted is not in a store or cannot be read, or something in a store is not mounted."""
        return self.unread or bool(self.states & {ABSENT, WITHDRAWN})

    @property
    def unused(self) -> bool:
        """Whether something mounted cannot be used, in one store or at all."""
        return REFUSED in self.states or any(note["event"] in _UNUSED for note in self.notes)

    @property
    def code(self) -> int:
        """The exit code. What was mounted after a good start does not make it a bad one, and nor does what is no CA."""
        if not all(store.loads for store in self.stores if store.read):
            return BROKEN
        if self.strict:
            return MISSING if self.lacking or self.unused else WELL
        return MISSING if self.lacking and not self.settled and not self.off else WELL


def look(config: Config, environ: Mapping[str, str], now: float, *, strict: bool = False) -> Status:
    """Look at every store as the application sees it. Changes nothing, and raises nothing for what is broken."""
    view = application.view(config, environ, now)
    stores = tuple(_stores(config.root, view))
    return Status(
        stores=stores,
        authorities=tuple(_authorities(stores, view)),
        session=tuple(_session(environ, view.environ)),
        sources=tuple(source.path for source in config.sources),
        notes=tuple({"event": note.event, **dict(note.details)} for note in view.decision.notes),
        unread=any(note.code == SourceMissingError.code for note in view.decision.notes),
        change=_change_of(config, view),
        off=config.off,
        strict=strict,
        uid=host.uid_of_last_start(config, environ),
    )


def _change_of(config: Config, view: View) -> str:
    if not reconcile.proven(view.decision, view.snapshot, {}).steps:
        return ""
    return application.how_to_install(config, seen=application.started(config, view.snapshot))


class _Facts(Record):
    """What the states follow from."""

    root: str
    snapshot: Snapshot
    wanted: frozenset[str]
    here: frozenset[str]  # wanted, and taken by the operating system's store
    pointed: Mapping[Variable, str]  # the bundle of each variable that the application has
    settled: frozenset[str]


def _stores(root: str, view: View) -> Iterator[Store]:
    """Return the system's store, each certifi, then every bundle that a variable points to, and the rest of ours."""
    facts = _Facts(
        root=root,
        snapshot=view.snapshot,
        wanted=plan.fingerprints(view.decision.wanted),
        here=plan.fingerprints(plan.wanted_in(view.decision.wanted, view.snapshot.os)),
        pointed={row: view.environ[row.name] for row in families.VARIABLES if view.environ.get(row.name)},
        settled=receipt.settled(view.snapshot, root),
    )
    shipped = list(_shipped(facts))
    stores = (*shipped, *_chosen(facts, {store.path for store in shipped}), *_unread(facts))
    for store in stores:
        stays = store.ours if view.decision.may_go is not None else _NONE
        yield store._replace(takes=store.takes | stays)


def _shipped(facts: _Facts) -> Iterator[Store]:
    ours, snapshot = verify.ours(facts.snapshot), facts.snapshot
    instead = {row.when: path for row, path in facts.pointed.items()}
    if path := snapshot.os.path:
        store = _store(path, "operating system", snapshot.os.content, facts)
        store = store._replace(takes=facts.here, refuses=facts.wanted - facts.here, ours=ours[path])
        yield store._replace(replaced_by=instead.get("os overridden", ""))
    for each in snapshot.certifi:
        store = _store(each.path, each.found, each.content, facts)
        store = store._replace(takes=facts.wanted, ours=ours.get(each.path, _NONE))
        yield store._replace(replaced_by=instead.get("python overridden", ""))


def _chosen(facts: _Facts, known: set[str]) -> Iterator[Store]:
    for path in (each for each in dict.fromkeys(facts.pointed.values()) if each not in known):
        rows = [row for row, value in facts.pointed.items() if value == path]
        content = host.bundle_behind(facts.root, rows[0], path) or b""
        store = _store(path, ", ".join(row.name for row in rows), content, facts)
        empty = rows[0].base == "nothing" and store.settled  # it adds to its client's own roots
        takes = facts.here if rows[0].base == "os" else facts.wanted
        yield store._replace(loads=store.loads or empty, takes=takes, ours=_marked(content))


def _unread(facts: _Facts) -> Iterator[Store]:
    for directory in facts.snapshot.directories:
        bundles = {f"{directory.path}/{name}": content for name, content in directory.files if name.endswith(".pem")}
        for path, content in bundles.items():
            held = bundle.fingerprints(content)
            if path not in facts.pointed.values() and held:
                store = _store(path, "an override bundle that no variable points to", content, facts)
                yield store._replace(takes=facts.wanted & held, ours=_marked(content), read=False)


def _store(path: str, found: str, content: bytes, facts: _Facts) -> Store:
    """What was read is what is loaded: OpenSSL would wait for a FIFO, and open what has been exchanged meanwhile."""
    return Store(path, found, content, loading.loads(content), path in facts.settled)


def _marked(content: bytes) -> frozenset[str]:
    return frozenset(item.sha256 for item in bundle.marked(content))


def _authorities(stores: tuple[Store, ...], view: View) -> Iterator[Authority]:
    """Return the CAs that are wanted, and then those that are in some store because of us and are not."""
    held = {store.path: bundle.fingerprints(store.content) for store in stores}
    wanted = {each.sha256: each for each in view.decision.wanted}
    lingering = {sha256 for store in stores for sha256 in store.ours & held[store.path]} - wanted.keys()
    mounted = {each.sha256: each for each in certs.parse(view.intake.files).certificates} if lingering else {}
    parsed = certs.parse(verify.installed(view.snapshot)).certificates if lingering else ()
    gone = {each.sha256: each._replace(file="no longer mounted") for each in parsed}
    for sha256 in (*wanted, *sorted(lingering)):
        states = {store.path: state for store in stores if (state := _state(sha256, store, held))}
        each = wanted.get(sha256) or mounted.get(sha256) or gone.get(sha256)
        if each:
            yield Authority(each.subject, sha256, timestamp(each.not_after), each.file, states)
        else:
            yield Authority("(unknown)", sha256, "", "no longer mounted", states)


def _state(sha256: str, store: Store, held: Mapping[str, frozenset[str]]) -> str:
    """Return the state of a CA in a store, "" when it has no business there."""
    present = sha256 in held[store.path]
    if sha256 in store.refuses:
        return INSTALLED if present else REFUSED
    if sha256 in store.takes:
        return INSTALLED if present else BY_OVERRIDE if sha256 in held.get(store.replaced_by, _NONE) else ABSENT
    if not present or sha256 not in store.ours:
        return ""
    hidden = store.replaced_by and sha256 not in held.get(store.replaced_by, _NONE)
    return f"{WITHDRAWN} by override" if hidden or not store.read else WITHDRAWN


def _session(environ: Mapping[str, str], application: Mapping[str, str]) -> Iterator[str]:
    """Return the names of the variables that this session has otherwise than the application, which is what counts."""
    names = [row.name for row in families.VARIABLES]
    return (name for name in names if application.get(name) and application[name] != environ.get(name))


def show(status: Status, *, as_json: bool) -> None:
    """Print the status as a table of CAs and stores, or as one JSON document."""
    if as_json:
        log.say(json.dumps(document(status), indent=2))
    else:
        log.say(*map(log.printable, _lines(status)))


def document(status: Status) -> dict[str, object]:
    """Render a status for programs. Pure."""
    stores = [
        {"path": each.path, "found": each.found, "loads": each.loads, "replaced_by": each.replaced_by}
        for each in status.stores
    ]
    return {
        "code": status.code,
        "stores": stores,
        "cas": [each._asdict() for each in status.authorities],
        "settled": status.settled,
        "session": list(status.session),
        "refused": list(status.notes),
    }


def _lines(status: Status) -> Iterator[str]:
    numbers = {store.path: str(number) for number, store in enumerate(status.stores, start=1)}
    for store in status.stores:
        instead = f"; clients read {numbers.get(store.replaced_by, store.replaced_by)}" if store.replaced_by else ""
        state = "loads" if store.loads else "DOES NOT LOAD"
        yield f"{numbers[store.path]}  {store.path}  ({store.found}) {state}{instead}"
    if status.authorities:
        yield ""
        yield from _table(status.authorities, numbers)
    if status.notes:
        yield ""
        yield from preview.note_lines(status.notes)
    if status.session:
        yield ""
        yield f"set otherwise for the application than in this session: {', '.join(status.session)}"
        yield f'to have them here, as uid {status.uid}: eval "$({families.COMMAND} env)"'
    yield ""
    yield _verdict(status)


def _table(authorities: tuple[Authority, ...], numbers: Mapping[str, str]) -> Iterator[str]:
    """Return a row for each CA, and a column for each store by its number."""
    columns = [[number, *(each.states.get(path, "") for each in authorities)] for path, number in numbers.items()]
    columns.append(["EXPIRES", *(each.expires for each in authorities)])
    columns.append(["SHA-256", *(each.sha256[:12] for each in authorities)])
    padded = [[f"{cell:{max(map(len, column)) + 2}}" for cell in column] for column in columns]
    names = ["CA (FILE)", *(f"{each.subject} ({each.file})" for each in authorities)]
    yield from map("".join, zip(*padded, names, strict=True))


def _verdict(status: Status) -> str:
    """Return one line that explains the exit code."""
    if status.code != WELL:
        return _why_not_well(status)
    if status.off:
        return "CA_SHIM=off: starts do not look at the stores"
    if status.lacking:
        return f"as the last start left it; what is mounted now asks for something else: {_change(status)}"
    if not status.authorities:
        lines = ", see the lines above" if status.notes else ""
        return f"no CA can be used: the places are {', '.join(status.sources)}{lines}"
    return "all well, except for the lines above" if status.notes else "all well"


def _why_not_well(status: Status) -> str:
    if status.code == BROKEN:
        return "a store does not load: restore it from its package, or correct its variable; then restart"
    if status.lacking:
        missing = status.unread or ABSENT in status.states
        return f"something is {'missing' if missing else 'not as it should be'}: {_change(status)}"
    return "--strict: something that is mounted cannot be used, see the lines above"


def _change(status: Status) -> str:
    return status.change or "`install` here does not change that, see the lines above"
