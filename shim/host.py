"""Look: the stores, directories and variables of this machine as they are now, in one immutable snapshot."""

from __future__ import annotations

import os
import stat

from shim import bundle, families, interpreters, reading, writer
from shim.snapshot import ANCHOR_PREFIX, SAVED, TEMPORARY, CertifiStore, Directory, OsStore, Setting, Snapshot, original

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from shim.config import Config
    from shim.families import Family, Variable
    from shim.writer import Owner, Place

_MAX_CERTIFI = 8 * 1024 * 1024  # bytes; certifi's own has a thirtieth of it
_MAX_STORES = 32
_ENOUGH = 4 * 1024 * 1024  # bytes, for all outputs of a refresh tool
_SWITCHED_OFF = "changes in place are switched off"
RECEIPT = "receipt"
LOCK = "lock"


def look(config: Config, environ: Mapping[str, str], command: Sequence[str], uid: int | None = None) -> Snapshot:
    """Take a snapshot; changes nothing, executes nothing and raises nothing for what is missing or unreadable.

    The directories of override bundles are those of `uid`, which is this process's unless another's are asked for.
    """
    root = config.root
    passwd = (reading.read_or_none(f"{root}/etc/passwd") or b"").decode("utf-8", "surrogateescape")
    directories = tuple(_directories(config, environ, os.geteuid() if uid is None else uid))
    return Snapshot(
        os=_os_store(config),
        certifi=tuple(_certifi_stores(config, environ, command, passwd)),
        directories=directories,
        settings=tuple(_settings(root, environ, directories)),
        curl_needs_bundle=families.CERT_DIR in environ or os.path.exists(root + families.FRESHCLAM),
        go_can_be_steered=environ.get(families.CERT_DIR, families.HOME) == families.HOME
        and os.path.isdir(root + families.HOME),
        alone=config.alone,
    )


def uid_of_last_start(config: Config, environ: Mapping[str, str]) -> int:
    """Give the user whose start has left bundles last; our own when none has. Whoever asks gets the same answer."""
    found = [(config.root + path, uid) for path, uid in _bundle_directories(config, environ, None).items()]
    times = {(changed_at(f"{path}/{name}"), uid) for path, uid in found for name in ("env", RECEIPT)}
    latest, uid = max(times, default=(0, 0))
    return uid if latest else os.geteuid()


def changed_at(path: str) -> int:
    """Give when a file was written last, in nanoseconds since the epoch; 0 when there is none."""
    try:
        return os.lstat(path).st_mtime_ns
    except OSError:
        return 0


def is_safe_directory(path: str, uid: int) -> bool:
    """Say whether nobody but root and `uid` can exchange what `uid` makes in a directory."""
    try:
        return all(_safe_parent(step, uid) for step in writer.resolve("", path).steps)
    except OSError:
        return False


def family_of(root: str) -> Family | None:
    """Give the row of this system by os-release's ID, then by each ID_LIKE; None when there is none."""
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
        content = reading.read_or_none(root + path) or b"" if path else b""
        return OsStore(None, path, content, (), b"", (), "this system has no row in the table of families")
    return OsStore(
        family=family,
        path=path,
        content=_os_bundle(root + path),
        anchors=tuple(_files(root, family.anchors, ANCHOR_PREFIX)),
        state=reading.read_or_none(root + family.state) or b"",
        blocklist=tuple(content for name in family.blocklists for _, content in _files(root, name, "")),
        blocked=_why_blocked(root, family) if config.in_place else _SWITCHED_OFF,
        tool=identity_of_tool(root, family),
    )


def identity_of_tool(root: str, family: Family) -> bytes:
    """Return what differs once the refresh tool, a program beside it, or the directory it writes to has changed."""
    paths = (family.tool, os.path.dirname(family.bundle), *families.TOOL_PATH)
    try:
        found = [os.stat(root + path) for path in paths if os.path.exists(root + path)]
        disk = os.statvfs(root + paths[1])
    except OSError:
        return b""
    space = disk.f_flag & os.ST_RDONLY, disk.f_bavail * disk.f_frsize >= _ENOUGH
    return str((space, *((each.st_mtime_ns, each.st_mode) for each in found))).encode()


