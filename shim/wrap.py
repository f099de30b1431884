"""At image build: put the shim in front of the application's programs.

The chart runs programs by `/bin/sh -c`, with and without the vendor's entrypoint, so an ENTRYPOINT of ours would never
run. A program at P moves to `/opt/ca-shim/wrapped` + P; at P stays a small file that starts the shim, which
finds the program by the file's own path.
"""

from __future__ import annotations

import os
import shutil
import stat

from shim import families, writer
from shim.errors import ShimError
from shim.interpreters import real

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_OURS = b"#!" + families.HOME.encode() + b"/"  # the first line of a wrapper, of an older build too
_EVERYBODY = 0o555
_REMARK = "; others than root can replace it, and a container that starts it as root runs what they put there"


class WrapError(ShimError):
    """Nothing could be wrapped: the image does not have the programs, or they must not be wrapped."""

    code = 64


def wrap(root: str, names: Sequence[str], path: str) -> list[str]:
    """Wrap every program of these names and return a line for each. Twice is once.

    A name without `/` stands for every program of that name on `path` and in the places of the table. Raises WrapError
    when none is found, or when one is a shell, an interpreter or ours; then nothing is changed.
    """
    programs = {name: _programs(root, name, path) for name in names}
    if not any(programs.values()):
        raise WrapError("none of the programs is in this image: name the ones that start its application")
    lines = []
    for name in names:
        lines += [_wrap_one(root, each) for each in programs[name]] or [f"{name}: not in this image, skipped"]
    return lines + _link(root)


def _programs(root: str, name: str, path: str) -> list[str]:
    """Return the real path below `root` of every program of a name."""
    directories = [*path.split(":"), *families.PROGRAM_DIRECTORIES]
    candidates = [name] if "/" in name else [f"{each}/{name}" for each in directories if each.startswith("/")]
    found = [each for each in dict.fromkeys(real(root, each) for each in candidates) if _is_program(root + each)]
    for program in (name, *found):
        if os.path.basename(program).rstrip("0123456789.") in families.NEVER_WRAPPED:
            raise WrapError(f"{program} is never wrapped: name the program that starts the application")
        if f"{program}/".startswith(f"{_home(root)}/"):
            raise WrapError(f"{program} is a part of the shim: name the program that starts the application")
        if not program.isprintable() or "'" in program or "\\" in program:
            raise WrapError(f"{program!a} cannot stand in a wrapper: rename it")
    return found


def _home(root: str) -> str:
    return real(root, families.HOME) or families.HOME


def _is_program(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def _wrap_one(root: str, program: str) -> str:
    home = root + _home(root)
    moved = home + families.WRAPPED.removeprefix(families.HOME) + program
    wrapper = _wrapper(home, program)
    done = "wrapped"
    if not _content(root + program).startswith(_OURS):
        _make_directories(os.path.dirname(moved))
        _move(root + program, moved)
    elif os.path.isfile(moved):
        done = "wrapped already"
    else:
        raise WrapError(f"{program} is a wrapper whose program {moved} is gone: build from the original image")
    _write_wrapper(root + program, wrapper)
    alone = writer.place_of(writer.resolve(root, program), {}).owner == writer.ROOT
    return f"{program}: {done}" + ("" if alone else _REMARK)


def _wrapper(home: str, program: str) -> bytes:
    """Return the command as the program's wrapper: a shell that reads it starts the program's path."""
    path = home + families.COMMAND.removeprefix(families.HOME)
    if not os.path.isfile(path):
        raise WrapError(f"{path} is not in this image: copy {families.HOME} of the runtime stage into it first")
    return _content(path).replace(f"'{families.COMMAND}'".encode(), f"'{program}'".encode())


def _link(root: str) -> list[str]:
    """Have `ca-shim` on PATH, where nothing of that name is: by root's own hand, in a directory that root owns."""
    directory, name = os.path.split(families.LINK)
    link = f"{root}{real(root, directory)}/{name}"
    if not real(root, directory) or os.path.lexists(link):
        return []
    os.symlink(families.COMMAND, link)
    return [f"{families.LINK}: linked to {families.COMMAND}"]


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _make_directories(path: str) -> None:
    """Make the directories root's and passable for everybody, whatever the umask of the build is."""
    missing: list[str] = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for directory in reversed(missing):
        os.mkdir(directory)
        os.chmod(directory, 0o755)  # noqa: S103 - programs are for everybody


def _move(source: str, target: str) -> None:
    """Copy, since image layers may not allow a rename; the source goes last, when its wrapper takes its place.

    A program that everybody may read and execute becomes root's, who looks into it at every start, and nobody else can
    write it; of another user's the set-id bits end. Any other program keeps its owner, who alone may be able to run it.
    Times and extended attributes stay. The owner comes first: a change of it clears file capabilities.
    """
    status = os.stat(source)
    owner, mode = (status.st_uid, status.st_gid), stat.S_IMODE(status.st_mode)
    if mode & _EVERYBODY == _EVERYBODY:
        owner, mode = (0, 0), mode & (0o7755 if owner == (0, 0) else 0o755)
    shutil.copyfile(source, target)
    os.chown(target, *owner)
    shutil.copystat(source, target)
    os.chmod(target, mode)


def _write_wrapper(path: str, wrapper: bytes) -> None:
    """Replace the program whole: whoever starts it meanwhile gets the old file or the wrapper."""
    temporary = f"{path}.ca-shim-new"
    with open(temporary, "wb") as file:
        file.write(wrapper)
    os.chmod(temporary, 0o755)  # noqa: S103 - a program
    os.rename(temporary, path)
