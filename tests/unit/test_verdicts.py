"""Which certificates are trusted, what is said about them, and for how long that holds."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from shim import certs
from tests.certificates import (
    CLIENT_AUTH,
    DAY,
    NOW,
    VERSION_1,
    Issued,
    intermediate,
    issue,
    leaf,
    pems,
    root,
)

ROOT = root()


def judge(*issued: Issued, base: bytes = b"", now: float = NOW) -> certs.Judged:
    return certs.judge(tuple(each.parsed for each in issued), now, (base,))


def reasons(judged: certs.Judged) -> list[str]:
    return [str(dict(note.details)["reason"]) for note in judged.notes]


@pytest.mark.parametrize(
    ("issued", "reason"),
    [
        pytest.param(issue(ends=-1), "it has expired", id="expired yesterday"),
        pytest.param(issue(ends=-1 / DAY), "it has expired", id="expired a second ago"),
        pytest.param(issue(ends=-1, ca=False), "it has expired", id="expired and no CA"),
        pytest.param(leaf(), "it is a leaf, no CA", id="a leaf of another issuer"),
        pytest.param(issue("x", issuer=ROOT, ca=None), "it is a leaf, no CA", id="of another issuer, saying nothing"),
    ],
)
def test_what_must_not_be_an_anchor_is_skipped_with_the_reason(issued: Issued, reason: str) -> None:
    judged = judge(issued)

    assert judged.accepted == ()
    assert [note.event for note in judged.notes] == ["certificate.skipped"]
    assert reasons(judged) == [reason]


@pytest.mark.parametrize(
    ("issued", "reason"),
    [
        pytest.param(issue(begins=1), "not valid before", id="not yet valid"),
        pytest.param(issue(ends=29), "it expires at 2027-06-30T00:00:00Z", id="expires within 30 days"),
        pytest.param(issue(ends=0), "it expires at 2027-06-01T00:00:00Z", id="expires this second"),
        pytest.param(issue(ca=False), "p11-kit", id="self-signed, no CA"),
        pytest.param(intermediate(), "its issuer is not trusted here", id="an intermediate alone"),
        pytest.param(issue(critical=False), "Python 3.13", id="basicConstraints not critical"),
        pytest.param(issue(ca=None), "no basicConstraints", id="basicConstraints missing"),
        pytest.param(issue(usage=[CLIENT_AUTH]), "serverAuth", id="extended key usage without serverAuth"),
        pytest.param(issue(key=ec.generate_private_key(ec.SECP192R1())), "weak", id="a weak key"),
    ],
)
def test_what_some_client_may_refuse_is_used_with_a_warning(issued: Issued, reason: str) -> None:
    judged = judge(issued)

    assert [each.sha256 for each in judged.accepted] == [issued.sha256]
    assert [note.event for note in judged.notes] == ["certificate.warning"]
    assert reason in reasons(judged)[0]


@pytest.mark.parametrize(
    "issued",
    [
        pytest.param(ROOT, id="a root"),
        pytest.param(issue(ends=31), id="a root with more than 30 days to go"),
        pytest.param(issue(begins=0), id="a root that becomes valid this second"),
    ],
)
def test_a_good_root_is_used_without_a_word(issued: Issued) -> None:
    judged = judge(issued)

    assert ([each.sha256 for each in judged.accepted], judged.notes) == ([issued.sha256], ())


def test_a_certificate_of_version_1_is_used_as_a_ca() -> None:
    parsed = certs.parse((("/v1.pem", VERSION_1),)).certificates

    assert certs.judge(parsed, NOW, ()).accepted == parsed


def test_no_verdict_is_a_problem() -> None:
    judged = judge(leaf(), issue(ends=-1), issue(begins=1), intermediate("other", of="absent"), issue(ca=None))

    assert {note.code for note in judged.notes} == {0}


@pytest.mark.parametrize(
    ("others", "base"),
    [
        pytest.param([ROOT], b"", id="mounted beside it"),
        pytest.param([], pems(root("another"), ROOT), id="in the base"),
        pytest.param([], b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" + ROOT.pem, id="odd base"),
    ],
)
def test_an_intermediate_whose_issuer_is_known_needs_no_warning(others: list[Issued], base: bytes) -> None:
    assert judge(intermediate(), *others, base=base).notes == ()


def test_an_issuer_that_was_skipped_is_not_there() -> None:
    old = issue("Old root", ends=-1)

    assert "its issuer is not trusted here" in reasons(judge(issue("Below", issuer=old), old))[-1]


def test_a_leaf_beside_its_ca_leaves_the_ca_alone() -> None:
    assert [each.sha256 for each in judge(leaf(), ROOT).accepted] == [ROOT.sha256]


def test_everything_wrong_with_a_certificate_is_said() -> None:
    judged = judge(issue(ends=10, critical=False, usage=[CLIENT_AUTH]))

    assert len(judged.notes) == 3


@pytest.mark.parametrize(
    ("issued", "until"),
    [
        pytest.param(ROOT, NOW + 5970 * DAY, id="until the warning begins, in years"),
        pytest.param(issue(ends=90), NOW + 60 * DAY, id="until the warning begins"),
        pytest.param(issue(ends=10), NOW + DAY, id="a day while a warning stands"),
        pytest.param(issue(ends=0.5), NOW + DAY / 2, id="until it expires, when that is sooner"),
        pytest.param(issue(begins=0.25), NOW + DAY / 4, id="until it becomes valid"),
        pytest.param(issue(ends=-1), NOW + DAY, id="a day for an expired one, of which is warned"),
    ],
)
def test_verdicts_hold_until_the_next_date_that_matters(issued: Issued, until: float) -> None:
    assert judge(issued).until == until


def test_without_certificates_the_verdict_holds_a_year() -> None:
    assert judge().until == NOW + 365 * DAY


def test_subjects_of_a_bundle_leave_out_what_does_not_parse() -> None:
    odd = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"

    assert certs.subjects(odd + ROOT.pem) == {ROOT.parsed.subject_id}