def _os_bundle(path: str) -> bytes:
    """Read the bundle, or its copy where an unfinished refresh has left less in it."""
    content, copy = (reading.read_or_none(each) or b"" for each in (path, path + SAVED))
    return copy if copy and len(bundle.fingerprints(copy)) > len(bundle.fingerprints(content)) else content


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
    """Say whether nobody but root can change what lies at a path, or exchange what is on the way to it."""
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
    """Give each certifi once, by its real path; one that is a link to the OS bundle belongs to the OS store."""
    from shim.accounts import primary_groups

    groups = primary_groups(passwd)
    found = dict.fromkeys(config.certifi, "CA_SHIM_CERTIFI")
    seen = {os.path.realpath(config.root + path)[len(config.root) :] for path in families.OS_BUNDLES}
    for path, how in (found or interpreters.certifi_bundles(config.root, environ, command)).items():
        try:
            resolved = writer.resolve(config.root, path)
        except OSError as error:
            yield CertifiStore(path, how, b"", None, (error.strerror or "unreadable").lower(), leftover=False)
            continue
        if resolved.real not in seen and len(seen) < _MAX_STORES + len(families.OS_BUNDLES):
            seen.add(resolved.real)
            place = writer.place_of(resolved, groups) if config.in_place else writer.Place(None, _SWITCHED_OFF)
            yield _certifi_store(config.root, resolved, how, place)


def _certifi_store(root: str, resolved: writer.Resolved, how: str, place: Place) -> CertifiStore:
    path = root + resolved.real
    content = _read_as(place.owner or _first_stranger(resolved), path)
    blocked = place.reason or _why_not_writable(place.owner, path)
    if content is None:
        blocked = "it cannot be read"
    elif not bundle.looks_whole(content):
        blocked = "the marks of our block are damaged: restore the file from its package"
    leftover = os.path.lexists(path + TEMPORARY)
    return CertifiStore(resolved.real, how, content or b"", place.owner, blocked, leftover)


def _first_stranger(resolved: writer.Resolved) -> Owner:
    """Give the first who is not root among the owners of what was passed: a planted link was made by one of them."""
    uids = (status.st_uid for status in (*resolved.links, *resolved.steps) if status.st_uid != 0)
    return writer.Owner(next(uids, 0), writer.NOBODY)


def _read_as(owner: Owner, path: str) -> bytes | None:
    """Root reads a file as its owner: a link planted there leads no further than its owner could go."""
    if os.geteuid() != 0:
        return reading.read_or_none(path, _MAX_CERTIFI)
    try:
        with writer.Acting(owner):
            return reading.read_or_none(path, _MAX_CERTIFI)
    except OSError:  # root without the capability to become anybody reads as what it is
        return reading.read_or_none(path, _MAX_CERTIFI)


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
    group = os.stat(path).st_gid
    if os.geteuid() not in (0, owner.uid) or (os.geteuid() and group not in (os.getegid(), *os.getgroups())):
        return f"its group {group} could not be kept"
    return ""


def _directories(config: Config, environ: Mapping[str, str], uid: int) -> Iterator[Directory]:
    """Give the candidates in order: existing ones of root's or ours, and those that could be made."""
    paths = _bundle_directories(config, environ, uid)
    for path in paths:
        directory = _directory(config.root, path, uid) if path.startswith("/") else None
        if directory:
            yield directory
    for path in (path for path in _bundle_directories(config, environ, 0) if path not in paths):
        directory = _directory(config.root, path, uid)
        if directory and directory.exists:  # a start as root has been here, and its bundles serve us as well
            yield directory


