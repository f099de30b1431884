"""`ca-shim status`: every CA in every store, for the container as it is. Only looks.

The stores are those that the application reads, whoever asks: a session of `docker exec` has neither its user nor its
variables, and a readiness probe is such a session.
"""

from __future__ import annotations

import json
import os
import sys

from shim import apply, bundle, certs, families, host, plan, preview, reconcile, sources, verify
from shim.certs import timestamp
from shim.log import printable
from shim.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from shim.config import Config
    from shim.reconcile import Decision
    from shim.snapshot import Snapshot

WELL, MISSING, BROKEN = 0, 1, 2  # exit codes
_NONE = frozenset[str]()
INSTALLED, BY_OVERRIDE, ABSENT, WITHDRAWN, REFUSED = "installed", "by override", "missing", "withdrawn", "refused"


class Store(Record):
    """A bundle that some client of the application reads, and how it was found."""

    path: str
    found: str
    loads: bool
    content: bytes
    replaced_by: str = ""  # the bundle that a variable points its clients to instead
    takes: frozenset[str] = frozenset()  # fingerprints that it should hold
    refuses: frozenset[str] = frozenset()  # wanted ones that its own tool leaves out
    ours: frozenset[str] = frozenset()  # that it holds because of us


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

    @property
    def code(self) -> int:
        """The exit code: the worst of all states."""
        if not all(store.loads for store in self.stores):
            return BROKEN
        states = {state for each in self.authorities for state in each.states.values()}
        return MISSING if states & {ABSENT, WITHDRAWN} else WELL


def look(config: Config, environ: Mapping[str, str], now: float) -> Status:
    """Look at every store as the application sees it. Changes nothing, and raises nothing for what is broken."""
    intake = sources.read(config.root, config.sources)
    snapshot = host.look(config, environ, (), host.uid_of_application(config.root))
    decision = reconcile.decide(intake, snapshot, now)
    application = preview.application(environ, snapshot, plan.make(decision.wanted, snapshot, {}), config.root)
    stores = tuple(_stores(config.root, snapshot, decision, application))
    notes = tuple({"event": note.event, **dict(note.details)} for note in decision.notes)
    authorities = tuple(_authorities(stores, decision, snapshot))
    places = tuple(source.path for source in config.sources)
    return Status(stores, authorities, tuple(_session(environ, application)), places, notes)


def _stores(root: str, snapshot: Snapshot, decision: Decision, application: Mapping[str, str]) -> Iterator[Store]:
    """Give the system's store, each certifi, then every bundle that a variable points to, and the rest of ours."""
    wanted, ours = plan.fingerprints(decision.wanted), verify.ours(snapshot)
    here = plan.fingerprints(plan.wanted_in(decision.wanted, snapshot.os))
    pointed = {row: application[row.name] for row in families.VARIABLES if application.get(row.name)}
    instead = {row.when: path for row, path in pointed.items()}
    if path := snapshot.os.path:
        store = _store(root, path, "operating system")._replace(takes=here, refuses=wanted - here)
        yield store._replace(replaced_by=instead.get("os overridden", ""), ours=ours[path])
    for certifi in snapshot.certifi:
        store = _store(root, certifi.path, certifi.found)._replace(takes=wanted, ours=ours.get(certifi.path, _NONE))
        yield store._replace(replaced_by=instead.get("python overridden", ""))
    known = {snapshot.os.path, *(store.path for store in snapshot.certifi)}
    for path in (each for each in dict.fromkeys(pointed.values()) if each not in known):
        rows = [row for row, value in pointed.items() if value == path]
        store = _store(root, path, ", ".join(row.name for row in rows))
        yield store._replace(takes=here if rows[0].base == "os" else wanted, ours=_marked(store))
    for directory in snapshot.directories:
        paths = (f"{directory.path}/{name}" for name, _ in directory.files if name.endswith(".pem"))
        for path in (each for each in paths if each not in pointed.values()):
            store = _store(root, path, "an override bundle that no variable points to")
            yield store._replace(takes=wanted & bundle.fingerprints(store.content), ours=_marked(store))


