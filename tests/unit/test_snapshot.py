"""What a snapshot means: variables of ours, what is where, and when there is nothing to do."""

from __future__ import annotations

import pytest

from shim import bundle, config, receipt, verify
from shim.record import Record
from shim.snapshot import Snapshot, original
from shim.sources import Intake
from tests.certificates import pems, root
from tests.unit.machines import CERTIFI, RHEL, RUN, SHIPPED, certifi, machine, setting

A, B = root("A"), root("B")
SHIPPED_IDS = bundle.fingerprints(SHIPPED)
OURS = RUN._replace(files=(("os.pem", bundle.merged("/corp.pem", (), (A.item,))), ("extra.pem", A.pem)))
INSTALLED = machine(
    RHEL._replace(content=SHIPPED + A.pem, anchors=(("/anchors/ca-shim-a.crt", A.pem),)),
    certifi(content=bundle.join(SHIPPED, (A.item,))),
    directories=(RUN._replace(files=(("extra.pem", bundle.merged("", (), (A.parsed.item,))),)),),
)
NOTHING = Intake((), (), complete=True)


class Point(Record):
    """A record with a default and a property."""

    x: int
    y: int = 2

    @property
    def total(self) -> int:
        return self.x + self.y


def test_a_record_has_its_fields_defaults_and_properties() -> None:
    assert (Point(1), Point(1).total, Point(x=3, y=4)) == ((1, 2), 3, (3, 4))


def test_a_record_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Point(1).x = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("value", "means"),
    [
        pytest.param("/corp.pem", "/corp.pem", id="somebody's file"),
        pytest.param("/run/ca-shim/os.pem", "/corp.pem", id="ours, made from somebody's file"),
        pytest.param("/run/ca-shim-2/os.pem", "/run/ca-shim-2/os.pem", id="another directory"),
        pytest.param("", "", id="empty"),
    ],
)
def test_a_value_means_what_stood_there_before_us(value: str, means: str) -> None:
    assert original(value, (OURS,)) == means


def test_holdings_are_told_by_store_and_override_bundle() -> None:
    assert verify.holdings(INSTALLED) == {
        RHEL.path: SHIPPED_IDS | {A.sha256},
        CERTIFI: SHIPPED_IDS | {A.sha256},
        "/run/ca-shim/extra.pem": {A.sha256},
    }


def test_a_machine_without_a_system_bundle_holds_nothing_there() -> None:
    assert "" not in verify.holdings(machine(RHEL._replace(path="")))


def test_what_is_ours_is_told_by_store() -> None:
    assert verify.ours(INSTALLED)[CERTIFI] == verify.ours(INSTALLED)[RHEL.path] == {A.sha256}


def test_of_a_bundle_with_damaged_marks_nothing_is_surely_ours() -> None:
    assert CERTIFI not in verify.ours(machine(RHEL, certifi(content=SHIPPED + b"# END ca-shim\n")))


def test_what_is_gone_is_told_with_the_stores_that_it_is_gone_from() -> None:
    gone = verify.withdrawn(INSTALLED, machine(RHEL, certifi(), directories=(RUN,)))

    assert set(gone[A.sha256]) == {RHEL.path, CERTIFI, "/run/ca-shim/extra.pem"}


def test_what_is_still_there_is_not_withdrawn() -> None:
    assert verify.withdrawn(INSTALLED, INSTALLED) == {}


@pytest.mark.parametrize(
    "snapshot",
    [
        pytest.param(INSTALLED, id="installed"),
        pytest.param(machine(RHEL._replace(state=b"pending -\n")), id="marker"),
        pytest.param(machine(RHEL, certifi(leftover="/x")), id="temporary file"),
        pytest.param(machine(directories=(OURS,)), id="override bundles"),
        pytest.param(machine(RHEL, certifi(content=SHIPPED + b"# BEGIN ca-shim\n")), id="half a block"),
    ],
)
def test_a_machine_with_anything_of_ours_is_not_untouched(snapshot: Snapshot) -> None:
    assert not receipt.untouched(NOTHING, snapshot)


def test_a_machine_without_anything_of_ours_is_untouched() -> None:
    assert receipt.untouched(NOTHING, machine(RHEL, certifi(), settings=(setting("PIP_CERT", "/x", None),)))


@pytest.mark.parametrize(
    ("change", "same"),
    [
        pytest.param({}, True, id="nothing"),
        pytest.param({"curl_needs_bundle": True}, False, id="curl"),
        pytest.param({"clients": ("/usr/bin/git",)}, False, id="a client"),
        pytest.param({"certifi": ()}, False, id="a certifi fewer"),
        pytest.param({"certifi": (certifi(content=SHIPPED + b"\n"),)}, False, id="a byte of certifi"),
        pytest.param({"os": RHEL._replace(state=b"x")}, False, id="the marker"),
        pytest.param({"os": RHEL._replace(blocklist=(b"x",))}, False, id="the blocklist"),
        pytest.param({"settings": (setting("PIP_CERT", "/x", b""),)}, False, id="a variable"),
        pytest.param({"directories": (OURS,)}, False, id="an override bundle"),
    ],
)
def test_the_key_of_a_receipt_changes_with_all_that_decides(change: dict[str, object], same: bool) -> None:  # noqa: FBT001 - a column of the table
    before = machine(RHEL, certifi())
    after = before._replace(**change)  # type: ignore[arg-type]
    keys = [receipt.key(config.read({}), "", each) for each in (before, after)]

    assert (keys[0] == keys[1]) is same


def test_the_key_of_a_receipt_is_the_same_in_whatever_order_bundles_are_found() -> None:
    one, other = certifi("/1", pems(A)), certifi("/2", pems(B))
    keys = [receipt.key(config.read({}), "", machine(RHEL, *each)) for each in ((one, other), (other, one))]

    assert keys[0] == keys[1]
