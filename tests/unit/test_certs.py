"""Bytes to certificates: every form that is accepted, and a reason for every one that is not."""

from __future__ import annotations

import textwrap
import warnings

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, pkcs7, pkcs12
from cryptography.x509.oid import NameOID

from shim import bundle, certs
from tests.certificates import (
    ANY_USAGE,
    CLIENT_AUTH,
    SERVER_AUTH,
    TRUST_SETTINGS,
    VERSION_1,
    Issued,
    armour,
    intermediate,
    issue,
    leaf,
    pems,
    root,
)

A, B, C = root("A"), root("B"), root("C")
AS_TEXT = b"Certificate:\n    Data:\n        Version: 3 (0x2)\n        Issuer: CN = A\n        Subject: CN = A\n"
P7 = [A.certificate, B.certificate]


def parse(content: bytes) -> certs.Parsed:
    return certs.parse((("/custom-certs/file", content),))


def found(content: bytes) -> list[str]:
    return [each.sha256 for each in parse(content).certificates]


def detail(parsed: certs.Parsed, name: str) -> list[object]:
    return [dict(note.details)[name] for note in parsed.notes]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(A.pem, id="PEM"),
        pytest.param(A.pem.rstrip(b"\n"), id="PEM without final newline"),
        pytest.param(A.pem.replace(b"\n", b"\r\n"), id="PEM with CRLF"),
        pytest.param(A.pem.replace(b"\n", b"\r"), id="PEM with CR alone"),
        pytest.param(b"\xef\xbb\xbf" + A.pem, id="PEM with a byte order mark"),
        pytest.param(textwrap.indent(A.pem.decode(), "    ").encode(), id="PEM indented as in YAML"),
        pytest.param(textwrap.indent(A.pem.decode(), "\t").encode(), id="PEM indented by tabs"),
        pytest.param(AS_TEXT + A.pem, id="PEM after openssl's text"),
        pytest.param("# Főtanúsítvány\n".encode() + A.pem + b"# end\n", id="PEM between comments"),
        pytest.param(b"Bag Attributes\n    friendlyName: a\n" + A.pem, id="PEM with bag attributes"),
        pytest.param(A.pem.replace(b"\n", b" \n"), id="PEM with blanks at the ends of its lines"),
        pytest.param(armour("X509 CERTIFICATE", A.der), id="X509 CERTIFICATE"),
        pytest.param(armour("TRUSTED CERTIFICATE", A.der + TRUST_SETTINGS), id="TRUSTED CERTIFICATE"),
        pytest.param(armour("TRUSTED CERTIFICATE", A.der), id="TRUSTED CERTIFICATE without trust settings"),
        pytest.param(A.der, id="DER"),
        pytest.param(A.pem + A.pem, id="the same twice"),
        pytest.param(A.key_pem + A.pem, id="key before certificate"),
        pytest.param(A.pem + armour("X509 CRL", b"\x30\0"), id="beside a revocation list"),
        pytest.param(pkcs7.serialize_certificates([A.certificate], Encoding.PEM), id="PKCS#7 in PEM"),
        pytest.param(pkcs7.serialize_certificates([A.certificate], Encoding.DER), id="PKCS#7 in DER"),
        pytest.param(
            armour("PKCS #7 SIGNED DATA", pkcs7.serialize_certificates([A.certificate], Encoding.DER)),
            id="PKCS#7 under its long name",
        ),
    ],
)
def test_the_certificate_is_found_in_every_form(content: bytes) -> None:
    assert found(content) == [A.sha256]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(pems(A, B, C), id="PEM"),
        pytest.param(A.pem.rstrip(b"\n") + pems(B, C), id="PEM concatenated without a newline between"),
        pytest.param(A.pem + pkcs7.serialize_certificates([B.certificate, C.certificate], Encoding.PEM), id="mixed"),
    ],
)
def test_every_certificate_of_a_file_is_found(content: bytes) -> None:
    assert sorted(found(content)) == sorted([A.sha256, B.sha256, C.sha256])


