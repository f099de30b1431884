"""The settings: CA_SHIM_ variables and the options of the same meaning."""

from __future__ import annotations

import os

from shim import families
from shim.errors import UsageError
from shim.record import Note, Record
from shim.sources import Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class Setting(Record):
    """A row of the README's table of variables and options."""

    variable: str
    option: str
    value: str  # what the option is followed by, "" for nothing
    default: str
    meaning: str


SETTINGS = (
    Setting("CA_SHIM", "--off", "", "on", "`off`: become the application's user and start it, nothing else"),
    Setting(
        "CA_SHIM_CERTS",
        "--certs",
        "PATHS",
        ":".join(families.DEFAULT_SOURCES),
        "directories or files of CAs, separated by colons; those named here must exist",
    ),
    Setting(
        "CA_SHIM_USER",
        "--user",
        "USER",
        families.DEFAULT_USER,
        "the user that root becomes: a name, a uid or `user:group`; running as `root` must be requested explicitly",
    ),
    Setting(
        "CA_SHIM_ON_ERROR",
        "--on-error",
        "warn|stop",
        "warn",
        "`stop`: a problem is fatal before the application starts",
    ),
    Setting("CA_SHIM_CERTIFI", "--certifi", "PATHS", "found", "certifi bundles (`cacert.pem`), separated by colons"),
    Setting("CA_SHIM_BUNDLE_DIR", "--bundle-dir", "DIR", "first usable", "directory of the override bundles"),
)
_ON = {"": True, "on": True, "true": True, "yes": True, "1": True}
_OFF = {"off": False, "false": False, "no": False, "0": False}
_SWITCH = {**_ON, **_OFF}


class Config(Record):
    """The settings of one invocation."""

    sources: tuple[Source, ...]
    user: str
    user_named: bool
    stop: bool
    off: bool
    certifi: tuple[str, ...]
    bundle_dir: str
    in_place: bool = True  # False: leave every store alone and override
    alone: bool = True  # False: an application may be running whose variables point to our bundles
    locked: bool = False  # True: this process keeps other starts from writing already
    root: str = ""  # a directory that stands for `/`; "" is the real one


def read(environ: Mapping[str, str], options: Mapping[str, str] | None = None, root: str = "") -> Config:
    """Make the settings of variables and of options, which win; an empty one counts as unset.

    `options` maps variable names to the values given on the command line. Raises UsageError with all that is wrong.
    """
    values = {**{row.variable: environ.get(row.variable, "") for row in SETTINGS}, **(options or {})}
    _check(values, root)
    named = tuple(Source(path, named=True) for path in _paths(values["CA_SHIM_CERTS"]))
    return Config(
        sources=(Source(families.BAKED), *(named or map(Source, families.DEFAULT_SOURCES))),
        user=values["CA_SHIM_USER"] or families.DEFAULT_USER,
        user_named=bool(values["CA_SHIM_USER"]),
        stop=values["CA_SHIM_ON_ERROR"].lower() == "stop",
        off=not _SWITCH[values["CA_SHIM"].lower()],
        certifi=_paths(values["CA_SHIM_CERTIFI"]),
        bundle_dir=values["CA_SHIM_BUNDLE_DIR"].rstrip("/"),
        root=root.rstrip("/"),
    )


def unknown(environ: Mapping[str, str]) -> tuple[Note, ...]:
    """Return a note for every CA_SHIM_ variable that does not exist, with the nearest that does."""
    known = [row.variable for row in SETTINGS]
    strange = sorted(name for name in environ if name.startswith("CA_SHIM_") and name not in known)
    return tuple(_unknown(name, known) for name in strange)


def _unknown(name: str, known: list[str]) -> Note:
    from difflib import get_close_matches

    nearest = next(iter(get_close_matches(name, known, cutoff=0)), known[0])
    return Note("setting.unknown", (("variable", name), ("remedy", f"did you mean {nearest}?")))


def _check(values: Mapping[str, str], root: str) -> None:
    wrong = [] if not root or os.path.isdir(root) else [f"--root {root!a} is not a directory"]
    if values["CA_SHIM"].lower() not in _SWITCH:
        wrong.append("CA_SHIM is neither on nor off")
    if values["CA_SHIM_ON_ERROR"].lower() not in ("", "warn", "stop"):
        wrong.append("CA_SHIM_ON_ERROR is neither warn nor stop")
    for name in ("CA_SHIM_CERTS", "CA_SHIM_CERTIFI", "CA_SHIM_BUNDLE_DIR"):
        if any(not path.startswith("/") for path in _paths(values[name])):
            wrong.append(f"{name} has a path that does not start with /")
        if any(ord(character) < 0x20 for character in values[name]):  # noqa: PLR2004 - ASCII control characters
            wrong.append(f"{name} has a control character")
    if ":" in values["CA_SHIM_BUNDLE_DIR"]:
        wrong.append("CA_SHIM_BUNDLE_DIR is one directory, without a colon")
    if wrong:
        raise UsageError("; ".join(wrong) + ": correct the variable or the option")


def _paths(value: str) -> tuple[str, ...]:
    return tuple(path for path in value.split(":") if path)
