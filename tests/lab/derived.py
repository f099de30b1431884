"""Images made by the repository's own Dockerfile.example on the lab's bases."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from . import images
from .docker import OWN_PREFIX, docker
from .places import CACHE, ROOT, digest
from .rows import ROWS, Row
from .shell import CommandError, run, say
from .wheels import fetch_runtime

if TYPE_CHECKING:
    from pathlib import Path

_DOCKERFILE = ROOT / "Dockerfile.example"
# What the image is made of; .dockerignore names the same.
_SOURCES = tuple(
    ROOT / name for name in ("shim", "entrypoint.sh", "requirements.lock", "pyproject.toml", ".dockerignore")
)


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
def again(parent: str, python: str) -> str:
    """An image derived from one that was derived before, by this Python."""
    return _build(f"{OWN_PREFIX}/again:{python}", (f"ANCHORE_IMAGE={parent}",), f"PYTHON_IMAGE={images.python(python)}")


@functools.cache
def runtime(python: str) -> str:
    """The runtime stage alone, made by this Python."""
    return _build(f"{OWN_PREFIX}/runtime:{python}", (), f"PYTHON_IMAGE={images.python(python)}", "--target=runtime")


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


def _build(tag: str, arguments: tuple[str, ...], python: str = "", target: str = "") -> str:
    fetch_runtime(images.PYTHONS)
    python = python or f"PYTHON_IMAGE={images.python('3.11')}"
    say(f"docker build {tag} {digest(_DOCKERFILE, *_SOURCES)}")
    values = [f"--build-arg={argument}" for argument in (python, *arguments)]
    result = docker("build", "--tag", tag, "--file", _DOCKERFILE, *values, *filter(None, [target]), ROOT, timeout=900)
    if result.status:
        raise CommandError(f"docker build {tag}\n{result.stdout[-6000:]}\n{result.stderr[-4000:]}")
    return tag
