"""Bytes to certificates: every block walked, every certificate parsed and re-encoded. Pure."""

from __future__ import annotations

import re
import warnings
from binascii import a2b_base64
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from shim import bundle
from shim.record import Note

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_CERTIFICATES = 20_000
MAX_NOTES = 1000
DAY = 24 * 3600
_SOON = 30 * DAY
_MAX_LABEL = 80  # bytes
# A stranger's 64 MiB of broken blocks must neither flood the log nor hold up the start.
_MAX_NOTES_OF_FILE = 20
_MAX_REFUSALS = 2000
_REMEDY = "export the certificate again as PEM and mount that file"
_CERTIFICATE_LABELS = (b"CERTIFICATE", b"X509 CERTIFICATE", b"TRUSTED CERTIFICATE")
_PKCS7_LABELS = (b"PKCS7", b"PKCS #7 SIGNED DATA", b"CMS")
# How a file that holds no certificate usually came about.
_FORMATS = (
    (b"\xfe\xed\xfe\xed", "it is a Java key store"),
    (b"\xff\xfe", "it is UTF-16 text"),
    (b"\xfe\xff", "it is UTF-16 text"),
)


_Kind = TypeVar("_Kind", bound=x509.ExtensionType)


class Certificate(NamedTuple):
    """A parsed certificate; times are seconds since the epoch, `traits` are what stores and clients object to."""

    sha256: str
    pem: bytes
    subject: str
    issuer_id: bytes
    subject_id: bytes
    not_before: int
    not_after: int
    traits: frozenset[str]
    file: str

    @property
    def slug(self) -> str:
        """A short name for files, made of the subject's common name."""
        name = self.subject.rpartition("CN=")[2].partition(",")[0]
        return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "ca"

    @property
    def item(self) -> bundle.Item:
        """The certificate as a bundle takes it."""
        return bundle.Item(self.sha256, self.pem, bundle.comment_on(self.sha256, self.subject))

    def details(self, **more: object) -> tuple[tuple[str, object], ...]:
        """What a log line says of it."""
        known = {"subject": self.subject, "sha256": self.sha256, "not_after": timestamp(self.not_after)}
        return tuple({**known, "file": self.file, **more}.items())


class Parsed(NamedTuple):
    """What the mounted files come to: each certificate once, and what was refused."""

    certificates: tuple[Certificate, ...]
    notes: tuple[Note, ...]


class Judged(NamedTuple):
    """The verdicts: what is to be trusted, what to tell, and the instant from which that may be different."""

    accepted: tuple[Certificate, ...]
    notes: tuple[Note, ...]
    until: int


class _RefusedError(ValueError):
    """A block cannot be used; the message is the reason."""


def parse(files: tuple[tuple[str, bytes], ...]) -> Parsed:
    """Find every certificate in (path, content) pairs, whatever the files are named; none raises, all are reported."""
    found: dict[str, Certificate] = {}
    notes: list[Note] = []
    with _without_warnings():
        for path, content in files:
            certificates, refusals = _parse_file(path, content)
            notes += refusals
            for certificate in certificates:
                found.setdefault(certificate.sha256, certificate)
            if len(found) > MAX_CERTIFICATES or len(notes) > MAX_NOTES:
                break
    if len(found) > MAX_CERTIFICATES or len(notes) > MAX_NOTES:
        reason = f"more than {MAX_CERTIFICATES} certificates or {MAX_NOTES} refusals: the rest was not read"
        notes.append(_note("source.limit", "", reason=reason, remedy="mount only the CAs that you need", code=65))
    return Parsed(tuple(found.values())[:MAX_CERTIFICATES], tuple(notes))


def _parse_file(path: str, content: bytes) -> tuple[list[Certificate], list[Note]]:
    text = content.replace(b"\r\n", b"\n")
    if b"-----BEGIN " in text:
        return _parse_pem(path, text)
    try:
        return _parse_der(path, content), []
    except _RefusedError as reason:
        return [], [_note("file.refused", path, reason=str(reason), remedy=_REMEDY)]


