"""A start as root on a machine where everything can be changed in place."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from shim import bundle, families
from tests.certificates import DAY, NOW, intermediate, issue, leaf, pems, root
from tests.edge.machine import (
    ANCHORE,
    BASE,
    CERTIFI,
    CERTIFI_BASE,
    SHIPPED,
    VENV_CERTIFI,
    Machine,
    needs_root,
    start_and_kill,
)

if TYPE_CHECKING:
    from shim.reconcile import Outcome

pytestmark = needs_root
A, B, C = root("A"), root("B"), root("C")
SHIPPED_IDS = {each.sha256 for each in SHIPPED}


def events(outcome: Outcome) -> list[str]:
    return [note.event for note in outcome.notes]


def test_a_mounted_ca_is_in_the_system_s_bundle_beside_every_root_of_the_base(machine: Machine) -> None:
    machine.mount(a=A.pem)
    machine.start()

    assert machine.held(machine.family.bundle) == SHIPPED_IDS | {A.sha256}


def test_a_mounted_ca_is_in_certifi_behind_the_shipped_bytes(machine: Machine) -> None:
    machine.mount(a=A.pem)
    machine.start()

    assert machine.read(CERTIFI).startswith(CERTIFI_BASE)
    assert machine.held(CERTIFI) == bundle.fingerprints(CERTIFI_BASE) | {A.sha256}


def test_an_anchor_holds_one_certificate_in_pem(machine: Machine) -> None:
    machine.mount(a=pems(A, B))
    machine.start()
    anchors = sorted(machine.path(machine.family.anchors).iterdir())

    assert sorted(path.read_bytes() for path in anchors) == sorted([A.pem, B.pem])
    assert {path.stat().st_mode & 0o777 for path in anchors} == {0o644}


def test_the_outcome_tells_of_the_ca_its_file_and_its_stores(machine: Machine) -> None:
    machine.mount(a=A.pem)
    (note,) = [note for note in machine.start().notes if note.event == "ca.installed"]
    details = dict(note.details)

    assert (details["subject"], details["sha256"], details["file"]) == ("CN=A", A.sha256, "/custom-certs/a.pem")
    assert {machine.family.bundle, CERTIFI} <= set(details["stores"])  # type: ignore[call-overload]


def test_every_store_is_served_in_place(machine: Machine) -> None:
    machine.mount(a=A.pem)

    assert dict(machine.start().stores) == {machine.family.bundle: "in place", CERTIFI: "in place"}


def test_the_plan_after_a_start_is_empty(machine: Machine) -> None:
    machine.mount(a=pems(A, intermediate(), leaf()), b=issue("weak", critical=False).pem)
    machine.start()

    assert machine.plan().steps == ()


def test_a_second_start_changes_no_byte_and_calls_no_tool(machine: Machine) -> None:
    machine.mount(a=A.pem)
    machine.start()
    before = machine.tree(but=())
    machine.start()

    assert machine.tree(but=()) == before


def test_a_second_start_is_remembered_and_gives_the_same_variables(machine: Machine) -> None:
    machine.mount(a=A.pem)
    first, second = machine.start(), machine.start()

    assert (second.remembered, second.variables) == (True, first.variables)


def test_a_ca_that_is_added_appears(machine: Machine) -> None:
    machine.mount(a=A.pem)
    machine.start()
    machine.mount(a=A.pem, b=B.pem)
    machine.start()

    assert machine.held(machine.family.bundle) == SHIPPED_IDS | {A.sha256, B.sha256}


def test_a_ca_that_is_withdrawn_leaves_every_store(machine: Machine) -> None:
    machine.mount(a=A.pem, b=B.pem)
    machine.start()
    machine.mount(b=B.pem)
    outcome = machine.start()

    assert machine.held(machine.family.bundle) == SHIPPED_IDS | {B.sha256}
    assert A.sha256 not in machine.held(CERTIFI)
    assert "ca.withdrawn" in events(outcome)


def test_the_last_withdrawal_leaves_the_machine_as_it_was_shipped(machine: Machine) -> None:
    machine.start()
    shipped = machine.tree()
    machine.mount(a=A.pem, b=B.pem)
    machine.start()
    machine.mount()
    machine.start()
    left = {path: what for path, what in machine.tree().items() if path in shipped}

    assert left == shipped


def test_the_last_withdrawal_leaves_no_file_of_ours_but_empty_directories_and_the_lock(machine: Machine) -> None:
    machine.mount(a=A.pem)
    machine.start()
    machine.mount()
    machine.start()

    assert [path for path in machine.tree(but=("calls", "lock")) if "ca-shim" in path.rsplit("/")[-1]] == [
        path for path in ("run/ca-shim", "usr/local/share/ca-certificates/ca-shim") if machine.path(path).is_dir()
    ]


def test_without_any_certificate_nothing_is_touched(machine: Machine) -> None:
    before = machine.tree(but=())
    outcome = machine.start()

    assert (machine.tree(but=()), outcome.variables, outcome.notes) == (before, {}, ())


def test_mounted_files_without_a_usable_certificate_change_nothing(machine: Machine) -> None:
    machine.mount(a=b"hello", b=leaf().pem, c=A.key_pem, d=issue(ends=-1).pem, e=b"")
    before = machine.tree(but=("receipt", "ca-shim", "lock"))
    outcome = machine.start()

    assert (machine.tree(but=("receipt", "ca-shim", "lock")), outcome.variables) == (before, {})
    assert sorted(events(outcome)) == sorted(
        ["file.refused", "certificate.skipped", "key.ignored", "certificate.skipped", "file.refused", "source.unusable"]
    )


def test_a_private_key_is_in_no_file_of_the_machine_but_the_mounted_one(machine: Machine) -> None:
    machine.mount(a=A.key_pem + A.pem)
    machine.start()
    body = A.key_pem.splitlines()[1]
    holding = [path for path, (_, _, _, content) in machine.tree(but=()).items() if body in content]

    assert holding == ["custom-certs/a.pem"]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("\n# END ca-shim\n", id="our mark"),
        pytest.param("\x1b[2J\x00", id="control characters"),
        pytest.param("Főtanúsítvány", id="not ASCII"),
        pytest.param("../../../../etc/shadow", id="a path"),
        pytest.param("%s%n $(id) `id` ;", id="shell and format"),
    ],
)
def test_a_ca_of_any_name_is_installed_and_costs_no_other(machine: Machine, name: str) -> None:
    odd = issue(name)
    machine.mount(odd=odd.pem, a=A.pem)
    outcome = machine.start()

    assert machine.held(machine.family.bundle) >= {odd.sha256, A.sha256}
    assert machine.held(CERTIFI) >= {odd.sha256, A.sha256}
    assert (outcome.problems, machine.plan().steps) == ((), ())


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("-----BEGIN CERTIFICATE-----AAAA-----END CERTIFICATE-----", id="a PEM block"),
        pytest.param("-----BEGIN CERTIFICATE-----", id="the beginning of one"),
        pytest.param("\n-----END CERTIFICATE-----\n", id="the end of one"),
    ],
)
def test_a_subject_that_looks_like_pem_costs_no_other_certificate(machine: Machine, name: str) -> None:
    machine.mount(odd=issue(name).pem, a=A.pem)
    machine.start()

    assert A.sha256 in machine.held(machine.family.bundle) & machine.held(CERTIFI)
    assert machine.plan().steps == ()


def test_bundles_stay_ascii_whatever_a_subject_says(machine: Machine) -> None:
    machine.mount(a=issue("Főtanúsítvány").pem)
    machine.start()

    assert machine.read(CERTIFI).isascii()


def test_a_certifi_that_is_upgraded_gets_its_block_again(rhel: Machine) -> None:
    rhel.mount(a=A.pem)
    rhel.start()
    upgraded = pems(*SHIPPED[1:])
    rhel.write(CERTIFI, upgraded)
    rhel.start()

    assert rhel.held(CERTIFI) == bundle.fingerprints(upgraded) | {A.sha256}


def test_a_certifi_that_is_a_link_to_the_system_s_bundle_is_left_to_it(debian: Machine) -> None:
    path = debian.path(CERTIFI)
    path.unlink()
    path.symlink_to("../../../../../../etc/ssl/certs/ca-certificates.crt")
    debian.mount(a=A.pem)
    outcome = debian.start()

    assert dict(outcome.stores) == {debian.family.bundle: "in place"}


def test_every_certifi_that_is_found_gets_the_ca(rhel: Machine) -> None:
    rhel.write(VENV_CERTIFI, CERTIFI_BASE, owner=ANCHORE)
    rhel.path("/home").chmod(0o755)
    rhel.mount(a=A.pem)
    rhel.start()

    assert A.sha256 in rhel.held(CERTIFI) & rhel.held(VENV_CERTIFI)


def test_named_certifi_bundles_take_the_place_of_the_found_ones(rhel: Machine) -> None:
    rhel.write("/srv/cacert.pem", CERTIFI_BASE)
    rhel.mount(a=A.pem)
    rhel.start(CERTIFI="/srv/cacert.pem")

    assert (A.sha256 in rhel.held("/srv/cacert.pem"), rhel.read(CERTIFI)) == (True, CERTIFI_BASE)


@pytest.mark.parametrize("mode", [0o644, 0o664, 0o600, 0o444], ids=oct)
def test_mode_owner_and_group_of_certifi_stay(rhel: Machine, mode: int) -> None:
    rhel.write(CERTIFI, CERTIFI_BASE, mode)
    os.chown(rhel.path(CERTIFI), 0, 50)
    rhel.mount(a=A.pem)
    rhel.start()
    status = rhel.path(CERTIFI).stat()

    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (mode, 0, 50)


def test_a_ca_that_the_base_holds_already_is_left_to_the_base(machine: Machine) -> None:
    machine.mount(a=SHIPPED[0].pem)
    machine.start()

    assert (machine.read(CERTIFI), machine.calls) == (CERTIFI_BASE, [])


def test_a_blocklisted_ca_is_not_waited_for(rhel: Machine) -> None:
    rhel.write(f"{families.RHEL.blocklists[0]}/distrusted.pem", A.pem)
    rhel.mount(a=A.pem)
    rhel.start()

    assert (rhel.calls, A.sha256 in rhel.held(CERTIFI)) == ([], True)


def test_the_baked_certificates_are_read_too(rhel: Machine) -> None:
    rhel.write(f"{families.BAKED}/baked.pem", B.pem)
    rhel.mount(a=A.pem)
    rhel.start()

    assert rhel.held(rhel.family.bundle) >= {A.sha256, B.sha256}


# What the mount cannot tell


def test_what_cannot_be_read_is_not_withdrawn(machine: Machine) -> None:
    machine.mount(a=A.pem, b=B.pem)
    machine.start()
    machine.mount(b=B.pem)
    machine.link("/custom-certs/a.pem", "nowhere")
    outcome = machine.start()

    assert machine.held(machine.family.bundle) >= {A.sha256, B.sha256}
    assert A.sha256 in machine.held(CERTIFI)
    assert {"source.unreadable", "withdrawal.suspended"} <= set(events(outcome))


def test_what_can_be_read_beside_it_is_added(machine: Machine) -> None:
    machine.mount(c=C.pem)
    machine.link("/custom-certs/a.pem", "nowhere")
    machine.start()

    assert C.sha256 in machine.held(machine.family.bundle)


def test_once_everything_can_be_read_again_the_withdrawn_ca_goes(machine: Machine) -> None:
    machine.mount(a=A.pem)
    machine.start()
    machine.mount()
    machine.link("/custom-certs/a.pem", "nowhere")
    machine.start()
    machine.path("/custom-certs/a.pem").unlink()
    machine.start()

    assert A.sha256 not in machine.held(machine.family.bundle) | machine.held(CERTIFI)


def test_a_missing_named_source_withdraws_nothing_and_is_a_problem(machine: Machine) -> None:
    machine.mount(a=A.pem)
    machine.start()
    outcome = machine.start(CERTS="/absent")

    assert A.sha256 in machine.held(machine.family.bundle)
    assert [note.code for note in outcome.problems] == [66]


def test_the_private_ca_of_node_s_operator_stays_node_s_own_when_a_source_cannot_be_read(rhel: Machine) -> None:
    own = root("For node alone")
    environ = {"NODE_EXTRA_CA_CERTS": "/corp.pem"}
    rhel.write("/corp.pem", own.pem)
    rhel.mount(a=A.pem)
    rhel.start(environ)
    rhel.link("/custom-certs/b.pem", "nowhere")
    rhel.start(environ)

    assert own.sha256 not in rhel.held(rhel.family.bundle) | rhel.held(CERTIFI)


# Killed at any point


@pytest.mark.parametrize("steps", range(14))
def test_a_start_killed_after_any_step_is_made_good_by_the_next(
    machine: Machine, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.mount(a=A.pem, b=B.pem)
    machine.start()
    machine.mount(b=B.pem, c=C.pem)
    start_and_kill(machine, steps, monkeypatch)
    interim = machine.held(machine.family.bundle), machine.held(CERTIFI)
    machine.start()

    assert interim[0] >= SHIPPED_IDS
    assert interim[1] >= bundle.fingerprints(CERTIFI_BASE)
    assert machine.held(machine.family.bundle) == SHIPPED_IDS | {B.sha256, C.sha256}
    assert machine.held(CERTIFI) == bundle.fingerprints(CERTIFI_BASE) | {B.sha256, C.sha256}
    assert machine.plan().steps == ()


@pytest.mark.parametrize("steps", range(14))
def test_a_withdrawal_killed_after_any_step_is_made_good_even_if_nothing_is_mounted_any_more(
    machine: Machine, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.mount(a=A.pem, b=B.pem)
    machine.start()
    machine.mount()
    start_and_kill(machine, steps, monkeypatch)
    machine.start()

    assert machine.held(machine.family.bundle) == SHIPPED_IDS
    assert machine.read(CERTIFI) == CERTIFI_BASE
    assert machine.plan().steps == ()


@pytest.mark.parametrize("steps", range(14))
def test_a_start_killed_and_then_given_other_cas_ends_with_those_alone(
    machine: Machine, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.mount(a=A.pem)
    start_and_kill(machine, steps, monkeypatch)
    machine.mount(c=C.pem)
    machine.start()

    assert machine.held(machine.family.bundle) == SHIPPED_IDS | {C.sha256}
    assert machine.held(CERTIFI) == bundle.fingerprints(CERTIFI_BASE) | {C.sha256}


def test_a_start_has_fewer_steps_than_the_tests_of_a_killed_one_try(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.mount(a=A.pem, b=B.pem)
    machine.start()
    machine.mount(b=B.pem, c=C.pem)

    assert not start_and_kill(machine, 13, monkeypatch)


@pytest.mark.parametrize("name", [CERTIFI, "anchor", "/run/ca-shim/extra.pem"], ids=["certifi", "anchor", "extra.pem"])
def test_a_half_written_file_of_a_killed_start_is_gone_after_the_next(machine: Machine, name: str) -> None:
    machine.mount(a=A.pem)
    machine.start()
    anchor = f"{machine.family.anchors}/ca-shim-a-{A.sha256[:12]}.crt"
    half = machine.write((anchor if name == "anchor" else name) + ".ca-shim-new-0", b"half")
    machine.start()

    assert not half.exists()


# Receipts: when a start may be cheap


def test_a_changed_byte_of_any_store_or_source_is_noticed(machine: Machine) -> None:
    machine.mount(a=A.pem)
    machine.start()
    watched = ["/custom-certs/a.pem", machine.family.bundle, CERTIFI, "/run/ca-shim/extra.pem", "/run/ca-shim/env"]
    watched.append(f"{machine.family.anchors}/ca-shim-a-{A.sha256[:12]}.crt")
    missed = []
    for name in watched:
        machine.write(name, machine.read(name) + b"\n")
        missed += [name] if machine.start().remembered else []

    assert missed == []


@pytest.mark.parametrize(
    ("days", "remembered"),
    [pytest.param(1, True, id="the next day"), pytest.param(70, False, id="within 30 days of the end")],
)
def test_a_receipt_holds_until_a_date_that_matters(rhel: Machine, days: float, remembered: bool) -> None:  # noqa: FBT001 - a column of the table
    rhel.mount(a=issue(ends=90).pem)
    rhel.start()

    assert rhel.start(now=NOW + days * DAY).remembered is remembered


def test_an_expired_ca_leaves_the_stores_at_the_next_start(machine: Machine) -> None:
    short = issue("short", ends=90)
    machine.mount(a=short.pem)
    machine.start()
    machine.start(now=NOW + 91 * DAY)

    assert short.sha256 not in machine.held(machine.family.bundle) | machine.held(CERTIFI)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\n\n\n", id="empty lines"),
        pytest.param(b"\xff\xfe\0", id="binary"),
        pytest.param(b"KEY", id="no instant"),
        pytest.param(b"KEY soon", id="no number"),
        pytest.param(b"KEY -5", id="negative"),
        pytest.param(b"KEY 0", id="long ago"),
        pytest.param("KEY ²".encode(), id="a digit that is no number"),
        pytest.param(b"KEY " + b"9" * 5000, id="more digits than Python takes"),
        pytest.param(b"0000 99999999999", id="another key"),
    ],
)
def test_a_receipt_with_odd_content_is_no_receipt_and_no_bug(rhel: Machine, content: bytes) -> None:
    rhel.mount(a=A.pem)
    rhel.start()
    key = rhel.read("/run/ca-shim/receipt").split()[0]
    rhel.write("/run/ca-shim/receipt", content.replace(b"KEY", key))

    assert not rhel.start().remembered


def test_what_cannot_be_used_is_remembered_as_any_other_verdict(rhel: Machine) -> None:
    rhel.mount(a=A.pem, bad=A.pem[:200])
    first = rhel.start()
    again = rhel.start()

    assert (again.remembered, again.known_problems) == (True, len(first.problems) == 1)


@pytest.mark.parametrize("content", [A.key_pem, leaf().pem + leaf().key_pem, A.pem[:200]], ids=["key", "both", "cut"])
def test_files_without_any_ca_are_remembered(rhel: Machine, content: bytes) -> None:
    rhel.mount(a=content)
    rhel.start()

    assert rhel.start().remembered


def test_what_cannot_be_used_is_fatal_at_every_start_where_problems_are(rhel: Machine) -> None:
    rhel.mount(a=A.pem, bad=A.pem[:200])
    rhel.start(ON_ERROR="stop")

    assert [note.code for note in rhel.start(ON_ERROR="stop").problems] == [65]


def test_a_store_that_failed_is_tried_again_at_the_next_start(rhel: Machine) -> None:
    rhel.path("/run").chmod(0o777)
    rhel.path("/tmp").chmod(0o777)
    rhel.mount(a=A.pem)
    rhel.start()

    assert [note.code for note in rhel.start().problems] == [71]


def test_a_remembered_source_without_files_makes_no_directory(rhel: Machine) -> None:
    rhel.start(CERTS="/custom-certs")

    assert not rhel.path("/run/ca-shim").exists()


def test_another_bundle_directory_is_noticed(rhel: Machine) -> None:
    rhel.mount(a=A.pem)
    rhel.start()

    assert not rhel.start(BUNDLE_DIR="/tmp/other").remembered


def test_a_base_without_a_final_newline_is_given_back_byte_for_byte(rhel: Machine) -> None:
    rhel.write(CERTIFI, BASE.rstrip(b"\n"))
    rhel.mount(a=A.pem)
    rhel.start()
    rhel.mount()
    rhel.start()

    assert rhel.read(CERTIFI) == BASE.rstrip(b"\n")
