"""Decide: (certificates, snapshot) to the steps that make the one true on the other. Pure.

The stores are the state: a plan made after its steps were carried out is empty. A store that cannot be changed in
place is served by an override: merged bundles in a private directory, and variables that point to them.
"""

from __future__ import annotations

from shim import bundle, environ
from shim.record import Record
from shim.snapshot import ANCHOR_PREFIX, PENDING, TEMPORARY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from shim.certs import Certificate
    from shim.families import Family
    from shim.snapshot import CertifiStore, Directory, OsStore, Setting, Snapshot
    from shim.writer import Owner

SETTLED = b"settled"
_NONE = frozenset[str]()
TOOL_FAILED = "its tool failed: "  # begins the reason of an override


class Step(Record):
    """One change: "mkdir", "write", "remove" or "refresh" of `path`, for the store named by its bundle's path.

    `pem` counts the distinct certificates that OpenSSL must load from what is written; 0 for what is no bundle. The
    `content` of a refresh is what it should bring into the bundle.
    """

    action: str
    store: str
    path: str
    reason: str
    content: bytes = b""
    owner: Owner | None = None
    pem: int = 0
    family: Family | None = None  # of a refresh
    arguments: tuple[str, ...] = ()
    durable: bool = True  # False: no fsync; after a power loss the marker forces a rewrite


class StorePlan(Record):
    """What becomes of one store: changed in place, left as it is, or (`override` says why) overridden."""

    path: str
    steps: tuple[Step, ...] = ()
    override: str = ""
    added: frozenset[str] = frozenset()  # fingerprints
    removed: frozenset[str] = frozenset()


class Plan(Record):
    """Everything to do, in order; `variables` is what the application gets whether or not anything is done."""

    stores: tuple[StorePlan, ...]
    override: tuple[Step, ...]
    variables: Mapping[str, str]
    directory: str  # where override bundles are or will be, "" when none is needed
    unserved: tuple[tuple[str, str], ...]  # (store, reason) that neither way can be made right

    @property
    def steps(self) -> tuple[Step, ...]:
        """All steps in the order in which they are carried out."""
        return tuple(step for store in self.stores for step in store.steps) + self.override


def make(
    wanted: tuple[Certificate, ...],
    snapshot: Snapshot,
    failed: Mapping[str, str],
    may_go: frozenset[str] | None = None,
    refused: frozenset[str] = _NONE,
) -> Plan:
    """Plan every store. A CA enters a store only from a source, or stays where it is: it never moves between stores.

    `failed` maps stores, directories and bundles that could not be written to the reason. `may_go` are the fingerprints
    that may leave a store; None stands for all that are ours and not wanted. `refused` are the fingerprints of what
    OpenSSL does not load, and no bundle of ours may hold.
    """
    os_plan = plan_os(wanted, snapshot.os, failed.get(snapshot.os.path, ""), may_go)
    certifi = tuple(plan_certifi(wanted, store, failed.get(store.path, ""), may_go) for store in snapshot.certifi)
    stores = (os_plan, *certifi)
    usable = snapshot._replace(directories=tuple(each for each in snapshot.directories if each.path not in failed))
    needs = environ.needs(
        snapshot,
        overridden=frozenset(store.path for store in stores if store.override),
        wanted=fingerprints(wanted),
        stuck=bool(os_plan.override and os_plan.removed),
        standing=_standing(usable) if may_go == _NONE else _NONE,
    )
    source = Material(wanted, usable, may_go, refused, failed)
    files = {name: bundle_file(name, base, variable, source) for name, base, variable in needs.files}
    directory = _choose(source, files)
    return Plan(
        stores=stores,
        override=tuple(_override_steps(directory, files, needs.variables, source)),
        variables=_paths(directory, needs.variables) if directory else {},
        directory=directory.path if directory and files else "",
        unserved=tuple(_unserved(stores, needs.variables, directory, files, source)),
    )


def fingerprints(certificates: Iterable[Certificate]) -> frozenset[str]:
    """Return the fingerprints of certificates."""
    return frozenset(each.sha256 for each in certificates)


def ours_in(store: OsStore) -> frozenset[str]:
    """Return the fingerprints that are in an OS store because of us, those of an unfinished change included."""
    return touched_by(store.state).union(*(bundle.fingerprints(content) for _, content in store.anchors))


def touched_by(state: bytes) -> frozenset[str]:
    """Return the fingerprints that a change was about, from its marker."""
    return frozenset(state.decode("ascii", "replace").partition("\n")[2].split())


def wanted_in(wanted: tuple[Certificate, ...], store: OsStore) -> tuple[Certificate, ...]:
    """Return what the OS store should hold: not what its tool drops, nor what its administrator distrusts."""
    if store.family is None:
        return wanted
    distrusted = frozenset[str]().union(*map(bundle.fingerprints_of_any, store.blocklist))
    return tuple(each for each in wanted if not each.traits & store.family.drops and each.sha256 not in distrusted)


