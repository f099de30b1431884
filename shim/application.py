"""The container as its application sees it, whoever asks. Only looks.

A session of `docker exec` has neither the application's user nor its variables, and a readiness probe is such a
session: what counts is what the last start left, for whom it left it.
"""

from __future__ import annotations

import shlex

from shim import families, host, reconcile, sources
from shim.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shim.config import Config
    from shim.reconcile import Decision
    from shim.snapshot import Snapshot
    from shim.sources import Intake


class View(Record):
    """What is mounted, what is where, what is to be trusted, and the environment of the application."""

    intake: Intake
    snapshot: Snapshot
    decision: Decision
    environ: dict[str, str]


def view(config: Config, environ: Mapping[str, str], now: float, command: Sequence[str] = ()) -> View:
    """Look at everything. Changes nothing, and raises nothing for what is missing or broken."""
    intake = sources.read(config.root, config.sources)
    snapshot = host.look(config, environ, command, host.uid_of_last_start(config, environ))
    decision = reconcile.decide(config, intake, snapshot, now)
    return View(intake, snapshot, decision, {**environ, **_left(config.root, snapshot)})


def started(config: Config, snapshot: Snapshot) -> bool:
    """Say whether a start of the shim has left something here; one without any CA leaves nothing."""
    paths = (f"{config.root}{each.path}/{name}" for each in snapshot.directories for name in ("env", host.RECEIPT))
    return any(map(host.changed_at, paths))


def how_to_install(config: Config, *, seen: bool = True) -> str:
    """Say what brings a mounted CA into the stores; `seen` is whether a start has left something."""
    install = f"run `{families.COMMAND} install`"
    if config.off:
        return f"unset CA_SHIM, since starts with CA_SHIM=off do not look at the stores, and restart; or {install}"
    if not seen:
        entry = f"{families.HOME}/bin/entrypoint.sh COMMAND"
        return f"no start of the shim has been seen here: start a wrapped program, or {entry}; or {install}"
    return f"{install}, or restart"


def _left(root: str, snapshot: Snapshot) -> dict[str, str]:
    """Give the variables that starts have left in env files, of which the last has the last word."""
    files = {f"{each.path}/env": dict(each.files).get("env", b"") for each in snapshot.directories}
    present = sorted(files, key=lambda path: host.changed_at(root + path))
    lines = (line for path in present for line in files[path].decode("utf-8", "surrogateescape").splitlines())
    words = (word for line in lines if line.startswith("export ") for word in _words(line))
    pairs = (word.partition("=") for word in words)
    known = {*(row.name for row in families.VARIABLES), families.CERT_DIR}
    return {name: value for name, equals, value in pairs if equals and name in known}


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)[1:]
    except ValueError:
        return []
