"""At image build: put the shim in front of the application's programs.

The chart runs programs by `/bin/sh -c`, with and without the vendor's entrypoint, so an ENTRYPOINT of ours would never
run. A program at P moves to `/opt/ca-shim/wrapped` + P; at P stays a small file, the same for all, that starts the
shim, which finds the program by the file's own path.
"""

from __future__ import annotations

import os
import shutil
import stat

from shim import families
from shim.errors import ShimError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_OURS = b"#!" + families.HOME.encode() + b"/"  # the first line of a wrapper, of an older build too
NEVER = ("node",)  # the UI starts it with its own arguments, and it reads a variable instead of a store


class WrapError(ShimError):
    """Nothing could be wrapped: the image does not have the programs."""

    code = 64


def wrap(root: str, names: Sequence[str], path: str) -> list[str]:
    """Wrap every program of these names; gives a line for each. Twice is once.

    A name without `/` stands for every program of that name on `path` and in the places of the table. Owner, mode and
    times of a program stay its own. Raises WrapError when none is found.
    """
    lines, found = [], 0
    for name in names:
        programs = _programs(root, name, path)
        found += len(programs)
        lines += [_wrap_one(root, program) for program in programs] or [f"{name}: not in this image, skipped"]
    if found:
        lines += _link(root)
    if not found:
        raise WrapError("none of the programs is in this image: name the ones that start its application")
    return lines


def _programs(root: str, name: str, path: str) -> list[str]:
    if os.path.basename(name) in NEVER:
        raise WrapError(f"{name} is never wrapped: wrap the script that starts it")
    directories = [*path.split(":"), *families.PROGRAM_DIRECTORIES]
    candidates = (
        [name] if "/" in name else [f"{directory}/{name}" for directory in directories if directory.startswith("/")]
    )
    real = (os.path.realpath(root + candidate) for candidate in candidates)
    return list(dict.fromkeys(each[len(root) :] for each in real if os.path.isfile(each) and os.access(each, os.X_OK)))


def _wrap_one(root: str, program: str) -> str:
    moved = root + families.WRAPPED + program
    wrapper = _wrapper(root)
    if _content(root + program).startswith(_OURS):
        if not os.path.isfile(moved):
            raise WrapError(f"{program} is a wrapper whose program {moved} is gone: build from the original image")
        _write_wrapper(root + program, wrapper)
        return f"{program}: wrapped already"
    _make_directories(os.path.dirname(moved))
    _move(root + program, moved)
    _write_wrapper(root + program, wrapper)
    return f"{program}: wrapped"


def _wrapper(root: str) -> bytes:
    path = families.COMMAND
    if not os.path.isfile(root + path):
        raise WrapError(f"{path} is not in this image: copy {families.HOME} of the runtime stage into it first")
    return _content(root + path)


def _link(root: str) -> list[str]:
    """Have `ca-shim` on PATH, where nothing of that name is: by root's own hand, in a directory that root owns."""
    link = families.LINK
    if os.path.lexists(root + link) or not os.path.isdir(root + os.path.dirname(link)):
        return []
    os.symlink(families.COMMAND, root + link)
    return [f"{link}: linked to {families.COMMAND}"]


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
    """Copy with owner, mode and times, since image layers may not allow a rename; the source goes last."""
    status = os.stat(source)
    shutil.copy2(source, target)
    os.chown(target, status.st_uid, status.st_gid)
    os.chmod(target, stat.S_IMODE(status.st_mode))


def _write_wrapper(path: str, wrapper: bytes) -> None:
    """Replace the program whole: whoever starts it meanwhile gets the old file or the wrapper."""
    temporary = f"{path}.ca-shim-new"
    with open(temporary, "wb") as file:
        file.write(wrapper)
    os.chmod(temporary, 0o755)  # noqa: S103 - a program
    os.rename(temporary, path)
