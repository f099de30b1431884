"""Stores that cannot be written safely are served by bundles in a private directory."""

from __future__ import annotations

import os
import shlex
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from shim import apply, bundle, families, host
from tests.certificates import TRUST_SETTINGS, armour, issue, pems, root
from tests.edge.machine import (
    ANCHORE,
    BASE,
    CERTIFI,
    CERTIFI_BASE,
    SHIPPED,
    SOMEBODY,
    VENV,
    VENV_CERTIFI,
    Machine,
    acting,
    needs_root,
)

if TYPE_CHECKING:
    from shim.reconcile import Outcome

pytestmark = needs_root
A, B, OWN = root("A"), root("B"), root("Corporate")
SHIPPED_IDS = {each.sha256 for each in SHIPPED}
CERTIFI_IDS = bundle.fingerprints(CERTIFI_BASE)
ALL = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")


@pytest.fixture(params=[(ANCHORE, ANCHORE), (1000650000, 0)], ids=["uid 1000", "arbitrary uid, gid 0"])
def user(request: pytest.FixtureRequest) -> tuple[int, int]:
    ids: tuple[int, int] = request.param
    return ids


def start(machine: Machine, environ: dict[str, str] | None = None, uid: int = ANCHORE, gid: int = ANCHORE) -> Outcome:
    with acting(uid, gid):
        return machine.start(environ)


def test_without_root_every_client_s_bundle_holds_its_base_and_the_ca(machine: Machine, user: tuple[int, int]) -> None:
    machine.mount(a=A.pem)
    variables = start(machine, None, *user).variables

    assert {name: machine.held(path) for name, path in variables.items()} == {
        "SSL_CERT_FILE": SHIPPED_IDS | {A.sha256},
        "REQUESTS_CA_BUNDLE": CERTIFI_IDS | {A.sha256},
        "NODE_EXTRA_CA_CERTS": {A.sha256},
    }


def test_without_root_no_problem_is_reported(machine: Machine, user: tuple[int, int]) -> None:
    machine.mount(a=A.pem)

    assert start(machine, None, *user).problems == ()


def test_without_root_the_plan_after_a_start_is_empty(machine: Machine, user: tuple[int, int]) -> None:
    machine.mount(a=A.pem)
    start(machine, None, *user)
    with acting(*user):
        assert machine.plan().steps == ()


def test_without_root_a_second_start_changes_no_byte(machine: Machine, user: tuple[int, int]) -> None:
    machine.mount(a=A.pem)
    start(machine, None, *user)
    before = machine.tree(but=())
    outcome = start(machine, None, *user)

    assert (machine.tree(but=()), outcome.remembered) == (before, True)


def test_without_root_a_withdrawal_takes_the_bundles_away(machine: Machine, user: tuple[int, int]) -> None:
    machine.mount(a=A.pem)
    start(machine, None, *user)
    machine.mount()

    assert start(machine, None, *user).variables == {}
    assert [*machine.path("/tmp").rglob("*.pem")] == []


def test_a_ca_baked_in_as_root_and_withdrawn_is_in_no_bundle_of_a_start_without_root(machine: Machine) -> None:
    machine.mount(a=A.pem, b=B.pem)
    machine.start()
    machine.mount(b=B.pem)
    variables = start(machine).variables

    assert set(ALL[:2]) <= set(variables)
    assert not [path for path in variables.values() if A.sha256 in machine.held(path)]


def test_a_venv_of_the_user_s_is_changed_in_place(rhel: Machine) -> None:
    rhel.mkdir("/home")
    rhel.write(VENV_CERTIFI, CERTIFI_BASE, owner=ANCHORE)
    rhel.mount(a=A.pem)
    outcome = start(rhel)

    assert (dict(outcome.stores)[VENV_CERTIFI], A.sha256 in rhel.held(VENV_CERTIFI)) == ("in place", True)


def test_the_second_shim_of_a_chain_uses_what_root_left(rhel: Machine) -> None:
    rhel.tool("fails")
    rhel.mount(a=A.pem)
    first = rhel.start()
    second = start(rhel, {**first.variables})

    assert second.variables == first.variables


