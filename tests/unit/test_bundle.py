"""Our block in somebody's bundle, and what a bundle holds."""

from __future__ import annotations

import re
import ssl
from typing import TYPE_CHECKING

import pytest

from shim import bundle
from tests.certificates import TRUST_SETTINGS, Issued, armour, pems, root

if TYPE_CHECKING:
    from pathlib import Path

A, B, C = root("A"), root("B"), root("C")
BASE = b"# shipped\n" + pems(A)
BASES = [
    pytest.param(BASE, id="with a final newline"),
    pytest.param(BASE.rstrip(b"\n"), id="without a final newline"),
    pytest.param(BASE + b"\n\n", id="with empty lines at the end"),
    pytest.param(BASE.replace(b"\n", b"\r\n"), id="CRLF"),
    pytest.param(BASE.replace(b"\n", b"\r\n").rstrip(b"\r\n"), id="CRLF without the last"),
    pytest.param(BASE.replace(b"\n", b"\r"), id="CR only"),
    pytest.param("# Főtanúsítvány\n".encode() + BASE, id="non-ASCII comment"),
    pytest.param(b"", id="empty"),
    pytest.param(b"\n", id="one empty line"),
    pytest.param(b"\n\n", id="two empty lines"),
    pytest.param(b"no certificate at all", id="text"),
    pytest.param(b"\0\xff\xfe" + BASE, id="binary"),
    pytest.param(b"see # BEGIN ca-shim in the manual\n" + BASE, id="our marker inside a line"),
]


def joined(base: bytes, *issued: Issued) -> bytes:
    return bundle.join(base, tuple(each.item for each in issued))


@pytest.mark.parametrize("base", BASES)
def test_a_block_put_in_and_taken_out_leaves_the_shipped_bytes(base: bytes) -> None:
    outside, _ = bundle.split(joined(base, B, C))

    assert outside == base


@pytest.mark.parametrize("base", BASES)
def test_without_any_ca_a_bundle_is_the_shipped_one(base: bytes) -> None:
    assert bundle.join(base, ()) == base


@pytest.mark.parametrize("base", BASES)
def test_a_block_put_in_twice_is_there_once(base: bytes) -> None:
    once = joined(base, B)

    assert joined(bundle.split(once)[0], B) == once


@pytest.mark.parametrize("base", BASES)
def test_the_block_holds_what_was_put_in(base: bytes) -> None:
    _, block = bundle.split(joined(base, B, C))

    assert bundle.fingerprints(block) == {B.sha256, C.sha256}


@pytest.mark.parametrize("base", BASES)
def test_the_shipped_bytes_stand_before_the_block(base: bytes) -> None:
    assert joined(base, B).startswith(base)


def test_the_block_is_between_fixed_ascii_lines() -> None:
    lines = joined(BASE, B)[len(BASE) :].splitlines()

    assert (lines[1].startswith(b"# BEGIN ca-shim"), lines[-1]) == (True, b"# END ca-shim")


@pytest.mark.parametrize("base", BASES[:4])
def test_text_appended_after_the_block_stays_when_the_block_goes(base: bytes) -> None:
    outside, _ = bundle.split(joined(base, B) + b"# appended\n" + C.pem)

    assert (outside.startswith(base), outside.endswith(b"# appended\n" + C.pem)) == (True, True)


def test_text_appended_to_a_bundle_without_final_newline_does_not_join_its_last_line() -> None:
    outside, _ = bundle.split(joined(pems(A).rstrip(b"\n"), B) + C.pem)

    assert bundle.fingerprints(outside) == {A.sha256, C.sha256}


def test_a_block_moves_to_the_end_behind_what_was_appended_and_then_stays() -> None:
    outside, _ = bundle.split(joined(BASE, B) + C.pem)
    moved = joined(outside, B)

    assert (bundle.split(moved)[0], moved.endswith(b"# END ca-shim\n")) == (outside, True)


def test_a_block_whose_last_line_lost_its_newline_is_a_block() -> None:
    outside, _ = bundle.split(joined(BASE, B).rstrip(b"\n"))

    assert outside == BASE


WHOLE = joined(BASE, B)
END = b"# END ca-shim\n"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(WHOLE.removesuffix(END), id="begin without end"),
        pytest.param(BASE + END, id="end without begin"),
        pytest.param(WHOLE + WHOLE[len(BASE) :], id="two blocks"),
        pytest.param(END + WHOLE.removesuffix(END), id="end before begin"),
        pytest.param(WHOLE + END, id="two ends"),
    ],
)
def test_damaged_marks_are_no_block(content: bytes) -> None:
    assert not bundle.looks_whole(content)


def test_a_bundle_without_a_block_looks_whole() -> None:
    assert bundle.looks_whole(BASE)


