"""Whatever is mounted, stands in a bundle or follows `#!`: nothing raises, and what must hold does.

The same few examples at every run; CA_SHIM_FUZZ_EXAMPLES=100000 looks for that many new ones.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from shim import bundle, certs, interpreters
from tests.certificates import NOW, TRUST_SETTINGS, Issued, armour, issue, root

if TYPE_CHECKING:
    from pathlib import Path

A, B, C = root("A"), root("B"), root("C")
GOOD = {each.sha256 for each in (A, B, C)}
MANY = int(os.environ.get("CA_SHIM_FUZZ_EXAMPLES", "0"))
EXAMPLES = settings(
    max_examples=MANY or 200,
    derandomize=not MANY,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
_LABELS = ("CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE", "PKCS7", "CMS", "X509 CRL", "PRIVATE KEY", "")
_DERS = (
    A.der,
    B.der + TRUST_SETTINGS,
    pkcs7.serialize_certificates([A.certificate, C.certificate], Encoding.DER),
    issue("-----BEGIN CERTIFICATE-----").der,
    A.key_der,
    b"\x30\x80",
    b"\x30\x84\xff\xff\xff\xff",
)


@st.composite
def mutated(draw: st.DrawFn, contents: st.SearchStrategy[bytes]) -> bytes:
    """Cut, repeat or overwrite a piece of what is otherwise right."""
    content = draw(contents)
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(content)))
        stop = draw(st.integers(start, min(len(content), start + 40)))
        content = content[:start] + draw(st.binary(max_size=6) | st.just(content[start:stop] * 2)) + content[stop:]
    return content


ders = mutated(st.sampled_from(_DERS)) | st.binary(max_size=80)
blocks = st.builds(armour, st.sampled_from(_LABELS), ders)
odd_lines = st.sampled_from(
    [
        b"-----BEGIN ",
        b"-----BEGIN CERTIFICATE-----",
        b"-----END CERTIFICATE-----\n",
        b"-----",
        b"\r\n",
        b"\n",
        b"\x00",
        b"# BEGIN ca-shim (managed)\n",
        b"# END ca-shim\n",
        b"see # END ca-shim\n",
        b"# sha256=" + A.sha256.encode() + b"\n",
    ]
)
texts = mutated(st.lists(blocks | odd_lines | st.binary(max_size=20), max_size=6).map(b"".join))
contents = texts | ders


@EXAMPLES
@given(st.lists(contents, max_size=4))
def test_intake_ends_with_certificates_that_can_be_written_or_with_a_reason(files: list[bytes]) -> None:
    named = [(f"/custom-certs/{number}", content) for number, content in enumerate(files)]
    parsed = certs.parse(named)
    again = certs.parse([("/again", each.pem) for each in parsed.certificates])

    assert parsed.complete
    assert len({each.sha256 for each in parsed.certificates}) == len(parsed.certificates)
    assert [each.pem for each in again.certificates] == [each.pem for each in parsed.certificates]
    assert all(len(each.subject) <= certs.MAX_SUBJECT for each in parsed.certificates)
    assert all(dict(note.details)["reason"] and dict(note.details)["remedy"] for note in parsed.notes)
    assert {each.file for each in parsed.certificates} | {dict(note.details)["file"] for note in parsed.notes} == {
        path for path, content in named if not _says_nothing(path, content, parsed)
    }
    certs.judge(parsed.certificates, NOW, tuple(files))


def _says_nothing(path: str, content: bytes, parsed: certs.Parsed) -> bool:
    """Every file gives a certificate or a reason, unless another gave the same certificates before."""
    alone = certs.parse([(path, content)])
    have = {each.sha256 for each in parsed.certificates if each.file != path}
    return not alone.notes and {each.sha256 for each in alone.certificates} <= have


@EXAMPLES
@given(contents, st.lists(contents, max_size=2))
def test_a_good_file_is_used_whatever_lies_beside_it(good_end: bytes, files: list[bytes]) -> None:
    named = [("/1", good_end), *(("/2", content) for content in files), ("/3", A.pem + B.pem), ("/4", C.der)]

    assert {each.sha256 for each in certs.parse(named).certificates} >= GOOD


@EXAMPLES
@given(contents, st.lists(st.sampled_from([A, B, C]), unique_by=lambda each: each.sha256))
def test_a_bundle_gets_and_loses_our_block_and_is_as_before(content: bytes, issued: list[Issued]) -> None:
    assume(bundle.looks_whole(content) and not bundle.split(content)[1])
    wanted = tuple(each.parsed.item for each in issued)
    joined = bundle.join(content, wanted)
    outside, block = bundle.split(joined)

    assert outside == content
    assert bundle.fingerprints(block) == {item.sha256 for item in wanted}
    assert bundle.join(outside, wanted) == joined


@EXAMPLES
@given(contents)
def test_what_is_read_of_a_bundle_is_the_same_when_it_is_read_again(content: bytes) -> None:
    items = bundle.items(content)
    again = bundle.items(b"".join(item.pem for item in items))
    bundle.marked(content)
    bundle.origin_of(content)

    assert sorted(item.pem for item in again) == sorted(item.pem for item in items)


programs = mutated(
    st.builds(
        lambda head, words: b"#!" + head + b" ".join(words) + b"\nexec python3 x\n",
        st.sampled_from([b"", b" ", b"/usr/bin/env ", b"/usr/bin/env -S ", b"\0"]),
        st.lists(
            st.sampled_from([b"/bin/sh", b"python3", b"/opt/\xff/python3", b"../..", b"-u", b"a" * 300]), max_size=3
        ),
    )
) | st.binary(max_size=300)


@EXAMPLES
@given(programs, st.sampled_from(["", "/bin:", ".", "/bin/\0:/x"]))
def test_no_program_stops_the_search_for_its_certifi(tmp_path: Path, program: bytes, path: str) -> None:
    (tmp_path / "program").write_bytes(program)
    (tmp_path / "program").chmod(0o755)

    assert interpreters.certifi_bundles(str(tmp_path), {"PATH": path}, ["/program", "x"]) == {}
