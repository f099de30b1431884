"""The container as its application sees it, whoever asks. Only looks.

A session of `docker exec` has neither the application's user nor its variables, and a readiness probe is such a
session: what counts is what the last start left, for whom it left it.
"""

from __future__ import annotations

import os
import re

from shim import families, host, reading, reconcile, sources, writer
from shim.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shim.config import Config
    from shim.reconcile import Decision
    from shim.snapshot import Snapshot
    from shim.sources import Intake

_LIMIT = 64 * 1024  # bytes of an env file; we write less than two thousand
# A line as `shlex.quote` makes it of an absolute path.
_EXPORT = re.compile(r"""export (\w+)=('?)(/(?:[^'\n]|'"'"')*)\2""", re.ASCII)


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
    snapshot = snapshot._replace(certifi=tuple(each for each in snapshot.certifi if not each.hidden))
    # A session has no variables that tell.
    snapshot = snapshot._replace(after_root=any(each.files and not each.writable for each in snapshot.directories))
    decision = reconcile.decide(config, intake, snapshot, now)
    return View(intake, snapshot, decision, {**environ, **_left(config.root, snapshot)})


def started(config: Config, snapshot: Snapshot) -> bool:
    """Return whether a start of the shim has left something here; one without any CA leaves nothing."""
    paths = (f"{config.root}{each.path}/{name}" for each in snapshot.directories for name in ("env", host.RECEIPT))
    return any(map(host.changed_at, paths))


def how_to_install(config: Config, *, seen: bool = True) -> str:
    """Return what brings a mounted CA into the stores; `seen` is whether a start has left something."""
    install = f"run `{families.COMMAND} install`"
    if config.off:
        return f"unset CA_SHIM, since starts with CA_SHIM=off do not look at the stores, and restart; or {install}"
    if not seen:
        entry = f"{families.HOME}/bin/entrypoint.sh COMMAND"
        return f"no start of the shim has been seen here: start a wrapped program, or {entry}; or {install}"
    return f"{install}, or restart"


def _left(root: str, snapshot: Snapshot) -> dict[str, str]:
    """Return the variables that starts have left in env files, of which the last has the last word."""
    paths = [f"{root}{each.path}/env" for each in snapshot.directories if each.exists]
    texts = [env_file(path) for path in sorted(paths, key=host.changed_at)]
    matches = (_EXPORT.fullmatch(line) for text in texts for line in text.split("\n"))
    found = {match[1]: match[3].replace("'\"'\"'", "'") for match in matches if match}
    known = {*(row.name for row in families.VARIABLES), families.CERT_DIR}
    return {name: value for name, value in found.items() if name in known and value.isprintable()}


def env_file(path: str) -> str:
    """Return the text of an env file, read as the owner of its directory: a link leads no further than they may go."""
    try:
        owner = writer.Owner(os.stat(os.path.dirname(path)).st_uid, writer.NOBODY)
        with writer.Acting(owner):
            content = reading.read_or_none(path, _LIMIT)
    except OSError:  # who cannot act as the owner reads as what they are
        content = reading.read_or_none(path, _LIMIT)
    return (content or b"").decode("utf-8", "surrogateescape")
