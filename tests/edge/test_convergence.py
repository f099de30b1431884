"""Properties over many small states: what is planned is done, and whatever happened before, a start sets it right."""

from __future__ import annotations

import os
import random
import signal
import ssl
import time
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from shim import bundle, loading, receipt
from tests.certificates import Issued, intermediate, issue, leaf, pems, root
from tests.edge.machine import BASE, CERTIFI, CERTIFI_BASE, SHIPPED, Machine, needs_root

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = needs_root
SHIPPED_IDS = {each.sha256 for each in SHIPPED}
LOADS = int(os.environ.get("CA_SHIM_TEST_LOADS", "250"))
KILLS = int(os.environ.get("CA_SHIM_TEST_KILLS", "15"))
ROOTS = [root(name) for name in ("A", "B", "C", "D")]
POOL = [
    *ROOTS,
    intermediate(),
    issue("weak", critical=False),
    issue("self", ca=False),
    leaf(),
    issue("old", ends=-1),
    SHIPPED[0],
    issue("\n# END ca-shim"),
]
VALUES = [
    "/corp.pem",
    "/gone.pem",
    "/run/ca-shim/os.pem",
    CERTIFI,
    "/home/anchore/certs_override/python/cacert.pem",
    "",
    "relative.pem",
]
NAMES = ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "NODE_EXTRA_CA_CERTS", "SSL_CERT_DIR", "CURL_CA_BUNDLE"]


def _shake(machine: Machine, chance: random.Random) -> dict[str, str]:
    """Bring the machine into a random state; gives the environment of the next start."""
    chosen = chance.sample(POOL, chance.randrange(len(POOL)))
    machine.mount(**{f"ca{number}": each.pem for number, each in enumerate(chosen)})
    machine.tool(chance.choice(["works", "works", "works", "works and fails", "does nothing", "loses the base"]))
    if chance.random() < 0.2:
        machine.write(CERTIFI, chance.choice([CERTIFI_BASE, BASE.rstrip(b"\n"), BASE + ROOTS[0].pem]))
    if chance.random() < 0.2:
        machine.write(CERTIFI, machine.read(CERTIFI) + b"\n" + chance.choice([b"# appended", ROOTS[1].pem]))
    if chance.random() < 0.1:
        machine.write(CERTIFI, machine.read(CERTIFI) + b"# END ca-shim\n")
    if chance.random() < 0.2:
        machine.write(CERTIFI + ".ca-shim-new-0", b"half")
    for name in ("os.pem", "extra.pem", "env", "receipt"):
        path = machine.path(f"/run/ca-shim/{name}")
        if path.exists() and chance.random() < 0.1:
            path.unlink()
    return {name: chance.choice(VALUES) for name in NAMES if chance.random() < 0.2}


@pytest.mark.parametrize("seed", range(30))
def test_the_plan_after_a_start_is_empty_whatever_was_before(machine: Machine, seed: int) -> None:
    chance = random.Random(seed)
    machine.write("/corp.pem", pems(ROOTS[3]))
    for _ in range(4):
        environ = _shake(machine, chance)
        machine.start(environ)

        assert machine.plan(environ).steps == ()


@pytest.mark.parametrize("seed", range(10))
def test_a_start_gives_the_variables_that_the_start_before_gave(machine: Machine, seed: int) -> None:
    chance = random.Random(seed)
    machine.write("/corp.pem", pems(ROOTS[3]))
    environ = _shake(machine, chance)
    first = machine.start(environ)

    assert machine.start(environ).variables == first.variables


@pytest.mark.parametrize("seed", range(10))
def test_every_variable_that_is_set_points_to_a_bundle_that_is_there(machine: Machine, seed: int) -> None:
    chance = random.Random(seed)
    machine.write("/corp.pem", pems(ROOTS[3]))
    for _ in range(3):
        outcome = machine.start(_shake(machine, chance))

        assert [value for value in outcome.variables.values() if not machine.held(value)] == []


@pytest.mark.parametrize("seed", range(10))
def test_after_any_history_an_empty_mount_leaves_nothing_of_ours_in_any_store(machine: Machine, seed: int) -> None:
    chance = random.Random(seed)
    chosen = [chance.sample(ROOTS, chance.randrange(5)) for _ in range(4)]
    for each in chosen:
        machine.mount(**{f"ca{number}": one.pem for number, one in enumerate(each)})
        machine.start()
    machine.mount()
    machine.start()

    assert machine.read(CERTIFI) == CERTIFI_BASE
    assert machine.held(machine.family.bundle) == SHIPPED_IDS
    assert [*machine.path("/run/ca-shim").glob("*.pem")] == []


def _ids(certificates: set[Issued]) -> set[str]:
    return {each.sha256 for each in certificates}


def _killed_at(call: int, start: Callable[[], object]) -> bool:
    """Start in a process that ends, as if by SIGKILL, when it is about to change something for that time."""
    child = os.fork()
    if child == 0:
        _die_at(call)
        start()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def _die_at(call: int) -> None:
    left = [call]

    def lethal(name: str) -> None:
        real = getattr(os, name)

        def act(*arguments: object, **options: object) -> object:
            left[0] -= 1
            if left[0] < 0:
                os._exit(9)
            return real(*arguments, **options)

        setattr(os, name, act)

    for name in ("open", "write", "rename", "unlink", "mkdir", "chmod", "fchmod", "fsync"):
        lethal(name)