def test_certificates_keep_the_order_of_the_files() -> None:
    parsed = certs.parse((("/1", C.pem), ("/2", pems(A, C)), ("/3", B.pem)))

    assert [each.sha256 for each in parsed.certificates] == [C.sha256, A.sha256, B.sha256]


def test_a_certificate_in_two_files_is_reported_from_the_first() -> None:
    parsed = certs.parse((("/first", A.pem), ("/second", A.pem)))

    assert [each.file for each in parsed.certificates] == ["/first"]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(armour("TRUSTED CERTIFICATE", A.der + TRUST_SETTINGS), id="trust settings"),
        pytest.param(b"secret\n" + A.pem + A.key_pem, id="text and key around it"),
        pytest.param(A.pem.replace(b"\n", b"\r\n"), id="CRLF"),
        pytest.param(A.der, id="DER"),
    ],
)
def test_a_certificate_is_encoded_anew_and_its_surroundings_are_left_behind(content: bytes) -> None:
    assert parse(content).certificates[0].pem == A.pem


BROKEN = A.pem.splitlines(keepends=True)
HOLE = b"".join(BROKEN[:3] + BROKEN[5:])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"".join(BROKEN[:4]), "truncated", id="no END line"),
        pytest.param(HOLE, "no certificate that can be parsed", id="a hole in it"),
        pytest.param(b"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n", "not base64", id="no base64"),
        pytest.param(b"-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n", "not base64", id="odd base64"),
        pytest.param(b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", "not base64", id="nothing in it"),
        pytest.param(A.pem.replace(b"END CERT", b"END TRUST"), "does not match", id="another END line"),
        pytest.param(armour("CERTIFICATE", A.der + b"\0"), "no certificate that can be parsed", id="bytes behind it"),
        pytest.param(armour("TRUSTED CERTIFICATE", b"\x30"), "no certificate that can be parsed", id="one byte"),
        pytest.param(armour("TRUSTED CERTIFICATE", b"\x30\x05abc"), "no certificate", id="shorter than it says"),
        pytest.param(armour("PKCS7", b"\x30\0"), "PKCS#7", id="empty PKCS#7"),
        pytest.param(armour("PKCS7", A.der), "PKCS#7", id="certificate under the name of PKCS#7"),
    ],
)
def test_a_bad_block_is_refused_with_file_number_and_reason(content: bytes, reason: str) -> None:
    parsed = parse(B.pem + content)
    note = parsed.notes[0]
    details = dict(note.details)

    assert (note.event, note.code, details["file"], details["block"]) == ("block.refused", 65, "/custom-certs/file", 2)
    assert reason in str(details["reason"])


@pytest.mark.parametrize("bad", [pytest.param(b"".join(BROKEN[:4]), id="truncated"), pytest.param(HOLE, id="hole")])
def test_a_bad_block_costs_no_other_block(bad: bytes) -> None:
    assert found(B.pem + bad + C.pem) == [B.sha256, C.sha256]


def test_a_subject_that_looks_like_pem_is_refused_since_a_tool_may_print_it_into_a_bundle() -> None:
    parsed = certs.parse((("/x.pem", issue("a -----BEGIN CERTIFICATE-----").pem),))

    assert parsed.certificates == ()
    assert [note.event for note in parsed.notes] == ["block.refused"]


