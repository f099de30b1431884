"""What a start says of its work: news, one line each, and not what everybody knew."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shim import apply, plan, report
from tests.certificates import pems, root
from tests.edge.machine import ANCHORE, CERTIFI, CERTIFI_BASE, SHIPPED, VENV_CERTIFI, Machine, acting, needs_root

if TYPE_CHECKING:
    from shim.reconcile import Outcome

pytestmark = needs_root
A = root("A")
NOWHERE = "/absent/bundles"


def told(outcome: Outcome, event: str) -> list[dict[str, object]]:
    return [dict(note.details) for note in outcome.notes if note.event == event]


@pytest.mark.parametrize("uid", [0, ANCHORE], ids=["in place", "by override"])
def test_cas_that_every_store_held_are_counted_in_one_line(rhel: Machine, uid: int) -> None:
    rhel.mount(bundle=pems(*SHIPPED[:3], A))
    with acting(uid):
        outcome = rhel.start()

    assert [each["sha256"] for each in told(outcome, "ca.installed")] == [A.sha256]
    assert told(outcome, "ca.held") == [{"certificates": 3}]


@pytest.mark.parametrize("uid", [0, ANCHORE], ids=["in place", "by override"])
def test_a_ca_that_one_store_lacked_has_its_own_line(rhel: Machine, uid: int) -> None:
    rhel.mount(bundle=pems(*SHIPPED))
    with acting(uid):
        outcome = rhel.start()

    assert [each["sha256"] for each in told(outcome, "ca.installed")] == [SHIPPED[3].sha256]
    assert told(outcome, "ca.held") == [{"certificates": 3}]


def test_a_store_that_cannot_be_read_makes_no_news_of_what_the_others_held(rhel: Machine) -> None:
    rhel.write(VENV_CERTIFI, b"", owner=ANCHORE)
    rhel.mount(bundle=pems(*SHIPPED[:3]))

    assert told(rhel.start(), "ca.held") == [{"certificates": 3}]


def test_what_every_store_held_is_not_told_again(rhel: Machine) -> None:
    rhel.mount(bundle=pems(*SHIPPED[:3]))
    rhel.start()
    rhel.mount(bundle=pems(*SHIPPED[:3]), a=A.pem)

    assert told(rhel.start(), "ca.held") == []


def test_without_any_store_a_ca_is_news(rhel: Machine) -> None:
    rhel.path(CERTIFI).unlink()
    rhel.path(rhel.family.bundle).unlink()
    rhel.mount(a=A.pem)

    assert len(told(rhel.start(), "ca.installed")) == 1


def test_a_store_that_no_bundle_can_serve_is_not_called_overridden(rhel: Machine) -> None:
    rhel.mount(a=A.pem)
    with acting(ANCHORE):
        outcome = rhel.start(BUNDLE_DIR=NOWHERE)

    assert dict(outcome.stores) == {rhel.family.bundle: "not served", CERTIFI: "not served"}
    assert {each["store"] for each in told(outcome, "store.failed")} == {rhel.family.bundle, CERTIFI}


def test_a_store_in_place_is_called_so_though_another_is_not_served(rhel: Machine) -> None:
    rhel.mkdir("/home")
    rhel.write(VENV_CERTIFI, CERTIFI_BASE, owner=ANCHORE)
    rhel.mount(a=A.pem)
    with acting(ANCHORE):
        outcome = rhel.start(BUNDLE_DIR=NOWHERE)

    assert dict(outcome.stores)[VENV_CERTIFI] == "in place"
    assert dict(outcome.stores)[CERTIFI] == "not served"


def test_a_bundle_that_cannot_be_written_serves_nothing(rhel: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    rhel.mount(a=A.pem)
    monkeypatch.setattr(apply, "replace", full)
    with acting(ANCHORE):
        outcome = rhel.start()

    assert set(dict(outcome.stores).values()) == {"not served"}


def test_a_start_without_a_problem_calls_every_overridden_store_so(rhel: Machine) -> None:
    rhel.mount(a=A.pem)
    with acting(ANCHORE):
        outcome = rhel.start()

    assert set(dict(outcome.stores).values()) == {"override"}


@pytest.mark.parametrize(
    ("override", "left", "how"),
    [
        ("", (), "in place"),
        ("", ("/os",), "not served"),
        ("", ("/run/ca-shim",), "in place"),
        ("read-only", (), "override"),
        ("read-only", ("/run/ca-shim/os.pem",), "not served"),
    ],
)
def test_a_store_with_steps_that_were_not_carried_out_is_not_served(
    override: str, left: tuple[str, ...], how: str
) -> None:
    steps = tuple(plan.Step("write", store, store, "wanted and missing") for store in left)
    stores = (plan.StorePlan("/os", override=override), plan.StorePlan(""))

    assert report.served(plan.Plan(stores, steps, {}, "/run/ca-shim", ())) == (("/os", how),)
