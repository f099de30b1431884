"""Clients of third parties: each refuses without the shim, and says with it what the README's table says."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.lab import derived, images, pods
from tests.lab.clients import CLIENTS, REFUSES
from tests.lab.docker import docker
from tests.lab.places import CONTEXT
from tests.lab.rows import CLIENTS as ROW
from tests.lab.shell import CommandError, run
from tests.lab.subject import lasting

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SCRIPTS = f"--volume={CONTEXT / 'clients'}:/clients:ro"
_LINE = re.compile(r"^(private|unknown) (.+?): (\w+) (.*)$", re.MULTILINE)
_OVERRIDE = (*pods.UID_1000, *pods.READ_ONLY_WITH_TMP)

Answers = dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def server(network: str, ca: Path) -> Iterator[str]:
    """The address of the servers that these clients are asked about; the registries are the lab's."""
    options = ("--user=0", f"--network={network}", _SCRIPTS, f"--volume={ca}/servers:/pki:ro", "--entrypoint=")
    with lasting(images.anchore(ROW), ROW.client, "/clients/server.py", options=options) as container:
        container.wait_for(lambda: "serving" in container.logs().stdout)
        networks = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        yield run("docker", "inspect", "--format", networks, container.id)


def _ask(image: str, network: str, server: str, ca: Path, *options: str) -> Answers:
    mount = f"--volume={ca}/ca-a.pem:/custom-certs/ca-a.pem:ro"
    options = (f"--network={network}", f"--add-host=https.lab.test:{server}", _SCRIPTS, mount, *options)
    words = (ROW.programs[0], "--exec", ROW.client, "/clients/ask.py")
    result = docker("run", "--rm", *options, image, *words, timeout=300)
    found: Answers = {"private": {}, "unknown": {}}
    for site, client, verdict, reason in _LINE.findall(result.stdout):
        found[site][client] = verdict if verdict != "broken" else f"broken: {reason}"
    if not found["private"]:
        raise CommandError(f"no answers:\n{result.stdout[-2000:]}\n{result.stderr[-4000:]}")
    return found


@pytest.fixture(scope="module")
def before(network: str, server: str, ca: Path) -> Answers:
    return _ask(images.anchore(ROW), network, server, ca)


@pytest.fixture(scope="module")
def in_place(network: str, server: str, ca: Path) -> Answers:
    return _ask(derived.image(ROW), network, server, ca)


@pytest.fixture(scope="module")
def certifi_in_place(network: str, server: str, ca: Path) -> Answers:
    """The owner of certifi starts, on a writable root."""
    return _ask(derived.image(ROW), network, server, ca, "--user=1000:0", *pods.RESTRICTED)


@pytest.fixture(scope="module")
def by_override(network: str, server: str, ca: Path) -> Answers:
    return _ask(derived.image(ROW), network, server, ca, *_OVERRIDE)


def test_without_the_shim_every_client_refuses_the_private_ca(before: Answers) -> None:
    assert before["private"] == {client.name: REFUSES for client in CLIENTS}


def test_in_place_every_client_says_what_the_table_says(in_place: Answers) -> None:
    assert in_place["private"] == {client.name: client.in_place for client in CLIENTS}


def test_with_certifi_alone_in_place_every_client_says_what_the_table_says(certifi_in_place: Answers) -> None:
    assert certifi_in_place["private"] == {client.name: client.certifi_in_place for client in CLIENTS}


def test_by_override_every_client_says_what_the_table_says(by_override: Answers) -> None:
    assert by_override["private"] == {client.name: client.by_override for client in CLIENTS}


@pytest.mark.parametrize("how", ["in_place", "certifi_in_place", "by_override"])
def test_every_client_still_refuses_a_server_of_an_unknown_ca(request: pytest.FixtureRequest, how: str) -> None:
    assert request.getfixturevalue(how)["unknown"] == {client.name: REFUSES for client in CLIENTS}