def _store(root: str, path: str, found: str) -> Store:
    content = host.read_bundle(root + path) or b""
    held = bundle.fingerprints(content)
    try:
        if not os.path.isdir(root + path):
            apply.must_load(root + path, len(held))
    except (OSError, apply.StoreError):
        held = _NONE
    return Store(path, found, bool(held), content)


def _marked(store: Store) -> frozenset[str]:
    return frozenset(item.sha256 for item in bundle.marked(store.content))


def _authorities(stores: tuple[Store, ...], decision: Decision, snapshot: Snapshot) -> Iterator[Authority]:
    """Give the CAs that are wanted, and then those that are in some store because of us and are not."""
    held = {store.path: bundle.fingerprints(store.content) for store in stores}
    wanted = {each.sha256: each for each in decision.wanted}
    gone = {each.sha256: each for each in certs.parse(verify.installed(snapshot)).certificates}
    lingering = {sha256 for store in stores for sha256 in store.ours & held[store.path]} - wanted.keys()
    for sha256 in (*wanted, *sorted(lingering)):
        states = {store.path: state for store in stores if (state := _state(sha256, store, held))}
        each = wanted.get(sha256) or gone.get(sha256)
        if each:
            file = each.file if sha256 in wanted else ""
            yield Authority(each.subject, sha256, timestamp(each.not_after), file, states)
        else:
            yield Authority("(unknown)", sha256, "", "", states)


def _state(sha256: str, store: Store, held: Mapping[str, frozenset[str]]) -> str:
    """Give the state of a CA in a store, "" when it has no business there."""
    present = sha256 in held[store.path]
    if sha256 in store.refuses:
        return INSTALLED if present else REFUSED
    if sha256 in store.takes:
        return INSTALLED if present else BY_OVERRIDE if sha256 in held.get(store.replaced_by, frozenset()) else ABSENT
    if not present or sha256 not in store.ours:
        return ""
    hidden = store.replaced_by and sha256 not in held.get(store.replaced_by, frozenset())
    return f"{WITHDRAWN} by override" if hidden else WITHDRAWN


def _session(environ: Mapping[str, str], application: Mapping[str, str]) -> Iterator[str]:
    """Give the names of the variables that this session has otherwise than the application, which is what counts."""
    names = [row.name for row in families.VARIABLES]
    return (name for name in names if application.get(name) and application[name] != environ.get(name))


def show(status: Status, *, as_json: bool) -> None:
    """Print the status as a table of CAs and stores, or as one JSON document."""
    if as_json:
        sys.stdout.write(json.dumps(document(status), indent=2) + "\n")
    else:
        sys.stdout.write("".join(f"{printable(line)}\n" for line in _lines(status)))


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
        yield f'to have them here: eval "$({families.COMMAND} env)"'
    yield ""
    yield _verdict(status)


def _table(authorities: tuple[Authority, ...], numbers: Mapping[str, str]) -> Iterator[str]:
    """Give a row for each CA, and a column for each store by its number."""
    columns = [[number, *(each.states.get(path, "") for each in authorities)] for path, number in numbers.items()]
    columns.append(["EXPIRES", *(each.expires for each in authorities)])
    columns.append(["SHA-256", *(each.sha256[:12] for each in authorities)])
    padded = [[f"{cell:{max(map(len, column)) + 2}}" for cell in column] for column in columns]
    names = ["CA (FILE)", *(f"{each.subject} ({each.file or 'no longer mounted'})" for each in authorities)]
    yield from map("".join, zip(*padded, names, strict=True))


def _verdict(status: Status) -> str:
    if status.code == WELL and not status.authorities:
        return f"no CA is mounted: the places are {', '.join(status.sources)}"
    return _VERDICTS[status.code] + (", but for the lines above" if status.code == WELL and status.notes else "")


_VERDICTS = {
    WELL: "all well",
    MISSING: "something is missing: `ca-shim plan` tells what a start would change, `ca-shim install` changes it",
    BROKEN: "a store does not load: restore it from its package, or correct its variable; then `ca-shim install`",
}
