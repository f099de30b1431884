"""What 64 MiB of mounted bytes can be at worst: one directory for each idea, made where it is asked for."""

from __future__ import annotations

import datetime as dt
import itertools
import warnings
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from shim import bundle
from tests.certificates import named, root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SIZE = 64 * 1024 * 1024 - 4096
_BEGINS, _ENDS = dt.datetime(2020, 1, 1, tzinfo=dt.UTC), dt.datetime(2049, 1, 1, tzinfo=dt.UTC)
_SERIAL = 16  # bytes
_BEGIN, _END = b"-----BEGIN CERTIFICATE-----\n", b"-----END CERTIFICATE-----\n"

Files = dict[str, bytes]


def prepare(directory: Path) -> tuple[str, ...]:
    """Make every directory that is missing; returns their names."""
    for name, make in _IDEAS.items():
        if not (directory / name).exists():
            (directory / f"{name}.new").mkdir(parents=True, exist_ok=True)
            for file, content in make().items():
                (directory / f"{name}.new" / file).write_bytes(content)
            (directory / f"{name}.new").rename(directory / name)
    return tuple(_IDEAS)


def _filled(piece: bytes, size: int = SIZE) -> bytes:
    return piece * (size // len(piece))


def _variants(der: bytes) -> Iterator[bytes]:
    """A certificate again and again with another serial number; nobody checks the signature of an anchor."""
    serial = x509.load_der_x509_certificate(der).serial_number.to_bytes(_SERIAL, "big")
    before, after = der.split(serial, 1)
    return (before + (1 << 120 | number).to_bytes(_SERIAL, "big") + after for number in itertools.count())


def _certificate(subject: x509.Name | None = None, *extensions: x509.ExtensionType) -> bytes:
    key, name = root().key, subject or named("x")
    builder = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
        .serial_number(1 << 120)
        .not_valid_before(_BEGINS)
        .not_valid_after(_ENDS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def _many(pieces: Iterator[bytes], size: int = SIZE) -> bytes:
    found, total = [], 0
    for piece in pieces:
        total += len(piece)
        if total > size:
            break
        found.append(piece)
    return b"".join(found)


def _cas(subject: x509.Name | None = None, *extensions: x509.ExtensionType) -> Callable[[], Files]:
    return lambda: {"cas.pem": _many(map(bundle.to_pem, _variants(_certificate(subject, *extensions))))}


def _pkcs7(count: int, first: int = 0) -> bytes:
    """A PKCS#7 of so many certificates, put together by hand: the library would take minutes."""
    certificates = b"".join(itertools.islice(_variants(_certificate()), first, first + count))
    data = _element(0x30, bytes.fromhex("06092a864886f70d010701"))
    inner = b"\x02\x01\x01" + _element(0x31, b"") + data + _element(0xA0, certificates) + _element(0x31, b"")
    return _element(0x30, bytes.fromhex("06092a864886f70d010702") + _element(0xA0, _element(0x30, inner)))


def _element(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def _pkcs7_pieces() -> Files:
    each = len(_certificate())
    count = 770_000 // each
    return {f"{number:02}.p7b": bundle.to_pem(_pkcs7(count, number * count), b"PKCS7") for number in range(60)}


def _crls() -> bytes:
    builder = x509.CertificateRevocationListBuilder(issuer_name=named("x")).last_update(_BEGINS).next_update(_ENDS)
    der = builder.sign(root().key, hashes.SHA256()).public_bytes(Encoding.DER)
    return _filled(bundle.to_pem(der, b"X509 CRL")) + root().pem


def _wide(size: int) -> x509.Name:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is longer than the standard allows
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x" * size, _validate=False)])


def _deep(count: int) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "u") for _ in range(count)])


def _alternatives(count: int) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.DNSName("a.b")] * count)


_IDEAS: dict[str, Callable[[], Files]] = {
    "one block of blanks": lambda: {"x.pem": _BEGIN + _filled(b"AA ") + _END + root().pem},
    "blocks of blanks": lambda: {"x.pem": _filled(_BEGIN + _filled(b"AA ", 1_000_000) + _END)},
    "broken blocks": lambda: {"x.pem": _filled(_BEGIN + b"A\n" + _END)},
    "begins": lambda: {"x.pem": _filled(b"-----BEGIN ")},
    "begins of certificates": lambda: {"x.pem": _filled(_BEGIN[:-1])},
    "dashes": lambda: {"x.pem": _filled(b"-") + b"-----BEGIN "},
    "half begins": lambda: {"x.pem": _filled(b"-----BEGIN-----BEGIN-----END-") + b"-----BEGIN "},
    "no ends": lambda: {"x.pem": _filled(_BEGIN + _filled(b"-----END", 900_000))},
    "truncated certificates": lambda: {"x.pem": _many(bundle.to_pem(each[:-40]) for each in _variants(_certificate()))},
    "tiny elements": lambda: {
        "x.pem": _many(bundle.to_pem(b"\x30\x04" + n.to_bytes(4, "big")) for n in itertools.count())
    },
    "keys": lambda: {"x.pem": _filled(root().key_pem)},
    "tiny lines": lambda: {"x.pem": _filled(b"\n") + root().pem},
    "tiny CRLF lines": lambda: {"x.pem": _filled(b"\r\n") + root().pem},
    "CRLs": lambda: {"x.pem": _crls()},
    "PKCS#7": lambda: {"x.p7b": _pkcs7((SIZE - 200) // len(_certificate()))},
    "PKCS#7 in PEM": lambda: {"x.p7b": bundle.to_pem(_pkcs7(SIZE * 47 // 65 // len(_certificate())), b"PKCS7")},
    "PKCS#7 in pieces": _pkcs7_pieces,
    "smallest CAs": _cas(),
    "CAs of 3 kB": _cas(_wide(1000)),
    "CAs of a megabyte": _cas(_wide(370_000)),
    "CAs of many names": _cas(_deep(18_000)),
    "CAs with many alternatives": _cas(None, _alternatives(150_000)),
    "20,000 small files": lambda: {f"{number:05}": b"x%d" % number for number in range(19_998)},
    "20,000 small PEM files": lambda: {f"{n:05}": _BEGIN + b"A%d\n" % n + _END for n in range(19_998)},
    "DER of a megabyte": lambda: {
        f"{n:02}.der": der for n, der in enumerate(itertools.islice(_variants(_certificate(_wide(380_000))), 60))
    },
    "bytes": lambda: {"x": _filled(b"\x30\x80")},
}