def test_hundreds_of_bad_blocks_do_not_flood_the_log() -> None:
    parsed = parse(HOLE * 500 + B.pem)

    assert (len(parsed.notes), parsed.notes[-1].event) == (21, "file.refused")
    assert "480 further blocks" in str(detail(parsed, "reason")[-1])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", "empty", id="empty file"),
        pytest.param(b" \n\t\n", "empty", id="blank file"),
        pytest.param(b"hello\n", "neither PEM nor DER", id="text"),
        pytest.param(A.pem.decode().encode("utf-16"), "UTF-16", id="UTF-16 text"),
        pytest.param(A.pem.decode().encode("utf-16-be"), "neither PEM nor DER", id="UTF-16 without a mark"),
        pytest.param(b"\xfe\xff" + A.pem.decode().encode("utf-16-be"), "UTF-16", id="UTF-16 of the other end"),
        pytest.param(b"\xfe\xed\xfe\xed\0\0\0\2", "Java key store", id="Java key store"),
        pytest.param(A.key_der, "key", id="key in DER"),
        pytest.param(
            pkcs12.serialize_key_and_certificates(None, None, None, [A.certificate], BestAvailableEncryption(b"x")),
            "PKCS#12",
            id="PKCS#12",
        ),
        pytest.param(A.der[:-5], "neither a certificate", id="truncated DER"),
        pytest.param(A.der + b"\n", "neither a certificate", id="DER with a newline behind it"),
        pytest.param(armour("X509 CRL", b"\x30\0"), "no certificate among 1", id="revocation list"),
        pytest.param(b"-----BEGIN " + b"A" * 100 + b"-----\n", "no certificate", id="endless label"),
        pytest.param(b"-----BEGIN \n", "no certificate", id="label without end"),
        pytest.param(b"\x30", "neither a certificate", id="one byte of DER"),
        pytest.param(b"\0" * 4096, "neither PEM nor DER", id="zeros"),
    ],
)
def test_a_file_without_a_certificate_is_refused_with_the_reason(content: bytes, reason: str) -> None:
    parsed = parse(content)

    assert ([note.event for note in parsed.notes], parsed.certificates) == (["file.refused"], ())
    assert reason in str(detail(parsed, "reason")[0])


def test_a_file_without_a_certificate_is_a_notice_and_no_problem() -> None:
    assert parse(b"hello").notes[0].code == 0


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(A.key_pem, id="alone"),
        pytest.param(A.key_pem + A.pem, id="before the certificate"),
        pytest.param(A.pem + A.key_pem, id="behind the certificate"),
        pytest.param(A.pem + armour("RSA PRIVATE KEY", b"\x30\0"), id="RSA"),
        pytest.param(A.pem + armour("ENCRYPTED PRIVATE KEY", b"\x30\0"), id="encrypted"),
        pytest.param(A.pem + armour("OPENSSH PRIVATE KEY", b"\x30\0"), id="OpenSSH's"),
        pytest.param(A.pem + A.key_pem[:60], id="truncated"),
        pytest.param(A.pem + A.key_pem + B.key_pem, id="two of them"),
    ],
)
def test_a_private_key_is_named_once_and_is_no_problem(content: bytes) -> None:
    notes = parse(content).notes

    assert [(note.event, note.code) for note in notes] == [("key.ignored", 0)]


def test_a_private_key_gets_into_no_description() -> None:
    parsed = parse(A.pem + A.key_pem)
    body = A.key_pem.splitlines()[1]

    assert body not in repr(parsed).encode()


# Limits: of what is said, and of what is read


def limits(parsed: certs.Parsed) -> list[str]:
    return [str(dict(note.details)["reason"]) for note in parsed.notes if note.event == "source.limit"]


@pytest.mark.parametrize(
    "files",
    [
        pytest.param([(f"/{number}", b"text") for number in range(1001)], id="1,001 text files"),
        pytest.param([("/bad.pem", HOLE * 2500)], id="2,500 bad blocks in a file"),
        pytest.param([(f"/{number}", HOLE * 30) for number in range(50)], id="bad blocks in many files"),
        pytest.param([(f"/{number}", A.key_pem) for number in range(500)], id="500 keys"),
    ],
)
def test_whatever_is_refused_before_it_a_certificate_is_found(files: list[tuple[str, bytes]]) -> None:
    parsed = certs.parse((*files, ("/good.pem", B.pem)))

    assert ([each.sha256 for each in parsed.certificates], parsed.complete) == ([B.sha256], True)
    assert len(parsed.notes) <= 2 * 201


