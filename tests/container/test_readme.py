"""The README's commands, each as it stands there, in its order, in a fresh clone.

The vendor's images are exchanged for the lab's, which may be stand-ins, and names that a machine could have for others.
What each client then says is asked elsewhere: here a command works and prints what the README shows.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.lab import derived, images, index, readme
from tests.lab.docker import PREFIX, docker
from tests.lab.places import ROOT
from tests.lab.servers import BY_CA_A
from tests.lab.shell import PRISTINE, run
from tests.lab.subject import Subject
from tests.lab.wheels import fetch_runtime

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.lab.index import Index
    from tests.lab.readme import Command

_TAG, _NAME = f"{PREFIX}/readme", "ca-shim-test-readme"
_ALL_TESTS = "sh tests/run"  # what is running this very test
_COMMANDS = [command for command in readme.commands() if command.line != _ALL_TESTS]
# What differs from machine to machine and from day to day.
_VARYING = (
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "(date)"),
    (r"\b[0-9a-f]{8,}\b", "(digits)"),
    (r"CN=Corporate Root,O=Example|CN=Lab Root CA A,O=Lab", "(the root)"),
    (r"uid \d+$|nobody \(\d+\)$", "(the user)"),
    (r"\s+", " "),
)


class Clone:
    """A fresh clone with a directory `certs`, where the README's commands are executed."""

    def __init__(self, directory: Path, network: str, proxy: Index) -> None:
        self.directory = directory
        self._network = network
        self._proxy = proxy

    def run(self, line: str) -> subprocess.CompletedProcess[str]:
        """Execute a command line by a shell."""
        environment = {**_pip(), **PRISTINE, "PATH": f"{ROOT}/.venv/bin:{PRISTINE['PATH']}"}
        where = ROOT if line == "sh tests/demo" else self.directory  # the demonstration has made its images already
        words = ["sh", "-c", self._adapted(line)]
        return subprocess.run(
            words, cwd=where, env=environment, capture_output=True, text=True, timeout=600, check=False
        )

    def _adapted(self, line: str) -> str:
        if "pip download" in line:
            return self._proxy.adapted(line, "/src/proxy.pem")
        line = re.sub(r"\banchore-ca(?=[ :]|$)", _TAG, line)
        line = re.sub(r"\bca-shim-init\b", f"{_TAG}:init", line)
        line = re.sub(r"(--name|logs|restart|exec(?: -u anchore)?) anchore\b", rf"\1 {_NAME}", line)
        line = re.sub(r"docker run -(?=[ev] )", f"docker run -d --label={_NAME} -", line)  # they would not end
        line = line.replace("docker run ", f"docker run --network={self._network} ")
        for upstream, base in _bases().items():
            line = line.replace(upstream, base)
        return line.replace("https://registry.example.com", f"https://{BY_CA_A.https}")


def _pip() -> dict[str, str]:
    """What pip needs to fetch anything on this machine."""
    return {name: value for name, value in os.environ.items() if name.startswith("PIP_")}


def _bases() -> dict[str, str]:
    return {
        "docker.io/anchore/enterprise:v6.1.1": images.anchore(derived.row("4.5-ubi9")),
        "docker.io/anchore/anchore-engine:v0.2.4": images.anchore(derived.row("0.2-centos7")),
    }


@pytest.fixture(scope="module")
def clone(network: str, ca: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    directory = tmp_path_factory.mktemp("readme") / "anchore-ca-shim"
    directory.parent.chmod(0o755)
    for name in run("git", "-C", ROOT, "ls-files", "-co", "--exclude-standard").splitlines():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, directory / name)
    shutil.copytree(fetch_runtime(images.PYTHONS), directory / "wheels")
    (directory / "certs").mkdir(mode=0o755)
    shutil.copy(ca / "ca-a.pem", directory / "certs" / "corporate-root.pem")
    dockerfile = (directory / "Dockerfile.example").read_text()
    defaults = {"PYTHON_IMAGE": images.python("3.11"), "ANCHORE_IMAGE": images.anchore(derived.row("4.5-ubi9"))}
    for name, value in defaults.items():
        dockerfile = re.sub(rf"^ARG {name}=.*$", f"ARG {name}={value}", dockerfile, flags=re.MULTILINE)
    (directory / "Dockerfile.example").write_text(dockerfile)
    with index.running() as proxy:
        (directory / "proxy.pem").write_bytes(proxy.ca)
        yield Clone(directory, network, proxy)
    others = docker("ps", "--all", "--quiet", f"--filter=label={_NAME}").stdout.split()
    docker("rm", "--force", "--volumes", _NAME, *others)


@pytest.fixture(autouse=True)
def _started(request: pytest.FixtureRequest) -> Iterator[None]:
    """What is asked of a container comes after its start."""
    yield
    line = request.node.callspec.id if hasattr(request.node, "callspec") else ""
    if line.startswith(("docker run -d", "docker restart")):
        Subject(_NAME).wait_until_ready(2 if "restart" in line else 1)


@pytest.mark.parametrize("command", _COMMANDS, ids=lambda command: command.line)
def test_a_command_of_the_readme_works_and_prints_what_is_shown(clone: Clone, command: Command) -> None:
    done = clone.run(command.line)
    printed = (done.stdout + done.stderr).splitlines()

    assert done.returncode == 0, printed[-20:]
    assert [line for line in _shown(command) if not any(_is_shown_as(line, each) for each in printed)] == [], printed


def _shown(command: Command) -> list[str]:
    """The lines that are the same everywhere: another machine has other clients."""
    own_machine = "pip install" in command.line
    return [line for line in command.shown if not (own_machine and re.search(r" \(/usr/|: override$", line))]


def _is_shown_as(shown: str, printed: str) -> bool:
    """Compare two lines, of which the first may leave something out."""
    pattern = ".*".join(map(re.escape, _common(shown).split("…")))
    return re.fullmatch(pattern, _common(printed)) is not None


def _common(line: str) -> str:
    for looks, becomes in _VARYING:
        line = re.sub(looks, becomes, line)
    return line


@pytest.mark.parametrize("text", readme.blocks("yaml"))
def test_the_yaml_of_the_readme_is_well_formed(text: str) -> None:
    assert isinstance(yaml.safe_load(text), dict)
