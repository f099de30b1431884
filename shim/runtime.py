"""Assemble the self-contained tree that the image carries: interpreter, libraries, loader, packages, papers.

Runs once, while the image is built, by the Python whose copy goes into the tree:
``python3 -P -m shim.runtime /opt/ca-shim [SCRIPT...]``. Wherever the tree is copied to, nothing in it maps a shared
object from outside it. Standard library only, and patchelf.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

from shim import papers
from shim.record import Record
from shim.sbom import normalised

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

HOME = Path("/opt/ca-shim")
DISTRIBUTION = "anchore-ca-shim"

# bin/ca-shim, and what `wrap` puts in a program's place. -ISB: neither the environment nor the working directory nor
# site-packages of any Python is looked at, and no bytecode is written. -X utf8: glibc never loads a character set
# converter (gconv) of the image for the sake of LANG. The second line is for `sh FILE` and `. FILE`, which ignore the
# first: a shell starts the file by its path, which `wrap` fills in (a sourcing shell is replaced, as by an entrypoint
# that ends in exec "$@"); Python sees a string.
WRAPPER = f"""\
#!{HOME}/bin/python3 -ISBXutf8
'exec' '{HOME}/bin/ca-shim' "$@"
import sys
sys.path.append("{HOME}/site")
from shim.cli import main
sys.exit(main())
"""

# What of the standard library stays behind: for developers and screens, or in need of a library that every scanner
# would then report in the image. What is left imports: tests/container/test_runtime.py tries every module.
_LEFT_BEHIND = frozenset(
    """
    __pycache__ test tests idlelib tkinter _tkinter turtle turtledemo lib2to3 distutils ensurepip venv pydoc pydoc_data
    doctest unittest pdb bdb cProfile profile pstats _lsprof trace antigravity this __hello__ __phello__ _pyrepl
    site-packages dist-packages sitecustomize LICENSE EXTERNALLY-MANAGED
    curses _curses _curses_panel dbm _dbm _gdbm sqlite3 _sqlite3 readline rlcompleter nis ossaudiodev audioop
    bz2 _bz2 lzma _lzma _zstd _uuid crypt _crypt pyexpat xml xmlrpc plistlib wsgiref
    multiprocessing _multiprocessing _posixshmem _elementtree cgitb zoneinfo _zoneinfo _distutils_system_mod
    _aix_support _android_support _apple_support _ios_support _osx_support
    """.split()  # noqa: SIM905 a list of a hundred quoted words is no easier to read
)
_LEFT_BEHIND_NAMES = re.compile(r"(config-|_sysconfigdata|_sysconfig_vars|_test|_ctypes_test|xx|_xx).*")

# glibc opens it by name to end a thread: no ELF header mentions it.
_OPENED_BY_NAME = ("libgcc_s.so.1",)

# How `ldconfig -p` marks the libraries of a machine.
_MARKS = {"x86_64": "x86-64", "aarch64": "AArch64"}

# Run by the new interpreter before the tree is called ready.
_PROOF = """\
import argparse, asyncio, hashlib, http.client, http.server, importlib, json, pkgutil, signal, ssl, subprocess, sys
sys.path.append(sys.argv[1])
import certifi, cryptography.x509, cryptography.hazmat.primitives.serialization.pkcs7, structlog, shim
from cryptography.hazmat.backends.openssl import backend
for module in pkgutil.iter_modules(shim.__path__, "shim."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
with open("/proc/self/maps") as maps:
    print(json.dumps([backend.openssl_version_text(), maps.read()]))
"""


class AssemblyError(Exception):
    """The tree cannot be assembled here: a sentence for whoever builds the image."""


class Tree(Record):
    """Where things lie below the tree's top."""

    home: Path
    version: str

    @property
    def interpreter(self) -> Path:
        """The interpreter."""
        return self.home / "bin" / "python3"

    @property
    def libraries(self) -> Path:
        """The loader and the shared libraries."""
        return self.home / "lib"

    @property
    def standard_library(self) -> Path:
        """Where the interpreter finds its standard library by itself."""
        return self.home / sys.platlibdir / f"python{self.version}"

    @property
    def site(self) -> Path:
        """The packages: a place that does not change with Python's version."""
        return self.home / "site"


# --- plain data -------------------------------------------------------------------------------------------------------


def is_left_behind(name: str) -> bool:
    """Whether this entry of the standard library's directory, or of lib-dynload, stays out of the tree."""
    return name.partition(".")[0] in _LEFT_BEHIND or _LEFT_BEHIND_NAMES.fullmatch(name) is not None


def parse_ldconfig(text: str, mark: str) -> dict[str, Path]:
    """Library name to path, from ``ldconfig -p``: of several the first one made for every processor of the kind."""
    found: dict[str, Path] = {}
    for name, flags, path in re.findall(r"^\s+(\S+) \((.*?)\) => (/.*)$", text, re.MULTILINE):
        if mark in flags.replace(" ", "").split(",") and "hwcap" not in flags:
            found.setdefault(name, Path(path))
    return found


def requirement_name(requirement: str) -> str:
    """The normalised name in a Requires-Dist line; empty for what only an extra asks for."""
    specifier, _, marker = requirement.partition(";")
    match = re.match(r"\s*([A-Za-z0-9._-]+)", specifier)
    return "" if match is None or re.search(r"\bextra\b", marker) else normalised(match[1])


def closure(roots: Iterable[str], needs: Callable[[str], Iterable[str]]) -> tuple[str, ...]:
    """The roots and all they need, directly or not, each once."""
    found: dict[str, None] = {}
    waiting = list(roots)
    while waiting:
        name = waiting.pop(0)
        if name not in found:
            found[name] = None
            waiting.extend(needs(name))
    return tuple(found)


def search_path(rpath: str, libraries: Path) -> str:
    """The search path for an object that has one: its places relative to itself stay, then the tree's libraries."""
    relative = [entry for entry in rpath.split(":") if entry.startswith("$ORIGIN")]
    return ":".join([*relative, str(libraries)])


def foreign_objects(maps: str, home: Path) -> tuple[str, ...]:
    """The shared objects in ``/proc/PID/maps`` that lie outside the tree."""
    paths = set(re.findall(r"(/.*)$", maps, re.MULTILINE))
    return tuple(sorted(path for path in paths if re.search(r"\.so\b", path) and not path.startswith(f"{home}/")))


# --- the tree ---------------------------------------------------------------------------------------------------------


def assemble(home: Path, scripts: Iterable[Path], report: str) -> None:
    """Fill ``home``; afterwards its interpreter has imported, from the tree alone, all that the shim needs."""
    _refuse_other_systems(platform.libc_ver()[0], platform.machine())
    tree = Tree(home, f"{sys.version_info[0]}.{sys.version_info[1]}")
    for directory in (tree.interpreter.parent, tree.libraries, tree.site, home / "certs.d"):
        directory.mkdir(parents=True, exist_ok=True)
    wheels = _copy_distributions(tree)
    originals = _copy_interpreter(tree) | _copy_standard_library(tree) | _copy_libraries(tree)
    _write_scripts(tree, scripts)
    _compile(tree)
    papers.write(home, papers.Origins(wheels, originals, report, _prove(tree)), _run)
    _settle(home)


def _refuse_other_systems(libc: str, machine: str) -> None:
    if libc != "glibc" or machine not in _MARKS:
        raise AssemblyError(
            f"this Python runs on {machine} with {libc or 'another libc'}: use a glibc image for {' or '.join(_MARKS)}"
        )


def _copy_standard_library(tree: Tree) -> dict[Path, Path]:
    source = Path(sysconfig.get_path("stdlib")).resolve()
    shutil.copytree(source, tree.standard_library, ignore=_ignore_left_behind, dirs_exist_ok=True)
    copies = [path for path in tree.standard_library.rglob("*") if path.is_file()]
    return {copy: source / copy.relative_to(tree.standard_library) for copy in copies}


def _ignore_left_behind(directory: str, names: list[str]) -> list[str]:
    is_top = Path(directory).name == "lib-dynload" or (Path(directory) / "os.py").exists()
    return [name for name in names if (is_left_behind(name) if is_top else name in {"__pycache__", "test", "tests"})]


def _copy_distributions(tree: Tree) -> dict[str, metadata.Distribution]:
    """Copy what the shim's distribution needs, and nothing else of what was installed beside it."""
    beside = Path(__file__).resolve().parents[1]
    installed = {normalised(found.name): found for found in metadata.distributions(path=[str(beside)])}
    if DISTRIBUTION not in installed:
        raise AssemblyError(f"{DISTRIBUTION} is not installed in {beside}: run this where pip --target put it")
    needed = closure([DISTRIBUTION], lambda name: filter(installed.__contains__, _requirements(installed[name])))
    for name in needed:
        for file in _files(installed[name]):
            _copy(beside / file, tree.site / file)
    return {name: installed[name] for name in needed}


def _requirements(distribution: metadata.Distribution) -> Iterator[str]:
    return map(requirement_name, distribution.requires or ())


def _files(distribution: metadata.Distribution) -> list[metadata.PackagePath]:
    # Console scripts lie outside; direct_url.json names a directory of the build; bytecode is ours to write.
    files = [file for file in distribution.files or () if ".." not in file.parts]
    return [file for file in files if file.name != "direct_url.json" and file.suffix != ".pyc"]


def _copy_interpreter(tree: Tree) -> dict[Path, Path]:
    original = Path(sys.executable).resolve()
    return {_copy(original, tree.interpreter): original}


def _copy_libraries(tree: Tree) -> dict[Path, Path]:
    """Copy the loader and every library that any object of the tree needs; all of them look in the tree first."""
    loader = Path(_run("patchelf", "--print-interpreter", str(tree.interpreter)).strip())
    objects = {path.name: path for path in (tree.interpreter, *tree.home.rglob("*.so*"))}
    known = {loader.name: loader, **_known_libraries(), **objects}
    needed = closure([*objects, loader.name, *_OPENED_BY_NAME], lambda name: _needed(known, name))
    originals = {tree.libraries / name: known[name].resolve() for name in needed if name not in objects}
    for copy, original in originals.items():
        _copy(original, copy)
    for path in (*objects.values(), *originals):
        _set_search_path(path, tree.libraries)
    _patch(tree.interpreter, "--set-interpreter", str(tree.libraries / loader.name), *_rpath(str(tree.libraries)))
    return originals


def _known_libraries() -> dict[str, Path]:
    shared_python = Path(str(sysconfig.get_config_var("LIBDIR")), str(sysconfig.get_config_var("INSTSONAME")))
    return {shared_python.name: shared_python} | parse_ldconfig(_run("ldconfig", "-p"), _MARKS[platform.machine()])


def _needed(known: dict[str, Path], name: str) -> list[str]:
    if name not in known:
        raise AssemblyError(f"the library {name} is not on this image: use a glibc image that Python runs on")
    return _run("patchelf", "--print-needed", str(known[name])).split()


def _set_search_path(path: Path, libraries: Path) -> None:
    """Only where there is one: DT_RPATH of the interpreter serves all that have none, and their bytes stay as made."""
    rpath = _run("patchelf", "--print-rpath", str(path)).strip()
    if rpath:
        _patch(path, *_rpath(search_path(rpath, libraries)))


def _rpath(value: str) -> tuple[str, ...]:
    # DT_RPATH, not DT_RUNPATH: it comes before LD_LIBRARY_PATH, and what it loads inherits it.
    return ("--force-rpath", "--set-rpath", value)


def _patch(path: Path, *arguments: str) -> None:
    path.chmod(0o755)
    _run("patchelf", *arguments, str(path))


def _write_scripts(tree: Tree, scripts: Iterable[Path]) -> None:
    command = tree.home / "bin" / "ca-shim"
    command.write_text(WRAPPER, encoding="utf-8")
    command.chmod(0o755)
    for script in scripts:
        _copy(script, tree.home / "bin" / script.name).chmod(0o755)


def _compile(tree: Tree) -> None:
    """Write bytecode that is used without a look at its source, whatever times a copy of the tree has."""
    directories = (str(tree.standard_library), str(tree.site))
    # -B and -f: what the compiler itself imports would be cached with its time, and then be left as it is.
    compiler = ("-ISB", "-m", "compileall", "-qf", "--invalidation-mode", "unchecked-hash")
    _run(str(tree.interpreter), *compiler, *directories)


def _prove(tree: Tree) -> str:
    """Import all that is needed, see that nothing outside was mapped, and return cryptography's OpenSSL."""
    openssl, maps = json.loads(_run(str(tree.interpreter), "-ISB", "-c", _PROOF, str(tree.site)))
    foreign = foreign_objects(maps, tree.home)
    if foreign:
        raise AssemblyError(f"the runtime maps {', '.join(foreign)}, which another image may not have")
    return str(openssl).split()[1]


def _settle(home: Path) -> None:
    """Everything is root's, only root can write, and the times do not tell when the image was built."""
    moment = int(os.environ.get("SOURCE_DATE_EPOCH") or 0)
    for path in (home, *home.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
        os.chown(path, 0, 0, follow_symlinks=False)
        os.utime(path, (moment, moment), follow_symlinks=False)


def _copy(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(source, target))


def _run(*command: str, check: bool = True) -> str:
    """The output of a program; where its failure matters it ends the build, with all that it said."""
    done = subprocess.run(command, check=False, capture_output=True, timeout=600)  # noqa: S603 a list, and ours
    if check and done.returncode:
        said = (done.stdout + done.stderr).decode(errors="replace")
        raise AssemblyError(f"{' '.join(command[:6])} ended with {done.returncode}:\n{said}")
    return done.stdout.decode()


def main(arguments: list[str]) -> int:
    """``python3 -P -m shim.runtime HOME REPORT [SCRIPT...]``: REPORT is what ``pip install --report`` wrote."""
    try:
        assemble(Path(arguments[0]), [Path(script) for script in arguments[2:]], Path(arguments[1]).read_text("utf-8"))
    except AssemblyError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
