"""Decide which variables the application gets, and which override bundles they need. Pure."""

from __future__ import annotations

from shim import bundle, families
from shim.record import Record
from shim.snapshot import original

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from shim.snapshot import Setting, Snapshot


class Needs(Record):
    """The variables with the name of the file, or the path, they point to; the files as (name, base, variable).

    The variable of a file is the one whose chosen bundle it starts from, "" for the store.
    """

    variables: Mapping[str, str]
    files: tuple[tuple[str, str, str], ...]


# The override bundles that start from the operating system's store.
OS_FILES = frozenset(name for row in families.VARIABLES if row.base == "os" for name in (row.file, row.store_file))


def needs(
    snapshot: Snapshot,
    overridden: frozenset[str],
    wanted: frozenset[str],
    *,
    stuck: bool = False,
    standing: frozenset[str] = frozenset(),
) -> Needs:
    """Return the variables to set, by the rules of the table of variables.

    A variable that somebody set is its client's active bundle: it is merged from that file and pointed to the result,
    unless the file is, or will be, as wanted already. `overridden` are the paths of overridden stores, `wanted` the
    fingerprints of all CAs wanted; `stuck` says that a withdrawn CA remains in the overridden OS store, `standing` are
    variables that stay because nothing may be withdrawn.
    """
    ruled = _ruled(snapshot, overridden, wanted, stuck=stuck)
    settings = {each.name: each for each in snapshot.settings}
    variables: dict[str, str] = {}
    files: dict[str, tuple[str, str]] = {}
    for row in families.VARIABLES:
        setting = settings.get(row.name)
        if (
            setting
            and not (setting.superseded and row.exported and row.name not in ruled)
            and (wanted or row.name in ruled or setting.real in overridden or row.name in standing)
            and not (_serves(setting, snapshot, overridden, wanted, row.base) and row.name not in standing)
        ):
            variables[row.name] = row.file
            files[row.file] = row.base, row.name
        elif not setting and (row.name in ruled or (row.exported and row.name in standing)):
            variables[row.name] = row.store_file
            files.setdefault(row.store_file, (row.base, ""))
    if (stuck and snapshot.go_can_be_steered) or families.CERT_DIR in standing:
        variables[families.CERT_DIR] = families.HOME
    return Needs(variables, tuple((name, *made) for name, made in files.items()))


def _ruled(snapshot: Snapshot, overridden: frozenset[str], wanted: frozenset[str], *, stuck: bool) -> set[str]:
    """Return the variables whose situation holds here, and whose client is here."""
    os_overridden = snapshot.os.path in overridden
    situations = {
        "any CA wanted": bool(wanted),
        "os overridden": os_overridden,
        "curl needs it": os_overridden and (snapshot.curl_needs_bundle or stuck),
        # The certifi of a distribution is the system's bundle.
        "python overridden": os_overridden or any(store.path in overridden for store in snapshot.certifi),
    }
    here = ("", *snapshot.clients)
    return {row.name for row in families.VARIABLES if situations.get(row.when) and row.needs in here}


def _serves(
    setting: Setting, snapshot: Snapshot, overridden: frozenset[str], wanted: frozenset[str], base: str
) -> bool:
    """Return whether the file behind a variable holds all that is wanted, or is a store that does so in place."""
    if setting.content is None:
        return False
    stores = {snapshot.os.path, *(store.path for store in snapshot.certifi)} - {""}
    if setting.real in stores:
        return setting.real not in overridden
    if base == "nothing" and not wanted:
        return True
    return wanted <= bundle.fingerprints(setting.content)


def restored(environ: Mapping[str, str], snapshot: Snapshot, variables: Mapping[str, str]) -> dict[str, str | None]:
    """Return the variables that are to be what they were before us, or before the vendor's entrypoint: None is unset.

    They point to a bundle of ours that is needed no more, or to the vendor's own, which the stores make up for.
    """
    ours = [row.name for row in families.VARIABLES if row.name in environ and row.name not in variables]
    before = {name: original(environ[name], snapshot.directories) for name in ours}
    exported = {row.name for row in families.VARIABLES if row.exported}
    vendors = {each.name for each in snapshot.settings if each.superseded and each.name in exported}
    superseded = dict.fromkeys(name for name in ours if name in vendors)
    return {name: value for name, value in {**before, **superseded}.items() if value != environ[name]}
