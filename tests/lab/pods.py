"""Containers as Kubernetes starts them: without root, without capabilities, on a read-only root, by `/bin/sh -c`."""

from __future__ import annotations

import functools
import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import derived, images
from .docker import docker
from .places import CONTEXT
from .shell import CommandError, Result
from .subject import CLIENTS, Event, events, fingerprints, probe_options, verdicts

if TYPE_CHECKING:
    from pathlib import Path

QUESTIONS = CONTEXT.parent / "questions.sh"
RESTRICTED = ("--cap-drop=ALL", "--security-opt=no-new-privileges")
UID_1000 = ("--user=1000:1000", *RESTRICTED)
ARBITRARY_UID = ("--user=1000650000:0", *RESTRICTED)
ROOT_WITHOUT_CAPABILITIES = ("--user=0:0", *RESTRICTED, "--env=CA_SHIM_USER=root")
READ_ONLY = ("--read-only",)
READ_ONLY_WITH_TMP = ("--read-only", "--tmpfs=/tmp")
_NODE = re.compile(r"^node (trusted|refused|broken.*)", re.MULTILINE)


@dataclass(frozen=True)
class Target:
    """One image before and after, and what has to be known to question its clients."""

    name: str
    base: str
    image: str
    os_bundle: str
    certifi: str
    client: str
    clients: tuple[str, ...] = CLIENTS
    program: str = ""
    """What stands between the entrypoint and the questions."""

    @property
    def questions(self) -> str:
        """The command line that asks."""
        return f"sh /questions.sh {self.os_bundle} {self.certifi} {self.client}"

    @property
    def line(self) -> tuple[str, ...]:
        """The container's command: the questions, asked by the application."""
        return (*((self.program, "--exec") if self.program else ()), *self.questions.split())

    def everyone(self, verdict: str) -> dict[str, str]:
        """All clients of this image agree."""
        return dict.fromkeys(self.clients, verdict)


@dataclass(frozen=True)
class Answers:
    """What the clients said, what was in force, and what the shim said."""

    result: Result
    clients: tuple[str, ...]

    @property
    def private(self) -> dict[str, str]:
        """About the servers of CA A."""
        return self._verdicts("private")

    @property
    def unknown(self) -> dict[str, str]:
        """About the servers of CA B."""
        return self._verdicts("unknown")

    @property
    def os_bundle(self) -> set[str]:
        """The fingerprints in the bundle that OpenSSL's users read."""
        return fingerprints(self._section("os"))

    @property
    def python_bundle(self) -> set[str]:
        """The fingerprints in the bundle that requests reads."""
        return fingerprints(self._section("python"))

    @property
    def extra_bundle(self) -> set[str]:
        """The fingerprints in the file that Node adds to its own."""
        return fingerprints(self._section("extra"))

    @property
    def environment(self) -> dict[str, str]:
        """What the application was given."""
        pairs = (line.partition("=") for line in self._section("environment").splitlines())
        return {name: value for name, _, value in pairs}

    @property
    def events(self) -> list[Event]:
        """The shim's lines."""
        return events(self.result.stderr)

    def _verdicts(self, section: str) -> dict[str, str]:
        text = self._section(section)
        node = _NODE.search(text)
        said = {**verdicts(text), "node": node[1] if node else "no answer"}
        return {client: said.get(client, "no answer") for client in self.clients}

    def _section(self, name: str) -> str:
        parts = re.split(r"^== (\w+)$", self.result.stdout, flags=re.MULTILINE)
        sections = dict(zip(parts[1::2], parts[2::2], strict=True))
        if name not in sections:
            raise CommandError(f"no answers:\n{self.result.stdout[-2000:]}\n{self.result.stderr[-4000:]}")
        return sections[name]


@functools.cache
def target(name: str) -> Target:
    """An image of the table of rows, or the UI's by the name ui."""
    if name == "ui":
        bundle = "/etc/ssl/certs/ca-certificates.crt"
        clients = (*(each for each in CLIENTS if each != "requests"), "node")
        return Target(name, images.ui(), derived.ui(), bundle, "/dev/null", "/usr/bin/python3", clients)
    row = derived.row(name)
    label = f"{name}-stand-in" if images.is_stand_in(images.anchore(row)) else name
    base, image = images.anchore(row), derived.image(row)
    return Target(label, base, image, row.os_bundle, row.bundle, row.client, program=row.programs[0])


@functools.cache
def shipped(asked: Target) -> tuple[set[str], set[str]]:
    """The roots that the base image has for the operating system's clients, and those of certifi."""
    script = f"cat {asked.os_bundle}; echo == python; cat {asked.certifi}"
    said = docker("run", "--rm", "--entrypoint=/bin/sh", asked.base, "-c", script)
    os_bundle, _, certifi = said.stdout.partition("== python\n")
    return fingerprints(os_bundle), fingerprints(certifi)


@functools.cache
def before(asked: Target, network: str) -> Answers:
    """What the base image's clients say, as uid 1000 on a read-only root."""
    return ask(asked, network, *UID_1000, *READ_ONLY, image=asked.base)


def ask(asked: Target, network: str, *options: str, line: str = "", image: str = "") -> Answers:
    """One container: by the image's entrypoint, or as the chart does it by `/bin/sh -c` and a line."""
    shell = ("--entrypoint=/bin/sh",) if line else ()
    words = ("-c", line) if line else asked.line
    options = (*probe_options(network), questions_option(), *shell, *options)
    return Answers(docker("run", "--rm", *options, image or asked.image, *words), asked.clients)


def questions_option() -> str:
    """How docker run is told to have the questions at hand."""
    return f"--volume={QUESTIONS}:/questions.sh:ro"


class KubernetesVolume:
    """A directory as the kubelet makes it: files are links through `..data` to the revision in force."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._revision = 0
        directory.mkdir(mode=0o755, parents=True)

    def update(self, files: dict[str, bytes]) -> None:
        """Put a new revision in the place of the old one, in the kubelet's order: `..data` is exchanged at once."""
        self._revision += 1
        revision = self.directory / f"..2026_11_22_10_00_0{self._revision}.123456789"
        for name, content in files.items():
            (revision / name).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            (revision / name).write_bytes(content)
        data, coming = self.directory / "..data", self.directory / "..data_tmp"
        old = data.resolve() if data.is_symlink() else None
        coming.symlink_to(revision.name)
        coming.rename(data)
        self._link({name.partition("/")[0] for name in files})
        if old:
            shutil.rmtree(old)

    def _link(self, names: set[str]) -> None:
        for path in self.directory.iterdir():
            if not path.name.startswith("..") and path.name not in names:
                path.unlink()
        for name in names:
            if not (self.directory / name).is_symlink():
                (self.directory / name).symlink_to(f"..data/{name}")
