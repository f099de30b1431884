"""What a reconciliation tells the operator: the CAs that came or went, and every store. Pure."""

from __future__ import annotations

from shim import certs, families, plan, verify
from shim.record import Note
from shim.snapshot import NAMED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from shim.certs import Certificate
    from shim.plan import Plan, StorePlan
    from shim.snapshot import Snapshot

_REMEDY = "make the store or a directory for bundles writable (see CA_SHIM_BUNDLE_DIR)"
_TOOL_REMEDY = "repair the tool and restart; until then the store is served by an override bundle and variables"


def changes(
    wanted: tuple[Certificate, ...], before: Snapshot, after: Snapshot, planned: Plan, failed: Mapping[str, str]
) -> Iterator[Note]:
    """Tell what differs between two snapshots, and how each store is served."""
    yield from _stores(before, planned, failed)
    yield from _variables(before, planned)
    yield from _installed(wanted, before, after)
    yield from _withdrawn(before, after)


def served(planned: Plan) -> tuple[tuple[str, str], ...]:
    """Return how each store is served, by its bundle's path."""
    failed = {store for store, _ in planned.unserved} | {step.store for step in planned.steps}
    files = {row.when: f"{planned.directory}/{row.store_file}" for row in families.VARIABLES}
    os_plan, *certifi = planned.stores
    pairs = [(os_plan, files["os overridden"]), *((store, files["python overridden"]) for store in certifi)]
    return tuple((store.path, _how(store, path, failed)) for store, path in pairs if store.path)


def _how(store: StorePlan, path: str, failed: set[str]) -> str:
    """Tell how a store is served; `path` is the bundle that overrides it."""
    if store.path in failed or (store.override and path in failed):
        return "not served"
    return "override" if store.override else "in place"


def unfinished(planned: Plan) -> list[Note]:
    """Tell of every store that neither way could be made right."""
    unserved = [*planned.unserved, *((step.store, "still changing after so many attempts") for step in planned.steps)]
    return [
        Note("store.failed", (("store", store), ("reason", reason), ("remedy", _REMEDY)), code=71)
        for store, reason in dict(unserved).items()
    ]


def _stores(before: Snapshot, planned: Plan, failed: Mapping[str, str]) -> Iterator[Note]:
    mistaken = {each.path for each in before.certifi if each.found == NAMED and not each.content}
    overridden = {each.path: each.override for each in planned.stores if each.override}
    for store, reason in overridden.items():
        if store in mistaken:
            yield Note(
                "store.failed",
                (("store", store), ("reason", reason), ("remedy", f"name a readable cacert.pem in {NAMED}")),
            )
        elif reason.startswith(plan.TOOL_FAILED):
            yield Note("store.failed", (("store", store), ("reason", reason), ("remedy", _TOOL_REMEDY)))
        else:
            yield Note("store.overridden", (("store", store), ("reason", reason)))
    doubtful = [each.path for each in before.certifi if each.doubtful] + [before.os.path] * before.os.doubtful
    for path in doubtful:
        details = (("store", path), ("reason", "it cannot be read"), ("remedy", "restore it from its package"))
        yield Note("store.failed", details, code=71)
    for store, reason in failed.items():
        if store not in overridden and store not in dict(planned.unserved):
            yield Note("store.failed", (("store", store), ("reason", reason), ("remedy", _REMEDY)))


def _variables(before: Snapshot, planned: Plan) -> Iterator[Note]:
    for setting in before.settings:
        if setting.content is None and setting.name in planned.variables and not setting.superseded:
            reason, now = "it points to a missing bundle", planned.variables[setting.name]
            yield Note("variable.repaired", (("variable", setting.name), ("reason", reason), ("now", now)))


def _installed(wanted: tuple[Certificate, ...], before: Snapshot, after: Snapshot) -> Iterator[Note]:
    """Tell of each CA that some store lacked; those that only our bundles lacked, Node's above all, are counted."""
    had = verify.holdings(before)
    new = {path: held - had.get(path, frozenset()) for path, held in verify.holdings(after).items()}
    shipped = [had[path] for path in (before.os.path, *(store.path for store in before.certifi)) if had.get(path)]
    everywhere, known = frozenset.intersection(*shipped) if shipped else frozenset(), 0
    for certificate in wanted:
        stores = [path for path, held in new.items() if certificate.sha256 in held]
        if stores and certificate.sha256 in everywhere:
            known += 1
        elif stores:
            yield Note("ca.installed", certificate.details(stores=stores))
    if known:
        yield Note("ca.held", (("certificates", known),))


def _withdrawn(before: Snapshot, after: Snapshot) -> Iterator[Note]:
    gone = verify.withdrawn(before, after)
    subjects = (
        {each.sha256: each.subject for each in certs.parse(verify.installed(before)).certificates} if gone else {}
    )
    for sha256, stores in gone.items():
        details = (("subject", subjects.get(sha256, "")), ("sha256", sha256), ("stores", stores))
        yield Note("ca.withdrawn", details)