def plan_os(
    wanted: tuple[Certificate, ...], store: OsStore, failed: str, may_go: frozenset[str] | None = None
) -> StorePlan:
    """Plan the operating system's store."""
    here = wanted_in(wanted, store)
    present, ours = bundle.fingerprints(store.content), ours_in(store)
    staying = {path: content for path, content in store.anchors if _stays(content, may_go) and TEMPORARY not in path}
    base = present - ours
    missing = fingerprints(here) - present
    lingering = (ours & present).difference(fingerprints(here), *map(bundle.fingerprints, staying.values()))
    final, why = _last_refresh(store)
    changed = missing or lingering or why or store.unfinished or store.doubtful
    if store.family is None or store.blocked:
        reason = failed or store.blocked
        return StorePlan(store.path, override=reason if changed else "", added=missing, removed=lingering)
    anchors = staying | {_anchor_path(store.family, each): each.pem for each in here if each.sha256 not in base}
    present_anchors = dict(store.anchors)
    if anchors == present_anchors and not changed:
        tidy = Step("remove", store.path, store.family.state, "the store is as wanted")
        return StorePlan(store.path, (tidy,) if store.state else ())
    if failed:
        return StorePlan(store.path, override=failed if changed else "", added=missing, removed=lingering)
    if anchors == present_anchors and final:
        why = why or "its tool leaves certificates out"
        return StorePlan(store.path, override=why, added=missing, removed=lingering)
    steps = tuple(_os_steps(store, store.family, anchors, ours))
    return StorePlan(store.path, steps, added=missing, removed=lingering)


def _os_steps(store: OsStore, family: Family, anchors: dict[str, bytes], ours: frozenset[str]) -> Iterable[Step]:
    """A change is framed by a marker written first: a bundle cannot tell what came from an anchor now gone."""
    present = dict(store.anchors)
    content = b"".join(anchors.values())
    touched = ours | bundle.fingerprints(content)
    yield Step("write", store.path, family.state, "the store is about to change", _state(PENDING, b"-", touched))
    if anchors:
        yield Step("mkdir", store.path, family.anchors, "anchors are kept there; made if missing")
    for path in sorted(present.keys() - anchors.keys()):
        yield Step("remove", store.path, path, "no longer wanted")
    for path in sorted(anchors):
        if present.get(path) != anchors[path]:
            yield Step("write", store.path, path, "wanted and missing", anchors[path], durable=False)
    yield Step(
        action="refresh",
        store=store.path,
        path=family.tool,
        reason="the bundle is made from the anchors",
        content=content,
        family=family,
        # After an unfinished or failed refresh the tool could take what it left half made for done.
        arguments=family.after_removal if store.state or ours - bundle.fingerprints(content) else (),
    )


def _stays(content: bytes, may_go: frozenset[str] | None) -> bool:
    return may_go is not None and not bundle.fingerprints(content) <= may_go


def settled(state: bytes, content: bytes, tool: bytes = b"", why: str = "") -> bytes:
    """Turn the marker of a change into that of a refresh that is over; `why` says what it did not do, and why not.

    It is not repeated while the bundle is `content` and the tool is the same.
    """
    said = " ".join(why.split()).encode("ascii", "backslashreplace")
    return _state(SETTLED, bundle.sha256(content + tool).encode() + b" " + said, touched_by(state))


def _last_refresh(store: OsStore) -> tuple[bool, str]:
    """Return whether repeating the last refresh would change nothing, and what it did not do."""
    word, digest, why = (store.state.partition(b"\n")[0] + b"  ").split(b" ", 2)
    if word != SETTLED:
        return False, ""
    return digest == bundle.sha256(store.content + store.tool).encode(), why.decode("ascii", "replace").strip()


def _state(word: bytes, digest: bytes, touched: frozenset[str]) -> bytes:
    return b"\n".join([word + b" " + digest, *(name.encode() for name in sorted(touched)), b""])


def _anchor_path(family: Family, certificate: Certificate) -> str:
    return f"{family.anchors}/{ANCHOR_PREFIX}{certificate.slug}-{certificate.sha256[:12]}.crt"