def test_a_certificate_behind_thousands_of_bad_blocks_in_its_file_is_found() -> None:
    parsed = parse(HOLE * 2500 + B.pem)

    assert ([each.sha256 for each in parsed.certificates], parsed.complete) == ([B.sha256], True)


def test_what_is_not_told_any_more_is_counted_and_stays_a_problem() -> None:
    parsed = certs.parse([(f"/{number}", HOLE) for number in range(250)])

    assert "50 more lines" in str(detail(parsed, "reason")[-1])
    assert [(note.event, note.code) for note in parsed.notes] == [("block.refused", 65)] * 201


@pytest.mark.parametrize(
    ("limit", "value", "reason"),
    [
        pytest.param("MAX_CERTIFICATES", 2, "more than 2 certificates", id="certificates"),
        pytest.param("MAX_BLOCKS", 2, "more than 2 PEM blocks", id="blocks"),
        pytest.param("MAX_BYTES", 2 * len(A.der) + 10, "more than 0 MiB of certificates", id="bytes"),
    ],
)
@pytest.mark.parametrize("many", ["PEM", "files", "PKCS#7"])
def test_what_lies_beyond_a_limit_leaves_the_intake_incomplete_and_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, limit: str, value: int, reason: str, many: str
) -> None:
    monkeypatch.setattr(certs, limit, value)
    issued = [A.certificate, B.certificate, C.certificate]
    files = {
        "PEM": [("/x", pems(A, B, C))],
        "files": [("/x", A.pem), ("/y", pems(B, C))],
        "PKCS#7": [("/x", pkcs7.serialize_certificates(issued, Encoding.DER))],
    }[many]
    parsed = certs.parse(files)
    (note,) = parsed.notes

    assert (len(parsed.certificates), parsed.complete) in {(2, False), (1, False)}
    assert (note.event, note.code) == ("source.limit", 65)
    assert (reason in str(dict(note.details)["reason"]), dict(note.details)["file"]) == (True, files[-1][0])


def test_a_private_key_before_a_limit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certs, "MAX_BLOCKS", 1)
    parsed = parse(A.key_pem + B.pem)

    assert [note.event for note in parsed.notes] == ["key.ignored", "source.limit"]


def test_what_is_mounted_again_and_again_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certs, "MAX_BYTES", 2 * len(A.der) + 10)
    parsed = certs.parse([("/a", A.pem * 10), ("/b", A.der), ("/c", A.pem + B.pem)])

    assert (len(parsed.certificates), parsed.complete) == (2, True)


def _padded(size: int) -> bytes:
    """Give a certificate of so many bytes at least."""
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), bytes(size))
    builder = x509.CertificateBuilder(
        issuer_name=A.certificate.subject,
        subject_name=A.certificate.subject,
        public_key=A.key.public_key(),
        serial_number=1,
        not_valid_before=A.certificate.not_valid_before_utc,
        not_valid_after=A.certificate.not_valid_after_utc,
        extensions=[x509.Extension(unknown.oid, critical=False, value=unknown)],
    )
    return builder.sign(A.key, hashes.SHA256()).public_bytes(Encoding.DER)


LARGE, TOO_LARGE = _padded(certs.MAX_DER - 1000), _padded(certs.MAX_DER)


