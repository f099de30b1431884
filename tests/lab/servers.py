"""The TLS registries and HTTPS servers, on a docker network of their own.

registry.lab.test:5000  a registry, by CA A            https.lab.test:8443  by CA A and its intermediate
registry.lab.test:5001  the same, by CA B              https.lab.test:8444  by CA B
                                                       https.lab.test:8445  self-signed
                                                       https.lab.test:8446  by CA A, the intermediate not sent
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from dataclasses import dataclass

# The reaper is an image of its own, which no lab without a registry has; set before the library reads it.
os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"

from typing import TYPE_CHECKING

from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network

from . import images, pki
from .docker import docker
from .places import CONTEXT

if TYPE_CHECKING:
    from collections.abc import Iterator

_PATIENCE = 30.0


@dataclass(frozen=True)
class Site:
    """What one CA signs."""

    https: str
    registry: str


BY_CA_A = Site("https.lab.test:8443", "registry.lab.test:5000")
BY_CA_B = Site("https.lab.test:8444", "registry.lab.test:5001")


@contextmanager
def running() -> Iterator[str]:
    """The servers answer while the context lasts; gives the name of their network."""
    with Network() as network, _container(network) as container:
        _wait(container.get_wrapped_container().id)
        yield network.name


def _container(network: Network) -> DockerContainer:
    container = DockerContainer(images.servers())
    # start.sh and https.py are mounted too, so a change of theirs needs no build.
    container.with_volume_mapping(str(CONTEXT / "servers"), "/servers", "ro")
    container.with_volume_mapping(str(pki.prepare() / "servers"), "/pki", "ro")
    return container.with_network(network).with_network_aliases("registry.lab.test", "https.lab.test")


def _wait(container: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    probe = (
        "for p in 5000/v2/ 5001/v2/ 8443 8444 8445 8446; do curl -fsk https://localhost:$p >/dev/null || exit 1; done"
    )
    while docker("exec", container, "sh", "-c", probe).status:
        if time.monotonic() > deadline:
            raise TimeoutError(docker("logs", container).stderr)
        time.sleep(0.2)
