"""Look: the stores, directories and variables of this machine as they are now, in one immutable snapshot."""

from __future__ import annotations

import os
import stat

from shim import bundle, container, families, interpreters, reading, writer
from shim.record import Record
from shim.snapshot import (
    ANCHOR_PREFIX,
    NAMED,
    SAVED,
    TEMPORARY,
    CertifiStore,
    Directory,
    OsStore,
    Setting,
    Snapshot,
    original,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from shim.config import Config
    from shim.families import Family, Variable
    from shim.writer import Owner, Place

_MAX_STORES = 32
_TOO_MANY = f"more than {_MAX_STORES} certifi were found, and the rest is not looked at: name those in use in {NAMED}"
_ARCHIVE = b"PK\x03\x04"
_UNREAD = "it cannot be read"
_ENOUGH = 4 * 1024 * 1024  # bytes, for all outputs of a refresh tool
_SWITCHED_OFF = "changes in place are switched off"
RECEIPT = "receipt"
_MOUNTS = "/proc/self/mountinfo"
LOCK = "lock"


def look(config: Config, environ: Mapping[str, str], command: Sequence[str], uid: int | None = None) -> Snapshot:
    """Take a snapshot; changes nothing, executes nothing and raises nothing for what is missing or unreadable.

    The directories of override bundles are those of `uid`, which is this process's unless another's are asked for.
    """
    root = config.root
    passwd = (reading.read_or_none(f"{root}/etc/passwd") or b"").decode("utf-8", "surrogateescape")
    places = list(_directories(config, environ, os.geteuid() if uid is None else uid))
    directories = tuple(place for place in places if isinstance(place, Directory))
    certifi = tuple(_certifi_stores(config, environ, command, passwd))
    os_store = _os_store(config)
    return Snapshot(
        os=os_store,
        certifi=certifi,
        directories=directories,
        settings=tuple(_settings(root, environ, directories, os_store)),
        curl_needs_bundle=families.CERT_DIR in environ or os.path.exists(root + families.FRESHCLAM),
        go_can_be_steered=environ.get(families.CERT_DIR, families.HOME) == families.HOME
        and os.path.isdir(root + families.HOME),
        clients=tuple(_clients(root, [os.path.dirname(os.path.dirname(store.path)) for store in certifi])),
        alone=config.alone,
        nowhere="; ".join(place for place in places if isinstance(place, str)),
        after_root=any(
            environ.get(row.name, "").startswith(f"{each.path}/")
            for row in families.VARIABLES
            for each in directories
            if each.files and not each.writable
        ),
    )


def uid_of_last_start(config: Config, environ: Mapping[str, str]) -> int:
    """Return the user whose start has left bundles last; our own when none has. Whoever asks gets the same answer."""
    found = _bundle_directories(config, environ, None)
    times = {(changed_at(f"{config.root}{each.path}/{name}"), each.uid) for each in found for name in ("env", RECEIPT)}
    latest, uid = max(times, default=(0, 0))
    return uid if latest else os.geteuid()


def changed_at(path: str) -> int:
    """Return when a file was written last, in nanoseconds since the epoch; 0 when there is none."""
    try:
        return os.lstat(path).st_mtime_ns
    except OSError:
        return 0


def is_safe_directory(path: str, uid: int) -> bool:
    """Return whether nobody but root and `uid` can exchange what `uid` makes in a directory."""
    try:
        return all(_safe_parent(step, uid) for step in writer.resolve("", path).steps)
    except OSError:
        return False


def family_of(root: str) -> Family | None:
    """Return the row of this system by os-release's ID, then by each ID_LIKE; None when there is none."""
    for path in families.OS_RELEASE:
        text = reading.read_or_none(root + path)
        if text is not None:
            fields = dict(line.split("=", 1) for line in text.decode("utf-8", "replace").splitlines() if "=" in line)
            ids = [word for key in ("ID", "ID_LIKE") for word in fields.get(key, "").strip("\"' ").split()]
            return next((row for word in ids for row in families.FAMILIES if word in row.ids), None)
    return None


def _os_store(config: Config) -> OsStore:
    root = config.root
    family = family_of(root)
    path = family.bundle if family else next((p for p in families.OS_BUNDLES if os.path.isfile(root + p)), "")
    if family is None:
        foreign = reading.read_or_none(root + path) or b"" if path else b""
        return OsStore(None, path, foreign, (), b"", (), "this system has no row in the table of families")
    content, doubtful = _os_bundle(root + path)
    state = reading.read_or_none(root + family.state) or b""
    return OsStore(
        family=family,
        path=path,
        content=content,
        anchors=tuple(_files(root, family.anchors, ANCHOR_PREFIX)),
        state=state,
        blocklist=tuple(content for name in family.blocklists for _, content in _files(root, name, "")),
        blocked=_UNREAD if doubtful else _why_blocked(root, family) if config.in_place else _SWITCHED_OFF,
        doubtful=doubtful,
        tool=identity_of_tool(root, family, with_input=bool(state)),
    )


def identity_of_tool(root: str, family: Family, *, with_input: bool = True) -> bytes:
    """Return what differs once the refresh tool, a program beside it, its input or where it writes has changed."""
    paths = (family.tool, os.path.dirname(family.bundle), *families.TOOL_PATH)
    anchors = (family.anchors, os.path.dirname(family.anchors)) if with_input else ()
    others = (f"{each}/{name}" for each in anchors for name in interpreters.names(root + each))
    inputs = [path for path in others if not os.path.basename(path).startswith("ca-shim")]
    try:
        found = [os.stat(root + path) for path in (*paths, *inputs) if os.path.exists(root + path)]
        disk = os.statvfs(root + paths[1])
    except OSError:
        return b""
    space = disk.f_flag & os.ST_RDONLY, disk.f_bavail * disk.f_frsize >= _ENOUGH
    return str((space, *((each.st_mtime_ns, each.st_mode) for each in found))).encode()


def _os_bundle(path: str) -> tuple[bytes, bool]:
    """Read the bundle, or its copy where an unfinished refresh has left less in it; see `_store_content`."""
    content, doubtful = _store_content(path)
    copy = reading.read_or_none(path + SAVED) or b""
    if copy and len(bundle.fingerprints(copy)) > len(bundle.fingerprints(content or b"")):
        return copy, False
    return content or b"", doubtful


def _why_blocked(root: str, family: Family) -> str:
    if os.geteuid() != 0:
        return "only root can change it"
    if not os.path.isfile(root + family.tool):
        return f"{family.tool} is missing"
    anchors = _existing(root, family.anchors)
    directories = [anchors, *map(os.path.dirname, (family.state, family.bundle))]
    for path in (family.tool, *directories, *(os.path.dirname(path) for path in family.outputs)):
        if not _is_roots_alone(root, path):
            return f"{path} could be changed by others than root"
    for path in directories:
        if not os.access(root + path, os.W_OK, effective_ids=True):
            return f"{path} is not writable"
    return ""


def _is_roots_alone(root: str, path: str) -> bool:
    """Return whether nobody but root can change what lies at a path, or exchange what is on the way to it."""
    try:
        resolved = writer.resolve(root, path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return writer.place_of(resolved, {}).owner == writer.ROOT and not resolved.steps[-1].st_mode & writer.OTHERS_WRITE


def _existing(root: str, path: str) -> str:
    return path if os.path.isdir(root + path) else os.path.dirname(path)


def _files(root: str, directory: str, prefix: str) -> Iterator[tuple[str, bytes]]:
    try:
        names = sorted(name for name in os.listdir(root + directory) if name.startswith(prefix))
    except OSError:
        return
    for name in names:
        if not os.path.isdir(f"{root}{directory}/{name}"):
            yield f"{directory}/{name}", reading.read_or_none(f"{root}{directory}/{name}") or b""


def _certifi_stores(
    config: Config, environ: Mapping[str, str], command: Sequence[str], passwd: str
) -> Iterator[CertifiStore]:
    """Return each certifi once, by its real path; one that is a link to the OS bundle belongs to the OS store."""
    from shim.accounts import primary_groups

    groups = primary_groups(passwd)
    pointed = {environ.get(row.name, ""): row.name for row in families.VARIABLES}
    chosen = {path: name for path, name in pointed.items() if path.endswith(f"/{families.CERTIFI}")}
    found = dict.fromkeys(config.certifi, NAMED) or interpreters.certifi_bundles(config.root, environ, command) | chosen
    seen = {os.path.realpath(config.root + path)[len(config.root) :] for path in families.OS_BUNDLES}
    limit = len(seen) + _MAX_STORES
    for path, how in found.items():
        try:
            resolved = writer.resolve(config.root, path)
            if resolved.real in seen:
                continue
            if len(seen) == limit:
                yield CertifiStore(resolved.real, how, b"", None, _TOO_MANY, leftover="", hidden=True)
                return
            seen.add(resolved.real)
            place = writer.place_of(resolved, groups) if config.in_place else writer.Place(None, _SWITCHED_OFF)
            with writer.Seeing(config.root, path):
                content, doubt = _store_content(config.root + resolved.real)
            yield _certifi_store(config.root, resolved, how, place, content)._replace(doubtful=doubt)
        except OSError as error:  # its owner may exchange it meanwhile
            yield CertifiStore(path, how, b"", None, (error.strerror or "unreadable").lower(), leftover="")


def _store_content(path: str) -> tuple[bytes | None, bool]:
    """Read a store, None when that fails; and whether its clients may read it all the same, and find a CA of ours."""
    try:
        return reading.read(path), False
    except OSError as error:
        return None, not isinstance(error, (FileNotFoundError, PermissionError, reading.NotRegularError))


def _certifi_store(root: str, resolved: writer.Resolved, how: str, place: Place, content: bytes | None) -> CertifiStore:
    path = root + resolved.real
    blocked = place.reason or _why_not_writable(place.owner, path)
    if content is None:
        blocked = _UNREAD
    elif content.startswith(_ARCHIVE):
        blocked = "it is inside an archive, which is not changed: unpack it"
        return CertifiStore(resolved.real, how, b"", None, blocked, leftover="", hidden=True)
    elif not bundle.looks_whole(content):
        blocked = "the marks of our block are damaged: restore the file from its package"
    elif how == NAMED and not bundle.fingerprints(bundle.split(content)[0]):
        content, blocked = b"", "it holds no certificate"
    temporary = writer.temporary_of(resolved.real)
    leftover = temporary if os.path.lexists(root + temporary) else ""
    return CertifiStore(resolved.real, how, content or b"", place.owner, blocked, leftover)


def _why_not_writable(owner: Owner | None, path: str) -> str:
    if owner is None:
        return ""
    try:
        with writer.Acting(owner):
            writable = os.access(os.path.dirname(path), os.W_OK | os.X_OK, effective_ids=True)
    except OSError:
        return f"only uid {owner.uid} can write it, and this process cannot become that user"
    if not writable:
        return "its directory is not writable"
    status = os.stat(path)
    if os.geteuid() and not status.st_mode & stat.S_IROTH and status.st_gid not in (os.getegid(), *os.getgroups()):
        return f"its group {status.st_gid}, without which not everybody may read it, could not be kept"
    return ""


class _Candidate(Record):
    """A place for bundles: `path` is `named`, or a sub-directory of it for this container."""

    path: str
    named: str
    uid: int


def _directories(config: Config, environ: Mapping[str, str], uid: int) -> Iterator[Directory | str]:
    """Yield the candidates in order: existing ones of root's or ours, and those that could be made.

    For a place that cannot be used it yields the reason.
    """
    places = _bundle_directories(config, environ, uid)
    yield from (_directory(config.root, place, uid) for place in places if place.path.startswith("/"))
    ours = {place.path for place in places}
    for place in (place for place in _bundle_directories(config, environ, 0) if place.path not in ours):
        directory = _directory(config.root, place, uid)
        if isinstance(directory, Directory) and directory.exists:  # a start as root has been here: it serves us as well
            yield directory


def _bundle_directories(config: Config, environ: Mapping[str, str], uid: int | None) -> list[_Candidate]:
    """Return the places for bundles of `uid`, or of everybody who has one."""
    names = [config.bundle_dir] if config.bundle_dir else families.BUNDLE_DIRECTORIES
    temporary = environ.get("TMPDIR", "/tmp")  # noqa: S108 - checked by lstat
    if not temporary.isprintable():
        temporary = "/tmp"  # noqa: S108 - the same
    names = [name.replace("{tmp}", temporary) for name in names]
    if uid is not None:
        return [
            _candidate(config.root, name, uid) for name in dict.fromkeys(n.replace("{uid}", str(uid)) for n in names)
        ]
    found: dict[str, int] = {}
    for name in names:
        parent, start = os.path.split(name.partition("{uid}")[0])
        for path in (f"{parent}/{each}" for each in interpreters.names(config.root + parent) if each.startswith(start)):
            owner = _owner_of(config.root + path)
            if owner is not None and name in (path, f"{parent}/{start}{{uid}}"):
                found[path] = owner
    return [_candidate(config.root, path, owner) for path, owner in found.items()]


def _candidate(root: str, named: str, uid: int) -> _Candidate:
    """Choose the directory of this container: on the device of its root it has `named` alone.

    Elsewhere other containers of the pod may have the same name for theirs.
    """
    existing = named if os.path.isdir(root + named) else os.path.dirname(named)
    try:
        shared = os.stat(root + existing).st_dev != os.stat(root or "/").st_dev
    except OSError:
        shared = False
    if not shared:
        return _Candidate(named, named, uid)
    mountinfo = (reading.read_or_none(_MOUNTS) or b"").decode("utf-8", "surrogateescape")
    return _Candidate(f"{named}/{container.identity(mountinfo, os.uname().nodename)}", named, uid)


def _owner_of(path: str) -> int | None:
    try:
        return os.lstat(path).st_uid
    except OSError:
        return None


def _directory(root: str, place: _Candidate, uid: int) -> Directory | str:
    """Look at a place for bundles; returns why it cannot be used when it cannot."""
    path = place.path
    try:
        parent = writer.resolve(root, os.path.dirname(place.named if not os.path.lexists(root + place.named) else path))
        status = os.lstat(root + path) if os.path.lexists(root + path) else None
    except OSError as error:
        return f"{path}: {(error.strerror or 'unreadable').lower()}"
    if not all(_safe_parent(step, uid) for step in parent.steps):
        return f"{path} lies in a directory that others than uid {uid} can change"
    if status is None:
        writable = os.access(root + parent.real, os.W_OK | os.X_OK, effective_ids=True)
        return Directory(path, exists=False, writable=True, files=()) if writable else f"{parent.real} is not writable"
    if not stat.S_ISDIR(status.st_mode) or status.st_uid not in (0, uid):
        return f"{path} is no directory of root's or uid {uid}'s"
    if status.st_mode & 0o7777 != 0o755 and (not uid or status.st_uid != uid or status.st_mode & 0o7722 != 0o700):  # noqa: PLR2004 - rwx for its owner alone, at least
        return f"{path} has the mode {status.st_mode & 0o7777:o}: make it 755"
    kept = tuple(
        (os.path.basename(name), content)
        for name, content in _files(root, path, "")
        if _is_ours(*os.path.basename(name).partition(TEMPORARY))
    )
    return Directory(path, exists=True, writable=_writable_by_us(root + path, status, uid), files=kept)


def _is_ours(name: str, temporary: str, _: str) -> bool:
    return name in families.BUNDLE_FILES or (name == RECEIPT and bool(temporary))


def _writable_by_us(path: str, status: os.stat_result, uid: int) -> bool:
    return status.st_uid == uid and os.access(path, os.W_OK | os.X_OK, effective_ids=True)


def _safe_parent(status: os.stat_result, uid: int) -> bool:
    """Nobody else may exchange what lies in it: it is root's or ours, and not writable by others unless sticky."""
    others = stat.S_IWOTH if uid else stat.S_IWOTH | stat.S_IWGRP
    return status.st_uid in (0, uid) and (not status.st_mode & others or bool(status.st_mode & stat.S_ISVTX))


def _clients(root: str, sites: Sequence[str]) -> Iterator[str]:
    """Yield what a variable's client needs and is here; compiled packages may lie in lib64, beside lib."""
    beside = {*sites, *(site.replace("/lib/python", "/lib64/python") for site in sites)}
    for needs in (row.needs for row in families.VARIABLES if row.needs):
        places = [needs] if needs.startswith("/") else [f"{site}/{needs}" for site in beside]
        if any(os.path.lexists(root + place) for place in places):
            yield needs


def _settings(
    root: str, environ: Mapping[str, str], directories: tuple[Directory, ...], store: OsStore
) -> Iterator[Setting]:
    for variable in families.VARIABLES:
        value = environ.get(variable.name)
        origin = None if value is None else original(value, directories)
        if origin is not None:
            try:
                yield _setting(root, variable, origin, store)
            except (ValueError, RecursionError):  # a NUL in its name, or a chain of links deeper than the stack
                yield Setting(variable.name, origin, "", None, superseded=False)


def _setting(root: str, variable: Variable, origin: str, store: OsStore) -> Setting:
    superseded = origin.startswith(families.VENDOR_OVERRIDES + "/")
    path = _path_of(root, origin)
    content = None if superseded else bundle_behind(root, variable, origin)
    real = os.path.realpath(path)[len(root) :] if path else ""
    return Setting(variable.name, origin, store.path if store.makes(real) else real, content, superseded)


def _path_of(root: str, value: str) -> str:
    """Return where a value points to, "" for nothing: an empty value, or a relative one where the directory is gone."""
    try:
        return root + value if value.startswith("/") else os.path.abspath(value) if value else ""
    except FileNotFoundError:
        return ""


def bundle_behind(root: str, variable: Variable, value: str) -> bytes | None:
    """Read the bundle that a variable points to, None when there is none that its clients could read."""
    path = _path_of(root, value)
    with writer.Seeing("", path):
        return _bundle_at(path, directories=variable.directories) if path else None


def _bundle_at(path: str, *, directories: bool) -> bytes | None:
    if not directories or not os.path.isdir(path):
        return reading.read_or_none(path)
    content = b""
    for _, each in _files("", path, ""):
        content += each + b"\n" if len(content) + len(each) < reading.LIMIT else b""
    return content
