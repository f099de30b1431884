"""What is mounted stays trusted, whatever lies before it: limits cap what is told, and nothing unread is withdrawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shim import bundle, certs, sources
from tests.certificates import root
from tests.edge.machine import CERTIFI, Machine, needs_root

if TYPE_CHECKING:
    from shim.reconcile import Outcome

pytestmark = needs_root
A, B = root("A"), root("B")
BROKEN = b"-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n"


def events(outcome: Outcome) -> set[str]:
    return {note.event for note in outcome.notes}


def held(machine: Machine, sha256: str) -> set[bool]:
    return {sha256 in machine.held(path) for path in (machine.family.bundle, CERTIFI, "/run/ca-shim/extra.pem")}


@pytest.fixture
def installed(machine: Machine) -> Machine:
    """A machine that trusts A, which is mounted as `z.pem`."""
    machine.mount(z=A.pem)
    machine.start()
    assert held(machine, A.sha256) == {True}
    return machine


@pytest.mark.parametrize(
    "files",
    [
        pytest.param({f"{number}": b"text" for number in range(1001)}, id="1,001 text files"),
        pytest.param({"a": BROKEN * 2000}, id="2,000 bad blocks in one file"),
        pytest.param({f"{number}": BROKEN * 25 for number in range(100)}, id="bad blocks in many files"),
    ],
)
def test_a_mounted_ca_stays_whatever_lies_before_it(installed: Machine, files: dict[str, bytes]) -> None:
    installed.mount(**files, z=A.pem)
    outcome = installed.start()

    assert held(installed, A.sha256) == {True}
    assert not events(outcome) & {"ca.withdrawn", "source.limit", "withdrawal.suspended"}


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(bundle.to_pem(bytes(certs.MAX_DER + 1)), id="a block over its budget"),
        pytest.param(BROKEN * (certs.MAX_BLOCKS + 1), id="too many blocks"),
    ],
)
def test_what_was_not_read_withdraws_nothing_and_adds_what_was_read(installed: Machine, content: bytes) -> None:
    installed.mount(a=B.pem, b=content)
    outcome = installed.start()

    assert (held(installed, A.sha256), held(installed, B.sha256)) == ({True}, {True})
    assert events(outcome) >= {"source.limit", "withdrawal.suspended"}
    assert 65 in {note.code for note in outcome.notes}

    installed.mount(a=B.pem)
    installed.start()

    assert (held(installed, A.sha256), held(installed, B.sha256)) == ({False}, {True})


def test_too_many_certificates_withdraw_nothing(installed: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certs, "MAX_CERTIFICATES", 1)
    installed.mount(a=B.pem, z=A.pem)
    installed.start()

    assert held(installed, A.sha256) == {True}


def test_too_many_entries_withdraw_nothing(installed: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_ENTRIES", 3)
    installed.mount(a=B.pem, b=b"", c=b"", d=b"", z=A.pem)
    installed.start()

    assert held(installed, A.sha256) == {True}
