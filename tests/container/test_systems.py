"""Every system of the table: before, after, restart, rotation, withdrawal."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import pytest

from tests.lab import derived, images
from tests.lab.rows import ROWS, Row
from tests.lab.servers import BY_CA_A, BY_CA_B
from tests.lab.subject import (
    Mount,
    Subject,
    everyone,
    facts,
    fingerprints,
    lasting,
    once,
    probe_options,
    probe_words,
    verdicts,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


_OUR_BLOCK = "# BEGIN ca-shim"


@dataclass(frozen=True)
class System:
    """One row with its two images and a container that runs the application as the image says."""

    row: Row
    base: str
    image: str
    options: tuple[str, ...]
    mount: Mount
    ca: Path
    running: Subject

    def mounted(self, *names: str) -> None:
        """These CA files are mounted, and the container has seen it."""
        if names != self.mount.names:
            self.mount.hold(*(self.ca / name for name in names))
            self.running.restart()

    @cached_property
    def asked(self) -> tuple[dict[str, object], dict[str, str], dict[str, str]]:
        """What the application says of itself in a new container, and its clients of the servers of CA A and CA B."""
        first, second = (shlex.join(probe_words(self.row, site)) for site in (BY_CA_A, BY_CA_B))
        script = ("--exec", "sh", "-c", f"{first}; echo and; {second}")
        said = once(self.image, self.row.programs[0], *script, options=self.options).stdout
        by_ca_a, _, by_ca_b = said.partition("\nand\n")
        return facts(said), verdicts(by_ca_a), verdicts(by_ca_b)

    @cached_property
    def shipped_os(self) -> str:
        """The OS bundle of the base image."""
        return once(self.base, "-c", f"cat {self.row.os_bundle}", options=("--entrypoint=sh",)).stdout

    @cached_property
    def shipped_certifi(self) -> str:
        """The certifi bundle of the base image."""
        return once(self.base, "-c", f"cat {self.row.bundle}", options=("--entrypoint=sh",)).stdout


def _label(row: Row) -> str:
    return row.name if not images.is_stand_in(images.name(row.name)) else f"{row.name}-stand-in"


@pytest.fixture(scope="module", params=ROWS, ids=_label)
def system(
    request: pytest.FixtureRequest, network: str, ca: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[System]:
    row: Row = request.param
    directory = tmp_path_factory.mktemp(row.name)
    directory.chmod(0o755)
    mount = Mount(directory / "certs")
    mount.hold(ca / "ca-a.pem")
    image, options = derived.image(row), (*probe_options(network), mount.option)
    with lasting(image, options=options) as running:
        running.wait_until_ready()
        yield System(row, images.anchore(row), image, options, mount, ca, running)


def test_before_the_shim_every_client_refuses_the_private_ca(system: System) -> None:
    words = probe_words(system.row, BY_CA_A)
    result = once(system.base, *words[1:], options=("--entrypoint=sh", *system.options))

    assert verdicts(result.stdout) == everyone("refused")


def test_every_client_of_the_application_trusts_the_mounted_ca(system: System) -> None:
    system.mounted("ca-a.pem")

    assert system.asked[1] == everyone("trusted")


def test_every_client_still_refuses_a_server_of_an_unknown_ca(system: System) -> None:
    system.mounted("ca-a.pem")

    assert system.asked[2] == everyone("refused")


def test_the_application_runs_as_the_user_of_its_generation(system: System) -> None:
    uid, gid = (1000, 1000) if system.row.anchore else (0, 0)

    said = system.asked[0]

    assert (said["uid"], said["gid"]) == ([uid, uid], [gid, gid])


def test_the_application_is_pid_1(system: System) -> None:
    assert facts(system.running.logs().stdout)["pid"] == 1


@pytest.mark.parametrize("user", ["", "application"])
def test_a_docker_exec_session_has_the_same_trust(system: System, user: str) -> None:
    system.mounted("ca-a.pem")
    name = "anchore" if user and system.row.anchore else ""

    result = system.running.run(*probe_words(system.row, BY_CA_A), user=name)

    assert verdicts(result.stdout) == everyone("trusted")


def test_every_root_of_the_base_is_still_in_the_os_bundle_and_only_ours_came(system: System) -> None:
    system.mounted("ca-a.pem")
    ours = fingerprints((system.ca / "ca-a.pem").read_text())

    assert fingerprints(system.running.read(system.row.os_bundle)) == fingerprints(system.shipped_os) | ours


def test_certifi_is_what_was_shipped_and_then_our_block(system: System) -> None:
    system.mounted("ca-a.pem")
    ours = fingerprints((system.ca / "ca-a.pem").read_text())

    before, _, block = system.running.read(system.row.bundle).partition(_OUR_BLOCK)

    assert before.removesuffix("\n") == system.shipped_certifi
    assert fingerprints(block) == ours


def test_two_restarts_change_no_store_by_a_byte(system: System) -> None:
    system.mounted("ca-a.pem")
    stores = ("/etc/pki", "/etc/ssl", "/usr/local/share", system.row.bundle)
    before = system.running.checksums(*stores)

    system.running.restart()
    system.running.restart()

    assert system.running.checksums(*stores) == before


def test_an_added_ca_is_in_both_stores_after_a_restart(system: System) -> None:
    system.mounted("ca-a.pem")
    wanted = fingerprints((system.ca / "ca-a.pem").read_text() + (system.ca / "ca-b.pem").read_text())

    system.mounted("ca-a.pem", "ca-b.pem")

    assert wanted <= fingerprints(system.running.read(system.row.os_bundle))
    assert wanted <= fingerprints(system.running.read(system.row.bundle))


def test_a_withdrawn_ca_is_gone_from_both_stores_after_a_restart(system: System) -> None:
    system.mounted("ca-a.pem", "ca-b.pem")
    withdrawn = fingerprints((system.ca / "ca-b.pem").read_text())

    system.mounted("ca-a.pem")

    assert not withdrawn & fingerprints(system.running.read(system.row.os_bundle))
    assert not withdrawn & fingerprints(system.running.read(system.row.bundle))


def test_with_no_ca_left_the_stores_are_as_shipped(system: System) -> None:
    system.mounted("ca-a.pem")

    system.mounted()

    assert fingerprints(system.running.read(system.row.os_bundle)) == fingerprints(system.shipped_os)
    assert system.running.read(system.row.bundle) == system.shipped_certifi
    assert system.running.checksums(f"{system.row.anchors}/ca-shim-*") == ""
