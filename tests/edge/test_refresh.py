"""Refresh tools that fail, hang, empty the bundle or lose a certificate of the base."""

from __future__ import annotations

import os
import time

import pytest

from shim import apply
from tests.certificates import pems, root
from tests.edge.machine import BASE, CERTIFI, SHIPPED, Machine, needs_root

pytestmark = needs_root
A, B = root("A"), root("B")
SHIPPED_IDS = {each.sha256 for each in SHIPPED}
BAD = ["fails", "does nothing", "empties the bundle", "removes the bundle", "loses the base", "loses one of the base"]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apply, "TOOL_SECONDS", 0.2)


@pytest.fixture(params=BAD)
def bad(request: pytest.FixtureRequest, machine: Machine) -> Machine:
    """A machine with a tool of every bad kind in turn, and a CA mounted."""
    machine.tool(request.param)
    machine.mount(a=A.pem)
    return machine


def test_after_a_bad_refresh_the_base_is_still_there(bad: Machine) -> None:
    bad.start()

    assert bad.read(bad.family.bundle) == BASE


def test_after_a_bad_refresh_an_override_serves_the_store(bad: Machine) -> None:
    outcome = bad.start()

    assert dict(outcome.stores)[bad.family.bundle] == "override"
    assert bad.held(outcome.variables["SSL_CERT_FILE"]) == SHIPPED_IDS | {A.sha256}


def test_a_bad_refresh_is_no_problem_when_an_override_serves_the_store(bad: Machine) -> None:
    assert bad.start().problems == ()


def test_a_bad_refresh_is_told_in_one_line(bad: Machine) -> None:
    told = [note for note in bad.start().notes if dict(note.details).get("store") == bad.family.bundle]

    assert [note.event for note in told] == ["store.overridden"]


def test_a_bad_refresh_is_not_repeated_for_the_same_input(bad: Machine) -> None:
    bad.start()
    bad.start()

    assert len(bad.calls) == 1


def test_a_bad_refresh_is_not_repeated_without_the_receipt_either(bad: Machine) -> None:
    bad.start()
    bad.path("/run/ca-shim/receipt").unlink()
    bad.start()

    assert len(bad.calls) == 1


def test_a_bad_refresh_is_repeated_when_another_ca_is_mounted(bad: Machine) -> None:
    bad.start()
    bad.mount(a=pems(A, B))
    bad.start()

    assert len(bad.calls) == 2


def test_the_plan_after_a_bad_refresh_is_empty(bad: Machine) -> None:
    bad.start()

    assert bad.plan().steps == ()


def test_certifi_is_served_in_place_whatever_the_tool_does(bad: Machine) -> None:
    bad.start()

    assert A.sha256 in bad.held(CERTIFI)


def test_a_bad_refresh_withdraws_from_the_override_what_it_cannot_withdraw_in_place(machine: Machine) -> None:
    machine.mount(a=A.pem, b=B.pem)
    machine.start()
    machine.tool("fails")
    machine.mount(b=B.pem)
    outcome = machine.start()

    assert machine.held(outcome.variables["SSL_CERT_FILE"]) == SHIPPED_IDS | {B.sha256}


def test_the_last_withdrawal_by_a_bad_refresh_ends_in_an_override_without_the_ca(machine: Machine) -> None:
    machine.mount(a=A.pem)
    machine.start()
    machine.tool("does nothing")
    machine.mount()
    outcome = machine.start()

    assert machine.held(outcome.variables["SSL_CERT_FILE"]) == SHIPPED_IDS
    assert machine.plan().steps == ()


@pytest.mark.parametrize("behaviour", BAD)
def test_once_the_tool_works_again_a_new_ca_brings_the_store_back_in_place(machine: Machine, behaviour: str) -> None:
    machine.tool(behaviour)
    machine.mount(a=A.pem)
    machine.start()
    machine.tool("works")
    machine.mount(a=A.pem, b=B.pem)
    outcome = machine.start()

    assert dict(outcome.stores)[machine.family.bundle] == "in place"
    assert machine.held(machine.family.bundle) == SHIPPED_IDS | {A.sha256, B.sha256}
    assert "SSL_CERT_FILE" not in outcome.variables


def test_a_tool_that_fails_although_the_bundle_is_right_has_worked(machine: Machine) -> None:
    machine.tool("works and fails")
    machine.mount(a=A.pem)
    outcome = machine.start()

    assert (dict(outcome.stores)[machine.family.bundle], outcome.problems) == ("in place", ())