@pytest.mark.parametrize(
    ("content", "where"),
    [
        pytest.param(
            b"-----BEGIN CERTIFICATE-----\n" + b"AA " * 400_000 + b"-----END CERTIFICATE-----\n", 1, id="blanks"
        ),
        pytest.param(bundle.to_pem(TOO_LARGE), 1, id="PEM"),
        pytest.param(bundle.to_pem(TOO_LARGE, b"TRUSTED CERTIFICATE"), 1, id="TRUSTED CERTIFICATE"),
        pytest.param(A.key_pem + bundle.to_pem(TOO_LARGE, b"PKCS7"), 2, id="PKCS#7"),
        pytest.param(TOO_LARGE, None, id="DER"),
        pytest.param(b"\x30" + bytes(certs.MAX_DER), None, id="bytes that begin as DER does"),
    ],
)
def test_a_block_over_its_budget_is_named_and_costs_no_other_one(content: bytes, where: int | None) -> None:
    parsed = certs.parse([("/large", content), ("/good", B.pem)])
    note = next(note for note in parsed.notes if note.event == "source.limit")
    details = dict(note.details)

    assert ([each.sha256 for each in parsed.certificates], parsed.complete) == ([B.sha256], False)
    assert (note.code, details["file"], details.get("block")) == (65, "/large", where)
    assert details["reason"]
    assert details["remedy"]


def test_other_blocks_of_the_file_are_used_beside_one_that_is_too_large() -> None:
    assert found(B.pem + bundle.to_pem(TOO_LARGE) + C.pem) == [B.sha256, C.sha256]


@pytest.mark.parametrize("content", [LARGE, bundle.to_pem(LARGE)], ids=["DER", "PEM"])
def test_what_is_written_is_not_too_large_to_be_read(content: bytes) -> None:
    (certificate,) = parse(content).certificates

    assert parse(certificate.pem).certificates == (certificate,)


def test_certificates_of_thousands_of_names_are_over_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certs, "MAX_PARTS", 100)
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "u")] * 40)
    parsed = parse(issue(name).pem + issue(name).pem)

    assert (len(parsed.certificates), limits(parsed)) == (
        1,
        ["certificates with too many names in them: the rest was not read"],
    )


@pytest.mark.parametrize(("size", "shown"), [(197, "CN=" + "x" * 197), (198, "CN=" + "x" * 196 + "…")])
def test_a_long_subject_is_cut(size: int, shown: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x" * size, _validate=False)])
        certificate = issue(name).parsed

    assert (certificate.subject, len(certificate.subject), certificate.slug) == (shown, 200, "x" * 40)


# PKCS#7, cut by hand


def _element(tag: int, *parts: bytes, indefinite: bool = False) -> bytes:
    content = b"".join(parts)
    if indefinite:
        return bytes([tag, 0x80]) + content + b"\0\0"
    return bytes([tag, 0x82]) + len(content).to_bytes(2, "big") + content


SIGNED, DATA = bytes.fromhex("06092a864886f70d010702"), bytes.fromhex("06092a864886f70d010701")


def _pkcs7(*elements: bytes, indefinite: bool = False) -> bytes:
    inner = (b"\x02\x01\x01", b"\x31\0", _element(0x30, DATA, indefinite=indefinite))
    signed = _element(0x30, *inner, _element(0xA0, *elements, indefinite=indefinite), b"\x31\0", indefinite=indefinite)
    return _element(0x30, SIGNED, _element(0xA0, signed, indefinite=indefinite), indefinite=indefinite)


@pytest.mark.parametrize("indefinite", [False, True], ids=["DER", "BER"])
def test_a_pkcs7_of_either_kind_of_lengths_is_understood(indefinite: bool) -> None:  # noqa: FBT001 - a column of the table
    assert found(_pkcs7(A.der, B.der, indefinite=indefinite)) == [A.sha256, B.sha256]


def test_a_bad_certificate_in_a_pkcs7_costs_no_other_one() -> None:
    parsed = parse(_pkcs7(A.der, b"\x30\x01\0", b"\xa1\x01\0", B.der))
    details = [(note.event, note.code, dict(note.details)["certificate"]) for note in parsed.notes]

    assert [each.sha256 for each in parsed.certificates] == [A.sha256, B.sha256]
    assert details == [("block.refused", 65, 2), ("block.refused", 65, 3)]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(_pkcs7(), id="no certificate"),
        pytest.param(_pkcs7(A.der)[:-40], id="truncated"),
        pytest.param(_pkcs7(indefinite=True)[:20], id="truncated BER"),
        pytest.param(_element(0x30, SIGNED), id="nothing in it"),
        pytest.param(b"\x30\x80" * 50_000, id="nested without end"),
        pytest.param(_element(0x30, b"\x06\x80" + b"\x05\0" * 100), id="an endless identifier"),
        pytest.param(b"\x30\xff" + b"\xff" * 200, id="a length of 127 bytes"),
        pytest.param(b"\x30\x82\x01", id="half a length"),
    ],
)
def test_what_is_no_pkcs7_is_refused_as_such(content: bytes) -> None:
    parsed = parse(content)

    assert (parsed.certificates, [note.event for note in parsed.notes]) == ((), ["file.refused"])
    assert "PKCS#7" in str(detail(parsed, "reason")[0])