def plan_certifi(
    wanted: tuple[Certificate, ...], store: CertifiStore, failed: str, may_go: frozenset[str] | None = None
) -> StorePlan:
    """Plan one certifi bundle: our block at its end, with what the bundle lacks."""
    reason = failed or store.blocked
    if store.doubtful:
        return StorePlan(store.path, override=reason, added=fingerprints(wanted))
    if not bundle.looks_whole(store.content):
        doubtful = bundle.BEGIN in store.content or fingerprints(wanted) - bundle.fingerprints(store.content)
        return StorePlan(store.path, override=reason if doubtful else "")
    outside, block = bundle.split(store.content)
    base, ours = bundle.fingerprints(outside), bundle.fingerprints(block)
    block_items = {item.sha256: item for item in (*_staying(block, may_go), *_items(wanted)) if item.sha256 not in base}
    content = bundle.join(outside, tuple(item for _, item in sorted(block_items.items())))
    added, removed = frozenset(block_items) - ours, ours - base - frozenset(block_items)
    if reason:
        return StorePlan(store.path, override=reason if added or removed else "", added=added, removed=removed)
    steps = []
    if store.leftover:
        steps.append(Step("remove", store.path, store.leftover, "left by a killed start", owner=store.owner))
    if content != store.content:
        count = len(bundle.fingerprints(content))
        why = "wanted and missing" if added else "no longer wanted" if removed else "written differently"
        steps.append(Step("write", store.path, store.path, why, content, store.owner, count))
    return StorePlan(store.path, tuple(steps), added=added, removed=removed)


def _staying(content: bytes, may_go: frozenset[str] | None) -> tuple[bundle.Item, ...]:
    """Return the certificates of ours in a bundle or block that stay although they are not wanted."""
    marked = () if may_go is None else bundle.marked(content)
    return tuple(item for item in marked if item.sha256 not in (may_go or _NONE))


class Material(Record):
    """What override bundles are made from; see `make`."""

    wanted: tuple[Certificate, ...]
    snapshot: Snapshot
    may_go: frozenset[str] | None = None
    refused: frozenset[str] = _NONE
    failed: Mapping[str, str] = {}


def bundle_file(name: str, base: str, variable: str, source: Material) -> bytes:
    """Render an override bundle that starts from `base`, or from the file that somebody chose by `variable`.

    When not everything of ours may leave, it starts from the bundle that is there.
    """
    setting = next((each for each in source.snapshot.settings if each.name == variable), None)
    origin = setting.origin if setting else ""
    for each in _latest(source.snapshot) if source.may_go is not None else ():
        present = dict(each.files).get(name)
        if present is not None and bundle.origin_of(present) == origin:
            return _current(name, present, source)
    ours = wanted_in(source.wanted, source.snapshot.os) if base == "os" else source.wanted
    return bundle.merged(origin, _usable(_base(base, setting, source), source), _items(ours))


def _usable(content: bytes, source: Material) -> tuple[bundle.Item, ...]:
    return tuple(item for item in bundle.items(content) if item.sha256 not in source.refused)


def _base(base: str, setting: Setting | None, source: Material) -> bytes:
    """Return what an override bundle starts from: the file that somebody chose, unless it is a store, or the store."""
    snapshot = source.snapshot
    chosen = next((each for each in snapshot.certifi if setting and each.path == setting.real), None)
    if chosen:
        return _outside(chosen, source)
    on_os = setting is not None and setting.real == snapshot.os.path
    if setting and setting.content is not None and not on_os:
        return setting.content
    if base == "nothing" and not on_os:
        return b""
    if ((base == "python" and not on_os) or snapshot.os.doubtful) and any(each.content for each in snapshot.certifi):
        return _python_base(source)
    ours = ours_in(snapshot.os)
    leaving = ours if source.may_go is None else ours & source.may_go
    return b"".join(item.pem for item in bundle.items(snapshot.os.content) if item.sha256 not in leaving)


def _python_base(source: Material) -> bytes:
    """Return the first certifi's roots, or those that python.pem has now: two shims may differ in the first."""
    outsides = [_outside(each, source) for each in source.snapshot.certifi if each.content]
    pythons = [content for each in source.snapshot.directories for name, content in each.files if name == "python.pem"]
    for python in pythons:
        base = bundle.fingerprints(python) - {item.sha256 for item in bundle.marked(python)}
        outsides.sort(key=lambda outside: bundle.fingerprints(outside) != base)
    return outsides[0]


def _outside(store: CertifiStore, source: Material) -> bytes:
    """Return what is not ours; of a bundle with damaged marks, only what stands before the first is surely not."""
    if bundle.looks_whole(store.content):
        outside, block = bundle.split(store.content)
        return b"\n".join([outside, *(item.pem for item in _staying(block, source.may_go))])
    return store.content.partition(bundle.BEGIN)[0]


def env_file(variables: Mapping[str, str]) -> bytes:
    """Render variables as `export` lines for a shell."""
    from shlex import quote

    lines = [f"export {name}={quote(path)}\n" for name, path in variables.items()]
    return "".join(lines).encode("utf-8", "surrogateescape")


