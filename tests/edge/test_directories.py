"""Where override bundles go: a directory of this container's own, which nobody else can exchange."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from shim import bundle, host
from tests.certificates import root
from tests.edge.machine import ANCHORE, CERTIFI_BASE, VENV_CERTIFI, Machine, acting, needs_root

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shim.reconcile import Outcome

pytestmark = needs_root
A, B = root("A"), root("B")


@pytest.fixture
def shared(rhel: Machine) -> Iterator[Machine]:
    """A machine of which /dev/shm is a file system of its own, as the containers of a pod have it in common."""
    path = rhel.mkdir("/dev/shm")
    rhel.path("/tmp").chmod(0o755)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "mode=1777", "none", path], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.decode().strip()}")
    yield rhel
    subprocess.run(["umount", path], check=True)


def start(machine: Machine, container: str, monkeypatch: pytest.MonkeyPatch, named: str = "") -> Outcome:
    """Start as uid 1000 in a container that is called so."""
    path = machine.write(f"/proc/{container}", f"1 0 0:50 / / rw - overlay overlay upperdir={container}\n".encode())
    monkeypatch.setattr(host, "_MOUNTS", str(path))
    with acting(ANCHORE):
        return machine.start(BUNDLE_DIR=named)


NAMED = [pytest.param("", id="the default"), pytest.param("/dev/shm/bundles", id="a named one")]


@pytest.mark.parametrize("named", NAMED)
def test_containers_of_one_pod_neither_withdraw_nor_overwrite_each_other_s_bundles(
    shared: Machine, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared.mount(a=A.pem)
    first = start(shared, "one", monkeypatch, named).variables
    before = {path: shared.read(path) for path in first.values()}
    shared.mount(b=B.pem)
    second = start(shared, "two", monkeypatch, named).variables
    shared.mount()
    start(shared, "three", monkeypatch, named)

    assert {path: shared.read(path) for path in first.values()} == before
    assert all(B.sha256 in shared.held(path) and A.sha256 not in shared.held(path) for path in second.values())


@pytest.mark.parametrize("named", NAMED)
def test_a_container_that_restarts_finds_its_bundles_again(
    shared: Machine, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared.mount(a=A.pem)
    first = start(shared, "one", monkeypatch, named)
    again = start(shared, "one", monkeypatch, named)

    assert (again.variables, again.remembered) == (first.variables, True)


def test_root_who_asks_finds_the_bundles_of_this_container(shared: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    shared.mount(a=A.pem)
    start(shared, "one", monkeypatch)

    assert host.uid_of_last_start(shared.config(), {}) == ANCHORE
    assert any(each.files for each in host.look(shared.config(), {}, (), ANCHORE).directories)


@pytest.mark.parametrize("mode", [0o700, 0o711, 0o750, 0o755])
def test_a_private_directory_of_the_user_s_own_is_used(rhel: Machine, mode: int) -> None:
    rhel.mkdir("/srv/bundles", mode, owner=ANCHORE)
    rhel.mount(a=A.pem)
    with acting(ANCHORE):
        variables = rhel.start(BUNDLE_DIR="/srv/bundles").variables

    assert variables["NODE_EXTRA_CA_CERTS"] == "/srv/bundles/extra.pem"


@pytest.mark.parametrize("mode", [0o770, 0o757, 0o500, 0o1755, 0o2755, 0o4755])
def test_a_named_directory_that_cannot_be_used_is_named_with_its_mode(rhel: Machine, mode: int) -> None:
    rhel.mkdir("/srv/bundles", mode, owner=ANCHORE)
    rhel.mount(a=A.pem)
    with acting(ANCHORE):
        outcome = rhel.start(BUNDLE_DIR="/srv/bundles")

    assert outcome.variables == {}
    assert f"/srv/bundles has the mode {mode:o}: make it 755" in str(dict(outcome.problems[0].details)["reason"])


def test_a_private_directory_of_root_s_serves_nobody_else(rhel: Machine) -> None:
    rhel.mkdir("/srv/bundles", 0o750)
    rhel.mount(a=A.pem)
    (problem,) = rhel.start(BUNDLE_DIR="/srv/bundles").problems

    assert "/srv/bundles has the mode 750" in str(dict(problem.details)["reason"])


# Certifi of another owner


def venv(machine: Machine, mode: int) -> Machine:
    """A venv as Anchore's images have it: `chown -R 1000:0`, `chmod -R g+rwX`."""
    machine.mkdir("/home")
    path = machine.write(VENV_CERTIFI, CERTIFI_BASE, mode, owner=ANCHORE)
    while path != machine.path("/home"):
        os.chown(path, ANCHORE, 0)
        path.chmod(mode if path.is_file() else 0o775)
        path = path.parent
    machine.mount(a=A.pem)
    return machine


def test_the_owner_writes_its_own_certifi_whose_group_cannot_be_kept(rhel: Machine) -> None:
    venv(rhel, 0o664)
    with acting(ANCHORE):
        outcome = rhel.start()
    status = rhel.path(VENV_CERTIFI).stat()

    assert dict(outcome.stores)[VENV_CERTIFI] == "in place"
    assert A.sha256 in rhel.held(VENV_CERTIFI)
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (ANCHORE, ANCHORE, 0o644)


def test_a_certifi_that_its_group_alone_may_read_keeps_its_group(rhel: Machine) -> None:
    venv(rhel, 0o660)
    with acting(ANCHORE):
        outcome = rhel.start()

    assert dict(outcome.stores)[VENV_CERTIFI] == "override"
    assert bundle.BEGIN not in rhel.read(VENV_CERTIFI)


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o757])
def test_a_certifi_below_a_directory_that_everybody_may_write_is_overridden(rhel: Machine, mode: int) -> None:
    venv(rhel, 0o644)
    rhel.path(VENV_CERTIFI).parent.parent.chmod(mode)

    assert dict(rhel.start().stores)[VENV_CERTIFI] == "override"


def test_two_users_who_write_one_certifi_at_once_do_not_take_each_other_s_file(
    rhel: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user's own start comes when root's has made its file and not yet put it in place."""
    venv(rhel, 0o644)
    real, started = os.rename, list[str]()

    def rename(source: str, target: str) -> None:
        if target.endswith(VENV_CERTIFI) and not started:
            started.append(target)
            child = os.fork()
            if child == 0:
                monkeypatch.undo()
                os.setresgid(ANCHORE, ANCHORE, ANCHORE)
                os.setresuid(ANCHORE, ANCHORE, ANCHORE)
                rhel.start()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    outcome = rhel.start()

    assert started
    assert dict(outcome.stores)[VENV_CERTIFI] == "in place"
    assert rhel.held(VENV_CERTIFI) == bundle.fingerprints(CERTIFI_BASE) | {A.sha256}