def _parse_pem(path: str, text: bytes) -> tuple[list[Certificate], list[Note]]:
    certificates: dict[bytes, list[Certificate]] = {}  # by the block's bytes: a repeated block is parsed once
    notes: list[Note] = []
    keys = refused = 0
    blocks = text.split(b"-----BEGIN ")[1:]
    for number, block in enumerate(blocks, start=1):
        label = block.partition(b"-----")[0].strip()
        keys += b"PRIVATE KEY" in label[:_MAX_LABEL]
        if label in _CERTIFICATE_LABELS + _PKCS7_LABELS and block not in certificates:
            try:
                certificates[block] = _parse_block(path, label, block)
            except _RefusedError as reason:
                refused += 1
                details = {"block": number, "reason": str(reason), "remedy": _REMEDY}
                notes += [_note("block.refused", path, code=65, **details)] if refused <= _MAX_NOTES_OF_FILE else []
        if len(certificates) > MAX_CERTIFICATES or refused >= _MAX_REFUSALS:
            break
    if refused > _MAX_NOTES_OF_FILE:
        why = f"{refused - _MAX_NOTES_OF_FILE} further blocks cannot be used, of {number} looked at"
        notes.append(_note("file.refused", path, reason=why, remedy=_REMEDY))
    if keys:
        remedy = "it was not copied; keep keys out of this mount"
        notes.append(_note("key.ignored", path, reason="the file holds a private key", remedy=remedy))
    if not certificates and not notes:
        notes.append(
            _note("file.refused", path, reason=f"no certificate among {len(blocks)} PEM blocks", remedy=_REMEDY)
        )
    return [each for found in certificates.values() for each in found], notes


def _parse_block(path: str, label: bytes, block: bytes) -> list[Certificate]:
    body, found, end = block.partition(b"-----")[2].partition(b"-----END ")
    if not found:
        raise _RefusedError("the block has no END line: the file is truncated")
    if end[: len(label) + 5] != label + b"-----":
        raise _RefusedError("the END line does not match the BEGIN line")
    der = _base64(body)
    if label in _PKCS7_LABELS:
        return _from_pkcs7(path, der)
    return [_certificate(path, bundle.first_element(der) if label.startswith(b"TRUSTED") else der)]


def _base64(body: bytes) -> bytes:
    compact = b"".join(body.split())
    if not re.fullmatch(rb"[A-Za-z0-9+/]+={0,2}", compact):
        raise _RefusedError("the block is not base64")
    try:
        return a2b_base64(compact)
    except ValueError:
        raise _RefusedError("the block is not base64") from None


def _parse_der(path: str, content: bytes) -> list[Certificate]:
    if not content.strip():
        raise _RefusedError("the file is empty")
    for magic, what in _FORMATS:
        if content.startswith(magic):
            raise _RefusedError(f"no certificate: {what}")
    if not content.startswith(b"\x30"):
        raise _RefusedError("no certificate: it is neither PEM nor DER")
    try:
        return [_certificate(path, content)]
    except _RefusedError:
        return _from_pkcs7(path, content)


def _from_pkcs7(path: str, der: bytes) -> list[Certificate]:
    from cryptography.hazmat.primitives.serialization import pkcs7

    try:
        contained = pkcs7.load_der_pkcs7_certificates(der)
    except Exception as error:
        raise _RefusedError("DER that is neither a certificate nor PKCS#7 (a key, or a PKCS#12 store?)") from error
    if not contained:
        raise _RefusedError("PKCS#7 without any certificate")
    return [_certificate(path, each.public_bytes(serialization.Encoding.DER)) for each in contained]


def _certificate(path: str, der: bytes) -> Certificate:
    try:
        return _describe(path, x509.load_der_x509_certificate(der))
    except _RefusedError:
        raise
    except Exception as error:
        raise _RefusedError("no certificate that can be parsed: it is damaged, or something else") from error


def _describe(path: str, parsed: x509.Certificate) -> Certificate:
    der = parsed.public_bytes(serialization.Encoding.DER)
    if "-----" in parsed.subject.rfc4514_string():
        raise _RefusedError("its subject looks like PEM, and would break the bundles of tools that print it beside")
    return Certificate(
        sha256=bundle.sha256(der),
        pem=bundle.to_pem(der),
        subject=parsed.subject.rfc4514_string() or "(empty subject)",
        issuer_id=parsed.issuer.public_bytes(),
        subject_id=parsed.subject.public_bytes(),
        not_before=int(parsed.not_valid_before_utc.timestamp()),
        not_after=int(parsed.not_valid_after_utc.timestamp()),
        traits=frozenset(_traits(parsed)),
        file=path,
    )


