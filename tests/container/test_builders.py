"""Dockerfile.example is built by BuildKit as by the classic builder, which built everything else here."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.lab import derived, images
from tests.lab.docker import OWN_PREFIX
from tests.lab.shell import attempt
from tests.lab.subject import once
from tests.lab.wheels import fetch_runtime

_TAG = f"{OWN_PREFIX}/buildkit"
_TREE = (
    "cd /opt/ca-shim && find . -type f -exec sha256sum {} + | sort -k 2; find . ! -type f -printf '%p %m %l\\n' | sort"
)


@pytest.fixture(scope="module")
def image() -> str:
    """The derived image of the newest row, by BuildKit."""
    bases = (f"PYTHON_IMAGE={images.python('3.11')}", f"ANCHORE_IMAGE={images.anchore(derived.row('4.5-ubi9'))}")
    values = [f"--build-arg={base}" for base in bases]
    said = "no docker command"
    for client in _clients():
        environment = {"DOCKER_BUILDKIT": "1"}
        with derived.context(fetch_runtime(images.PYTHONS)) as place:
            words = ("--tag", _TAG, "--file", place / "Dockerfile.example", place)
            done = attempt(client, "build", *values, *words, environment=environment)
        if done.status == 0:
            assert "exporting to image" in done.stderr  # the words of BuildKit
            return _TAG
        said = done.stderr
    if "buildx" in said:
        pytest.skip("BuildKit is missing: this docker command needs the buildx plugin for it")
    pytest.fail(said[-3000:])


def _clients() -> list[Path]:
    """Every docker command on PATH: an older one has BuildKit without a plugin."""
    directories = os.get_exec_path()
    found = {Path(found).resolve() for each in directories if (found := shutil.which("docker", path=each))}
    return sorted(found)


def test_buildkit_makes_the_same_tree_as_the_classic_builder(image: str) -> None:
    classic = derived.image(derived.row("4.5-ubi9"))
    trees = [once(each, "-c", _TREE, options=("--entrypoint=/bin/sh",)).stdout for each in (image, classic)]

    assert trees[0].count("\n") > 500
    assert trees[0] == trees[1]
