"""The lab's one door for programs: run from a list, in a pristine environment, output kept for the error."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# The machine may force its own CA on every client by environment: nothing of that may reach an image or a container.
PRISTINE = {
    "PATH": os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin",
    "HOME": os.environ.get("HOME", "/root"),
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
    # The classic builder is the one that needs no image of its own.
    "DOCKER_BUILDKIT": "0",
    **{name: value for name, value in os.environ.items() if name.startswith("DOCKER_") and name != "DOCKER_BUILDKIT"},
}


@dataclass(frozen=True)
class Result:
    """What a program left behind."""

    status: int
    stdout: str
    stderr: str


class CommandError(Exception):
    """A program of the lab failed: its command and the end of what it said."""


def attempt(
    *command: str | os.PathLike[str],
    stdin: bytes = b"",
    timeout: float = 600,
    environment: Mapping[str, str] | None = None,
) -> Result:
    """Run a program to its end and tell how it went, whatever its exit status."""
    done = subprocess.run(
        [os.fspath(word) for word in command],
        input=stdin,
        capture_output=True,
        timeout=timeout,
        env={**PRISTINE, **(environment or {})},
        check=False,
    )
    return Result(done.returncode, _text(done.stdout), _text(done.stderr))


def run(
    *command: str | os.PathLike[str],
    stdin: bytes = b"",
    timeout: float = 1200,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run a program that has to succeed; its standard output without the final newline."""
    result = attempt(*command, stdin=stdin, timeout=timeout, environment=environment)
    if result.status:
        raise CommandError(_story(command, result))
    return result.stdout.removesuffix("\n")


def say(line: str) -> None:
    """Tell the person who waits what the lab is doing, on standard error."""
    sys.stderr.write(f"lab: {line}\n")
    sys.stderr.flush()


def _story(command: Sequence[str | os.PathLike[str]], result: Result) -> str:
    words = " ".join(os.fspath(word) for word in command)
    return f"{words}\nended with {result.status}:\n{result.stdout[-2000:]}\n{result.stderr[-4000:]}"


def _text(data: bytes) -> str:
    """Lossless: what is not UTF-8 becomes surrogates."""
    return data.decode("utf-8", "surrogateescape")