def test_another_output_of_the_tool_that_was_emptied_is_put_back(rhel: Machine) -> None:
    rhel.tool("empties another output")
    rhel.mount(a=A.pem)
    rhel.start()

    assert rhel.read(rhel.family.outputs[0]) == b"another form of the roots\n"


@pytest.mark.usefixtures("impatient")
def test_a_tool_that_hangs_is_killed_and_the_store_overridden(machine: Machine) -> None:
    machine.tool("hangs")
    machine.mount(a=A.pem)
    started = time.monotonic()
    outcome = machine.start()

    assert dict(outcome.stores)[machine.family.bundle] == "override"
    assert time.monotonic() - started < 10


@pytest.mark.usefixtures("impatient")
def test_a_tool_that_hangs_is_not_run_again_for_the_same_input(machine: Machine) -> None:
    machine.tool("hangs")
    machine.mount(a=A.pem)
    machine.start()
    machine.start()

    assert len(machine.calls) == 1


@pytest.mark.usefixtures("impatient")
def test_the_children_of_a_tool_that_hangs_are_killed_with_it(rhel: Machine) -> None:
    rhel.tool("hangs")
    path = rhel.path(rhel.family.tool)
    path.write_text(path.read_text().replace("sleep 600 &", 'sleep 600 &\necho $! > "$root/child"\n'))
    rhel.mount(a=A.pem)
    rhel.start()
    child = int(rhel.read("/child"))
    for _ in range(100):
        if not os.path.exists(f"/proc/{child}") or "Z" in _state(child):
            break
        time.sleep(0.02)

    assert not os.path.exists(f"/proc/{child}") or "Z" in _state(child)


def _state(process: int) -> str:
    with open(f"/proc/{process}/status") as file:
        return next(line for line in file if line.startswith("State"))


def test_a_tool_that_is_no_program_leads_to_an_override(machine: Machine) -> None:
    machine.write(machine.family.tool, b"\x7fELF but not really", 0o755)
    machine.mount(a=A.pem)
    outcome = machine.start()

    assert dict(outcome.stores)[machine.family.bundle] == "override"


def test_a_missing_tool_leads_to_an_override_without_any_anchor(machine: Machine) -> None:
    machine.path(machine.family.tool).unlink()
    machine.mount(a=A.pem)
    outcome = machine.start()

    assert dict(outcome.stores)[machine.family.bundle] == "override"
    assert machine.look().os.anchors == ()


def test_the_tool_gets_a_clean_environment_an_empty_input_and_a_usual_umask(
    rhel: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_PRELOAD_OF_A_STRANGER", "x")
    rhel.write(rhel.family.tool, b'#!/bin/sh\nroot=${0%/usr/*}\n{ env; umask; pwd; cat; } > "$root/seen"\n', 0o755)
    rhel.mount(a=A.pem)
    old = os.umask(0o077)
    try:
        rhel.start()
    finally:
        os.umask(old)
    seen = set(rhel.read("/seen").decode().splitlines())

    assert seen - {"PWD=/", "OLDPWD=/", "SHLVL=1", "SHLVL=0", "_=/usr/bin/env"} == {
        "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL=C",
        "HOME=/",
        "0022",
        "/",
    }


@pytest.mark.parametrize(
    ("script", "said"),
    [
        pytest.param("echo out; echo err >&2; exit 3", "exit 3 out\nerr", id="both outputs"),
        pytest.param("printf '\\303\\274\\000'", "exit 0 \\xc3\\xbc\\x00", id="not ASCII"),
        pytest.param("head -c 2000 /dev/zero | tr '\\0' x", "exit 0 " + "x" * 500, id="only the end of much"),
        pytest.param("kill -9 $$", "exit -9", id="killed"),
    ],
)
def test_what_a_tool_said_is_kept_for_the_error(script: str, said: str) -> None:
    assert apply.run(["/bin/sh", "-c", script], 10).replace("\0", "\\x00") == said


def test_the_lost_certificates_are_counted_in_the_reason(machine: Machine) -> None:
    machine.tool("loses the base")
    machine.mount(a=A.pem)
    reasons = [dict(note.details).get("reason", "") for note in machine.start().notes]

    assert any("lost 4 certificates of the base" in str(reason) for reason in reasons)