def _traits(parsed: x509.Certificate) -> set[str]:
    traits = _key_traits(parsed)
    if parsed.issuer != parsed.subject:
        traits.add("issued-by-another")
    if parsed.version is x509.Version.v1:
        return traits | {"v1"}
    basic = _extension(parsed, x509.BasicConstraints)
    if basic is None:
        traits.add("no-basic-constraints")
    elif not basic.value.ca:
        traits.add("not-ca")
    elif not basic.critical:
        traits.add("not-critical")
    usage = _extension(parsed, x509.ExtendedKeyUsage)
    if usage is not None and not {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & {
        *usage.value
    }:
        traits.add("no-server-auth")
    return traits


def _extension(parsed: x509.Certificate, kind: type[_Kind]) -> x509.Extension[_Kind] | None:
    try:
        return parsed.extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return None


def _key_traits(parsed: x509.Certificate) -> set[str]:
    try:
        key = parsed.public_key()
    except Exception:  # noqa: BLE001 - an algorithm that our OpenSSL does not know: the load test decides
        return set()
    small = (isinstance(key, rsa.RSAPublicKey) and key.key_size < 2048) or (  # noqa: PLR2004 - bits, SP 800-131A
        isinstance(key, ec.EllipticCurvePublicKey) and key.curve.key_size < 224  # noqa: PLR2004 - bits
    )
    return {"weak-key"} if small else set()


@contextmanager
def _without_warnings() -> Iterator[None]:
    """What the parser warns of, old serial numbers among it, would be lines on stderr that are not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def subjects(*bundles: bytes) -> frozenset[bytes]:
    """Give the encoded subjects of all certificates in bundles, of those that parse."""
    found = set()
    with _without_warnings():
        for item in {item for content in bundles for item in bundle.items(content)}:
            try:
                found.add(x509.load_pem_x509_certificate(item.pem).subject.public_bytes())
            except Exception:  # noqa: BLE001, S112 - somebody else's bundle: what does not parse is nobody's issuer
                continue
    return frozenset(found)


_WARNINGS = (
    ("not-ca", "it is no CA: p11-kit (the RHEL family's store) leaves it out", "use a CA certificate"),
    ("not-critical", "its basicConstraints are not critical: Python 3.13 and newer refuse it", "have it reissued"),
    ("no-basic-constraints", "it has no basicConstraints: p11-kit and newer clients refuse it", "have it reissued"),
    ("no-server-auth", "its extended key usage has no serverAuth: most clients refuse it", "have it reissued"),
    ("weak-key", "its key is weak: newer clients refuse it", "have it reissued with a longer key"),
)


def judge(certificates: tuple[Certificate, ...], now: float, base: tuple[bytes, ...]) -> Judged:
    """Decide which certificates to trust; `base` are the bundles in which issuers may be found besides."""
    accepted, notes = [], []
    for certificate in certificates:
        skip = _why_skip(certificate, now)
        if skip:
            notes.append(Note("certificate.skipped", certificate.details(reason=skip[0], remedy=skip[1])))
        else:
            accepted.append(certificate)
    for certificate, reason, remedy in _warnings(tuple(accepted), now, base):
        notes.append(Note("certificate.warning", certificate.details(reason=reason, remedy=remedy)))
    return Judged(tuple(accepted), tuple(notes), _until(certificates, now, warned=len(notes) > 0))


def _why_skip(certificate: Certificate, now: float) -> tuple[str, str] | None:
    if certificate.not_after < now:
        return "it has expired", "mount its successor"
    if "issued-by-another" in certificate.traits and certificate.traits & {"not-ca", "no-basic-constraints"}:
        return "it is a leaf, no CA", "nothing to do if its CA is mounted too"
    return None


def _warnings(
    accepted: tuple[Certificate, ...], now: float, base: tuple[bytes, ...]
) -> list[tuple[Certificate, str, str]]:
    found = []
    for each in accepted:
        if each.not_before > now:
            found.append((each, f"it is not valid before {timestamp(each.not_before)}", "check the clock, or wait"))
        if each.not_after < now + _SOON:
            found.append((each, f"it expires at {timestamp(each.not_after)}", "mount its successor beside it"))
        found += [(each, reason, remedy) for trait, reason, remedy in _WARNINGS if trait in each.traits]
    known = {each.subject_id for each in accepted}
    orphans = [each for each in accepted if "issued-by-another" in each.traits and each.issuer_id not in known]
    known |= subjects(*base) if orphans else set()
    reason = "its issuer is not trusted here: OpenSSL, requests and Python up to 3.12 refuse an intermediate alone"
    return found + [(each, reason, "mount its root beside it") for each in orphans if each.issuer_id not in known]


def _until(certificates: tuple[Certificate, ...], now: float, *, warned: bool) -> int:
    """Give the instant up to which the verdicts hold: the next date of any of them, a day while one is warned of."""
    dates = [date for each in certificates for date in (each.not_before, each.not_after - _SOON, each.not_after)]
    horizon = [now + DAY] if warned else []
    return int(min([date for date in dates if date > now] + horizon, default=now + 365 * DAY))


def timestamp(seconds: float) -> str:
    """Write an instant as RFC 3339 in UTC."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _note(event: str, path: str, *, code: int = 0, **details: object) -> Note:
    return Note(event, (("file", path), *details.items()) if path else tuple(details.items()), code)