def test_the_second_shim_withdraws_nothing_that_root_alone_can_read(rhel: Machine) -> None:
    rhel.mount(a=A.pem)
    rhel.path("/custom-certs/a.pem").chmod(0o600)
    first = rhel.start()
    outcome = start(rhel, {**first.variables})

    assert A.sha256 in rhel.held(outcome.variables["NODE_EXTRA_CA_CERTS"])
    assert outcome.problems == ()


@pytest.mark.parametrize("row", families.VARIABLES, ids=lambda row: row.name)
@pytest.mark.parametrize(
    "value", ["/corp.pem", "/gone.pem", "/home/anchore/certs_override/x.pem"], ids=["own", "missing", "vendor's"]
)
def test_the_second_shim_of_a_chain_gives_what_the_first_gave(
    rhel: Machine, row: families.Variable, value: str
) -> None:
    rhel.write("/corp.pem", OWN.pem)
    rhel.mount(a=A.pem)
    environ = {row.name: value}
    first = start(rhel, environ)
    second = start(rhel, {**environ, **first.variables})
    restored = {**first.restored, **second.restored}
    final = {**environ, **restored, **first.variables, **second.restored, **second.variables}

    assert {name: final.get(name) for name in first.variables if name not in restored} == first.variables
    path = final[row.name]
    assert path is None or rhel.path(path).exists()


def test_bundles_that_root_made_in_a_directory_of_its_own_serve_the_user_it_became(rhel: Machine) -> None:
    rhel.path("/run").rmdir()
    rhel.mount(a=A.pem)
    made = rhel.start().variables
    with acting(ANCHORE):
        outcome = rhel.start({**made})

    assert made == {"NODE_EXTRA_CA_CERTS": "/tmp/ca-shim-0/extra.pem"}
    assert (outcome.variables, outcome.remembered) == (made, True)


# Variables that somebody set


def served(machine: Machine, name: str, value: str) -> frozenset[str]:
    return machine.held(machine.start({name: value}).variables.get(name, value))


@pytest.mark.parametrize("row", families.VARIABLES, ids=lambda row: row.name)
def test_the_cas_of_somebody_s_own_bundle_and_ours_are_trusted(rhel: Machine, row: families.Variable) -> None:
    rhel.write("/corp.pem", OWN.pem)
    rhel.mount(a=A.pem)

    assert served(rhel, row.name, "/corp.pem") == {OWN.sha256, A.sha256}
    assert rhel.read("/corp.pem") == OWN.pem


@pytest.mark.parametrize("row", families.VARIABLES, ids=lambda row: row.name)
@pytest.mark.parametrize("value", ["/gone.pem", "", "/custom-certs/../gone", "/calls/below-a-file"])
def test_a_variable_that_points_to_nothing_is_repaired(rhel: Machine, row: families.Variable, value: str) -> None:
    base = {"os": SHIPPED_IDS, "python": CERTIFI_IDS, "nothing": set()}[row.base]
    rhel.mount(a=A.pem)
    outcome = rhel.start({row.name: value})

    assert rhel.held(outcome.variables[row.name]) >= base | {A.sha256}
    assert [note.event for note in outcome.notes].count("variable.repaired") == 1


def test_the_vendor_s_own_override_is_superseded_without_a_warning(rhel: Machine) -> None:
    vendor = f"{families.VENDOR_OVERRIDES}/python/cacert.pem"
    rhel.write(vendor, CERTIFI_BASE + OWN.pem)
    rhel.mount(a=A.pem)
    outcome = rhel.start({"REQUESTS_CA_BUNDLE": vendor})

    assert outcome.restored == {"REQUESTS_CA_BUNDLE": None}
    assert rhel.held(CERTIFI) == CERTIFI_IDS | {A.sha256}
    assert "variable.repaired" not in [note.event for note in outcome.notes]