def test_a_start_killed_at_any_system_call_leaves_whole_stores_and_is_made_good_by_the_next(machine: Machine) -> None:
    a, b, c = ROOTS[:3]
    before, after, call, killed = {a, b}, {b, c}, 0, True
    machine.mount(**{each.parsed.slug: each.pem for each in before})
    machine.start()
    while killed:
        machine.mount(**{each.parsed.slug: each.pem for each in after})
        killed = _killed_at(call, machine.start)

        assert machine.held(machine.family.bundle) >= SHIPPED_IDS
        assert machine.held(CERTIFI) - bundle.fingerprints(CERTIFI_BASE) in (_ids(before), _ids(after))

        machine.start()

        assert machine.held(machine.family.bundle) == SHIPPED_IDS | _ids(after)
        assert machine.held(CERTIFI) == bundle.fingerprints(CERTIFI_BASE) | _ids(after)
        assert [*machine.root.rglob("*.ca-shim-new*")] == []
        before, after, call = after, before, call + 1

    assert call > 20


@pytest.mark.parametrize("behaviour", ["works slowly", "works slowly in place"])
def test_a_start_killed_at_any_moment_with_its_tool_or_without_is_made_good_by_the_next(
    machine: Machine, behaviour: str
) -> None:
    a, b, c = ROOTS[:3]
    before, after, chance = {a, b}, {b, c}, random.Random(behaviour)
    machine.tool(behaviour)
    machine.mount(**{each.parsed.slug: each.pem for each in before})
    started = time.monotonic()
    machine.start()
    seconds = time.monotonic() - started
    for _ in range(KILLS):
        machine.mount(**{each.parsed.slug: each.pem for each in after})
        _killed_after(chance.uniform(0, seconds), machine.start, with_tool=chance.random() < 0.5)

        if behaviour == "works slowly":
            assert machine.held(machine.family.bundle) >= SHIPPED_IDS
            assert loading.loads(machine.path(machine.family.bundle).read_bytes())
        assert machine.held(CERTIFI) - bundle.fingerprints(CERTIFI_BASE) in (_ids(before), _ids(after))

        machine.start()

        assert machine.held(machine.family.bundle) == SHIPPED_IDS | _ids(after)
        assert machine.held(CERTIFI) == bundle.fingerprints(CERTIFI_BASE) | _ids(after)
        assert machine.plan().steps == ()
        assert [*machine.root.rglob("*.ca-shim-*")] == []
        before, after = after, before


@pytest.mark.parametrize("behaviour", ["works slowly", "fails"])
def test_a_reader_finds_whole_bundles_while_twenty_starts_of_two_versions_work_at_once(
    machine: Machine, behaviour: str
) -> None:
    machine.tool(behaviour)
    machine.mount(a=ROOTS[0].pem, b=ROOTS[1].pem)
    machine.start()
    machine.start()
    paths = [machine.path(path) for path in (machine.family.bundle, CERTIFI)]
    paths += machine.path("/run/ca-shim").glob("[op]*.pem")
    base, loads, rounds = bundle.fingerprints(CERTIFI_BASE), 0, 0
    while loads < LOADS:
        rounds += 1
        machine.mount(b=ROOTS[1].pem, c=ROOTS[rounds % 2 * 2].pem)
        children = {_started(machine, f"0.{number % 2}") for number in range(20)}
        while children:
            children -= {child for child in children if _has_ended_well(child)}
            for path in paths * 10:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.load_verify_locations(path)
                assert base <= {sha256(each).hexdigest() for each in context.get_ca_certs(binary_form=True)}
            loads += len(paths) * 10

        outcome = machine.start()

        served = outcome.variables.get("SSL_CERT_FILE", machine.family.bundle)
        assert machine.held(served) == SHIPPED_IDS | {ROOTS[1].sha256, ROOTS[rounds % 2 * 2].sha256}
        assert machine.plan().steps == ()
    assert len(machine.calls) < 10 * rounds


def _started(machine: Machine, version: str) -> int:
    child = os.fork()
    if child == 0:
        receipt.__version__ = version  # type: ignore[attr-defined]
        outcome = machine.start()
        os._exit(len(outcome.problems))
    return child


def _has_ended_well(child: int) -> bool:
    ended, status = os.waitpid(child, os.WNOHANG)
    assert status == 0
    return ended == child


def _killed_after(seconds: float, start: Callable[[], object], *, with_tool: bool) -> None:
    """Start in a process that gets SIGKILL after a while; its tool gets it too, as in a container, or goes on."""
    child = os.fork()
    if child == 0:
        start()
        os._exit(0)
    time.sleep(seconds)
    with open(f"/proc/{child}/task/{child}/children") as file:
        tools = [int(word) for word in file.read().split()]
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with suppress(ProcessLookupError):
        for tool in tools if with_tool else ():
            os.killpg(tool, signal.SIGKILL)


@pytest.mark.parametrize("mark", [b"# END ca-shim\n", b"# BEGIN ca-shim\n"], ids=["an end", "a begin"])
def test_with_a_lone_mark_and_nothing_mounted_a_start_does_what_was_planned(rhel: Machine, mark: bytes) -> None:
    rhel.write(CERTIFI, CERTIFI_BASE + mark)
    rhel.start()

    assert rhel.plan().steps == ()
