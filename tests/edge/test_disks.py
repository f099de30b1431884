"""Full disks, read-only disks and killed starts: no root of the base is lost, and the next start converges."""

from __future__ import annotations

import errno
import subprocess
from typing import TYPE_CHECKING

import pytest

from shim import apply, bundle, loading
from tests.certificates import root
from tests.edge.machine import BASE, CERTIFI, CERTIFI_BASE, SHIPPED, Machine, install, needs_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from shim.families import Family
    from shim.plan import Step
    from shim.reconcile import Outcome

pytestmark = needs_root
A, B = root("A"), root("B")
SHIPPED_IDS = {each.sha256 for each in SHIPPED}
PAGE = 4096


def _mount(*words: str) -> bool:
    return subprocess.run(("mount", *words), check=False, capture_output=True).returncode == 0


@pytest.fixture
def disk(place: Path, family: Family) -> Iterator[Machine]:
    """A machine on a disk of its own, of 8 MiB, that can be filled and made read-only."""
    if not _mount("-t", "tmpfs", "-o", "size=8m,mode=755", "tmpfs", str(place)):
        pytest.skip("this machine's root cannot mount a tmpfs")
    try:
        yield install(place, family)
    finally:
        subprocess.run(("umount", "--lazy", place), check=True)


def _fill(machine: Machine, pages: int) -> None:
    """Leave room for so many pages."""
    with machine.path("/filler").open("wb", buffering=0) as file:
        try:
            while file.write(bytes(PAGE)):
                pass
        except OSError:
            size = file.tell()
        file.truncate(max(0, size - pages * PAGE))


def _assert_base(machine: Machine) -> None:
    for path, base in ((machine.family.bundle, BASE), (CERTIFI, CERTIFI_BASE)):
        assert bundle.fingerprints(base) <= machine.held(path)
        assert loading.loads(machine.path(path).read_bytes())


@pytest.mark.parametrize("behaviour", ["works", "links", "empties the bundle", "adds to a leftover"])
def test_a_disk_that_is_full_at_any_write_costs_no_root_and_the_start_after_it_converges(
    disk: Machine, behaviour: str
) -> None:
    if behaviour == "links":
        disk.hash()
    disk.tool(behaviour)
    room, pages = False, 0
    while not room:
        disk.mount(a=A.pem)
        _fill(disk, pages)
        outcome = disk.start()
        _assert_base(disk)
        for path in outcome.variables.values():
            assert loading.loads(disk.path(path).read_bytes())
        room = {*dict(outcome.stores).values()} == {"in place"} or pages > 32
        disk.path("/filler").unlink()
        disk.start()
        served = disk.held(disk.start().variables.get("SSL_CERT_FILE", disk.family.bundle))

        assert served == SHIPPED_IDS | {A.sha256}
        assert disk.held(CERTIFI) == bundle.fingerprints(CERTIFI_BASE) | {A.sha256}
        assert behaviour == "empties the bundle" or "SSL_CERT_FILE" not in disk.start().variables
        assert disk.plan().steps == ()
        assert [*disk.root.rglob("*.ca-shim-*")] == []

        disk.mount()
        disk.start()
        pages += 1
    assert pages > 3


@pytest.fixture
def frozen(disk: Machine) -> Iterator[Machine]:
    """A machine whose override bundles lie on another disk than all else, as `/run` often does."""
    assert _mount("-t", "tmpfs", "-o", "size=1m,mode=755", "tmpfs", str(disk.path("/run")))
    disk.mount(a=A.pem)
    yield disk
    subprocess.run(("umount", "--lazy", disk.path("/run")), check=True)


def _assert_served_and_thawed(machine: Machine, outcome: Outcome) -> None:
    """The override has every root and the CA; once the disk can be written again, the stores have."""
    for path in outcome.variables.values():
        assert loading.loads(machine.path(path).read_bytes())

    assert machine.held(outcome.variables["SSL_CERT_FILE"]) == SHIPPED_IDS | {A.sha256}
    assert machine.start().variables == outcome.variables

    assert _mount("-o", "remount,rw", str(machine.root))
    machine.tool("works")
    outcome = machine.start()
    _assert_base(machine)

    assert "SSL_CERT_FILE" not in outcome.variables
    assert machine.held(machine.family.bundle) == SHIPPED_IDS | {A.sha256}
    assert [*machine.root.rglob("*.ca-shim-*")] == []


@pytest.mark.parametrize("behaviour", ["freezes the disk", "empties the bundle and freezes the disk"])
def test_a_disk_that_becomes_read_only_under_the_tool_costs_no_root(frozen: Machine, behaviour: str) -> None:
    frozen.tool(behaviour)

    _assert_served_and_thawed(frozen, frozen.start())


@pytest.mark.parametrize("steps", range(4))
def test_a_disk_that_becomes_read_only_before_any_step_costs_no_root(
    frozen: Machine, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [steps]

    def freezing(action: Callable[[str, Step], None]) -> Callable[[str, Step], None]:
        def act(root: str, step: Step) -> None:
            left[0] -= 1
            if left[0] == -1:
                assert _mount("-o", "remount,ro", str(frozen.root))
            action(root, step)

        return act

    for name, action in apply._ACTIONS.items():  # noqa: SLF001 - the one door that every step passes
        monkeypatch.setitem(apply._ACTIONS, name, freezing(action))  # noqa: SLF001

    _assert_served_and_thawed(frozen, frozen.start())


def test_a_change_that_was_begun_and_not_ended_is_not_remembered_as_done(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_root: str, _step: Step) -> None:
        raise OSError(errno.EIO, "Input/output error")

    machine.mount(a=A.pem)
    with monkeypatch.context() as patch:
        patch.setitem(apply._ACTIONS, "refresh", failing)  # noqa: SLF001 - the one door that every step passes
        first = machine.start()
    second = machine.start()

    assert (dict(first.stores)[machine.family.bundle], first.problems) == ("override", ())
    assert dict(second.stores)[machine.family.bundle] == "in place"
