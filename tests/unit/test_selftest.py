"""What `selftest` calls good, and what it counts as left behind."""

from __future__ import annotations

import json

import pytest

from shim import families, selftest, throwaway
from shim.answers import ACCEPTED, REFUSED, UNCLEAR, UNUSABLE, Answer
from shim.selftest import Report, Row
from shim.snapshot import Directory, Snapshot
from tests.certificates import pems, root
from tests.unit.machines import CERTIFI, RHEL, SHIPPED, certifi, machine

_THROWN = root("ca-shim selftest")
_GOOD = Row("curl", Answer(REFUSED, "no"), Answer(ACCEPTED), Answer(REFUSED, "no"))
_REPORT = Report("in place", "anchore (1000)", (("/os.pem", "in place"),), (_GOOD,), (), ())

_STATES = {
    "as it should be": ((REFUSED, ACCEPTED, REFUSED), True),
    "verification is off": ((ACCEPTED, ACCEPTED, ACCEPTED), False),
    "the CA does not reach it": ((REFUSED, REFUSED, REFUSED), False),
    "it trusts anybody afterwards": ((REFUSED, ACCEPTED, ACCEPTED), False),
    "it says something else": ((REFUSED, UNCLEAR, REFUSED), False),
    "it cannot be executed": ((UNUSABLE, UNUSABLE, UNUSABLE), True),
}


@pytest.mark.parametrize(("states", "good"), _STATES.values(), ids=_STATES.keys())
def test_a_client_is_good_when_it_refuses_accepts_and_refuses(states: tuple[str, str, str], *, good: bool) -> None:
    assert Row("curl", *map(Answer, states)).good is good


def test_nothing_tried_is_not_good() -> None:
    skipped = Row("curl", *[Answer(UNUSABLE)] * 3)

    assert not _REPORT._replace(rows=()).good
    assert not _REPORT._replace(rows=(skipped,)).good
    assert _REPORT._replace(rows=(skipped, _GOOD)).good


def test_what_is_left_or_went_wrong_is_not_good() -> None:
    assert not _REPORT._replace(left=("/os.pem",)).good
    assert not _REPORT._replace(problems=("store.failed: read-only",)).good


_BEFORE = machine(RHEL, certifi())
_CHANGED: dict[str, tuple[Snapshot, set[str]]] = {
    "nothing": (_BEFORE, set()),
    "a byte of certifi": (machine(RHEL, certifi(content=SHIPPED + b"\n")), {CERTIFI}),
    "certifi is gone": (machine(RHEL), {CERTIFI}),
    "a certificate more": (machine(RHEL._replace(content=SHIPPED + _THROWN.pem), certifi()), {families.RHEL.bundle}),
    "a certificate less": (machine(RHEL._replace(content=b""), certifi()), {families.RHEL.bundle}),
    "another order in the operating system's bundle": (
        machine(RHEL._replace(content=pems(root("Shipped 2"), root("Shipped 1"))), certifi()),
        set(),
    ),
    "an anchor": (
        machine(RHEL._replace(anchors=(("/anchors/x.crt", b""),)), certifi()),
        {"the operating system's anchors"},
    ),
    "an unfinished change": (machine(RHEL._replace(state=b"pending"), certifi()), {"the operating system's anchors"}),
    "an override bundle": (
        machine(
            RHEL, certifi(), directories=(Directory("/run/x", exists=True, writable=True, files=(("os.pem", b""),)),)
        ),
        {"/run/x/os.pem"},
    ),
}


@pytest.mark.parametrize(("after", "left"), _CHANGED.values(), ids=_CHANGED.keys())
def test_every_difference_is_found(after: Snapshot, left: set[str]) -> None:
    assert set(selftest.differing(_BEFORE, after, frozenset({_THROWN.sha256}))) == left


def test_a_change_that_was_unfinished_and_is_over_by_now_is_no_difference() -> None:
    unfinished = machine(RHEL._replace(state=b"pending"), certifi())

    assert set(selftest.differing(unfinished, _BEFORE, frozenset())) == set()


def test_a_throwaway_ca_that_was_there_before_is_not_as_it_should_be() -> None:
    stained = machine(RHEL._replace(content=SHIPPED + _THROWN.pem), certifi())

    assert set(selftest.differing(stained, stained, frozenset({_THROWN.sha256}))) == {families.RHEL.bundle}


def test_the_table_says_what_is_wrong_and_why() -> None:
    wrong = _GOOD._replace(after=Answer(REFUSED, "self-signed\x1b[0m"))
    skipped = Row("node", *[Answer(UNUSABLE, "permission denied")] * 3)
    said = selftest.text(_REPORT._replace(rows=(wrong, skipped), left=("/os.pem",), problems=("stopped by SIGTERM",)))

    assert "curl, after: refuses, while all is well when it accepts: self-signed\\x1b[0m" in said
    assert "skipped, since this user cannot execute them: node\n" in said
    assert "not as before: /os.pem" in said
    assert "problem: stopped by SIGTERM" in said
    assert "NOT good" in said


def test_a_good_table_is_short() -> None:
    lines = selftest.text(_REPORT).splitlines()

    assert [line.split() for line in lines if line.startswith("curl")] == [
        ["curl", "refuses", "accepts", "refuses", "ok"]
    ]
    assert lines[-2:] == ["undone: every store is as it was before", "good"]


def test_a_table_without_clients_still_has_its_head() -> None:
    assert "client  before" in selftest.text(_REPORT._replace(rows=()))


def test_the_document_is_json() -> None:
    document = json.loads(json.dumps(selftest.document(_REPORT)))

    assert (document["good"], document["rows"][0]["good"], document["rows"][0]["after"]["state"]) == (
        True,
        True,
        "accepts",
    )


def test_a_throwaway_ca_is_another_one_each_time() -> None:
    assert throwaway.site(sends_intermediate=True).root != throwaway.site(sends_intermediate=True).root
