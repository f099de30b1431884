"""What is seen of a machine, without executing anything."""

from __future__ import annotations

import os

import pytest

from shim import families, host, interpreters
from tests.certificates import root
from tests.edge.machine import ANCHORE, CERTIFI, CERTIFI_BASE, VENV, VENV_CERTIFI, Machine, needs_root

pytestmark = needs_root
SITE = "lib/python3.9/site-packages/certifi/cacert.pem"


@pytest.mark.parametrize(
    ("text", "family"),
    [
        pytest.param(b'ID="rhel"\n', families.RHEL, id="RHEL"),
        pytest.param(b"ID='centos'\n", families.RHEL, id="single quotes"),
        pytest.param(b'ID=oracle\nID_LIKE="fedora"\n', families.RHEL, id="like"),
        pytest.param(b"ID=mint\nID_LIKE='ubuntu debian'\n", families.DEBIAN, id="like two"),
        pytest.param(b"ID=ubuntu\r\n", families.DEBIAN, id="CRLF"),
        pytest.param(b"# ID=rhel\nID=debian\n", families.DEBIAN, id="comment"),
        pytest.param(b"ID=alpine\n", None, id="no row"),
        pytest.param(b"\xff\xfe=\n", None, id="binary"),
        pytest.param(b"", None, id="empty"),
        pytest.param(b'NAME="rhel"\nVARIANT_ID=rhel\n', None, id="other fields"),
    ],
)
def test_the_family_is_found_by_os_release(rhel: Machine, text: bytes, family: families.Family | None) -> None:
    rhel.write("/etc/os-release", text)

    assert host.family_of(str(rhel.root)) == family


def test_the_second_place_of_os_release_is_looked_at(rhel: Machine) -> None:
    rhel.path("/etc/os-release").unlink()
    rhel.write("/usr/lib/os-release", b"ID=debian\n")

    assert host.family_of(str(rhel.root)) == families.DEBIAN


def test_a_system_without_os_release_has_no_family(rhel: Machine) -> None:
    rhel.path("/etc/os-release").unlink()

    assert host.family_of(str(rhel.root)) is None


def test_a_system_without_any_bundle_is_seen_as_such(rhel: Machine) -> None:
    rhel.path("/etc/os-release").unlink()
    rhel.path(rhel.family.bundle).unlink()

    assert rhel.look().os.path == ""


# Where a certifi may be


@pytest.mark.parametrize("row", families.GENERATIONS, ids=lambda row: row.versions)
@pytest.mark.parametrize("version", ["python3.6", "python3.14"])
def test_the_certifi_of_every_generation_is_found_with_any_version(
    rhel: Machine, row: families.Generation, version: str
) -> None:
    python = next(part for part in row.certifi.split("/") if part.startswith("python"))
    path = f"{row.certifi.replace(python, version)}/cacert.pem"
    rhel.write(path, CERTIFI_BASE)

    assert path in [store.path for store in rhel.look().certifi]


def found(machine: Machine, *command: str, **environ: str) -> dict[str, str]:
    return interpreters.certifi_bundles(str(machine.root), {"PATH": "/usr/bin:/opt/x/bin", **environ}, command)


@pytest.fixture
def venv(rhel: Machine) -> Machine:
    """A venv where no table would look for it."""
    rhel.write(f"/opt/x/{SITE}", CERTIFI_BASE)
    rhel.write("/opt/x/bin/python3.9", b"\x7fELF", 0o755)
    return rhel


OURS = f"/opt/x/{SITE}"


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(b"#!/opt/x/bin/python3.9\n", id="absolute"),
        pytest.param(b"#! /opt/x/bin/python3.9 -I\n", id="blank and option"),
        pytest.param(b"#!/usr/bin/env python3.9\n", id="env"),
        pytest.param(b"#!/usr/bin/env -S python3.9 -I\n", id="env -S"),
    ],
)
def test_the_certifi_of_the_command_s_interpreter_is_found(venv: Machine, script: bytes) -> None:
    venv.write("/usr/bin/program", script, 0o755)

    assert found(venv, "program")[OURS] == "the command's interpreter"


def test_the_certifi_of_a_python_started_directly_is_found(venv: Machine) -> None:
    assert OURS in found(venv, "/opt/x/bin/python3.9", "-c", "pass")


def test_a_shell_script_s_first_argument_is_looked_at(venv: Machine) -> None:
    venv.write("/entry.sh", b"#!/bin/sh\n", 0o755)
    venv.write("/usr/bin/program", b"#!/opt/x/bin/python3.9\n", 0o755)

    assert found(venv, "/entry.sh", "program")[OURS] == "the command's interpreter"


def test_a_wrapped_program_is_looked_through(venv: Machine) -> None:
    venv.write("/usr/bin/program", b"wrapper", 0o755)
    venv.write(f"{families.WRAPPED}/usr/bin/program", b"#!/opt/x/bin/python3.9\n", 0o755)

    assert found(venv, "program")[OURS] == "the command's interpreter"


def test_the_certifi_of_virtual_env_is_found(venv: Machine) -> None:
    assert found(venv, VIRTUAL_ENV="/opt/x/")[OURS] == "VIRTUAL_ENV"


