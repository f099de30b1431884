"""Throwaway certificates as values: nothing is written anywhere."""

from __future__ import annotations

import base64
import datetime as dt
import textwrap
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shim import bundle, certs

if TYPE_CHECKING:
    from collections.abc import Sequence

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

NOW = dt.datetime(2027, 6, 1, tzinfo=dt.UTC).timestamp()
DAY = 24 * 3600
CLIENT_AUTH = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER_AUTH = ExtendedKeyUsageOID.SERVER_AUTH
ANY_USAGE = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE
_PAST, _FUTURE = -3000, 6000  # days from NOW; the clock of the machine is in between
# The trailer of a TRUSTED CERTIFICATE: trusted for serverAuth.
TRUST_SETTINGS = bytes.fromhex("300c300a06082b06010505070301")


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
        """The private key as PEM."""
        plain = serialization.NoEncryption()
        return self.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)

    @property
    def key_der(self) -> bytes:
        """The private key as DER."""
        plain = serialization.NoEncryption()
        return self.key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, plain)

    @property
    def item(self) -> bundle.Item:
        """The certificate as a bundle takes it."""
        return bundle.Item(self.sha256, self.pem)

    @property
    def parsed(self) -> certs.Certificate:
        """The certificate as the shim describes it."""
        return certs.parse((("/custom-certs/ca.pem", self.pem),)).certificates[0]


@cache
def _common_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def issue(  # noqa: PLR0913 - everything that can be odd about a certificate
    name: str | x509.Name = "Test CA",
    *,
    issuer: Issued | None = None,
    ca: bool | None = True,
    critical: bool = True,
    usage: Sequence[x509.ObjectIdentifier] = (),
    begins: float = _PAST,
    ends: float = _FUTURE,
    key: Key | None = None,
) -> Issued:
    """Give a root CA unless told otherwise; `begins` and `ends` are days from NOW."""
    key = key or _common_key()
    subject = name if isinstance(name, x509.Name) else named(name)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_instant(begins))
        .not_valid_after(_instant(ends))
    )
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=critical)
    if usage:
        builder = builder.add_extension(x509.ExtendedKeyUsage(list(usage)), critical=False)
    return Issued(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)


def named(common_name: str) -> x509.Name:
    """Give a name with that common name alone."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _instant(days: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(NOW, dt.UTC) + dt.timedelta(days=days)


@cache
def root(name: str = "Test CA") -> Issued:
    """Give the root CA of that name, always the same."""
    return issue(name)


@cache
def intermediate(name: str = "Test intermediate", of: str = "Test CA") -> Issued:
    """Give a CA below a root, always the same."""
    return issue(name, issuer=root(of))


@cache
def leaf(name: str = "leaf.test", of: str = "Test CA") -> Issued:
    """Give a server's certificate, always the same."""
    return issue(name, issuer=root(of), ca=False, usage=[SERVER_AUTH])


def pems(*issued: Issued) -> bytes:
    """Give a bundle of these."""
    return b"".join(each.pem for each in issued)


def armour(label: str, der: bytes) -> bytes:
    """Write DER as a PEM block of any label."""
    lines = textwrap.wrap(base64.b64encode(der).decode(), 64)
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""]).encode()


# No builder makes one any more: `openssl x509 -req` without extensions, valid from November 2026 until 2051.
VERSION_1 = b"""\
-----BEGIN CERTIFICATE-----
MIIBMDCB1wIUIMtgGXkoAQpeaz1zPAbXNYG23+swCgYIKoZIzj0EAwIwGjEYMBYG
A1UEAwwPVGVzdCBDQSBvZiAxOTg4MCAXDTI2MTEyMjAyMTExNFoYDzIwNTEwNzE0
MDIxMTE0WjAaMRgwFgYDVQQDDA9UZXN0IENBIG9mIDE5ODgwWTATBgcqhkjOPQIB
BggqhkjOPQMBBwNCAARHAuqo+JvemKN2Hwv9pwrI93O90asuarzh6CF8PmH5Ghn7
uhGFkTXdWVHghoEiu92YpOeX8qD4IZ9qCVwfXkiRMAoGCCqGSM49BAMCA0gAMEUC
IBRchxiEoLIrn265xqh3CK0IXYEj9XnYetwjtkrQX9V0AiEAy7RDj2tVnGBc4j+P
faVO/lx0c70MgT6p3oPKGW8urtc=
-----END CERTIFICATE-----
"""
