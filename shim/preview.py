"""`ca-shim plan`: what `install` would change, and why; and `ca-shim env`. Both only look."""

from __future__ import annotations

import json
import os

from shim import application, families, host, reconcile, sources
from shim.log import printable, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from shim.config import Config
    from shim.plan import Plan
    from shim.reconcile import Decision

WOULD_CHANGE = 3  # exit code


def make(config: Config, environ: Mapping[str, str], command: Sequence[str], now: float) -> tuple[Decision, Plan]:
    """Decide and plan without changing anything."""
    intake = sources.read(config.root, config.sources)
    snapshot = host.look(config, environ, command)
    decision = reconcile.decide(config, intake, snapshot, now)
    return decision, reconcile.proven(decision, snapshot, {})


def show(decision: Decision, planned: Plan, *, as_json: bool) -> None:
    """Print every step with its reason, in the order in which it would happen; then the variables and the notes."""
    notes = [{"event": note.event, **dict(note.details)} for note in decision.notes]
    if as_json:
        say(json.dumps({**_document(planned), "notes": notes}, indent=2))
    else:
        say(*map(printable, [*_lines(planned, len(decision.wanted)), *note_lines(notes)]))


def _document(planned: Plan) -> dict[str, object]:
    steps = [{"action": step.action, "path": step.path, "reason": step.reason} for step in planned.steps]
    overrides = [{"store": each.path, "reason": each.override} for each in planned.stores if each.override]
    unserved = [{"store": store, "reason": reason} for store, reason in planned.unserved]
    return {"steps": steps, "overrides": overrides, "variables": dict(planned.variables), "unserved": unserved}


def _lines(planned: Plan, wanted: int) -> Iterator[str]:
    in_place = [step for store in planned.stores for step in store.steps]
    rows = [(step.action, step.path, step.reason) for step in in_place]
    rows += [("override", store.path, store.override) for store in planned.stores if store.override]
    rows += [(step.action, step.path, step.reason) for step in planned.override]
    rows += [("variable", f"{name}={path}", _WHY_SET.get(name, "")) for name, path in planned.variables.items()]
    rows += [("fail", store, reason) for store, reason in planned.unserved]
    yield from (f"{action:10}{what}  ({why})" for action, what, why in rows)
    count = len(planned.steps)
    nothing = "nothing can be done" if planned.unserved else "nothing to do"
    why = "see above" if planned.unserved else "every store is as wanted" if wanted else "no CA can be used"
    yield f"{count} {'step' if count == 1 else 'steps'} to take" if count else f"{nothing}: {why}"


_WHY_SET = {row.name: f"read by {row.clients}" for row in families.VARIABLES} | {
    families.CERT_DIR: "a withdrawn CA is stuck in the store that Go reads besides"
}


def note_lines(notes: Iterable[Mapping[str, object]]) -> Iterator[str]:
    """Write notes as sentences: which file or CA, why, and what to do."""
    for note in notes:
        names = [str(note[key]) for key in ("subject", "file") if key in note]
        block = f" block {note['block']}" if "block" in note else ""
        where = "".join((": ", " in ".join(names), block)) if names else ""
        yield f"{note['event']}{where}: {note.get('reason', '')}; {note.get('remedy', '')}"


def exports(config: Config, environ: Mapping[str, str]) -> str:
    """Return the `export` lines that the last start left for shells and probes, "" when no variable is needed.

    A variable whose bundle is not there is left out: its clients would lose all trust.
    """
    paths = [f"{config.root}{each.path}/env" for each in host.look(config, environ, ()).directories if each.exists]
    newest = max(filter(os.path.isfile, paths), key=os.path.getmtime, default="")
    lines = application.env_file(newest).split("\n")[:-1] if newest else []
    return "".join(f"{line}\n" for line in lines if os.path.exists(config.root + _path_in(line)))


def _path_in(line: str) -> str:
    import shlex

    return shlex.split(line)[-1].partition("=")[2]
