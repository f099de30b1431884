"""A CA enters a store only from a source, or stays where it is; and one broken certificate costs nobody else."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from shim import bundle, families, loading, preview, status
from tests.certificates import NOW, issue, pems, root
from tests.edge.machine import (
    ANCHORE,
    BASE,
    CERTIFI,
    CERTIFI_BASE,
    SHIPPED,
    VENV_CERTIFI,
    Machine,
    acting,
    needs_root,
)

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = needs_root
A, B, EVIL = root("A"), root("B"), root("Evil")
SHIPPED_IDS = {each.sha256 for each in SHIPPED}
# Valid base64 between valid lines, and no certificate: the whole file fails to load.
BROKEN = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
NOT_BASE64 = b"-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----\n"


def _out_of_reach(machine: Machine) -> str:
    machine.link("/custom-certs/gone.pem", "nowhere")
    return ""


def _missing(machine: Machine) -> str:
    del machine
    return "/custom-certs:/absent"


INCOMPLETE = [pytest.param(_out_of_reach, id="a dangling link"), pytest.param(_missing, id="a named source is missing")]


@pytest.mark.parametrize("incomplete", INCOMPLETE)
def test_a_ca_between_our_marks_in_the_user_s_certifi_never_reaches_a_store_of_root_s(
    machine: Machine, incomplete: Callable[[Machine], str]
) -> None:
    evil = EVIL.item._replace(comment=bundle.comment_on(EVIL.sha256, "CN=Evil"))
    machine.mkdir("/home")
    machine.write(VENV_CERTIFI, bundle.join(CERTIFI_BASE, (evil,)), owner=ANCHORE)
    machine.mount(a=A.pem)
    variables = machine.start(CERTS=incomplete(machine)).variables

    places = [machine.family.bundle, CERTIFI, *variables.values()]
    assert [path for path in places if EVIL.sha256 in machine.held(path)] == []
    assert not [each for each in machine.path(machine.family.anchors).iterdir() if EVIL.pem in each.read_bytes()]
    assert machine.held(VENV_CERTIFI) >= {EVIL.sha256, A.sha256}


@pytest.mark.parametrize("incomplete", INCOMPLETE)
def test_what_one_store_holds_and_another_does_not_stays_so(
    machine: Machine, incomplete: Callable[[Machine], str]
) -> None:
    machine.mount(a=A.pem)
    machine.start()
    machine.write(CERTIFI, CERTIFI_BASE)  # upgraded
    machine.mount()
    machine.start(CERTS=incomplete(machine))

    assert (A.sha256 in machine.held(machine.family.bundle), A.sha256 in machine.held(CERTIFI)) == (True, False)


@pytest.mark.parametrize("incomplete", INCOMPLETE)
def test_with_sources_out_of_reach_a_second_start_changes_no_byte(
    machine: Machine, incomplete: Callable[[Machine], str]
) -> None:
    machine.mount(a=A.pem, b=B.pem)
    machine.start()
    machine.mount(b=B.pem)
    named = incomplete(machine)
    machine.start(CERTS=named)
    before = machine.tree()
    machine.start(CERTS=named)

    assert machine.tree() == before


@pytest.mark.parametrize("incomplete", INCOMPLETE)
def test_with_sources_out_of_reach_override_bundles_and_their_variables_stay(
    machine: Machine, incomplete: Callable[[Machine], str]
) -> None:
    machine.mount(a=A.pem)
    with acting(ANCHORE):
        before = machine.start().variables
    machine.mount(b=B.pem)
    named = incomplete(machine)
    with acting(ANCHORE):
        after = machine.start(CERTS=named).variables

    assert after == before
    assert all(machine.held(path) >= {A.sha256, B.sha256} for path in after.values())


@pytest.mark.parametrize("incomplete", INCOMPLETE)
def test_a_withdrawal_by_override_is_not_undone_when_sources_get_out_of_reach(
    machine: Machine, incomplete: Callable[[Machine], str]
) -> None:
    machine.mount(a=A.pem)
    machine.start()
    machine.mount()
    with acting(ANCHORE):
        before = machine.start().variables
        assert A.sha256 not in machine.held(before["SSL_CERT_FILE"])
    named = incomplete(machine)
    with acting(ANCHORE):
        after = machine.start(CERTS=named).variables

    assert after == before
    assert A.sha256 not in machine.held(after["SSL_CERT_FILE"])


# A broken certificate


@pytest.mark.parametrize("block", [BROKEN, NOT_BASE64], ids=["no certificate", "no base64"])
def test_a_broken_block_in_a_base_takes_no_service_away(machine: Machine, block: bytes) -> None:
    machine.write(CERTIFI, CERTIFI_BASE + block)
    machine.write(machine.family.bundle, BASE + block)
    machine.mount(a=A.pem)
    with acting(ANCHORE):
        outcome = machine.start()

    assert set(outcome.variables) == {"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"}
    assert [path for path in outcome.variables.values() if not loading.loads(machine.read(path))] == []
    assert machine.held(outcome.variables["SSL_CERT_FILE"]) == SHIPPED_IDS | {A.sha256}
    assert outcome.problems == ()


@pytest.mark.parametrize("block", [BROKEN, NOT_BASE64], ids=["no certificate", "no base64"])
def test_a_certifi_that_does_not_load_is_left_alone_and_overridden(rhel: Machine, block: bytes) -> None:
    rhel.write(CERTIFI, CERTIFI_BASE + block)
    rhel.mount(a=A.pem)
    outcome = rhel.start()

    assert (dict(outcome.stores)[CERTIFI], rhel.read(CERTIFI)) == ("override", CERTIFI_BASE + block)
    assert loading.loads(rhel.read(outcome.variables["REQUESTS_CA_BUNDLE"]))


def test_a_bundle_that_cannot_be_written_costs_its_own_variable_alone(
    rhel: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.rename

    def full(source: str, target: str) -> None:
        if target.endswith("python.pem"):
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "rename", full)
    rhel.mount(a=A.pem)
    with acting(ANCHORE):
        outcome = rhel.start(BUNDLE_DIR="/tmp/bundles")

    assert set(outcome.variables) == {"SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"}
    assert [dict(note.details)["store"] for note in outcome.problems] == ["/tmp/bundles/python.pem"]


def test_nothing_is_loaded_by_a_path_that_its_owner_could_exchange(
    rhel: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner of a venv has a FIFO in place of every file that a start makes there, as soon as it is made."""
    rhel.mkdir("/home")
    rhel.write(VENV_CERTIFI, CERTIFI_BASE, owner=ANCHORE)
    directory = os.path.dirname(rhel.path(VENV_CERTIFI))
    real = os.fsync

    def exchange(descriptor: int) -> None:
        real(descriptor)
        for name in os.listdir(directory):
            if name != "cacert.pem" and os.path.isfile(f"{directory}/{name}"):
                os.unlink(f"{directory}/{name}")
                os.mkfifo(f"{directory}/{name}")

    monkeypatch.setattr(os, "fchmod", lambda *_: exchange(_[0]))
    rhel.mount(a=A.pem)
    rhel.start()  # does not hang