def _standing(snapshot: Snapshot) -> frozenset[str]:
    """Return the variables that starts before this one have set."""
    lines = (line for each in _latest(snapshot) for line in dict(each.files).get("env", b"").split(b"\n"))
    return frozenset(line[7:].partition(b"=")[0].decode("ascii", "replace") for line in lines)


def _latest(snapshot: Snapshot) -> tuple[Directory, ...]:
    """Return the directories that starts like this one have filled; without any, those of a start as root."""
    ours = tuple(each for each in snapshot.directories if each.writable and each.files)
    return ours or snapshot.directories


def _choose(source: Material, files: Mapping[str, bytes]) -> Directory | None:
    """Prefer a directory that already holds what is needed, root's too; else the one where most can be written."""
    directories = source.snapshot.directories
    holding = (each for each in directories if files and files.items() <= dict(each.files).items())
    failed = {path: sum(f"{path}/{name}" in source.failed for name in files) for path in (d.path for d in directories)}
    writable = [each for each in directories if each.writable]
    return next(holding, None) or min(writable, key=lambda each: failed[each.path], default=None)


def _override_steps(
    directory: Directory | None, files: Mapping[str, bytes], variables: Mapping[str, str], source: Material
) -> Iterable[Step]:
    for each in source.snapshot.directories:
        chosen = directory is not None and each.path == directory.path and bool(files)
        if chosen and not each.exists:
            yield Step("mkdir", each.path, each.path, "override bundles are kept there")
        needed = _desired(each, source)
        if chosen:
            env = _with_env(dict(each.files).get("env", b""), _paths(each, variables))
            needed = {**needed, **files, "env": env}
        yield from _file_steps(each, needed, source.failed)


def _desired(directory: Directory, source: Material) -> dict[str, bytes]:
    """Return what is there as wanted now: variables of a running application, or of another shim, may point to it."""
    if source.snapshot.alone and not source.wanted and source.may_go != _NONE:
        return {}
    present = {name: content for name, content in directory.files if TEMPORARY not in name}
    return {
        name: _current(name, content, source) if name.endswith(".pem") else content for name, content in present.items()
    }


def _current(name: str, content: bytes, source: Material) -> bytes:
    """Return the bundle of an earlier need with what is wanted now; what it started from stays."""
    marked = {item.sha256 for item in bundle.marked(content)}
    base = tuple(item for item in _usable(content, source) if item.sha256 not in marked)
    here = wanted_in(source.wanted, source.snapshot.os) if name in environ.OS_FILES else source.wanted
    ours = {item.sha256: item for item in (*_staying(content, source.may_go), *_items(here))}
    return bundle.merged(bundle.origin_of(content), base, tuple(item for _, item in sorted(ours.items())))


def _items(certificates: tuple[Certificate, ...]) -> tuple[bundle.Item, ...]:
    return tuple(each.item for each in sorted(certificates, key=lambda each: each.sha256))


def _paths(directory: Directory, variables: Mapping[str, str]) -> dict[str, str]:
    return {name: file if file.startswith("/") else f"{directory.path}/{file}" for name, file in variables.items()}


def _with_env(present: bytes, variables: Mapping[str, str]) -> bytes:
    """Add to the env file: two shims of a chain may need different variables, and neither undoes the other's."""
    lines = {line.partition(b"=")[0]: line for line in (present + env_file(variables)).splitlines() if line}
    return b"".join(line + b"\n" for _, line in sorted(lines.items()))


def _file_steps(directory: Directory, needed: Mapping[str, bytes], failed: Mapping[str, str]) -> Iterable[Step]:
    if not directory.writable:
        return
    present = dict(directory.files)
    for name, content in needed.items():
        path = f"{directory.path}/{name}"
        if present.get(name) != content and path not in failed:
            yield Step("write", path, path, "its variable needs it", content, pem=len(bundle.fingerprints(content)))
    for name in sorted(present.keys() - needed.keys()):
        path = f"{directory.path}/{name}"
        if path not in failed:
            yield Step("remove", path, path, "no variable needs it")


def _unserved(
    stores: tuple[StorePlan, ...],
    variables: Mapping[str, str],
    directory: Directory | None,
    files: Mapping[str, bytes],
    source: Material,
) -> Iterable[tuple[str, str]]:
    """Yield the stores that only bundles can serve; without any, the variables whose clients no store reaches."""
    if directory:
        paths = (f"{directory.path}/{name}" for name in files)
        return [(path, source.failed[path]) for path in paths if path in source.failed]
    why = source.snapshot.nowhere
    nowhere = "no directory for override bundles is usable" + (f" ({why})" if why else "")
    overridden = [(store.path, f"{store.override}; and {nowhere}") for store in stores if store.override]
    return overridden or [(name, nowhere) for name in variables if files]
