"""What is seen of a machine, without executing anything."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from shim import families, host, interpreters, reading, status
from tests.certificates import NOW, root
from tests.edge.machine import ANCHORE, CERTIFI, CERTIFI_BASE, VENV, VENV_CERTIFI, Machine, needs_root

if TYPE_CHECKING:
    from shim.reconcile import Outcome

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
        pytest.param(b"#!/usr/bin/env -S X=1 python3.9\n", id="env -S with a variable"),
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


@pytest.mark.parametrize("command", [("/bin/sh", "-c", "program"), ("sh", "-e", "/entry.sh", "program")], ids=" ".join)
def test_the_words_after_a_shell_are_looked_at(venv: Machine, command: tuple[str, ...]) -> None:
    venv.write("/usr/bin/sh", b"\x7fELF", 0o755)
    venv.write("/entry.sh", b"#!/bin/sh\n", 0o755)
    venv.write("/usr/bin/program", b"#!/opt/x/bin/python3.9\n", 0o755)

    assert found(venv, *command)[OURS] == "the command's interpreter"


def test_the_words_after_another_program_are_not_looked_at(venv: Machine) -> None:
    venv.write("/usr/bin/program", b"#!/opt/x/bin/python3.9\n", 0o755)
    venv.write("/usr/bin/binary", b"\x7fELF", 0o755)

    assert OURS not in found(venv, "binary", "program")


def test_how_a_known_place_was_found_is_the_nearer_way(rhel: Machine) -> None:
    rhel.write("/usr/bin/program", b"#!/usr/local/bin/python3.9\n", 0o755)

    assert found(rhel, "program") == {CERTIFI: "the command's interpreter"}


def test_a_venv_s_interpreter_does_not_lead_to_that_of_its_base(venv: Machine) -> None:
    for name in ("pyvenv.cfg", f"lib/python3.9/site-packages/{families.CERTIFI}"):
        venv.write(f"/opt/y/{name}", CERTIFI_BASE)
    venv.mkdir("/opt/y/bin")
    venv.link("/opt/y/bin/python3", "/opt/x/bin/python3.9")

    assert list(found(venv, "/opt/y/bin/python3", PATH="")) == [f"/opt/y/{SITE}", CERTIFI]


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


@pytest.mark.parametrize(
    "line", [b"#!/opt/x/bin/python3.9\0x -I\n", b"#!/usr/bin/env python3.9\0x\n"], ids=["path", "env"]
)
def test_a_first_line_ends_at_a_nul_as_for_the_kernel(venv: Machine, line: bytes) -> None:
    venv.write("/usr/bin/program", line, 0o755)

    assert found(venv, "program")[OURS] == "the command's interpreter"


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"#!\0\n", id="NUL alone"),
        pytest.param(b"#!/\0/opt\n", id="NUL after a slash"),
        pytest.param(b"#!/" + b"x" * 250 + b"\n", id="a name of 250 bytes"),
        pytest.param(b"#!/" + b"../" * 80 + b"\xff\xfe\n", id="not UTF-8"),
        pytest.param(b"#!relative/python3\n", id="relative"),
        pytest.param(b"#!/usr/bin/env X=1 -\n", id="env without a program"),
        pytest.param(b"#!/usr/bin/program\n", id="itself"),
        pytest.param(b"#!/bin/sh\n. /a\0b\n/" + b"y" * 5000 + b"\n/\xff\n/x/../../../..\n", id="an absurd script"),
    ],
)
def test_no_first_line_ends_the_look(venv: Machine, line: bytes) -> None:
    venv.write("/usr/bin/program", line, 0o755)
    venv.link("/opt/x/bin/python3", "python3.9")

    assert found(venv, "program")[OURS] == "python3 on PATH"


def test_a_chain_of_links_without_end_does_not_end_the_look(venv: Machine) -> None:
    for number in range(2000):
        venv.link(f"/opt/{number}", f"{number + 1}")
    venv.link("/opt/x/bin/python3", "python3.9")

    assert found(venv, "/opt/0")[OURS] == "python3 on PATH"


@pytest.mark.parametrize("error", [OSError, ValueError, UnicodeError])
def test_a_search_that_fails_costs_itself_alone(
    venv: Machine, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def head(path: str, size: int = 0) -> bytes:
        raise error(path, size)

    monkeypatch.setattr(reading, "head", head)
    venv.write("/usr/bin/program", b"#!/opt/y/bin/python3\n", 0o755)

    assert found(venv, "program", VIRTUAL_ENV="/opt/x") == {OURS: "VIRTUAL_ENV", CERTIFI: "known place"}


def test_a_certifi_that_is_exchanged_meanwhile_costs_itself_alone(
    rhel: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    rhel.mkdir("/home")
    rhel.write(VENV_CERTIFI, CERTIFI_BASE, owner=ANCHORE)
    before = {store.path: store.blocked for store in rhel.look().certifi}
    stat = os.stat

    def vanishing(path: str, **options: bool) -> os.stat_result:
        if path == str(rhel.path(VENV_CERTIFI)) and os.geteuid() == 0:
            raise FileNotFoundError(2, "No such file or directory", path)
        return stat(path, **options)

    monkeypatch.setattr(os, "stat", vanishing)

    assert before == {VENV_CERTIFI: "", CERTIFI: ""}
    assert {store.path: store.blocked for store in rhel.look(CERTIFI=f"{VENV_CERTIFI}:{CERTIFI}").certifi} == {
        VENV_CERTIFI: "no such file or directory",
        CERTIFI: "",
    }


@pytest.mark.parametrize("value", ["/opt/0", "/opt/\0"], ids=["links without end", "NUL"])
def test_a_variable_that_cannot_be_followed_points_to_nothing(rhel: Machine, value: str) -> None:
    rhel.mkdir("/opt")
    for number in range(2000):
        rhel.link(f"/opt/{number}", f"{number + 1}")
    (setting,) = rhel.look({"SSL_CERT_FILE": value}).settings

    assert (setting.origin, setting.content) == (value, None)


# A venv that a shell script leads to


NAMED_IN_SCRIPT = "named in a shell script"


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(b"source /opt/x/bin/activate\n", id="source"),
        pytest.param(b"set -e; . '/opt/x/bin/activate' && exec program\n", id="dot"),
        pytest.param(b'exec "/opt/x/bin/python3.9" -m server\n', id="its Python"),
        pytest.param(b"exec /opt/x/bin/server --all\n", id="a program of its bin"),
        pytest.param(b"export PATH=/opt/x/bin:$PATH\n", id="PATH"),
        pytest.param(b"VIRTUAL_ENV=/opt/x/\n", id="VIRTUAL_ENV"),
        pytest.param(b". /opt/y/../x/bin/activate\n", id="dots"),
        pytest.param(b"x=$(/opt/x/bin/tool)\n", id="command substitution"),
        pytest.param(b"exec /usr/bin/outside\n", id="a program elsewhere whose interpreter it is"),
        pytest.param(b"exec /usr/bin/inner.sh\n", id="another script"),
        pytest.param(b". /etc/env.sh\n", id="a sourced file"),
        pytest.param(b"source\t/etc/env.sh\n", id="a file sourced after a tab"),
    ],
)
@pytest.mark.parametrize(
    "command",
    [("/entry.sh", "x"), ("/bin/sh", "/entry.sh"), ("sh", "-e", "-c", "/entry.sh server"), ("/usr/bin/wrapped",)],
    ids=" ".join,
)
def test_a_venv_that_a_shell_script_names_is_found(venv: Machine, script: bytes, command: tuple[str, ...]) -> None:
    venv.write("/opt/x/pyvenv.cfg", b"")
    for name in ("/entry.sh", f"{families.WRAPPED}/usr/bin/wrapped"):
        venv.write(name, b"#!/bin/sh\n# a comment\n" + script, 0o755)
    venv.write("/usr/bin/wrapped", b"wrapper", 0o755)
    venv.write("/usr/bin/sh", b"\x7fELF", 0o755)
    venv.write("/usr/bin/inner.sh", b"#!/bin/bash\n. /opt/x/bin/activate\n", 0o755)
    venv.write("/usr/bin/outside", b"#!/opt/x/bin/python3.9\n", 0o755)
    venv.write("/etc/env.sh", b"PATH=/opt/x/bin:$PATH\n")

    assert found(venv, *command, PATH="/usr/bin")[OURS] == NAMED_IN_SCRIPT


def test_the_python_of_a_long_first_line_is_found(venv: Machine) -> None:
    """As pip and conda write it when the kernel would cut the line off."""
    venv.write("/usr/bin/program", b"#!/bin/sh\n'''exec' /opt/x/bin/python3.9 \"$0\" \"$@\"\n' '''\n", 0o755)

    assert found(venv, "program", PATH="/usr/bin")[OURS] == NAMED_IN_SCRIPT


def test_an_old_venv_is_known_by_its_activate(venv: Machine) -> None:
    venv.write("/entry.sh", b"#!/bin/sh\n. /opt/x/bin/activate\n", 0o755)

    assert found(venv, "/entry.sh", PATH="/usr/bin")[OURS] == NAMED_IN_SCRIPT


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(b'. "$HOME/opt/x/bin/activate"\n', id="a variable"),
        pytest.param(b". opt/x/bin/activate\n", id="relative"),
        pytest.param(b"# " + b"x" * 65536 + b"\n. /opt/x/bin/activate\n", id="past 64 KiB"),
        pytest.param(b"".join(b"/%d\n" % n for n in range(600)) + b". /opt/x/bin/activate\n", id="after 512 paths"),
        pytest.param(b"exec /entry.sh\n", id="itself"),
        pytest.param(b"exec /usr/bin/bash -c x\n", id="a shell, which is no script"),
    ],
)
def test_what_a_script_does_not_say_for_certain_is_not_followed(venv: Machine, script: bytes) -> None:
    venv.write("/opt/x/pyvenv.cfg", b"")
    venv.write("/usr/bin/bash", b"\x7fELF\0/opt/x/bin/activate\0", 0o755)
    venv.write("/entry.sh", b"#!/bin/sh\n" + script, 0o755)

    assert OURS not in found(venv, "/entry.sh", PATH="/usr/bin")


@pytest.mark.parametrize(("scripts", "followed"), [(16, True), (17, False)])
def test_a_chain_of_scripts_is_followed_up_to_a_limit(venv: Machine, scripts: int, *, followed: bool) -> None:
    for number in range(1, scripts):
        venv.write(f"/{number}", b"#!/bin/sh\nexec /%d\n" % (number + 1), 0o755)
    venv.write(f"/{scripts}", b"#!/bin/sh\n. /opt/x/bin/activate\n", 0o755)

    assert (OURS in found(venv, "/1", PATH="/usr/bin")) == followed


def test_the_command_s_own_interpreter_comes_before_what_its_script_names(venv: Machine) -> None:
    venv.write("/entry.sh", b"#!/bin/sh\n. /opt/x/bin/activate\n", 0o755)
    venv.write(f"/opt/y/{SITE}", CERTIFI_BASE)
    venv.write("/usr/bin/program", b"#!/opt/y/bin/python3\n", 0o755)

    assert list(found(venv, "/entry.sh", "program"))[:2] == [f"/opt/y/{SITE}", OURS]


def test_a_start_serves_the_venv_of_a_shell_script_as_its_owner(rhel: Machine) -> None:
    rhel.mkdir("/srv")
    for path in ("/srv/app/venv/pyvenv.cfg", f"/srv/app/venv/{SITE}"):
        rhel.write(path, CERTIFI_BASE, owner=ANCHORE)
    rhel.write("/entry.sh", b"#!/bin/sh\n. /srv/app/venv/bin/activate\nexec server\n", 0o755)
    rhel.mount(a=root("A").pem)
    rhel.start(command=("/entry.sh",))

    assert root("A").sha256 in rhel.held(f"/srv/app/venv/{SITE}")
    assert rhel.path(f"/srv/app/venv/{SITE}").stat().st_uid == ANCHORE


# What is found and is not served in place


def notes(outcome: Outcome) -> list[tuple[str, object, object]]:
    """Give event, store and reason of every note about a store."""
    details = [(note.event, dict(note.details)) for note in outcome.notes]
    return [(event, each["store"], each["reason"]) for event, each in details if event.startswith("store.")]


EGG = "/usr/lib/python3/site-packages/certifi-2021.5.30-py3.9.egg"


def test_a_certifi_inside_an_archive_is_named_once_and_served_by_override(rhel: Machine) -> None:
    rhel.write(EGG, b"PK\x03\x04rest", 0o644)
    rhel.write(EGG.replace(".egg", "-nspkg.pth"), b"import sys\n")
    rhel.mount(a=root("A").pem)
    first, second = rhel.start(), rhel.start()

    assert notes(first) == [("store.overridden", EGG, "it is inside an archive, which is not changed: unpack it")]
    assert notes(second) == []
    assert root("A").sha256 in rhel.held(second.variables["REQUESTS_CA_BUNDLE"])
    assert rhel.read(EGG) == b"PK\x03\x04rest"
    assert rhel.read(EGG.replace(".egg", "-nspkg.pth")) == b"import sys\n"


def test_a_certifi_inside_an_archive_makes_no_status_bad(rhel: Machine) -> None:
    rhel.write(EGG, b"PK\x03\x04rest", 0o644)

    assert status.look(rhel.config(), {}, NOW).code == status.WELL


def test_more_certifi_than_are_looked_at_are_named(rhel: Machine) -> None:
    for number in range(40):
        rhel.write(f"/usr/lib/python3.{number}/site-packages/certifi/cacert.pem", CERTIFI_BASE)
    rhel.mount(a=root("A").pem)
    outcome = rhel.start()
    ((event, _, reason),) = notes(outcome)

    assert (event, str(reason).partition(",")[0]) == ("store.overridden", "more than 32 certifi were found")
    assert len([path for path, how in outcome.stores if how == "in place"]) == 33  # the system's, too
    assert root("A").sha256 in rhel.held(outcome.variables["REQUESTS_CA_BUNDLE"])
    assert notes(rhel.start()) == []


def test_as_many_certifi_as_are_looked_at_are_all_served(rhel: Machine) -> None:
    for number in range(31):
        rhel.write(f"/usr/lib/python3.{number}/site-packages/certifi/cacert.pem", CERTIFI_BASE)
    rhel.mount(a=root("A").pem)

    assert notes(rhel.start()) == []


@pytest.mark.parametrize("name", ["/etc/passwd", "/empty", "/absent", "/etc"])
def test_a_named_file_that_is_no_certifi_is_a_warning_and_left_alone(rhel: Machine, name: str) -> None:
    rhel.write("/empty", b"")
    rhel.mount(a=root("A").pem)
    before = {path: rhel.read(path) for path in ("/etc/passwd", "/empty")}
    outcome = rhel.start(CERTIFI=name)

    assert [(event, store) for event, store, _ in notes(outcome)] == [("store.failed", name)]
    assert {path: rhel.read(path) for path in before} == before
    assert root("A").sha256 in rhel.held(outcome.variables["REQUESTS_CA_BUNDLE"])


def test_a_certifi_whose_roots_are_gone_is_served_in_place(rhel: Machine) -> None:
    """An override would start from the system's roots, which whoever emptied it does not trust."""
    rhel.write(CERTIFI, b"# no root\n")
    rhel.mount(a=root("A").pem)
    rhel.start()

    assert rhel.held(CERTIFI) == {root("A").sha256}


def test_our_block_makes_no_certifi_of_another_file(rhel: Machine) -> None:
    rhel.mount(a=root("A").pem)
    rhel.start()
    block = rhel.read(CERTIFI).removeprefix(CERTIFI_BASE)
    rhel.write("/etc/issue", b"Welcome\n" + block)
    (store,) = rhel.look(CERTIFI="/etc/issue").certifi

    assert (store.content, store.blocked) == (b"", "it holds no certificate")


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
