"""A signal ends a start at once, whatever it is doing, as pid 1 does not by itself."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from shim import signals
from tests.certificates import root
from tests.process.start import PATH, arguments, needs_root

if TYPE_CHECKING:
    from tests.edge.machine import Machine

pytestmark = needs_root


def _wait_for(machine: Machine, name: str) -> None:
    deadline = time.monotonic() + 20
    while not machine.path(name).exists() and time.monotonic() < deadline:
        time.sleep(0.01)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["TERM", "INT"])
def test_a_signal_ends_a_start_that_waits_for_a_tool(rhel: Machine, number: int, code: int) -> None:
    rhel.tool("hangs")
    rhel.mount(a=root("A").pem)
    with subprocess.Popen(
        arguments(rhel, "--user", "root", "--", "echo", "x"), env=PATH, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        _wait_for(rhel, "/calls")
        process.send_signal(number)
        out, _ = process.communicate(timeout=10)

    assert (process.returncode, out) == (code, b"")


def test_a_tool_does_not_outlive_a_start_that_was_ended(rhel: Machine) -> None:
    rhel.write(rhel.family.tool, b'#!/bin/sh\necho $$ > "${0%/usr/*}/tool"\nsleep 600\n', 0o755)
    rhel.mount(a=root("A").pem)
    with subprocess.Popen(
        arguments(rhel, "--user", "root", "--", "true"), env=PATH, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        _wait_for(rhel, "/tool")
        time.sleep(0.05)
        process.terminate()
        process.wait(timeout=10)
    tool = int(rhel.read("/tool"))
    time.sleep(0.1)

    assert not os.path.exists(f"/proc/{tool}") or "Z (zombie)" in _status(tool)


def _status(process: int) -> str:
    with open(f"/proc/{process}/status") as file:
        return file.read()


def test_a_signal_that_was_ignored_before_us_stays_ignored(rhel: Machine) -> None:
    rhel.write(rhel.family.tool, b'#!/bin/sh\n: > "${0%/usr/*}/tool"\nsleep 0.5\n', 0o755)
    rhel.mount(a=root("A").pem)
    with subprocess.Popen(
        arguments(rhel, "--user", "root", "--", "echo", "x"),
        env=PATH,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),  # noqa: PLW1509 - no other thread runs
    ) as process:
        _wait_for(rhel, "/tool")
        process.terminate()
        out, _ = process.communicate(timeout=30)

    assert out == b"x\n"


def test_a_tool_that_has_just_ended_does_not_keep_a_signal_from_ending_us(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    gone = subprocess.Popen(["/bin/true"], start_new_session=True)
    gone.wait()
    monkeypatch.setattr(signals, "running", [gone.pid])
    monkeypatch.setattr(os, "_exit", ended.append)

    signals._end(signal.SIGTERM, None)  # noqa: SLF001 - the handler, as the kernel calls it

    assert ended == [143]