# Bundles that somebody chose


def test_a_directory_that_two_variables_name_is_merged_for_the_client_that_takes_directories(rhel: Machine) -> None:
    own = root("Corporate")
    rhel.write("/corp/own.pem", own.pem)
    rhel.mount(a=A.pem)
    variables = rhel.start({"SSL_CERT_FILE": "/corp", "REQUESTS_CA_BUNDLE": "/corp"}).variables

    assert rhel.held(variables["REQUESTS_CA_BUNDLE"]) == {own.sha256, A.sha256}


@pytest.mark.parametrize("row", [row for row in families.VARIABLES if row.base == "os"], ids=lambda row: row.name)
def test_two_environments_in_turn_leave_a_bundle_that_starts_from_the_system_s_store_alone(
    rhel: Machine, row: families.Variable
) -> None:
    rhel.mount(a=A.pem, selfsigned=issue("Not a CA", ca=False).pem)
    environments = [{row.name: "/gone.pem"}, {}]
    for environ in environments:
        rhel.start(environ)
    before = rhel.tree()
    for environ in environments:
        rhel.start(environ)

    assert rhel.tree() == before


def test_of_a_chosen_bundle_what_openssl_does_not_load_is_left_out(rhel: Machine) -> None:
    rhel.write("/corp.pem", pems(B) + BROKEN)
    rhel.mount(a=A.pem)
    variables = rhel.start({"PIP_CERT": "/corp.pem"}).variables

    assert rhel.held(variables["PIP_CERT"]) == {A.sha256, B.sha256}


