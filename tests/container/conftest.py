"""Docker or the reason why not, the servers, and one running container for a whole file of questions."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.lab import derived, docker, pki, servers
from tests.lab.subject import Mount, Subject, lasting

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session", autouse=True)
def _docker() -> None:
    reason = docker.missing()
    if reason and os.environ.get("CA_SHIM_REQUIRE_DOCKER") == "1":
        pytest.fail(f"containers are required here: {reason}", pytrace=False)
    if reason:
        pytest.skip(f"containers cannot be used: {reason}")


@pytest.fixture(scope="session")
def network(_docker: None) -> Iterator[str]:
    with servers.running() as name:
        yield name


@pytest.fixture(scope="session")
def ca(_docker: None) -> Path:
    """The directory of the lab's certificates."""
    return pki.prepare()


@pytest.fixture
def mount(tmp_path: Path, ca: Path) -> Mount:
    """A mounted directory with CA A in it."""
    mount = Mount(tmp_path / "certs")
    tmp_path.chmod(0o755)
    mount.hold(ca / "ca-a.pem")
    return mount


@pytest.fixture(scope="module")
def image() -> str:
    """The derived image for questions whose answer is the same on every system: the newest row of the table."""
    return derived.image(derived.row("4.5-ubi9"))


@pytest.fixture(scope="module")
def idle(image: str, ca: Path) -> Iterator[Subject]:
    """A container that waits, for `ca-shim install` by docker exec; nothing is mounted where the shim looks."""
    with lasting(image, "infinity", options=("--entrypoint=/bin/sleep", f"--volume={ca}:/ca:ro")) as subject:
        yield subject
