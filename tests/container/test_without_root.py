"""Whoever the container runs as, and whatever it may write: the same trust as a start as root gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.lab import pods
from tests.lab.subject import Mount, events, fingerprints, once

if TYPE_CHECKING:
    from pathlib import Path

_IDENTITIES = {
    "uid-1000": pods.UID_1000,
    "arbitrary-uid": pods.ARBITRARY_UID,
    "root-without-capabilities": pods.ROOT_WITHOUT_CAPABILITIES,
}
_ROOTS = {"writable": (), "read-only-with-tmp": pods.READ_ONLY_WITH_TMP, "read-only": pods.READ_ONLY}
_CELLS = [
    (name, identity, root)
    for name in ("4.5-ubi9", "venv-debian12", "ui")
    for identity in _IDENTITIES
    for root in _ROOTS
    if name != "ui" or root == "read-only"
]


@dataclass(frozen=True)
class Cell:
    """One image, identity and root file system, and all that the clients said there."""

    target: pods.Target
    answers: pods.Answers
    before: pods.Answers
    private_ca: set[str]


@pytest.fixture(scope="module", params=_CELLS, ids="-".join)
def cell(request: pytest.FixtureRequest, network: str, ca: Path, tmp_path_factory: pytest.TempPathFactory) -> Cell:
    name, identity, root = request.param
    directory = tmp_path_factory.mktemp("cell")
    directory.chmod(0o755)
    mount = Mount(directory / "certs")
    mount.hold(ca / "ca-a.pem")
    target, options = pods.target(name), (mount.option, *_IDENTITIES[identity], *_ROOTS[root])
    private_ca = fingerprints((ca / "ca-a.pem").read_text())
    return Cell(target, pods.ask(target, network, *options), pods.before(target, network), private_ca)


def test_before_the_shim_every_client_refuses_the_private_ca(cell: Cell) -> None:
    assert cell.before.private == cell.target.everyone("refused")


def test_every_client_trusts_the_mounted_ca(cell: Cell) -> None:
    assert cell.answers.private == cell.target.everyone("trusted")


def test_every_client_still_refuses_a_server_of_an_unknown_ca(cell: Cell) -> None:
    assert cell.answers.unknown == cell.target.everyone("refused")


def test_the_bundles_in_force_hold_every_root_of_the_base_and_the_mounted_ca(cell: Cell) -> None:
    os_bundle, certifi = pods.shipped(cell.target)

    assert cell.answers.os_bundle == os_bundle | cell.private_ca
    assert cell.answers.python_bundle == (certifi or os_bundle) | cell.private_ca
    assert cell.answers.extra_bundle == cell.private_ca


def test_nothing_is_reported_as_a_problem(cell: Cell) -> None:
    assert [event for event in cell.answers.events if event["level"] != "info"] == []


def test_root_that_cannot_become_anchore_says_so_in_one_line_and_starts_nothing(mount: Mount) -> None:
    image = pods.target("4.5-ubi9").image

    result = once(image, "echo", "started", options=("--user=0:0", *pods.RESTRICTED, mount.option))

    assert (result.status, result.stdout) == (77, "")
    assert [(event["event"], event["code"]) for event in events(result.stderr)] == [("shim.failed", 77)]
    assert len(result.stderr.splitlines()) == 1