def test_status_calls_nothing_withdrawn_that_only_cannot_be_read(machine: Machine) -> None:
    machine.mount(a=A.pem)
    machine.start()
    machine.mount()
    machine.link("/custom-certs/gone.pem", "nowhere")
    (found,) = status.look(machine.config(), {}, NOW).authorities

    assert (found.sha256, {*found.states.values()}) == (A.sha256, {"installed"})


# What cannot be read, and what could not be read again


def _grow(machine: Machine, path: str) -> None:
    os.truncate(machine.path(path), bundle.LIMIT + 1)


@pytest.mark.parametrize("store", ["certifi", "system"])
def test_a_store_too_large_to_read_is_overridden_and_a_problem_whatever_is_mounted(
    machine: Machine, store: str
) -> None:
    path = CERTIFI if store == "certifi" else machine.family.bundle
    machine.mount(a=A.pem)
    machine.start()
    machine.mount()
    _grow(machine, path)
    outcome = machine.start()

    assert (dict(outcome.stores)[path], [note.code for note in outcome.problems]) == ("override", [71])
    variable = {"certifi": "REQUESTS_CA_BUNDLE", "system": "SSL_CERT_FILE"}[store]
    assert A.sha256 not in machine.held(outcome.variables[variable])
    assert machine.held(outcome.variables[variable]) >= bundle.fingerprints(CERTIFI_BASE)