@pytest.mark.parametrize("path", [families.RHEL.bundle, CERTIFI], ids=["system's", "certifi's"])
def test_a_variable_that_points_to_a_store_in_place_needs_nothing(rhel: Machine, path: str) -> None:
    rhel.mount(a=A.pem)

    assert set(rhel.start({"SSL_CERT_FILE": path}).variables) == {"NODE_EXTRA_CA_CERTS"}


def test_a_variable_that_points_to_our_bundle_keeps_pointing_to_what_is_there(rhel: Machine) -> None:
    rhel.write("/corp.pem", OWN.pem)
    rhel.mount(a=A.pem)
    first = rhel.start({"SSL_CERT_FILE": "/corp.pem"}).variables

    assert rhel.start(dict(first)).variables == first


def test_after_the_last_withdrawal_a_variable_of_ours_is_as_it_was_before_us(rhel: Machine) -> None:
    rhel.write("/corp.pem", OWN.pem)
    rhel.mount(a=A.pem)
    first = rhel.start({"SSL_CERT_FILE": "/corp.pem"}).variables
    rhel.mount()
    outcome = rhel.start(dict(first))

    assert outcome.restored == {"SSL_CERT_FILE": "/corp.pem", "NODE_EXTRA_CA_CERTS": None}


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(OWN.pem + b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", id="a broken block"),
        pytest.param(OWN.pem + armour("TRUSTED CERTIFICATE", OWN.der + TRUST_SETTINGS), id="plain and trusted"),
        pytest.param(OWN.pem + OWN.pem, id="the same twice"),
        pytest.param(OWN.pem.replace(b"\n", b"\r\n"), id="CRLF"),
        pytest.param(armour("X509 CERTIFICATE", OWN.der), id="X509 CERTIFICATE"),
        pytest.param(b"", id="empty"),
    ],
)
def test_an_odd_bundle_of_somebody_s_costs_no_other_client_its_cas(rhel: Machine, content: bytes) -> None:
    rhel.write("/corp.pem", content)
    rhel.tool("fails")
    rhel.mount(a=A.pem)
    outcome = rhel.start({"PIP_CERT": "/corp.pem"})

    assert rhel.held(outcome.variables["SSL_CERT_FILE"]) == SHIPPED_IDS | {A.sha256}
    assert rhel.held(outcome.variables["NODE_EXTRA_CA_CERTS"]) == {A.sha256}


def test_the_certificates_of_somebody_s_directory_are_merged(rhel: Machine) -> None:
    rhel.write("/corp/1.pem", OWN.pem)
    rhel.write("/corp/2.pem", B.pem)
    rhel.mount(a=A.pem)

    assert served(rhel, "REQUESTS_CA_BUNDLE", "/corp") == {OWN.sha256, B.sha256, A.sha256}


def test_curl_that_is_deaf_to_ssl_cert_file_gets_its_own_variable(rhel: Machine) -> None:
    rhel.tool("fails")
    rhel.mount(a=A.pem)

    assert {"CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"} <= set(rhel.start({"SSL_CERT_DIR": "/x"}).variables)


def test_freshclam_gets_the_variable_of_curl(rhel: Machine) -> None:
    rhel.write(families.FRESHCLAM, b"")
    rhel.tool("fails")
    rhel.mount(a=A.pem)

    assert "CURL_CA_BUNDLE" in rhel.start().variables


SITE = os.path.dirname(os.path.dirname(CERTIFI))
OF_CLIENTS = {
    "git": ("GIT_SSL_CAINFO", "/usr/bin/git", SHIPPED_IDS),
    "httplib2": ("HTTPLIB2_CA_CERTS", f"{SITE}/httplib2/__init__.py", CERTIFI_IDS),
    "grpc": ("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", f"{SITE}/grpc/__init__.py", SHIPPED_IDS),
    "grpc in lib64": (
        "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
        f"{SITE}/grpc/__init__.py".replace("/lib/", "/lib64/"),
        SHIPPED_IDS,
    ),
}


