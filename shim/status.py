"""`ca-shim status`: every CA in every store, for the container as it is. Only looks."""

from __future__ import annotations

import json
import sys

from shim import apply, bundle, families, host, reading, reconcile, sources, verify
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
_BAD = ("missing", "withdrawn", "broken", "missing file", "hides the CAs")


class Row(Record):
    """One CA in one store, or the state of a store or variable itself (`ca` is then "")."""

    ca: str
    sha256: str
    expires: str
    file: str
    place: str
    found: str  # how the place was found
    state: str


class Status(Record):
    """What is where, and what was refused."""

    rows: tuple[Row, ...]
    notes: tuple[Mapping[str, object], ...]

    @property
    def code(self) -> int:
        """The exit code: the worst of all rows."""
        states = {row.state for row in self.rows}
        if "broken" in states:
            return BROKEN
        return MISSING if states & set(_BAD) else WELL


def look(config: Config, environ: Mapping[str, str], now: float) -> Status:
    """Look at every store as the application sees it, whoever asks: the override bundles are those of pid 1's user."""
    uid = host.uid_of_application(config.root)
    intake = sources.read(config.root, config.sources)
    snapshot = host.look(config, environ, (), uid)
    decision = reconcile.decide(intake, snapshot, now)
    rows = (
        *_stores(config.root, snapshot),
        *_authorities(decision, snapshot),
        *_variables(environ, decision),
    )
    return Status(rows, tuple({"event": note.event, **dict(note.details)} for note in decision.notes))


def _stores(root: str, snapshot: Snapshot) -> Iterator[Row]:
    for path, found in _places(snapshot).items():
        yield Row("", "", "", "", path, found, "loads" if _loads(root + path) else "broken")


def _places(snapshot: Snapshot) -> dict[str, str]:
    places = {snapshot.os.path: "operating system"} if snapshot.os.path else {}
    places.update({store.path: store.found for store in snapshot.certifi})
    return places


def _loads(path: str) -> bool:
    content = reading.read_or_none(path) or b""
    try:
        apply.must_load(path, len(bundle.fingerprints(content)) or -1)
    except (OSError, apply.StoreError):
        return False
    return True


def _authorities(decision: Decision, snapshot: Snapshot) -> Iterator[Row]:
    """An override bundle stands in for a store that does not hold a CA itself."""
    holdings = verify.holdings(snapshot)
    overrides = {name: _override(name, snapshot) for name in ("os.pem", "python.pem")}
    for path, found in _places(snapshot).items():
        override = overrides["os.pem" if path == snapshot.os.path else "python.pem"]
        for each in decision.wanted:
            state = (
                "installed"
                if each.sha256 in holdings[path]
                else "by override"
                if each.sha256 in override
                else "missing"
            )
            yield Row(each.subject, each.sha256, timestamp(each.not_after), each.file, path, found, state)
        wanted = {each.sha256 for each in decision.wanted}
        for sha256 in sorted(verify.ours(snapshot).get(path, frozenset()) & holdings[path] - wanted):
            yield Row("", sha256, "", "", path, found, "withdrawn" if not override else "withdrawn by override")


def _override(name: str, snapshot: Snapshot) -> frozenset[str]:
    contents = (dict(directory.files).get(name) for directory in snapshot.directories)
    return next((bundle.fingerprints(content) for content in contents if content), frozenset())


def _variables(environ: Mapping[str, str], decision: Decision) -> Iterator[Row]:
    """Variables of this very process: what an exec session has, or lacks."""
    wanted = {each.sha256 for each in decision.wanted}
    for row in families.VARIABLES:
        value = environ.get(row.name)
        if value:
            content = reading.read_or_none(value)
            lacking = content is not None and wanted - bundle.fingerprints(content)
            state = "missing file" if content is None else "hides the CAs" if lacking else "holds the CAs"
            yield Row("", "", "", "", f"{row.name}={value}", "environment", state)


def show(status: Status, *, as_json: bool) -> None:
    """Print the status as a table, or as one JSON document."""
    if as_json:
        document = {"code": status.code, "rows": [row._asdict() for row in status.rows], "refused": list(status.notes)}
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
        return
    lines = [f"{'STATE':22}{'EXPIRES':21}{'SHA-256':13}CA / STORE"]
    for row in status.rows:
        name = f"{row.ca} ({row.file}) in " if row.ca else ""
        lines.append(f"{row.state:22}{row.expires:21}{row.sha256[:12]:13}{name}{row.place} [{row.found}]")
    lines += ["  ".join(f"{key}={value}" for key, value in note.items()) for note in status.notes]
    lines.append(_VERDICTS[status.code])
    sys.stdout.write("".join(f"{printable(line)}\n" for line in lines))


_VERDICTS = {
    WELL: "all well",
    MISSING: "something is missing: `ca-shim plan` tells what a start would change, `ca-shim install` changes it",
    BROKEN: "a store does not load: restore it from its package, then `ca-shim install`",
}