def test_nothing_is_written_that_would_be_too_large_to_read_again(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = CERTIFI_BASE + pems(*(root(f"Shipped {number}") for number in range(5, 9)))
    machine.write(CERTIFI, before)
    monkeypatch.setattr(bundle, "LIMIT", len(before) + 100)
    machine.mount(a=A.pem)
    outcome = machine.start()

    assert machine.read(CERTIFI) == before
    assert [note.code for note in outcome.problems] == [71]
    assert "REQUESTS_CA_BUNDLE" not in outcome.variables
    assert A.sha256 in machine.held(machine.family.bundle)


# What a review found


@pytest.mark.parametrize("block", [NOT_BASE64, BROKEN[:60]], ids=["no base64", "no end"])
def test_a_broken_block_is_seen_in_a_large_bundle_too(rhel: Machine, block: bytes) -> None:
    many = CERTIFI_BASE + pems(*(root(f"Many {number}") for number in range(301))) + block
    rhel.write(CERTIFI, many)
    rhel.mount(a=A.pem)
    outcome = rhel.start()

    assert (dict(outcome.stores)[CERTIFI], rhel.read(CERTIFI)) == ("override", many)
    assert loading.loads(rhel.read(outcome.variables["REQUESTS_CA_BUNDLE"]))


def test_bundles_of_root_s_in_the_image_do_not_excuse_a_source_that_cannot_be_read(rhel: Machine) -> None:
    rhel.mount(b=B.pem)
    rhel.start()  # in the Dockerfile
    rhel.mount(a=A.pem)
    rhel.path("/custom-certs/a.pem").chmod(0o600)
    with acting(ANCHORE):
        outcome = rhel.start(CERTS="/custom-certs")

    assert [note.code for note in outcome.problems] == [66]


def _made_by_the_tool(machine: Machine) -> dict[str, str]:
    """Variables that point to what the refresh tool makes besides the bundle."""
    directory, output = machine.family.directories[0], machine.family.outputs[0]
    machine.write(f"{directory}/a.pem", A.pem)
    machine.write(output, pems(*SHIPPED, A))
    return {"REQUESTS_CA_BUNDLE": directory, "SSL_CERT_FILE": output}


def test_a_withdrawn_ca_is_not_merged_from_what_the_tool_makes_besides_the_bundle(machine: Machine) -> None:
    machine.mount(a=A.pem)
    machine.start()
    machine.mount(b=B.pem)
    environ = _made_by_the_tool(machine)
    with acting(ANCHORE):
        variables = machine.start(environ).variables

    for name in environ:
        assert machine.held(variables[name]) >= {B.sha256}
        assert A.sha256 not in machine.held(variables[name])


def test_a_withdrawn_ca_leaves_a_certifi_that_only_a_variable_names(rhel: Machine) -> None:
    path = "/srv/other/certifi/cacert.pem"
    rhel.write(path, CERTIFI_BASE)
    environ = {"REQUESTS_CA_BUNDLE": path}
    rhel.mount(a=A.pem)
    rhel.start(environ)
    assert A.sha256 in rhel.held(path)
    rhel.mount()
    rhel.start(environ)

    assert rhel.read(path) == CERTIFI_BASE


@pytest.mark.parametrize("incomplete", INCOMPLETE)
def test_with_sources_out_of_reach_a_chosen_bundle_is_merged_all_the_same(
    machine: Machine, incomplete: Callable[[Machine], str]
) -> None:
    own = root("Corporate")
    machine.write("/corp.pem", own.pem)
    machine.mount(a=A.pem)
    named = incomplete(machine)
    with acting(ANCHORE):
        machine.start(CERTS=named)
        variables = machine.start({"SSL_CERT_FILE": "/corp.pem"}, CERTS=named).variables

    assert machine.held(variables["SSL_CERT_FILE"]) == {own.sha256, A.sha256}


def test_a_bundle_of_an_earlier_start_does_not_stand_for_one_that_cannot_be_written(
    rhel: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, real = root("Corporate"), os.rename
    rhel.write("/corp.pem", own.pem)
    rhel.mount(a=A.pem)
    with acting(ANCHORE):
        rhel.start()

    def full(source: str, target: str) -> None:
        if target.endswith("os.pem"):
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "rename", full)
    with acting(ANCHORE):
        outcome = rhel.start({"SSL_CERT_FILE": "/corp.pem"}, BUNDLE_DIR="/tmp/ca-shim-1000")

    assert "SSL_CERT_FILE" not in outcome.variables
    assert [note.code for note in outcome.problems] == [71]


def test_shells_get_no_variable_whose_bundle_is_not_there(rhel: Machine) -> None:
    rhel.mount(a=A.pem)
    with acting(ANCHORE):
        variables = rhel.start().variables
        rhel.path(variables["SSL_CERT_FILE"]).unlink()
        lines = preview.exports(rhel.config(), {})

    assert "SSL_CERT_FILE" not in lines
    assert "NODE_EXTRA_CA_CERTS" in lines


def test_without_any_ca_a_variable_that_points_to_a_bundle_of_ours_that_is_gone_is_unset(rhel: Machine) -> None:
    assert rhel.start({"SSL_CERT_FILE": "/run/ca-shim/os.pem"}).restored == {"SSL_CERT_FILE": None}


def test_a_source_that_is_named_later_is_not_remembered_as_one_that_was_not(rhel: Machine) -> None:
    rhel.mount(readme=b"hello")
    rhel.start()

    assert [note.code for note in rhel.start(CERTS="/custom-certs").problems] == [66]


def test_a_tool_is_tried_again_once_what_it_reads_was_repaired(machine: Machine) -> None:
    bad = machine.write(f"{os.path.dirname(machine.family.anchors)}/bad.crt", b"broken")
    machine.tool("fails")
    machine.mount(a=A.pem)
    machine.start()
    calls = len(machine.calls)
    machine.start()
    assert len(machine.calls) == calls
    bad.unlink()
    machine.start()

    assert len(machine.calls) == calls + 1
