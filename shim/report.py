"""What a reconciliation tells the operator: one note for every CA that came or went and for every store. Pure."""

from __future__ import annotations

from shim import certs, plan, verify
from shim.record import Note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from shim.certs import Certificate
    from shim.plan import Plan
    from shim.snapshot import Snapshot

_REMEDY = "make the store or a directory for bundles writable (see CA_SHIM_BUNDLE_DIR)"
_TOOL_REMEDY = "repair the tool and restart; until then the store is served by an override bundle and variables"


def changes(
    wanted: tuple[Certificate, ...], before: Snapshot, after: Snapshot, planned: Plan, failed: Mapping[str, str]
) -> Iterator[Note]:
    """Tell what differs between two snapshots, and how each store is served."""
    yield from _stores(planned, failed)
    yield from _variables(before, planned)
    yield from _installed(wanted, before, after)
    yield from _withdrawn(before, after)


def unfinished(planned: Plan) -> list[Note]:
    """Tell of every store that neither way could be made right."""
    unserved = [*planned.unserved, *((step.store, "the store did not come to rest") for step in planned.steps)]
    return [
        Note("store.failed", (("store", store), ("reason", reason), ("remedy", _REMEDY)), code=71)
        for store, reason in dict(unserved).items()
    ]


def _stores(planned: Plan, failed: Mapping[str, str]) -> Iterator[Note]:
    overridden = {each.path: each.override for each in planned.stores if each.override}
    for store, reason in overridden.items():
        if reason.startswith(plan.TOOL_FAILED):
            yield Note("store.failed", (("store", store), ("reason", reason), ("remedy", _TOOL_REMEDY)))
        else:
            yield Note("store.overridden", (("store", store), ("reason", reason)))
    for store, reason in failed.items():
        if store not in overridden:
            yield Note("store.failed", (("store", store), ("reason", reason), ("remedy", _REMEDY)))


def _variables(before: Snapshot, planned: Plan) -> Iterator[Note]:
    for setting in before.settings:
        if setting.content is None and setting.name in planned.variables and not setting.superseded:
            reason, now = "it points to a missing bundle", planned.variables[setting.name]
            yield Note("variable.repaired", (("variable", setting.name), ("reason", reason), ("now", now)))


def _installed(wanted: tuple[Certificate, ...], before: Snapshot, after: Snapshot) -> Iterator[Note]:
    had = verify.holdings(before)
    new = {path: held - had.get(path, frozenset()) for path, held in verify.holdings(after).items()}
    for certificate in wanted:
        stores = [path for path, held in new.items() if certificate.sha256 in held]
        if stores:
            yield Note("ca.installed", certificate.details(stores=stores))


def _withdrawn(before: Snapshot, after: Snapshot) -> Iterator[Note]:
    gone = verify.withdrawn(before, after)
    subjects = (
        {each.sha256: each.subject for each in certs.parse(verify.installed(before)).certificates} if gone else {}
    )
    for sha256, stores in gone.items():
        details = (("subject", subjects.get(sha256, "")), ("sha256", sha256), ("stores", stores))
        yield Note("ca.withdrawn", details)