def test_splitting_damaged_marks_is_an_error() -> None:
    with pytest.raises(bundle.DamagedError):
        bundle.split(BASE + END)


@pytest.mark.parametrize(
    "comment",
    [
        pytest.param("CN=Főtanúsítvány", id="non-ASCII"),
        pytest.param("CN=a\nb", id="newline"),
        pytest.param("CN=a\rb", id="carriage return"),
        pytest.param("CN=a\n-----BEGIN CERTIFICATE-----\n# END ca-shim\n", id="lines of ours and of PEM"),
        pytest.param("CN=\ud800", id="lone surrogate"),
        pytest.param("CN=-----BEGIN CERTIFICATE-----AAAA-----END CERTIFICATE-----", id="a PEM block on one line"),
        pytest.param("CN=-----BEGIN CERTIFICATE-----", id="the beginning of a PEM block"),
        pytest.param("CN=-----END CERTIFICATE-----", id="the end of a PEM block"),
        pytest.param("CN=\x00\x1b[31m", id="control characters"),
    ],
)
def test_a_comment_of_any_kind_leaves_the_bundle_ascii_and_with_that_certificate_alone(comment: str) -> None:
    content = bundle.join(b"", (B.item._replace(comment=bundle.comment_on(B.sha256, comment)),))

    assert content.isascii()
    assert bundle.fingerprints(content) == {B.sha256}


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(pems(A, B), id="plain"),
        pytest.param(pems(A, B).replace(b"\n", b"\r\n"), id="CRLF"),
        pytest.param(pems(A, B).rstrip(b"\n"), id="without a final newline"),
        pytest.param(pems(A, B, A), id="one of them twice"),
        pytest.param(b"# \xff\xfe\n" + pems(A) + b"text\n" + pems(B), id="text around blocks"),
        pytest.param(
            pems(A) + b"-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n" + pems(B), id="no base64"
        ),
        pytest.param(pems(A, B) + b"-----BEGIN CERTIFICATE-----\nMIIB", id="truncated"),
        pytest.param(pems(A) + armour("X509 CERTIFICATE", B.der), id="X509 CERTIFICATE, which OpenSSL reads too"),
    ],
)
def test_every_certificate_of_a_bundle_is_found_once(content: bytes) -> None:
    assert sorted(item.sha256 for item in bundle.items(content)) == sorted([A.sha256, B.sha256])


def test_items_are_armoured_as_openssl_does_it() -> None:
    assert bundle.items(A.pem.replace(b"\n", b"\r\n"))[0].pem == A.pem


def test_a_trusted_certificate_keeps_its_trust_settings() -> None:
    content = armour("TRUSTED CERTIFICATE", A.der + TRUST_SETTINGS)

    assert bundle.items(content)[0].pem.splitlines() == content.splitlines()


def test_what_openssl_loads_from_a_merged_bundle_is_what_is_found_in_it(tmp_path: Path) -> None:
    path = tmp_path / "bundle.pem"
    path.write_bytes(bundle.merged("/base.pem", bundle.items(pems(A, B)), (B.item, C.item)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cafile=path)

    loaded = {bundle.sha256(der) for der in context.get_ca_certs(binary_form=True)}

    assert loaded == bundle.fingerprints(path.read_bytes()) == {A.sha256, B.sha256, C.sha256}


def test_a_merged_bundle_begins_with_its_base_in_the_order_of_the_base() -> None:
    content = bundle.merged("", bundle.items(pems(B, A)), (C.item,))

    assert [item.sha256 for item in bundle.items(content)] == [B.sha256, A.sha256, C.sha256]


@pytest.mark.parametrize(
    "origin",
    [
        pytest.param("", id="a store"),
        pytest.param("/etc/corporate.pem", id="plain"),
        pytest.param("/with blank/and 100%/\n/x", id="blank, percent and newline"),
        pytest.param("/ő/\udcff", id="not ASCII and not UTF-8"),
    ],
)
def test_a_merged_bundle_remembers_its_origin(origin: str) -> None:
    assert bundle.origin_of(bundle.merged(origin, (), (A.item,))) == origin


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(pems(A), id="somebody's bundle"),
        pytest.param(b"# ca-shim made this from %zz\n", id="no hexadecimal"),
        pytest.param("# ca-shim made this from %ő\n".encode(), id="not ASCII"),
        pytest.param(b"# ca-shim made this from %\n", id="cut off"),
    ],
)
def test_a_first_line_that_is_not_ours_tells_no_origin(content: bytes) -> None:
    assert bundle.origin_of(content) == ""


def test_pem_has_64_columns_and_a_final_newline() -> None:
    assert re.fullmatch(
        rb"-----BEGIN X-----\n[A-Za-z0-9+/]{64}\n[A-Za-z0-9+/=]+\n-----END X-----\n", bundle.to_pem(bytes(60), b"X")
    )
