"""What flit packs is enough: the built wheel works in a new environment, far from the sources."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "flit_core.wheel", "--outdir", str(directory), str(_ROOT))
    return next(directory.glob("*.whl"))


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with nothing but the wheel and what it needs, from the lab's where they are."""
    directory = tmp_path_factory.mktemp("environment")
    venv.create(directory, with_pip=True)
    pip = (str(directory / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    fetched = (f"--find-links={each}" for each in (_ROOT / ".cache" / "wheels").glob("locked-*"))
    _run(*pip, *fetched, str(wheel))
    return directory


def test_the_command_of_the_wheel_tells_its_version(environment: Path, tmp_path: Path) -> None:
    said = _run(str(environment / "bin" / "ca-shim"), "--version", cwd=tmp_path)

    version = re.search(r'^version = "(.*)"$', (_ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    assert said.split()[:2] == ["ca-shim", version[1]]


def test_the_package_that_runs_is_not_the_source(environment: Path, tmp_path: Path) -> None:
    said = _run(str(environment / "bin" / "python"), "-I", "-c", "import shim; print(shim.__file__)", cwd=tmp_path)

    assert Path(said.strip()).is_relative_to(environment)


def test_every_module_of_the_package_is_in_the_wheel(wheel: Path) -> None:
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("shim/")}

    assert packed == {f"shim/{path.name}" for path in (_ROOT / "shim").glob("*.py")}


def test_nothing_but_the_package_is_in_the_wheel(wheel: Path) -> None:
    tops = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}

    assert {re.sub(r"-[^/]*\.dist-info$", ".dist-info", top) for top in tops} == {"shim", "anchore_ca_shim.dist-info"}


def _run(*command: str, cwd: Path | None = None) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
