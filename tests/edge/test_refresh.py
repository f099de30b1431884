"""Refresh tools that fail, hang, empty the bundle or lose a certificate of the base."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from shim import apply
from tests.certificates import pems, root
from tests.edge.machine import BASE, CERTIFI, SHIPPED, Machine, needs_root

if TYPE_CHECKING:
    from shim.record import Note

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


@pytest.mark.parametrize("behaviour", BAD)
def test_a_bad_refresh_is_told_in_one_line(machine: Machine, behaviour: str) -> None:
    machine.tool(behaviour)
    machine.mount(a=A.pem)

    assert [note.event for note in _told(machine)] == [
        "store.overridden" if behaviour == "does nothing" else "store.failed"
    ]


def _told(machine: Machine) -> list[Note]:
    """Start, and return what is told of the store."""
    return [note for note in machine.start().notes if dict(note.details).get("store") == machine.family.bundle]


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("fails", "its tool failed: @TOOL@ did not bring the bundle up to date (exit 1 broken)"),
        ("does nothing", "its tool leaves certificates out (exit 0)"),
        ("loses the base", "its tool failed: @TOOL@ lost 4 certificates of the base (exit 0)"),
    ],
)
def test_the_reason_is_what_the_tool_did_and_said_at_every_start(machine: Machine, behaviour: str, reason: str) -> None:
    machine.tool(behaviour)
    machine.mount(a=A.pem)
    reasons = []
    for _ in range(2):
        reasons += [dict(note.details)["reason"] for note in _told(machine)]
        machine.path("/run/ca-shim/receipt").unlink()

    assert reasons == [reason.replace("@TOOL@", machine.family.tool)] * 2


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


def test_a_tool_that_failed_is_tried_again_once_it_was_repaired(bad: Machine) -> None:
    bad.start()
    bad.tool("works")
    outcome = bad.start()

    assert (dict(outcome.stores)[bad.family.bundle], bad.plan().steps) == ("in place", ())
    assert bad.held(bad.family.bundle) == SHIPPED_IDS | {A.sha256}


def test_a_tool_that_failed_is_tried_again_once_a_program_that_it_calls_is_there(machine: Machine) -> None:
    machine.tool("fails")
    machine.mount(a=A.pem)
    machine.start()
    machine.write("/usr/bin/readlink", b"")
    machine.start()

    assert len(machine.calls) == 2


def test_a_withdrawal_that_the_tool_failed_at_is_done_once_the_tool_was_repaired(machine: Machine) -> None:
    machine.mount(a=A.pem)
    machine.start()
    machine.tool("fails")
    machine.mount()
    machine.start()
    machine.tool("works")
    machine.start()

    assert machine.held(machine.family.bundle) == SHIPPED_IDS


def test_a_withdrawn_ca_that_a_failing_tool_never_installed_needs_no_override(machine: Machine) -> None:
    machine.tool("fails")
    machine.mount(a=A.pem)
    machine.start()
    machine.mount()

    assert "SSL_CERT_FILE" not in machine.start().variables


def test_a_withdrawn_ca_that_the_system_ships_meanwhile_is_no_failure(machine: Machine) -> None:
    machine.mount(a=A.pem)
    machine.start()
    machine.write("/usr/share/base.pem", BASE + A.pem)
    machine.tool("works and fails")
    machine.write(f"{machine.family.anchors}/another.crt", B.pem)
    machine.mount()
    outcome = machine.start()

    assert [note.event for note in outcome.notes if note.event.startswith("store.")] == []
    assert machine.held(machine.family.bundle) == SHIPPED_IDS | {A.sha256, B.sha256}


def _directory(machine: Machine) -> dict[str, tuple[int, int, int, bytes]]:
    """Return the hashed directory without the bundle, which Debian keeps there."""
    start = machine.family.directories[0].lstrip("/")
    return {
        path: what
        for path, what in machine.tree().items()
        if path.startswith(start) and path != machine.family.bundle.lstrip("/")
    }


@pytest.mark.parametrize("behaviour", ["links without readlink", "links nothing", "removes the links and fails"])
def test_what_a_failed_refresh_takes_from_a_hashed_directory_is_put_back(machine: Machine, behaviour: str) -> None:
    machine.path(machine.hash()).chmod(0o555)
    before = _directory(machine)
    machine.tool(behaviour)
    machine.mount(a=A.pem)
    outcome = machine.start()

    assert dict(outcome.stores)[machine.family.bundle] == "override"
    assert _directory(machine) == before


def test_a_ca_that_only_the_bundle_got_is_served_by_override(machine: Machine) -> None:
    machine.hash()
    machine.tool("links without readlink")
    machine.mount(a=A.pem)
    outcome = machine.start()

    assert machine.held(outcome.variables["SSL_CERT_FILE"]) == SHIPPED_IDS | {A.sha256}
    assert "(exit 127 readlink: command not found)" in str(outcome.notes)


def test_a_tool_that_fails_after_its_work_is_done_has_worked_and_what_it_took_is_put_back(machine: Machine) -> None:
    directory = machine.hash()
    machine.tool("links without a capability")
    machine.mount(a=A.pem)
    outcome = machine.start()

    assert dict(outcome.stores)[machine.family.bundle] == "in place"
    assert {note.event for note in outcome.notes} == {"ca.installed"}
    assert machine.path(f"{directory}/compatible.crt").is_symlink()


def test_a_hashed_directory_that_is_not_the_tools_own_is_not_judged(machine: Machine) -> None:
    machine.path(f"{machine.hash()}/00000003.0").unlink()
    machine.mount(a=A.pem)

    assert dict(machine.start().stores)[machine.family.bundle] == "in place"


@pytest.mark.parametrize("behaviour", ["links", "links without a capability"])
def test_what_a_tool_removes_with_a_withdrawn_ca_is_not_put_back(machine: Machine, behaviour: str) -> None:
    directory = machine.hash()
    machine.tool("links")
    machine.mount(a=A.pem)
    machine.start()
    machine.tool(behaviour)
    machine.mount()
    machine.start()

    assert [*machine.path(directory).glob("ca-shim-*")] == []
    assert {path.name for path in machine.path(directory).glob("*.0")} == {f"0000000{number}.0" for number in range(4)}


def test_what_a_killed_tool_left_is_not_added_to(debian: Machine) -> None:
    debian.tool("adds to a leftover")
    debian.write(debian.family.leftovers[0], B.pem + A.pem[:99])
    debian.mount(a=A.pem)
    debian.start()

    assert debian.held(debian.family.bundle) == SHIPPED_IDS | {A.sha256}


def test_a_bundle_that_a_killed_tool_has_broken_is_restored_although_the_tool_fails(machine: Machine) -> None:
    machine.tool("kills its parent")
    machine.mount(a=A.pem)
    killed = os.fork()
    if killed == 0:
        machine.start()
    os.waitpid(killed, 0)
    broken = machine.read(machine.family.bundle)
    machine.tool("fails")
    outcome = machine.start()

    assert (broken, machine.read(machine.family.bundle)) == (b"", BASE)
    assert machine.held(outcome.variables["SSL_CERT_FILE"]) == SHIPPED_IDS | {A.sha256}


def test_after_a_refresh_no_copy_of_the_bundle_is_left(machine: Machine) -> None:
    for behaviour in ("works", "fails", "empties the bundle"):
        machine.tool(behaviour)
        machine.mount(a=A.pem, **{behaviour[:1]: B.pem})
        machine.start()

        assert [*machine.root.rglob("*.ca-shim-old")] == []


def test_a_bundle_that_was_put_back_has_its_mode(machine: Machine) -> None:
    machine.path(machine.family.bundle).chmod(0o444)
    machine.tool("removes the bundle")
    machine.mount(a=A.pem)
    machine.start()

    assert machine.path(machine.family.bundle).stat().st_mode & 0o7777 == 0o444


@pytest.mark.parametrize("behaviour", ["leaves a child", "leaves a daemon"])
def test_a_start_waits_for_the_tool_and_not_for_a_child_with_its_output(machine: Machine, behaviour: str) -> None:
    machine.tool(behaviour)
    machine.mount(a=A.pem)
    started = time.monotonic()
    outcome = machine.start()
    child = int(machine.read("/child"))
    alive = _is_alive(child)
    if behaviour == "leaves a daemon":
        os.kill(child, signal.SIGKILL)

    assert time.monotonic() - started < 10
    assert dict(outcome.stores)[machine.family.bundle] == "in place"
    assert alive == (behaviour == "leaves a daemon")


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

    assert not _is_alive(int(rhel.read("/child")))


def _is_alive(process: int) -> bool:
    """Say whether a process goes on, and not only until a signal has reached it."""
    for _ in range(10):
        try:
            with open(f"/proc/{process}/status") as file:
                if "Z" in next(line for line in file if line.startswith("State")):
                    return False
        except OSError:
            return False
        time.sleep(0.02)
    return True


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
        "CA_SHIM=off",  # a wrapped program that the tool calls would wait for the lock of the tool's start,
        "CA_SHIM_USER=root",  # and could not change a store as another user
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
    worked, text = apply.run(["/bin/sh", "-c", script], 10)

    assert (worked, text.replace("\0", "\\x00")) == (said.startswith("exit 0"), said)


def test_the_lost_certificates_are_counted_in_the_reason(machine: Machine) -> None:
    machine.tool("loses the base")
    machine.mount(a=A.pem)
    reasons = [dict(note.details).get("reason", "") for note in machine.start().notes]

    assert any("lost 4 certificates of the base" in str(reason) for reason in reasons)