def test_the_certifi_of_a_venv_on_path_is_found(venv: Machine) -> None:
    venv.write("/opt/x/pyvenv.cfg", b"")

    assert found(venv)[OURS] == "venv on PATH"


@pytest.mark.parametrize("name", ["python3", "python"])
def test_the_certifi_of_python_on_path_is_found(venv: Machine, name: str) -> None:
    venv.link(f"/opt/x/bin/{name}", "python3.9")

    assert found(venv)[OURS] == f"{name} on PATH"


def test_the_certifi_of_the_python_behind_a_link_is_found(venv: Machine) -> None:
    venv.mkdir("/usr/bin")
    venv.link("/usr/bin/python3", "../../opt/x/bin/python3.9")

    assert found(venv, PATH="/usr/bin")[OURS] == "python3 on PATH"


@pytest.mark.parametrize(
    "command",
    [
        pytest.param((), id="none"),
        pytest.param(("",), id="empty"),
        pytest.param(("absent",), id="absent"),
        pytest.param(("relative/program",), id="relative"),
        pytest.param(("/usr/bin",), id="a directory"),
        pytest.param(("/loop.sh",) * 9, id="a shell script that calls itself"),
        pytest.param(("/empty-env.sh",), id="env without a program"),
        pytest.param(("/binary",), id="a binary"),
    ],
)
def test_a_command_without_a_python_finds_the_known_places_alone(rhel: Machine, command: tuple[str, ...]) -> None:
    rhel.write("/loop.sh", b"#!/bin/sh\n", 0o755)
    rhel.write("/empty-env.sh", b"#!/usr/bin/env\n", 0o755)
    rhel.write("/binary", b"\x7fELF\xff", 0o755)

    assert found(rhel, *command) == {CERTIFI: "known place"}


def test_nothing_of_the_application_s_is_executed(rhel: Machine) -> None:
    rhel.mkdir("/home")
    script = f"#!/bin/sh\ntouch {rhel.root}/executed\n".encode()
    rhel.write(VENV_CERTIFI, CERTIFI_BASE, owner=ANCHORE)
    for name in ("python", "python3", "env", "anchore-manager"):
        rhel.write(f"{VENV}/bin/{name}", script, 0o755, owner=ANCHORE)
    rhel.mount(a=root("A").pem)
    rhel.start({"PATH": f"{VENV}/bin"}, ("anchore-manager",))

    assert not rhel.path("/executed").exists()


def test_the_snapshot_changes_nothing(machine: Machine) -> None:
    before = machine.tree(but=())
    machine.look({"SSL_CERT_FILE": "/x", "TMPDIR": "/tmp"})

    assert machine.tree(but=()) == before


def test_a_fifo_in_the_place_of_a_store_is_not_waited_for(machine: Machine) -> None:
    for name in (CERTIFI, machine.family.bundle, machine.family.state):
        machine.path(name).unlink(missing_ok=True)
        os.mkfifo(machine.path(name))

    assert machine.look().os.content == b""


def test_a_named_certifi_that_is_missing_is_seen_as_such(rhel: Machine) -> None:
    (store,) = rhel.look(CERTIFI="/absent/cacert.pem").certifi

    assert (store.content, store.blocked) == (b"", "no such file or directory")


@pytest.mark.parametrize("missing", ["tool", "anchors' directory is read-only"])
def test_why_a_store_cannot_be_changed_is_said(rhel: Machine, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if missing == "tool":
        rhel.path(rhel.family.tool).unlink()
        reason = "/usr/bin/update-ca-trust is missing"
    else:
        monkeypatch.setattr(os, "access", lambda *_, **__: False)
        reason = "/etc/pki/ca-trust/source/anchors is not writable"

    assert rhel.look().os.blocked == reason


@needs_root
@pytest.mark.parametrize("target", ["../../secret.pem", "../../secrets"], ids=["file", "directory"])
def test_a_variable_shows_root_no_more_than_the_owner_of_its_path_could_see(rhel: Machine, target: str) -> None:
    rhel.write("/secret.pem", root("Secret").pem, 0o600)
    rhel.write("/secrets/ca.pem", root("Secret").pem)
    rhel.path("/secrets").chmod(0o700)
    rhel.mkdir("/home/anchore", owner=ANCHORE)
    rhel.link("/home/anchore/chosen", target, owner=ANCHORE)
    rhel.write("/home/anchore/own.pem", root("Own").pem, 0o600, ANCHORE)
    environ = {"REQUESTS_CA_BUNDLE": "/home/anchore/chosen", "SSL_CERT_FILE": "/home/anchore/own.pem"}
    found = {each.name: each.content for each in rhel.look(environ).settings}

    assert not found["REQUESTS_CA_BUNDLE"]
    assert found["SSL_CERT_FILE"] == root("Own").pem


@needs_root
def test_a_certifi_behind_a_planted_link_shows_root_no_more_than_its_owner_could_see(rhel: Machine) -> None:
    rhel.write("/secret.pem", root("Secret").pem, 0o600)
    rhel.mkdir("/home/anchore", owner=ANCHORE)
    rhel.link("/home/anchore/cacert.pem", "../../secret.pem", owner=ANCHORE)
    (store,) = rhel.look(CERTIFI="/home/anchore/cacert.pem").certifi

    assert (store.content, store.blocked) == (b"", "it cannot be read")
