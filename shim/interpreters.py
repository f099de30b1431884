"""Find the certifi bundles that a command can use, by looking at the file system only: nothing is executed."""

from __future__ import annotations

import os

from shim import families, reading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
OF_COMMAND = "the command's interpreter"  # how a bundle was found
_MAX_CHAIN = 5  # entrypoint, wrapper, shell script, ...


def certifi_bundles(root: str, environ: Mapping[str, str], command: Sequence[str]) -> dict[str, str]:
    """Map the path of every certifi bundle to how it was found, the command's own first."""
    found: dict[str, str] = {}
    for prefix, how in _prefixes(root, environ, command):
        for pattern in families.SITE_BELOW_PREFIX:
            for path in _expand(root, f"{prefix}/{pattern}/{families.CERTIFI}"):
                found.setdefault(path, how)
    for pattern in families.SITE_DIRECTORIES:
        for path in _expand(root, f"{pattern}/{families.CERTIFI}"):
            found.setdefault(path, "known place")
    return found


def which(root: str, name: str, path: str) -> str:
    """Give the path of a command as execvp(3) finds it, "" when it does not."""
    if "/" in name:
        return name if os.path.isabs(name) else os.path.abspath(name)
    for directory in path.split(":"):
        candidate = f"{directory or '.'}/{name}"
        if os.path.isfile(root + candidate) and os.access(root + candidate, os.X_OK):
            return candidate
    return ""


def _prefixes(root: str, environ: Mapping[str, str], command: Sequence[str]) -> Iterator[tuple[str, str]]:
    path = environ.get("PATH", DEFAULT_PATH)
    interpreter = _interpreter(root, command, path)
    if interpreter:
        yield from _both_prefixes(root, interpreter, OF_COMMAND)
    if environ.get("VIRTUAL_ENV", "").startswith("/"):
        yield environ["VIRTUAL_ENV"].rstrip("/"), "VIRTUAL_ENV"
    for directory in path.split(":"):
        prefix = os.path.dirname(directory.rstrip("/"))
        if os.path.isfile(f"{root}{prefix}/pyvenv.cfg"):
            yield prefix, "venv on PATH"
    for name in ("python3", "python"):
        if found := which(root, name, path):
            yield from _both_prefixes(root, found, f"{name} on PATH")


def _both_prefixes(root: str, interpreter: str, how: str) -> Iterator[tuple[str, str]]:
    """Give the prefix of a venv's interpreter and that of the interpreter it is a link to."""
    prefix = os.path.dirname(os.path.dirname(interpreter))
    yield prefix, how
    real = os.path.realpath(root + interpreter)[len(root) :]
    if os.path.dirname(os.path.dirname(real)) != prefix and not os.path.isfile(f"{root}{prefix}/pyvenv.cfg"):
        yield os.path.dirname(os.path.dirname(real)), how


def _interpreter(root: str, command: Sequence[str], path: str) -> str:
    """Follow `#!` lines through env, our own wrapper and shell scripts to a Python; "" when there is none."""
    words = list(command)
    for _ in range(_MAX_CHAIN):
        program = which(root, words[0], path) if words else ""
        if not program or os.path.basename(program).startswith("python"):
            return program
        interpreter = _shebang(root, _unwrapped(root, program), path)
        name = os.path.basename(interpreter)
        if name.startswith("python") or name not in families.SHELLS:
            return interpreter
        words = words[1:]
    return ""


def _unwrapped(root: str, program: str) -> str:
    moved = families.WRAPPED + os.path.realpath(root + program)[len(root) :]
    return moved if os.path.isfile(root + moved) else program


def _shebang(root: str, program: str, path: str) -> str:
    line = reading.head(root + program).partition(b"\n")[0]
    words = line[2:].decode("utf-8", "surrogateescape").split() if line.startswith(b"#!") else []
    if words and os.path.basename(words[0]) == "env":
        words = [which(root, word, path) for word in words[1:] if not word.startswith("-")]
    return words[0] if words else ""


def _expand(root: str, pattern: str) -> list[str]:
    """Give the existing paths that match a pattern with at most one `*` in a component, sorted."""
    paths = [""]
    for component in pattern.strip("/").split("/"):
        if "*" not in component:
            paths = [f"{path}/{component}" for path in paths]
            continue
        head, _, tail = component.partition("*")
        paths = [
            f"{path}/{name}"
            for path in paths
            for name in names(root + path)
            if name.startswith(head) and name.endswith(tail)
        ]
    return [path for path in paths if os.path.isfile(root + path)]


def names(directory: str) -> list[str]:
    """Give the sorted names in a directory, none when it cannot be listed."""
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []
