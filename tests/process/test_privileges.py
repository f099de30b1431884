"""Who we are, and who the application becomes: never root by accident."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.certificates import root
from tests.process.start import as_user, events, last, needs_root, start

if TYPE_CHECKING:
    from tests.edge.machine import Machine

pytestmark = needs_root
A = root("A")
needs_setpriv = pytest.mark.skipif(not shutil.which("setpriv"), reason="setpriv (util-linux) is missing")
POWERLESS = ("setpriv", "--inh-caps=-all", "--bounding-set=-all")
WITHOUT = {
    "SETUID": ("setpriv", "--bounding-set=-setuid"),
    "SETGID": ("setpriv", "--bounding-set=-setgid"),
    "all": POWERLESS,
}


@needs_setpriv
@pytest.mark.parametrize("missing", WITHOUT)
def test_root_that_cannot_become_the_user_starts_nothing(rhel: Machine, missing: str) -> None:
    done = start(rhel, "--user", "anchore", "--", "echo", "x", before=WITHOUT[missing])

    assert (done.returncode, done.stdout) == (77, b"")
    assert [line["event"] for line in events(done.stderr)] == ["shim.failed"]


@needs_setpriv
@pytest.mark.parametrize("option", ["--off", "--on-error=warn"])
def test_no_option_makes_that_lenient(rhel: Machine, option: str) -> None:
    done = start(rhel, option, "--user", "anchore", "--", "echo", "x", before=POWERLESS)

    assert (done.returncode, done.stdout) == (77, b"")


@needs_setpriv
def test_root_that_cannot_become_the_user_changes_nothing(rhel: Machine) -> None:
    rhel.mount(a=A.pem)
    before = rhel.tree(but=())
    start(rhel, "--user", "anchore", "--", "true", before=POWERLESS)

    assert rhel.tree(but=()) == before


@needs_setpriv
def test_powerless_root_said_aloud_is_served(rhel: Machine) -> None:
    rhel.mount(a=A.pem)
    done = start(rhel, "--user", "root", "--", "echo", "x", before=POWERLESS)

    assert (done.returncode, done.stdout, last(done.stderr)[0]) == (0, b"x\n", "handover")


@needs_setpriv
def test_powerless_root_overrides_a_certifi_of_the_user_s(rhel: Machine) -> None:
    from tests.edge.machine import ANCHORE, CERTIFI_BASE, VENV_CERTIFI

    rhel.write(VENV_CERTIFI, CERTIFI_BASE, owner=ANCHORE)
    rhel.mount(a=A.pem)
    done = start(rhel, "--user", "root", "--", "/bin/cat", "/proc/self/environ", before=POWERLESS)

    assert b"REQUESTS_CA_BUNDLE=/run/ca-shim/python.pem" in done.stdout.split(b"\0")
    assert rhel.read(VENV_CERTIFI) == CERTIFI_BASE


@pytest.mark.parametrize(("uid", "gid"), [(1000, 1000), (1000650000, 0)], ids=["anchore", "arbitrary uid, gid 0"])
def test_who_is_not_root_stays_who_they_are(rhel: Machine, uid: int, gid: int) -> None:
    done = as_user(uid, gid, ["run", "--root", str(rhel.root), "--", "id", "-u"])

    assert (done.returncode, done.stdout) == (0, f"{uid}\n".encode())


def test_who_is_not_root_needs_no_passwd_entry_for_the_default_user(rhel: Machine) -> None:
    rhel.path("/etc/passwd").unlink()
    done = as_user(12345, 0, ["run", "--root", str(rhel.root), "--", "echo", "x"])

    assert done.stdout == b"x\n"


def test_who_is_not_root_gets_the_cas_by_override(rhel: Machine) -> None:
    rhel.mount(a=A.pem)
    done = as_user(1000, 1000, ["run", "--root", str(rhel.root), "--", "/bin/cat", "/proc/self/environ"])
    names = dict(each.split(b"=", 1) for each in done.stdout.split(b"\0") if each)

    assert {b"SSL_CERT_FILE", b"REQUESTS_CA_BUNDLE", b"NODE_EXTRA_CA_CERTS"} <= {*names}
    assert A.sha256 in rhel.held(names[b"SSL_CERT_FILE"].decode())


def test_a_start_without_root_prints_no_problem(rhel: Machine) -> None:
    rhel.mount(a=A.pem)
    done = as_user(1000, 1000, ["run", "--root", str(rhel.root), "--on-error", "stop", "--", "echo", "x"])

    assert (done.returncode, done.stdout) == (0, b"x\n")


def test_a_start_without_root_changes_nothing_outside_its_own_directory(rhel: Machine) -> None:
    rhel.mount(a=A.pem)
    before = rhel.tree(but=())
    as_user(1000, 1000, ["run", "--root", str(rhel.root), "--", "true"])
    after = {path: what for path, what in rhel.tree(but=()).items() if not path.startswith("tmp/ca-shim-1000")}

    assert after == before


def test_install_without_root_is_an_override_too(rhel: Machine) -> None:
    rhel.mount(a=A.pem)

    assert as_user(1000, 1000, ["install", "--root", str(rhel.root)]).returncode == 0
    assert A.sha256 in rhel.held("/tmp/ca-shim-1000/os.pem")
