"""The README's compose file, as it stands there."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.lab import derived, readme
from tests.lab.docker import missing
from tests.lab.servers import BY_CA_A
from tests.lab.shell import attempt, run
from tests.lab.subject import PROBE, Subject, everyone, probe_words, verdicts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_ROW = derived.row("4.5-ubi9")


@pytest.fixture
def service(tmp_path: Path, ca: Path, network: str) -> Iterator[Subject]:
    """The container of the README's service: its volume, on the lab's image and network."""
    assert not missing()
    text = next(text for text in readme.blocks("yaml") if "services" in yaml.safe_load(text))
    (name,) = yaml.safe_load(text)["services"]
    (tmp_path / "docker-compose.yml").write_text(text)
    (tmp_path / "lab.yml").write_text(_override(name, network))
    (tmp_path / "certs").mkdir(mode=0o755)
    shutil.copy(ca / "ca-a.pem", tmp_path / "certs")
    tmp_path.chmod(0o755)
    compose = (*_compose(), "-p", "ca-shim-test", "-f", f"{tmp_path}/docker-compose.yml", "-f", f"{tmp_path}/lab.yml")
    run(*compose, "up", "--detach", name)
    try:
        yield Subject(run(*compose, "ps", "--quiet", name))
    finally:
        run(*compose, "down", "--volumes")


def test_the_compose_file_of_the_readme_works(service: Subject) -> None:
    service.wait_until_ready()

    assert verdicts(service.run(*probe_words(_ROW, BY_CA_A)).stdout) == everyone("trusted")


def _override(name: str, network: str) -> str:
    image = derived.image(_ROW)
    networks = f"networks:\n  default:\n    external: true\n    name: {network}\n"
    return f"services:\n  {name}:\n    image: {image}\n    volumes:\n      - {PROBE}:/probe.sh:ro\n{networks}"


def _compose() -> tuple[str, ...]:
    if shutil.which("docker-compose"):
        return ("docker-compose",)
    if attempt("docker", "compose", "version").status == 0:
        return ("docker", "compose")
    pytest.skip("no Compose on this machine")
