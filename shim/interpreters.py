"""Find the certifi bundles that a command can use, by looking at the file system only: nothing is executed."""

from __future__ import annotations

import os

from shim import families, reading, writer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import TypeVar

    _Found = TypeVar("_Found")

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
OF_COMMAND = "the command's interpreter"  # how a bundle was found
_MAX_NAMED = 512  # absolute paths in the shell scripts of a command, with the directories above them
_MAX_SCRIPTS = 16
_SCRIPT = 64 * 1024  # bytes of a shell script that are read
_DELIMITERS = bytes.maketrans(b"\0\"'`;&|()<>{}=:,", b" " * 16)  # between the words of a script, besides whitespace
_IN_SCRIPT = "named in a shell script"


def certifi_bundles(root: str, environ: Mapping[str, str], command: Sequence[str]) -> dict[str, str]:
    """Map the path of every certifi bundle to how it was found, the command's own first.

    A bundle inside an archive is there by the archive's path.
    """
    path = environ.get("PATH", DEFAULT_PATH)
    searches = (_of_command(root, command, path), _of_environment(root, environ, path), _of_pythons(root, path))
    sites: dict[str, str] = {}
    for search in searches:
        for prefix, how in _until_it_stumbles(search):
            for site in families.SITE_BELOW_PREFIX:
                sites.setdefault(f"{prefix}/{site}", how)
    for site in families.SITE_DIRECTORIES:
        sites.setdefault(site, "known place")
    found: dict[str, str] = {}
    for pattern, how in sites.items():
        for bundle in _bundles_in(root, pattern):
            found.setdefault(bundle, how)
    return found


def _until_it_stumbles(search: Iterator[_Found]) -> Iterator[_Found]:
    """Yield what a search finds: a file that makes it fail costs the rest of this search, and no other."""
    try:
        yield from search
    except (OSError, ValueError):  # a NUL in a path, a name that is no UTF-8
        return


def which(root: str, name: str, path: str) -> str:
    """Return the path of a command as execvp(3) finds it, "" when it does not."""
    if "/" in name:
        return name if os.path.isabs(name) else os.path.abspath(name)
    for directory in path.split(":"):
        candidate = f"{directory or '.'}/{name}"
        if os.path.isfile(root + candidate) and os.access(root + candidate, os.X_OK):
            return candidate
    return ""


def real(root: str, path: str) -> str:
    """Follow the links of a path without leaving `root`; return "" for one that leads nowhere."""
    try:
        return writer.resolve(root, path).real
    except OSError:
        return ""


def _of_command(root: str, command: Sequence[str], path: str) -> Iterator[tuple[str, str]]:
    """Follow the command through env, our own wrapper and shell scripts to a Python, then what the scripts name."""
    words, scripts = list(command), list[bytes]()
    while words:
        program = which(root, words.pop(0), path)
        interpreter = _interpreter(root, program, path)
        if os.path.basename(interpreter) not in families.SHELLS:
            yield from _both_prefixes(root, interpreter, OF_COMMAND)
            break
        if program == interpreter:
            scripts.append(" ".join(words).encode("utf-8", "surrogateescape"))
            words = [word for word in words if not word.startswith("-")]
        else:
            scripts.append(_script(root, program))
    yield from _named_in(root, scripts, path)


def _named_in(root: str, scripts: list[bytes], path: str) -> Iterator[tuple[str, str]]:
    """Follow the absolute paths that shell scripts name, and those that the scripts among them name in turn."""
    seen: dict[str, None] = {}
    for script in scripts:
        for program, sourced in _paths_in(script):
            if len(seen) >= _MAX_NAMED:
                return
            if program in seen:
                continue
            above = os.path.dirname(program)
            prefixes = [each for each in (program, above, os.path.dirname(above)) if each not in seen]
            seen.update(dict.fromkeys([program, *prefixes]))
            venvs = (each for each in prefixes if _is_venv(root, each) or program == f"{each}/bin/activate")
            yield from ((each, _IN_SCRIPT) for each in venvs)
            interpreter = _interpreter(root, program, path) if os.path.isfile(root + program) else ""
            if os.path.basename(interpreter).startswith("python"):
                yield from _both_prefixes(root, interpreter, _IN_SCRIPT)
            elif sourced or (interpreter != program and os.path.basename(interpreter) in families.SHELLS):
                scripts += [_script(root, program)] if len(scripts) < _MAX_SCRIPTS else []


