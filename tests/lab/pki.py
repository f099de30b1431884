"""Throwaway keys and certificates, in a directory of their own below `.cache/pki`.

ca-a.pem         root of the registry and, through int-a.pem, of the HTTPS server
ca-b.pem         another root: whoever does not trust it must refuse its servers
ca-c.pem         a root that signs nothing, for what is only added and withdrawn
servers/         what the servers mount
odd/             files as users mount them; each is named after what is odd about it
hostile/         what would break a store, were it written as it is
odd.json         of those that are good: the fingerprints of what is in them
many-N/          N roots, made when first asked for
"""

from __future__ import annotations

import base64
import datetime as dt
import functools
import json
import os
import shutil
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs7, pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .places import CACHE, digest

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
_NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
_DAY = dt.timedelta(days=1)
_PAST, _YEARS = _NOW - 2 * _DAY, _NOW + 3650 * _DAY
_HOSTS = ("registry.lab.test", "https.lab.test", "localhost")
# The trailer of a TRUSTED CERTIFICATE: trusted for serverAuth.
_TRUST_SETTINGS = bytes.fromhex("300c300a06082b06010505070301")


@dataclass(frozen=True)
class Issued:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: Key

    @property
    def pem(self) -> bytes:
        """The certificate as PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def der(self) -> bytes:
        """The certificate as DER."""
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def sha256(self) -> str:
        """The fingerprint."""
        return self.certificate.fingerprint(hashes.SHA256()).hex()

    @property
    def key_pem(self) -> bytes:
        """The private key as unencrypted PEM."""
        plain = serialization.NoEncryption()
        return self.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)


@dataclass(frozen=True)
class Wish:
    """What a certificate shall say; a root CA unless told otherwise."""

    subject: str
    issuer: Issued | None = None
    ca: bool | None = True
    critical: bool = True
    usage: tuple[x509.ObjectIdentifier, ...] = ()
    hosts: tuple[str, ...] = ()
    begins: dt.datetime = _PAST
    ends: dt.datetime = _YEARS
    key: Key = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))


def issue(wish: Wish) -> Issued:
    """The certificate as wished, signed by its issuer or by itself."""
    subject = x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Lab"), x509.NameAttribute(NameOID.COMMON_NAME, wish.subject)]
    )
    signer = wish.issuer.key if wish.issuer else wish.key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(wish.issuer.certificate.subject if wish.issuer else subject)
        .public_key(wish.key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(wish.begins)
        .not_valid_after(wish.ends)
    )
    for extension, critical in _extensions(wish, signer):
        builder = builder.add_extension(extension, critical=critical)
    return Issued(builder.sign(signer, hashes.SHA256()), wish.key)


CAs = tuple[Issued, ...]
Writer = Callable[[CAs], bytes]


@functools.cache
def prepare() -> Path:
    """The directory with everything but the many; made anew each day, since some dates are near."""
    directory = CACHE / "pki" / f"{digest(Path(__file__))}-{_NOW:%Y%m%d}"
    if not directory.exists():
        partial = directory.with_suffix(f".{os.getpid()}")
        _write_all(partial)
        try:
            partial.rename(directory)
        except OSError:  # somebody else was quicker
            shutil.rmtree(partial)
    return directory


@functools.cache
def many(count: int) -> Path:
    """The directory of so many other roots, one a file, all with one key."""
    directory = prepare() / f"many-{count}"
    if not directory.exists():
        partial = directory.with_suffix(f".{os.getpid()}")
        key = ec.generate_private_key(ec.SECP256R1())
        names = (f"Many CA {number:05d}" for number in range(count))
        _write(partial, {f"{name.lower().replace(' ', '-')}.pem": issue(Wish(name, key=key)).pem for name in names})
        partial.rename(directory)
    return directory


def _extensions(wish: Wish, signer: Key) -> Iterable[tuple[x509.ExtensionType, bool]]:
    yield x509.SubjectKeyIdentifier.from_public_key(wish.key.public_key()), False
    # Python 3.13 asks for it.
    yield x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False
    if wish.ca is not None:
        yield x509.BasicConstraints(ca=wish.ca, path_length=None), wish.critical
    if wish.ca:
        yield _key_usage(signs_certificates=True), True
    if wish.usage:
        yield x509.ExtendedKeyUsage(wish.usage), False
    if wish.hosts:
        yield x509.SubjectAlternativeName([x509.DNSName(host) for host in wish.hosts]), False


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _write_all(directory: Path) -> None:
    ca_a, ca_b, ca_c = (issue(Wish(f"Lab Root CA {letter}")) for letter in "ABC")
    int_a = issue(Wish("Lab Intermediate A1", issuer=ca_a))
    roots = {"ca-a.pem": ca_a.pem, "ca-b.pem": ca_b.pem, "ca-c.pem": ca_c.pem, "int-a.pem": int_a.pem}
    _write(directory, roots)
    _write(directory / "servers", _servers(ca_a, ca_b, int_a))
    # p11-kit writes subjects into comments as they are.
    _write(directory / "hostile", {"subject-begins-a-block.pem": issue(Wish("L\n-----BEGIN CERTIFICATE-----\nA")).pem})
    files, contents = _encodings()
    _write(directory, {"odd.json": json.dumps(contents).encode()})
    _write(directory / "odd", {**files, **_mistakes(ca_b, int_a), **_verdicts()})


def _servers(ca_a: Issued, ca_b: Issued, int_a: Issued) -> dict[str, bytes]:
    def server(host: str, issuer: Issued | None) -> Issued:
        usage = (ExtendedKeyUsageOID.SERVER_AUTH,)
        return issue(Wish(host, issuer=issuer, ca=False, usage=usage, hosts=_HOSTS, ends=_NOW + 800 * _DAY))

    https_a, https_b = server("https.lab.test", int_a), server("https.lab.test", ca_b)
    alone = server("https.lab.test", None)
    registry_a, registry_b = server("registry.lab.test", ca_a), server("registry.lab.test", ca_b)
    named = {"registry-a": registry_a, "registry-b": registry_b, "https-b": https_b, "self-signed": alone}
    files = {f"{name}.{kind}": data for name, one in named.items() for kind, data in _pair(one).items()}
    files |= {f"https-a.{kind}": data for kind, data in _pair(https_a, int_a).items()}
    return files | {f"https-a-without-intermediate.{kind}": data for kind, data in _pair(https_a).items()}


def _pair(one: Issued, *chain: Issued) -> dict[str, bytes]:
    return {"pem": b"".join(link.pem for link in (one, *chain)), "key": one.key_pem}


def _encodings() -> tuple[dict[str, bytes], dict[str, list[str]]]:
    """Files that are as good as plain PEM, and what is in each: a CA of its own, so one run tells of every file."""
    cas = {
        name: tuple(issue(Wish(f"Lab {name} {number}")) for number in range(count))
        for name, (count, _) in _WRITERS.items()
    }
    files = {name: write(cas[name]) for name, (_, write) in _WRITERS.items()}
    return files, {name: [ca.sha256 for ca in some] for name, some in cas.items()}


def _plain(cas: CAs) -> bytes:
    return b"".join(ca.pem for ca in cas)


def _pkcs7(encoding: serialization.Encoding) -> Writer:
    return lambda cas: pkcs7.serialize_certificates([ca.certificate for ca in cas], encoding)


# The file's name, how many CAs are in it, and how it is written.
_WRITERS: dict[str, tuple[int, Writer]] = {
    "plain.pem": (1, _plain),
    "no-final-newline.pem": (1, lambda cas: _plain(cas).rstrip(b"\n")),
    "crlf.pem": (2, lambda cas: _plain(cas).replace(b"\n", b"\r\n")),
    "byte-order-mark.pem": (1, lambda cas: b"\xef\xbb\xbf" + _plain(cas)),
    "indented.pem": (1, lambda cas: textwrap.indent(_plain(cas).decode(), "    ").encode()),
    "with-text.pem": (1, lambda cas: _text(cas[0]) + _plain(cas)),
    "with-non-ascii-comment.pem": (1, lambda cas: "# Főtanúsítvány\n".encode() + _plain(cas)),
    "three.pem": (3, _plain),
    "twice.pem": (1, lambda cas: _plain(cas) * 2),
    "x509-certificate.pem": (1, lambda cas: _plain(cas).replace(b"CERTIFICATE", b"X509 CERTIFICATE")),
    "trusted-certificate.pem": (1, lambda cas: _armour("TRUSTED CERTIFICATE", cas[0].der + _TRUST_SETTINGS)),
    "der.der": (1, lambda cas: cas[0].der),
    "der-named-as-pem.pem": (1, lambda cas: cas[0].der),
    "pem-without-suffix": (1, _plain),
    "pkcs7.pem": (2, _pkcs7(serialization.Encoding.PEM)),
    "pkcs7.p7b": (2, _pkcs7(serialization.Encoding.DER)),
    "key-and-certificate.pem": (1, lambda cas: cas[0].key_pem + _plain(cas)),
    "broken-block-before-a-good-one.pem": (1, lambda cas: _broken(cas[0]) + _plain(cas)),
}


ENCODINGS = tuple(_WRITERS)


def _broken(one: Issued) -> bytes:
    lines = one.pem.splitlines(keepends=True)
    return b"".join(lines[:4] + lines[6:])


def _mistakes(ca_b: Issued, int_a: Issued) -> dict[str, bytes]:
    """Files in which something is wrong, and no CA is whole."""
    ca = issue(Wish("Lab CA in a mistake"))
    return {
        "not-a-certificate.txt": b"not a certificate\n",
        "empty.pem": b"",
        "truncated-block.pem": b"".join(ca.pem.splitlines(keepends=True)[:5]),
        "broken-block.pem": _broken(ca),
        "no-base64.pem": b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",
        "key-alone.pem": ca.key_pem,
        "leaf.pem": issue(Wish("leaf.lab.test", issuer=ca_b, ca=False, hosts=("leaf.lab.test",))).pem,
        "intermediate-alone.pem": int_a.pem,
        "utf-16.pem": ca.pem.decode().encode("utf-16"),
        "pkcs12.p12": pkcs12.serialize_key_and_certificates(
            None, None, None, [ca.certificate], serialization.BestAvailableEncryption(b"changeit")
        ),
    }


def _verdicts() -> dict[str, bytes]:
    """Roots with something to be said about each."""
    client = (ExtendedKeyUsageOID.CLIENT_AUTH,)
    wishes = {
        "expired": Wish("Lab expired CA", begins=_NOW - 900 * _DAY, ends=_NOW - 100 * _DAY),
        "not-yet-valid": Wish("Lab CA of tomorrow", begins=_NOW + 30 * _DAY),
        "expires-in-10-days": Wish("Lab CA in its last days", ends=_NOW + 10 * _DAY),
        "constraints-not-critical": Wish("Lab CA by the way", critical=False),
        "no-constraints": Wish("Lab CA that does not say so", ca=None),
        "self-issued-leaf": Wish("self.lab.test", ca=False, hosts=("self.lab.test",)),
        "client-auth-only": Wish("Lab CA of clients", usage=client),
        "rsa-1024": Wish("Lab RSA 1024", key=rsa.generate_private_key(65537, 1024)),
        "rsa-2048": Wish("Lab RSA 2048", key=rsa.generate_private_key(65537, 2048)),
        "ec-p256": Wish("Lab EC P-256"),
        "ec-p384": Wish("Lab EC P-384", key=ec.generate_private_key(ec.SECP384R1())),
        "subject-with-newline": Wish("Lab\n# END ca-shim"),
        "subject-with-escapes": Wish("Lab \x1b[31mred\x1b[0m \x07"),
        "subject-non-ascii": Wish("Laboratórium Főtanúsítvány"),
    }
    return {f"{name}.pem": issue(wish).pem for name, wish in wishes.items()} | {"version-1.pem": _version_1()}


def _version_1() -> bytes:
    """A certificate as of 1988, which no builder makes: the version and the extensions are cut out of a newer one."""
    new = issue(Wish("Lab CA of 1988"))
    key = new.key
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError
    parts = [part for part in _elements(_body(new.certificate.tbs_certificate_bytes)) if part[0] not in (0xA0, 0xA3)]
    tbs = _tlv(0x30, b"".join(parts))
    signature = key.sign(tbs, ec.ECDSA(hashes.SHA256()))
    algorithm = _elements(_body(new.der))[1]
    return _armour("CERTIFICATE", _tlv(0x30, tbs + algorithm + _tlv(0x03, b"\0" + signature)))


def _tlv(tag: int, body: bytes) -> bytes:
    size = len(body).to_bytes((len(body).bit_length() + 7) // 8 or 1, "big")
    short = len(body) < 0x80
    return bytes([tag]) + (size if short else bytes([0x80 | len(size)]) + size) + body


def _body(element: bytes) -> bytes:
    length = element[1] & 0x7F if element[1] & 0x80 else 0
    return element[2 + length :]


def _elements(body: bytes) -> list[bytes]:
    found = []
    while body:
        length = body[1] & 0x7F if body[1] & 0x80 else 0
        size = int.from_bytes(body[2 : 2 + length], "big") if length else body[1]
        end = 2 + length + size
        found.append(body[:end])
        body = body[end:]
    return found


def _armour(label: str, der: bytes) -> bytes:
    lines = textwrap.wrap(base64.b64encode(der).decode(), 64)
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""]).encode()


def _text(one: Issued) -> bytes:
    """As `openssl x509 -text` puts it before the block."""
    name = one.certificate.subject.rfc4514_string()
    return (
        "Certificate:\n    Data:\n        Version: 3 (0x2)\n        Serial Number:\n            01:02\n"
        f"        Signature Algorithm: ecdsa-with-SHA256\n        Issuer: {name}\n        Subject: {name}\n"
        "        X509v3 extensions:\n            X509v3 Basic Constraints: critical\n                CA:TRUE\n"
    ).encode()


def _write(directory: Path, files: dict[str, bytes]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (directory / name).write_bytes(data)