def _bundle_directories(config: Config, environ: Mapping[str, str], uid: int | None) -> dict[str, int]:
    """Map the places for bundles of `uid`, or of everybody who has one, to whose they are."""
    names = [config.bundle_dir] if config.bundle_dir else families.BUNDLE_DIRECTORIES
    temporary = environ.get("TMPDIR", "/tmp")  # noqa: S108 - checked by lstat
    if not temporary.isprintable():
        temporary = "/tmp"  # noqa: S108 - the same
    names = [name.replace("{tmp}", temporary) for name in names]
    if uid is not None:
        return dict.fromkeys((name.replace("{uid}", str(uid)) for name in names), uid)
    found: dict[str, int] = {}
    for name in names:
        parent, start = os.path.split(name.partition("{uid}")[0])
        for path in (f"{parent}/{each}" for each in interpreters.names(config.root + parent) if each.startswith(start)):
            owner = _owner_of(config.root + path)
            if owner is not None and name in (path, f"{parent}/{start}{{uid}}"):
                found[path] = owner
    return found


def _owner_of(path: str) -> int | None:
    try:
        return os.lstat(path).st_uid
    except OSError:
        return None


def _directory(root: str, path: str, uid: int) -> Directory | None:
    try:
        parent = writer.resolve(root, os.path.dirname(path))
    except OSError:
        return None
    if not all(_safe_parent(step, uid) for step in parent.steps):
        return None
    try:
        status = os.lstat(root + path)
    except FileNotFoundError:
        writable = os.access(root + parent.real, os.W_OK | os.X_OK, effective_ids=True)
        return Directory(path, exists=False, writable=True, files=()) if writable else None
    except OSError:
        return None
    if not stat.S_ISDIR(status.st_mode) or status.st_uid not in (0, uid) or status.st_mode & 0o7777 != 0o755:  # noqa: PLR2004 - rwxr-xr-x
        return None
    kept = tuple(
        (os.path.basename(name), content)
        for name, content in _files(root, path, "")
        if os.path.basename(name).removesuffix(TEMPORARY) in families.BUNDLE_FILES or name.endswith(RECEIPT + TEMPORARY)
    )
    return Directory(path, exists=True, writable=_writable_by_us(root + path, status, uid), files=kept)


def _writable_by_us(path: str, status: os.stat_result, uid: int) -> bool:
    return status.st_uid == uid and os.access(path, os.W_OK | os.X_OK, effective_ids=True)


def _safe_parent(status: os.stat_result, uid: int) -> bool:
    """Nobody else may exchange what lies in it: it is root's or ours, and not writable by others unless sticky."""
    others = stat.S_IWOTH if uid else stat.S_IWOTH | stat.S_IWGRP
    return status.st_uid in (0, uid) and (not status.st_mode & others or bool(status.st_mode & stat.S_ISVTX))


def _settings(root: str, environ: Mapping[str, str], directories: tuple[Directory, ...]) -> Iterator[Setting]:
    for variable in families.VARIABLES:
        value = environ.get(variable.name)
        origin = None if value is None else original(value, directories)
        if origin is not None:
            yield _setting(root, variable, origin)


def _setting(root: str, variable: Variable, origin: str) -> Setting:
    superseded = origin.startswith(families.VENDOR_OVERRIDES + "/")
    path = _path_of(root, origin)
    content = None if superseded else bundle_behind(root, variable, origin)
    return Setting(variable.name, origin, os.path.realpath(path)[len(root) :], content, superseded)


def _path_of(root: str, value: str) -> str:
    return root + value if value.startswith("/") else os.path.abspath(value) if value else ""


def bundle_behind(root: str, variable: Variable, value: str) -> bytes | None:
    """Read the bundle that a variable points to, None when there is none that its clients could read."""
    path = _path_of(root, value)
    if not path or not variable.directories or not os.path.isdir(path):
        return reading.read_or_none(path) if path else None
    content = b""
    for _, each in _files("", path, ""):
        content += each + b"\n" if len(content) + len(each) < reading.LIMIT else b""
    return content
