"""Start the shim as a process of its own, with an environment that is exactly as told."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import tempfile
import traceback
from typing import TYPE_CHECKING, Any

import pytest
import structlog

# Imported for `as_user`: its child may not be able to read the standard library any more.
from shim import apply, become, certs, cli, log, options, reconcile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.edge.machine import Machine

_PRELOADED = (apply, certs, log, options, reconcile, ssl, tempfile, structlog.dev)
PATH = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
PYTHON = [sys.executable, "-I", "-B"]

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 and not os.environ.get("CA_SHIM_REQUIRE_ROOT"), reason="only root can become somebody else"
)


def arguments(machine: Machine, *words: str) -> list[str]:
    """Give the command line of `run` on a machine, with options before `--` and the command behind it."""
    return [*PYTHON, "-m", "shim", "run", "--root", str(machine.root), *words]


def start(
    machine: Machine, *words: str, environ: Mapping[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[bytes]:
    """Run the shim to the end of the application."""
    environ = PATH if environ is None else environ
    return subprocess.run(
        [*options.pop("before", ()), *arguments(machine, *words)],
        env=environ,
        capture_output=True,
        check=False,
        timeout=60,
        **options,
    )


def events(stderr: bytes) -> list[dict[str, Any]]:
    """Give the lines of the log."""
    return [json.loads(line) for line in stderr.splitlines()]


def last(stderr: bytes) -> tuple[str, object]:
    """Give the last event and its code."""
    line = events(stderr)[-1]
    return line["event"], line.get("code")


def as_user(
    uid: int, gid: int, words: Sequence[str], environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run `ca-shim` with these arguments as somebody who may not even execute this interpreter: in a forked child.

    Its environment stands for what the kernel would tell, which here is that of the tests.
    """
    output, errors = os.memfd_create("stdout"), os.memfd_create("stderr")
    child = os.fork()
    if child == 0:
        _be(uid, gid, words, dict(PATH if environ is None else environ), (output, errors))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    texts = [_content(output), _content(errors)]
    return subprocess.CompletedProcess(words, code, *texts)


def _be(uid: int, gid: int, words: Sequence[str], environ: dict[str, str], files: tuple[int, int]) -> None:
    try:
        os.dup2(files[0], 1)
        os.dup2(files[1], 2)
        os.chdir("/")
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        become.started_environment = lambda: environ
        sys.argv = ["ca-shim", *words]
        code = cli.main()
    except BaseException:  # noqa: BLE001 - nothing of the tests may go on in the child
        os.write(2, traceback.format_exc().encode())
        code = 99
    os._exit(code)


def _content(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as file:
        file.seek(0)
        return file.read()