WEAK_EC = ec.generate_private_key(ec.SECP192R1())
WEAK_RSA = rsa.generate_private_key(65537, 1024)


@pytest.mark.parametrize(
    ("issued", "traits"),
    [
        pytest.param(A, set(), id="a root as it should be"),
        pytest.param(intermediate(), {"issued-by-another"}, id="an intermediate"),
        pytest.param(leaf(), {"issued-by-another", "not-ca"}, id="a leaf"),
        pytest.param(issue(ca=False), {"not-ca"}, id="self-signed leaf"),
        pytest.param(issue(ca=None), {"no-basic-constraints"}, id="no basicConstraints"),
        pytest.param(issue(critical=False), {"not-critical"}, id="basicConstraints not critical"),
        pytest.param(issue(usage=[CLIENT_AUTH]), {"no-server-auth"}, id="clientAuth alone"),
        pytest.param(issue(usage=[CLIENT_AUTH, SERVER_AUTH]), set(), id="clientAuth and serverAuth"),
        pytest.param(issue(usage=[ANY_USAGE]), set(), id="any usage"),
        pytest.param(issue(key=WEAK_RSA), {"weak-key"}, id="RSA of 1024 bits"),
        pytest.param(issue(key=WEAK_EC), {"weak-key"}, id="EC of 192 bits"),
        pytest.param(issue(key=ec.generate_private_key(ec.SECP224R1())), set(), id="EC of 224 bits"),
    ],
)
def test_traits_say_what_stores_and_clients_object_to(issued: Issued, traits: set[str]) -> None:
    assert issued.parsed.traits == traits


def test_a_certificate_of_version_1_says_so() -> None:
    assert parse(VERSION_1).certificates[0].traits == {"v1"}


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        pytest.param("Acme Root CA 2", "acme-root-ca-2", id="plain"),
        pytest.param("../../etc/passwd", "etc-passwd", id="path"),
        pytest.param("Főtanúsítvány", "f-tan-s-tv-ny", id="not ASCII"),
        pytest.param("日本", "ca", id="no ASCII at all"),
        pytest.param("x" * 60, "x" * 40, id="long"),
        pytest.param("a\nb", "a-b", id="newline"),
        pytest.param("Acme, Inc.", "acme", id="comma"),
    ],
)
def test_the_name_of_an_anchor_is_made_of_the_common_name(name: str, slug: str) -> None:
    assert issue(name).parsed.slug == slug


def test_every_detail_of_a_certificate_is_told() -> None:
    details = dict(A.parsed.details(reason="why"))

    assert details == {
        "subject": "CN=A",
        "sha256": A.sha256,
        "not_after": "2043-11-04T00:00:00Z",
        "file": "/custom-certs/ca.pem",
        "reason": "why",
    }


def test_certificates_of_unusual_size_use_the_budget_up_sooner() -> None:
    """Each costs far more time for a byte: 187,000 empty names fit into one."""
    parsed = certs.parse([(f"/{number}", _padded(700_000 + number)) for number in range(6)])

    assert (len(parsed.certificates), parsed.complete) == (1, False)
