"""Machines in directories that every user may enter."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shim import families
from tests.edge.machine import OS_RELEASES, Machine, install

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shim.families import Family


_MEMORY = "/dev/shm"  # where waiting for the disk costs nothing


def _can_execute(path: str) -> bool:
    return os.access(path, os.W_OK) and not os.statvfs(path).f_flag & os.ST_NOEXEC


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user may enter, as `tmp_path` is not."""
    directory = Path(tempfile.mkdtemp(prefix="machine-", dir=_MEMORY if _can_execute(_MEMORY) else None))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(params=[row for row in families.FAMILIES if row.name in OS_RELEASES], ids=lambda family: family.name)
def family(request: pytest.FixtureRequest) -> Family:
    """Every family that has a machine, in turn."""
    row: Family = request.param
    return row


@pytest.fixture
def machine(place: Path, family: Family) -> Machine:
    """A machine of every family in turn."""
    return install(place, family)


@pytest.fixture
def rhel(place: Path) -> Machine:
    """A machine of the RHEL family, for what does not depend on the family."""
    return install(place, families.RHEL)


@pytest.fixture
def debian(place: Path) -> Machine:
    """A machine of the Debian family."""
    return install(place, families.DEBIAN)
