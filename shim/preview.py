"""`ca-shim plan`: what `install` would change, and why; and `ca-shim env`. Both only look."""

from __future__ import annotations

import json
import os
import sys

from shim import host, plan, reading, reconcile, sources
from shim.log import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shim.config import Config
    from shim.plan import Plan
    from shim.reconcile import Decision

WOULD_CHANGE = 3  # exit code


def make(config: Config, environ: Mapping[str, str], command: Sequence[str], now: float) -> tuple[Decision, Plan]:
    """Decide and plan without changing anything."""
    intake = sources.read(config.root, config.sources)
    snapshot = reconcile.with_loadable_settings(host.look(config, environ, command))
    decision = reconcile.decide(intake, snapshot, now)
    return decision, plan.make(decision.wanted, snapshot, {})


def show(decision: Decision, planned: Plan, *, as_json: bool) -> None:
    """Print every step with its reason, in the order in which it would happen; then the variables and the notes."""
    steps = [{"action": step.action, "path": step.path, "reason": step.reason} for step in planned.steps]
    overrides = [{"store": each.path, "reason": each.override} for each in planned.stores if each.override]
    notes = [{"event": note.event, **dict(note.details)} for note in decision.notes]
    failed = [{"store": store, "reason": reason} for store, reason in planned.unserved]
    if as_json:
        variables = dict(planned.variables)
        document = {"steps": steps, "overrides": overrides, "variables": variables, "unserved": failed, "notes": notes}
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
        return
    lines = [f"{each['action']:8}{each['path']}  ({each['reason']})" for each in steps]
    lines += [f"override {each['store']}  ({each['reason']})" for each in overrides]
    lines += [f"set     {name}={value}" for name, value in planned.variables.items()]
    lines += [f"cannot serve {each['store']}  ({each['reason']})" for each in failed]
    lines += ["  ".join(f"{key}={value}" for key, value in note.items()) for note in notes]
    sys.stdout.write("".join(f"{printable(line)}\n" for line in lines or ["nothing to do"]))


def exports(config: Config, environ: Mapping[str, str]) -> str:
    """Give the `export` lines that the last start left for shells and probes, "" when no variable is needed."""
    paths = [f"{config.root}{each.path}/env" for each in host.look(config, environ, ()).directories if each.exists]
    newest = max(filter(os.path.isfile, paths), key=os.path.getmtime, default="")
    return (reading.read_or_none(newest) or b"").decode("utf-8", "surrogateescape") if newest else ""
