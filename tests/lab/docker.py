"""The docker command as the lab and the container tests use it."""

from __future__ import annotations

import functools
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from .places import ROOT, digest
from .shell import Result, attempt, run

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

PREFIX = "ca-shim-test"
# What is made of the repository itself: two clones on one machine keep their images apart.
OWN_PREFIX = f"{PREFIX}/{digest(str(ROOT))}"
_RECIPE = "ca-shim-test.recipe"


@functools.cache
def missing() -> str:
    """Why containers cannot be used on this machine; empty when they can."""
    if not shutil.which("docker"):
        return "no docker command"
    result = attempt("docker", "version", "--format", "{{.Server.Version}}", timeout=30)
    return "" if result.status == 0 else f"no Docker daemon: {result.stderr.strip()[-200:]}"


def recipe(tag: str) -> str:
    """The recipe that an image of the lab was made by; empty when there is no such image."""
    found = attempt("docker", "image", "inspect", "--format", f'{{{{index .Config.Labels "{_RECIPE}"}}}}', tag)
    return found.stdout.strip() if found.status == 0 else ""


def label(made_by: str) -> str:
    """The line of a Dockerfile that notes the recipe."""
    return f"LABEL {_RECIPE}={made_by}"


def load(tarball: Path, tag: str, made_by: str) -> None:
    """Make a base image of a root file system."""
    changes = ('CMD ["bash"]', "ENV LANG=C.UTF-8", label(made_by))
    run("docker", "import", *(f"--change={change}" for change in changes), tarball, tag)


def build(tag: str, parent: str, script: str, files: Mapping[str, Path], changes: Iterable[str]) -> None:
    """Make an image in one layer: the parent, after a script that finds these files below /mnt, and new settings.

    Not by `docker build`: there each setting is a layer, and takes seconds where the storage driver has no own diff.
    """
    with tempfile.TemporaryDirectory(prefix="ca-shim-lab-") as context:
        for name, source in files.items():
            _copy(source, Path(context) / name)
        mount = f"--volume={context}:/mnt:ro"
        worker = run("docker", "create", "--user=0", "--entrypoint=", mount, parent, "sh", "-euc", script)
        try:
            run("docker", "start", "--attach", worker)
            run("docker", "commit", *(f"--change={change}" for change in changes), worker, tag)
        finally:
            attempt("docker", "rm", "--force", worker)


def docker(*words: str | os.PathLike[str], stdin: bytes = b"", timeout: float = 120) -> Result:
    """One docker command, whatever its exit status."""
    return attempt("docker", *words, stdin=stdin, timeout=timeout)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)
