"""Containers under test: started, looked at, stopped, as an operator would with the docker command."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from .docker import docker
from .places import ROOT
from .shell import CommandError, Result

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from .rows import Row
    from .servers import Site

PROBE = ROOT / "tests" / "lab" / "probe.sh"
CLIENTS = ("skopeo", "curl", "openssl", "ssl", "requests")
_PATIENCE = 60.0
_BLOCK = re.compile(r"^-----BEGIN CERTIFICATE-----$(.*?)^-----END CERTIFICATE-----$", re.DOTALL | re.MULTILINE)

Event = dict[str, object]


class Mount:
    """A directory of CA files on this machine, mounted read-only on /custom-certs."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)

    def hold(self, *files: Path) -> None:
        """These files and no others are in it."""
        for old in self.directory.iterdir():
            old.unlink()
        for file in files:
            (self.directory / file.name).write_bytes(file.read_bytes())

    @property
    def names(self) -> tuple[str, ...]:
        """What is in it."""
        return tuple(sorted(file.name for file in self.directory.iterdir()))

    @property
    def option(self) -> str:
        """How docker run is told."""
        return f"--volume={self.directory}:/custom-certs:ro"


@dataclass(frozen=True)
class Subject:
    """A container that lasts."""

    id: str

    def run(self, *command: str, user: str = "", env: Mapping[str, str] | None = None) -> Result:
        """One command by docker exec."""
        options = [f"--user={user}"] if user else []
        options += [f"--env={name}={value}" for name, value in (env or {}).items()]
        return docker("exec", *options, self.id, *command)

    def read(self, path: str) -> str:
        """A file's content; what is not UTF-8 survives as surrogates."""
        result = self.run("cat", path, user="0")
        if result.status:
            raise CommandError(result.stderr)
        return result.stdout

    def checksums(self, *paths: str) -> str:
        """One line for every file below these paths, by content."""
        return self.run("sh", "-c", f"find -L {' '.join(paths)} -type f | sort | xargs -r sha256sum", user="0").stdout

    def restart(self, patience: int = 10) -> None:
        """`docker restart`, until the application is ready again."""
        before = self.readiness()
        result = docker("restart", f"--time={patience}", self.id)
        if result.status:
            raise CommandError(result.stderr)
        self.wait_until_ready(before + 1)

    def stop(self, patience: int = 20) -> int:
        """`docker stop`; the exit code, which is 137 when the container had to be killed."""
        docker("stop", f"--time={patience}", self.id)
        return self.exit_code()

    def kill(self, signal: str) -> None:
        """Send a signal to pid 1."""
        docker("kill", f"--signal={signal}", self.id)

    def exit_code(self) -> int:
        """Wait for the end."""
        return int(docker("wait", self.id).stdout)

    def logs(self) -> Result:
        """Both streams so far."""
        return docker("logs", self.id)

    def events(self) -> list[Event]:
        """What the shim said so far."""
        return events(self.logs().stderr)

    def readiness(self) -> int:
        """How many times the application has said that it is ready."""
        return self.logs().stdout.count("\nready: ")

    def wait_until_ready(self, times: int = 1) -> None:
        """Return when the application has said so."""
        self.wait_for(lambda: self.readiness() >= times)

    def wait_for(self, condition: object) -> None:
        """Return when the condition holds; fail with the logs when it does not in time."""
        deadline = time.monotonic() + _PATIENCE
        while not (callable(condition) and condition()):
            if time.monotonic() > deadline or not self.is_running():
                logs = self.logs()
                raise CommandError(f"gave up waiting:\n{logs.stdout[-3000:]}\n{logs.stderr[-5000:]}")
            time.sleep(0.1)

    def is_running(self) -> bool:
        """True while pid 1 lives."""
        return docker("inspect", "--format", "{{.State.Running}}", self.id).stdout.strip() == "true"


def once(image: str, *command: str, options: tuple[str, ...] = (), env: Mapping[str, str] | None = None) -> Result:
    """`docker run --rm` to its end."""
    values = [f"--env={name}={value}" for name, value in (env or {}).items()]
    return docker("run", "--rm", *values, *options, image, *command)


@contextmanager
def lasting(image: str, *command: str, options: tuple[str, ...] = ()) -> Iterator[Subject]:
    """A container that runs in the background while the context lasts."""
    result = docker("run", "--detach", *options, image, *command)
    if result.status:
        raise CommandError(result.stderr)
    subject = Subject(result.stdout.strip())
    try:
        yield subject
    finally:
        docker("rm", "--force", "--volumes", subject.id)


def probe_options(network: str) -> tuple[str, ...]:
    """What a container needs to reach the servers and have the probe at hand."""
    return (f"--network={network}", f"--volume={PROBE}:/probe.sh:ro")


def probe_words(row: Row, site: Site) -> tuple[str, ...]:
    """The probe's command line."""
    return ("sh", "/probe.sh", site.https, site.registry, row.client)


def verdicts(stdout: str) -> dict[str, str]:
    """What each client said, by its name; a refusal for another reason than the certificate keeps its words."""
    lines = [line.split(" ", 2) for line in stdout.splitlines() if line.split(" ", 1)[0] in CLIENTS]
    return {client: verdict if verdict != "broken" else f"broken: {words}" for client, verdict, words in lines}


def everyone(verdict: str) -> dict[str, str]:
    """All clients agree."""
    return dict.fromkeys(CLIENTS, verdict)


def events(stderr: str) -> list[Event]:
    """The lines of the shim among those of the application."""
    lines = [line for line in stderr.splitlines() if line.startswith('{"event"')]
    return [cast("Event", json.loads(line)) for line in lines]


def named(all_events: list[Event], event: str) -> list[Event]:
    """Those of one kind."""
    return [one for one in all_events if one["event"] == event]


def facts(stdout: str) -> dict[str, object]:
    """What the stand-in said about itself."""
    pairs = [line.split(": ", 1) for line in stdout.splitlines() if re.match(r"[a-z]+: ", line)]
    return {key: json.loads(value) for key, value in pairs}


def fingerprints(bundle: str) -> set[str]:
    """SHA-256 of every certificate of a PEM bundle."""
    return {hashlib.sha256(base64.b64decode("".join(body.split()))).hexdigest() for body in _BLOCK.findall(bundle)}