@pytest.mark.parametrize(("variable", "program", "roots"), OF_CLIENTS.values(), ids=list(OF_CLIENTS))
def test_a_client_that_is_here_gets_its_variable(
    machine: Machine, variable: str, program: str, roots: frozenset[str]
) -> None:
    machine.mount(a=A.pem)
    without = start(machine).variables
    machine.write(program, b"")
    outcome = start(machine)

    assert (variable in without, outcome.remembered) == (False, False)
    assert machine.held(outcome.variables[variable]) == roots | {A.sha256}
    assert start(machine).remembered


def test_in_place_only_a_client_with_roots_of_its_own_gets_its_variable(rhel: Machine) -> None:
    for _, program, _ in OF_CLIENTS.values():
        rhel.write(program, b"")
    rhel.mount(a=A.pem)
    variables = rhel.start().variables

    assert set(variables) == {"NODE_EXTRA_CA_CERTS", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"}
    assert rhel.held(variables["GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"]) == SHIPPED_IDS | {A.sha256}
    assert rhel.plan().steps == ()


# Directories


def test_the_directory_and_its_files_can_be_read_by_everybody_whatever_the_umask(rhel: Machine) -> None:
    rhel.mount(a=A.pem)
    old = os.umask(0o077)
    try:
        rhel.start()
    finally:
        os.umask(old)

    assert rhel.path("/run/ca-shim").stat().st_mode & 0o7777 == 0o755
    assert rhel.path("/run/ca-shim/extra.pem").stat().st_mode & 0o7777 == 0o644


def test_the_lock_can_be_opened_by_its_owner_alone(rhel: Machine) -> None:
    rhel.mount(a=A.pem)
    rhel.start()

    assert rhel.path("/run/ca-shim/lock").stat().st_mode & 0o7777 == 0o600


def _planted(machine: Machine, how: str) -> None:
    path = "/tmp/ca-shim-1000"
    if how == "link":
        machine.mkdir("/elsewhere", 0o777)
        machine.link(path, "../elsewhere", owner=SOMEBODY)
    elif how == "file":
        machine.write(path, b"", owner=SOMEBODY)
    elif how == "somebody's":
        machine.mkdir(path, owner=SOMEBODY)
    else:
        machine.mkdir(path, 0o777, owner=ANCHORE)


@pytest.mark.parametrize("how", ["link", "file", "somebody's", "writable by all"])
def test_a_planted_directory_is_not_used(rhel: Machine, how: str) -> None:
    _planted(rhel, how)
    rhel.mkdir("/dev/shm", 0o1777)
    rhel.mount(a=A.pem)

    assert start(rhel).variables["NODE_EXTRA_CA_CERTS"] == "/dev/shm/ca-shim-1000/extra.pem"


@pytest.mark.parametrize("mode", [0o777, 0o775], ids=oct)
def test_a_directory_below_one_that_others_may_write_is_not_used(rhel: Machine, mode: int) -> None:
    rhel.path("/tmp").chmod(mode)
    rhel.path("/run").chmod(mode)
    rhel.mkdir("/dev/shm", 0o1777)
    rhel.mount(a=A.pem)

    assert rhel.start().variables["NODE_EXTRA_CA_CERTS"] == "/dev/shm/ca-shim-0/extra.pem"


def test_tmpdir_comes_before_tmp(rhel: Machine) -> None:
    rhel.mkdir("/scratch", 0o1777)
    rhel.mount(a=A.pem)

    assert start(rhel, {"TMPDIR": "/scratch"}).variables["SSL_CERT_FILE"] == "/scratch/ca-shim-1000/os.pem"


@pytest.mark.parametrize("value", ["", "relative", "/absent", "/tmp/../../../..", "/{uid}", "/{0}", "/{"])
def test_an_odd_tmpdir_stops_nothing(rhel: Machine, value: str) -> None:
    rhel.mount(a=A.pem)

    assert start(rhel, {"TMPDIR": value}).problems == ()


def test_the_named_directory_is_used(rhel: Machine) -> None:
    rhel.mount(a=A.pem)

    assert rhel.start(BUNDLE_DIR="/tmp/{mine}").variables["NODE_EXTRA_CA_CERTS"] == "/tmp/{mine}/extra.pem"


def test_files_of_somebody_else_s_in_the_named_directory_stay(rhel: Machine) -> None:
    rhel.write("/srv/bundles/notes.txt", b"mine")
    rhel.write("/srv/bundles/corporate.pem", OWN.pem)
    rhel.mount(a=A.pem)
    rhel.start(BUNDLE_DIR="/srv/bundles")
    rhel.mount()
    rhel.start(BUNDLE_DIR="/srv/bundles")

    assert rhel.read("/srv/bundles/notes.txt") == b"mine"
    assert rhel.read("/srv/bundles/corporate.pem") == OWN.pem


@pytest.mark.parametrize("name", ["a'b", "a b", "a$(id)b", 'a"b', "a;b"])
def test_the_file_for_shells_survives_any_name_of_the_directory(rhel: Machine, name: str) -> None:
    rhel.mount(a=A.pem)
    rhel.start(BUNDLE_DIR=f"/tmp/{name}")
    path = rhel.path(f"/tmp/{name}/env")
    shown = subprocess.run(
        ["sh", "-c", f'. {shlex.quote(str(path))}; printf %s "$NODE_EXTRA_CA_CERTS"'], capture_output=True, check=True
    )

    assert shown.stdout == f"/tmp/{name}/extra.pem".encode()


def test_without_any_usable_directory_the_problem_is_named_and_no_variable_set(rhel: Machine) -> None:
    for name in ("/run", "/tmp"):
        rhel.path(name).chmod(0o555)
    rhel.mount(a=A.pem)
    outcome = start(rhel)

    assert outcome.variables == {}
    assert {note.code for note in outcome.problems} == {71}


def test_with_stores_in_place_a_missing_directory_is_a_problem_for_node_alone(rhel: Machine) -> None:
    for name in ("/run", "/tmp"):
        rhel.path(name).rmdir()
    rhel.mount(a=A.pem)
    outcome = rhel.start()

    assert A.sha256 in rhel.held(rhel.family.bundle) & rhel.held(CERTIFI)
    assert outcome.variables == {}


def test_a_lock_that_is_held_for_too_long_leads_to_an_override_elsewhere(
    rhel: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    rhel.mount(a=A.pem)
    rhel.mkdir("/run/ca-shim")
    held, _ = apply._lock(str(rhel.path("/run/ca-shim")))  # noqa: SLF001 - another start
    monkeypatch.setattr(apply, "LOCK_SECONDS", 0.1)
    outcome = rhel.start()
    os.close(held)

    assert rhel.read(rhel.family.bundle) == BASE
    assert A.sha256 in rhel.held(outcome.variables["SSL_CERT_FILE"])


def _hold_selftest(machine: Machine) -> int:
    """Lock what a selftest of root's locks, which any user can open."""
    held = apply.lock(apply.open_lock(str(machine.mkdir("/run/ca-shim")), apply.SELFTEST), 0)
    os.fchmod(held, 0o444)
    return held


def _certifi_of_the_user(machine: Machine) -> None:
    machine.mkdir("/home/anchore", owner=ANCHORE)
    machine.write(VENV_CERTIFI, BASE, owner=ANCHORE)
    machine.mount(a=A.pem)


def test_a_start_of_a_user_waits_for_root_s_selftest_and_looks_again(rhel: Machine) -> None:
    _certifi_of_the_user(rhel)
    held = _hold_selftest(rhel)
    seen: list[bytes] = []

    def end() -> None:
        seen.append(rhel.read(VENV_CERTIFI))
        os.close(held)

    ending = threading.Timer(0.5, end)
    ending.start()
    with acting(ANCHORE):
        rhel.start()
    ending.join()

    assert seen == [BASE]
    assert A.sha256 in rhel.held(VENV_CERTIFI)


def test_a_start_of_a_user_leaves_all_alone_beside_a_selftest_without_end(
    rhel: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    _certifi_of_the_user(rhel)
    held = _hold_selftest(rhel)
    monkeypatch.setattr(apply, "LOCK_SECONDS", 0.1)
    with acting(ANCHORE):
        outcome = rhel.start()
    os.close(held)

    assert rhel.read(VENV_CERTIFI) == BASE
    assert {note.event for note in outcome.problems} == {"store.failed"}


def test_a_start_of_root_does_not_wait_for_what_any_user_could_hold(
    rhel: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    rhel.mount(a=A.pem)
    held = _hold_selftest(rhel)
    monkeypatch.setattr(apply, "LOCK_SECONDS", 0.1)
    monkeypatch.setattr(host, "_writable_by_us", lambda *_: False)  # as in a file system that is read-only by now
    rhel.start()
    os.close(held)

    assert A.sha256 in rhel.held(rhel.family.bundle)


# Planted links: root must never write through one


@pytest.mark.parametrize("target", ["/etc/secret", "/etc/empty", "/absent"])
def test_root_never_writes_through_a_link_that_the_user_put_in_place_of_certifi(rhel: Machine, target: str) -> None:
    rhel.mkdir("/home")
    path = rhel.write(VENV_CERTIFI, b"", owner=ANCHORE)
    path.unlink()
    rhel.write("/etc/secret", b"secret\n", 0o600)
    rhel.write("/etc/empty", b"", 0o664)
    rhel.link(VENV_CERTIFI, "../" * 8 + target.lstrip("/"), owner=ANCHORE)
    before = {name: rhel.read(name) for name in ("/etc/secret", "/etc/empty")}
    rhel.mount(a=A.pem)
    rhel.start()

    assert {name: rhel.read(name) for name in before} == before
    assert not rhel.path("/absent").exists()


def test_a_secret_behind_a_planted_link_is_copied_nowhere(rhel: Machine) -> None:
    rhel.mkdir("/home")
    path = rhel.write(VENV_CERTIFI, b"", owner=ANCHORE)
    path.unlink()
    rhel.write("/etc/secret", OWN.pem, 0o600)
    rhel.link(VENV_CERTIFI, "../" * 8 + "etc/secret", owner=ANCHORE)
    rhel.path(CERTIFI).unlink()
    rhel.mount(a=A.pem)
    rhel.start()
    holding = [name for name, (_, _, _, content) in rhel.tree(but=()).items() if OWN.pem in content]

    assert holding == ["etc/secret"]


def test_a_directory_of_the_venv_that_leads_to_root_s_is_not_written(rhel: Machine) -> None:
    rhel.mkdir("/home")
    rhel.mkdir(f"{VENV}/lib/python3.9/site-packages", owner=ANCHORE)
    rhel.link(os.path.dirname(VENV_CERTIFI), "../" * 6 + os.path.dirname(CERTIFI).lstrip("/"), owner=ANCHORE)
    before = rhel.path(CERTIFI).stat()
    rhel.mount(a=A.pem)
    outcome = rhel.start()

    assert (rhel.read(CERTIFI), rhel.path(CERTIFI).stat().st_ino) == (CERTIFI_BASE, before.st_ino)
    assert dict(outcome.stores)[CERTIFI] == "override"


def test_a_file_that_root_s_group_may_write_is_not_reached_by_a_link(rhel: Machine) -> None:
    rhel.mkdir("/home")
    path = rhel.write(VENV_CERTIFI, b"", owner=ANCHORE)
    path.unlink()
    shared = rhel.mkdir("/shared", 0o775)
    target = rhel.write("/shared/cacert.pem", CERTIFI_BASE, 0o664)
    rhel.link(VENV_CERTIFI, "../" * 8 + "shared/cacert.pem", owner=ANCHORE)
    rhel.mount(a=A.pem)
    rhel.start()

    assert target.read_bytes() == CERTIFI_BASE
    assert [each.name for each in shared.iterdir()] == ["cacert.pem"]


@pytest.mark.parametrize("kind", ["link", "directory", "fifo"])
def test_what_lies_planted_at_the_temporary_name_is_not_written_to(rhel: Machine, kind: str) -> None:
    rhel.mkdir("/home")
    rhel.write(VENV_CERTIFI, CERTIFI_BASE, owner=ANCHORE)
    victim = rhel.write("/etc/victim", b"victim")
    name = VENV_CERTIFI + ".ca-shim-new-0"
    if kind == "link":
        rhel.link(name, "../" * 8 + "etc/victim", owner=ANCHORE)
    elif kind == "directory":
        rhel.mkdir(name, owner=ANCHORE)
    else:
        os.mkfifo(rhel.path(name))
    rhel.mount(a=A.pem)
    outcome = rhel.start()

    assert victim.read_bytes() == b"victim"
    assert A.sha256 in rhel.held(VENV_CERTIFI) | rhel.held(outcome.variables.get("REQUESTS_CA_BUNDLE", VENV_CERTIFI))


def test_what_root_writes_in_the_user_s_venv_belongs_to_the_user(rhel: Machine) -> None:
    rhel.mkdir("/home")
    path = rhel.write(VENV_CERTIFI, CERTIFI_BASE, 0o640, owner=ANCHORE)
    rhel.mount(a=A.pem)
    rhel.start()
    status = path.stat()

    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (ANCHORE, ANCHORE, 0o640)


def test_a_certifi_with_damaged_marks_is_left_alone_and_overridden(rhel: Machine) -> None:
    damaged = CERTIFI_BASE + b"# BEGIN ca-shim (managed)\n" + B.pem
    rhel.write(CERTIFI, damaged)
    rhel.mount(a=A.pem)
    outcome = rhel.start()

    assert rhel.read(CERTIFI) == damaged
    assert rhel.held(outcome.variables["REQUESTS_CA_BUNDLE"]) == CERTIFI_IDS | {A.sha256}


@pytest.mark.parametrize(
    "mode", [pytest.param(0o777, id="writable by all"), pytest.param(0o775, id="writable by root's group")]
)
def test_a_root_s_certifi_below_a_directory_that_others_may_write_is_overridden(rhel: Machine, mode: int) -> None:
    rhel.path(os.path.dirname(CERTIFI)).chmod(mode)
    rhel.mount(a=A.pem)

    assert dict(rhel.start().stores)[CERTIFI] == "override"
    assert rhel.read(CERTIFI) == CERTIFI_BASE


def test_a_system_without_a_row_is_served_by_override(rhel: Machine) -> None:
    rhel.write("/etc/os-release", b"ID=alpine\n")
    rhel.mount(a=A.pem)
    outcome = rhel.start()

    assert rhel.held(outcome.variables["SSL_CERT_FILE"]) == SHIPPED_IDS | {A.sha256}
    assert rhel.read(rhel.family.bundle) == BASE


def test_a_self_signed_leaf_is_trusted_by_requests_and_told_about(rhel: Machine) -> None:
    odd = issue("self", ca=False)
    rhel.mount(a=odd.pem)
    outcome = rhel.start()

    assert odd.sha256 in rhel.held(CERTIFI)
    assert "certificate.warning" in [note.event for note in outcome.notes]
    assert pems(odd) not in rhel.read(rhel.family.bundle)


@pytest.mark.parametrize("mode", [0o1755, 0o2755, 0o4755], ids=oct)
def test_a_directory_with_a_special_mode_is_not_used(rhel: Machine, mode: int) -> None:
    """What is made in one that is setgid belongs to that group."""
    rhel.mkdir("/tmp/ca-shim-1000", owner=ANCHORE).chmod(mode)
    rhel.mkdir("/dev/shm", 0o1777)
    rhel.mount(a=A.pem)

    assert start(rhel).variables["NODE_EXTRA_CA_CERTS"] == "/dev/shm/ca-shim-1000/extra.pem"


def test_the_second_shim_does_not_say_that_nothing_can_be_used_of_what_root_has_read(rhel: Machine) -> None:
    rhel.mount(a=A.pem)
    rhel.path("/custom-certs/a.pem").chmod(0o600)
    first = rhel.start()
    second = start(rhel, {**first.variables})

    assert "source.unusable" not in [note.event for note in second.notes]
