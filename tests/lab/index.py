"""A package index that is reached only through a proxy that intercepts TLS, as in many a company."""

from __future__ import annotations

import re
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from testcontainers.core.network import Network

from . import images
from .docker import docker
from .pki import Wish, issue
from .places import CONTEXT
from .shell import CommandError
from .subject import lasting
from .wheels import fetch_runtime

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .subject import Subject

_HOST = "pypi.org"
_PATIENCE = 30.0


@dataclass(frozen=True)
class Index:
    """The network that nothing leads out of but the proxy, and what it takes to use that."""

    network: str
    ca: bytes  # PEM
    proxy: str  # for HTTPS_PROXY

    def adapted(self, line: str, ca: str) -> str:
        """A command line whose `docker run` now goes through the proxy, trusts this file, and is on a base of ours."""
        options = f"--network={self.network} -e HTTPS_PROXY={self.proxy} -e PIP_CERT={ca}"
        line = line.replace("docker run ", f"docker run {options} ")
        return re.sub(r"\bpython:(3\.\d+)\S*", lambda found: images.python(found[1]), line)


@contextmanager
def running() -> Iterator[Index]:
    """The proxy answers while the context lasts."""
    ca = issue(Wish("Intercepting Proxy"))
    site = issue(Wish(_HOST, issuer=ca, ca=False, hosts=(_HOST,)))
    volumes = {CONTEXT / "index" / "proxy.py": "/proxy.py", fetch_runtime(images.PYTHONS): "/lab/packages"}
    with tempfile.TemporaryDirectory(prefix="ca-shim-index-") as pki, Network() as network:
        Path(pki, f"{_HOST}.pem").write_bytes(site.pem)
        Path(pki, f"{_HOST}.key").write_bytes(site.key_pem)
        mounts = (f"--volume={path}:{place}:ro" for path, place in {**volumes, Path(pki): "/lab/pki"}.items())
        options = (f"--network={network.name}", "--network-alias=proxy", *mounts)
        with lasting(images.python("3.13"), "python3", "/proxy.py", options=options) as subject:
            _wait(subject)
            yield Index(network.name, ca.pem, "http://proxy:3128")


def _wait(subject: Subject) -> None:
    """Return when it listens."""
    deadline = time.monotonic() + _PATIENCE
    probe = "import socket; socket.create_connection(('localhost', 3128)).close()"
    while docker("exec", subject.id, "python3", "-c", probe).status:
        if time.monotonic() > deadline:
            raise CommandError(subject.logs().stderr)
        time.sleep(0.2)
