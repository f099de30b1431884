"""Images made by the repository's own Dockerfile.example on the lab's bases."""

from __future__ import annotations

import functools
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from . import images
from .docker import OWN_PREFIX, docker
from .places import CACHE, ROOT, digest
from .rows import ROWS, Row
from .shell import CommandError, Result, run, say
from .wheels import fetch_runtime

if TYPE_CHECKING:
    from collections.abc import Iterator

_DOCKERFILE = "Dockerfile.example"
_SHIM = "shim"
# What the image is made of; .dockerignore names the same.
_FILES = (_DOCKERFILE, ".dockerignore", "entrypoint.sh", "LICENSE", "pyproject.toml", "README.md", "requirements.lock")


def row(name: str) -> Row:
    """The row of this name."""
    return next(one for one in ROWS if one.name == name)


@functools.cache
def image(one: Row, *settings: str) -> str:
    """The derived image of a row; settings are build arguments, as NAME=VALUE."""
    user = () if one.anchore else ("CA_SHIM_USER=root",)
    short = f"derived:{one.name}" + "".join(f"-{value.rpartition('=')[2]}" for value in settings)
    arguments = (f"ANCHORE_IMAGE={images.anchore(one)}", *user, *settings)
    return _build(f"{OWN_PREFIX}/{short}", arguments)


@functools.cache
def ui() -> str:
    """The UI's image, derived as the README says."""
    return _build(f"{OWN_PREFIX}/derived:ui", (f"ANCHORE_IMAGE={images.ui()}", "CA_SHIM_USER=node"))


@functools.cache
def again(parent: str, python: str) -> str:
    """An image derived from one that was derived before, by this Python."""
    return _build(f"{OWN_PREFIX}/again:{python}", (f"ANCHORE_IMAGE={parent}",), python)


@functools.cache
def runtime(python: str) -> str:
    """The runtime stage alone, made by this Python."""
    return _build(f"{OWN_PREFIX}/runtime:{python}", (), python, "--target=runtime")


@functools.cache
def home(python: str) -> Path:
    """A directory with /opt/ca-shim of the runtime made by this Python."""
    tag = runtime(python)
    key = run("docker", "image", "inspect", "--format", "{{.Id}}", tag).rpartition(":")[2][:12]
    directory = CACHE / "runtime" / key
    if not directory.exists():
        directory.parent.mkdir(parents=True, exist_ok=True)
        container = run("docker", "create", tag)
        run("docker", "cp", f"{container}:/opt/ca-shim", directory)
        run("docker", "rm", container)
    return directory


@contextmanager
def context(wheels: Path | None) -> Iterator[Path]:
    """A directory to build in: what a fresh clone gives the build, and these packages as `wheels/`."""
    with tempfile.TemporaryDirectory(prefix="ca-shim-context-") as name:
        directory = Path(name)
        for file in _FILES:
            shutil.copy(ROOT / file, directory / file)
        shutil.copytree(ROOT / _SHIM, directory / _SHIM, ignore=shutil.ignore_patterns("__pycache__"))
        if wheels:
            shutil.copytree(wheels, directory / "wheels")
        yield directory


def build(directory: Path, *options: str, python: str) -> Result:
    """`docker build` by this Python in a directory of `context`, whatever its exit status."""
    options = (f"--build-arg=PYTHON_IMAGE={images.python(python)}", *options)
    return docker("build", f"--file={directory / _DOCKERFILE}", *options, directory, timeout=900)


def _build(tag: str, arguments: tuple[str, ...], python: str = "3.11", target: str = "") -> str:
    say(f"docker build {tag} {digest(*(ROOT / name for name in (_SHIM, *_FILES)))}")
    options = [*(f"--build-arg={argument}" for argument in arguments), *filter(None, [target])]
    with context(fetch_runtime(images.PYTHONS)) as directory:
        result = build(directory, f"--tag={tag}", *options, python=python)
    if result.status:
        raise CommandError(f"docker build {tag}\n{result.stdout[-6000:]}\n{result.stderr[-4000:]}")
    return tag