def _paths_in(script: bytes) -> Iterator[tuple[str, bool]]:
    """Yield the absolute paths among the words of a shell script, and whether the script sources it."""
    words = script.translate(_DELIMITERS).split()
    for before, word in dict.fromkeys(zip([b"", *words], words, strict=False)):
        if word.startswith(b"/"):
            yield os.path.normpath(word.decode("utf-8", "surrogateescape")), before in (b".", b"source")


def _of_environment(root: str, environ: Mapping[str, str], path: str) -> Iterator[tuple[str, str]]:
    if environ.get("VIRTUAL_ENV", "").startswith("/"):
        yield environ["VIRTUAL_ENV"].rstrip("/"), "VIRTUAL_ENV"
    for directory in path.split(":"):
        prefix = os.path.dirname(directory.rstrip("/"))
        if _is_venv(root, prefix):
            yield prefix, "venv on PATH"


def _of_pythons(root: str, path: str) -> Iterator[tuple[str, str]]:
    for name in ("python3", "python"):
        yield from _both_prefixes(root, which(root, name, path), f"{name} on PATH")


def _is_venv(root: str, prefix: str) -> bool:
    return os.path.isfile(f"{root}{prefix}/pyvenv.cfg")


def _both_prefixes(root: str, interpreter: str, how: str) -> Iterator[tuple[str, str]]:
    """Return the prefix of a venv's interpreter and that of the interpreter it is a link to; nothing for ""."""
    if interpreter:
        prefix = os.path.dirname(os.path.dirname(interpreter))
        yield prefix, how
        base = os.path.dirname(os.path.dirname(real(root, interpreter)))
        if base not in ("", prefix) and not _is_venv(root, prefix):
            yield base, how


def _interpreter(root: str, program: str, path: str) -> str:
    """Return what runs a program: the program itself when it is a Python or a shell, else what its `#!` line names."""
    name = os.path.basename(program)
    itself = not program or name.startswith("python") or name in families.SHELLS
    return program if itself else _shebang(root, _unwrapped(root, program), path)


def _script(root: str, program: str) -> bytes:
    return reading.head(root + _unwrapped(root, program), _SCRIPT)


def _unwrapped(root: str, program: str) -> str:
    moved = families.WRAPPED + real(root, program)
    return moved if os.path.isfile(root + moved) else program


def _shebang(root: str, program: str, path: str) -> str:
    line = reading.head(root + program).partition(b"\n")[0].partition(b"\0")[0]  # as the kernel reads it
    words = line[2:].decode("utf-8", "surrogateescape").split() if line.startswith(b"#!") else []
    if words and os.path.basename(words[0]) == "env":
        words = [which(root, word, path) for word in words[1:] if not word.startswith("-") and "=" not in word]
    return words[0] if words else ""


def _bundles_in(root: str, pattern: str) -> Iterator[str]:
    """Yield the bundle, and the archives of one, in each directory that matches a pattern."""
    head, _, tail = families.CERTIFI_ARCHIVE.partition("*")
    for site in _expand(root, pattern):
        archives = [name for name in names(root + site) if name.startswith(head) and name.endswith(tail)]
        yield from (
            f"{site}/{name}" for name in (families.CERTIFI, *archives) if os.path.isfile(f"{root}{site}/{name}")
        )


def _expand(root: str, pattern: str) -> list[str]:
    """Return the paths that match a pattern with at most one `*` in a component, sorted; they need not exist."""
    paths = [""]
    for component in pattern.strip("/").split("/"):
        head, star, tail = component.partition("*")
        paths = [
            f"{path}/{name}"
            for path in paths
            for name in (names(root + path) if star else [component])
            if not star or (name.startswith(head) and name.endswith(tail))
        ]
    return paths


def names(directory: str) -> list[str]:
    """Return the sorted names in a directory, none when it cannot be listed."""
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []
