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
from shim.record import Note, Notes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Budgets of all files together: a stranger's 64 MiB must not hold up the start.
MAX_CERTIFICATES = 15_000
MAX_BLOCKS = 100_000
MAX_BYTES = 5 * 1024 * 1024  # of DER that is parsed: thousands of CAs; each byte is held ten times in a start
_LARGE, _WEIGHT = 16 * 1024, 4  # bytes of DER from which a certificate counts four times: names by the thousand
MAX_PARTS = 100_000  # of certificates with unusually many: each costs Python and OpenSSL as much as a small certificate
MAX_BLOCK = 1024 * 1024  # of a block's base64
MAX_DER = MAX_BLOCK // 65 * 48  # what is written must not be too large to be read: 64 columns and a newline
MAX_SUBJECT = 200  # characters; the fingerprint says the rest
DAY = 24 * 3600
_SOON = 30 * DAY
_USUAL_PARTS = 30  # object identifiers in a certificate, roughly
_MAX_LABEL = 80  # bytes
_MAX_NOTES_OF_FILE = 20
_REMEDY = "export the certificate again as PEM and mount that file"
_FEWER = "mount only the CAs that you need"
_CERTIFICATE_LABELS = (b"CERTIFICATE", b"X509 CERTIFICATE", b"TRUSTED CERTIFICATE")
_PKCS7_LABELS = (b"PKCS7", b"PKCS #7 SIGNED DATA", b"CMS")
_BEGIN, _DASHES, _END = b"-----BEGIN ", b"-----", b"-----END "
_BLANKS = b" \t\r\n\v\f"
# From the start of a PKCS#7 to its certificates: the tags on the way, and whether the element is entered or passed.
_TO_CERTIFICATES = (
    (0x30, True),
    (0x06, False),
    (0xA0, True),
    (0x30, True),
    (0x02, False),
    (0x31, False),
    (0x30, False),
    (0xA0, True),
)
_OBJECT_IDENTIFIER = b"\x06"
_LONG = 0x80  # X.690: the top bit of a length says that it has several bytes, or alone that there is none
_MAX_INSIDE = 4
_END_OF_CONTENTS = b"\0\0"
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
    """What the mounted files come to: each certificate once, and what was refused.

    `complete` is False when a limit kept something from being read: what is missing here is not withdrawn.
    """

    certificates: tuple[Certificate, ...]
    notes: tuple[Note, ...]
    complete: bool


class Judged(NamedTuple):
    """The verdicts: what is to be trusted, what to tell, and the instant from which that may be different."""

    accepted: tuple[Certificate, ...]
    notes: tuple[Note, ...]
    until: int


class _RefusedError(ValueError):
    """A block cannot be used; the message is the reason."""


class _TooLargeError(ValueError):
    """A block is over its budget; the message is the reason."""


class _FullError(Exception):
    """All files together are over a budget; the message is the reason."""


class _Tally:
    """What the blocks of one PEM file came to, as far as it was read."""

    def __init__(self) -> None:
        self.blocks = self.refused = 0
        self.keys = self.used = False

    def told(self) -> Iterator[tuple[str, str, str]]:
        """Yield what is to be told of the file as a whole: event, reason and remedy."""
        if self.refused > _MAX_NOTES_OF_FILE:
            further = self.refused - _MAX_NOTES_OF_FILE
            yield "file.refused", f"{further} further blocks cannot be used, of {self.blocks} looked at", _REMEDY
        if self.keys:
            yield "key.ignored", "the file holds a private key", "it was not copied; keep keys out of this mount"
        if self.blocks and not (self.used or self.refused or self.keys):
            yield "file.refused", f"no certificate among {self.blocks} PEM blocks", _REMEDY


def parse(files: Iterable[tuple[str, bytes]]) -> Parsed:
    """Find every certificate in (path, content) pairs, whatever the files are named; none raises, all are reported."""
    parser = _Parser()
    with _without_warnings():
        for path, content in files:
            try:
                parser.read(path, content)
            except _FullError as reason:
                parser.over(path, f"{reason}: the rest was not read")
                break
    return Parsed(tuple(parser.found.values()), parser.notes.all(), parser.complete)


class _Parser:
    """One walk over all files, with the budgets of all together."""

    def __init__(self) -> None:
        self.found: dict[str, Certificate] = {}
        self.notes = Notes()
        self.complete = True
        self._read: set[str] = set()  # fingerprints as they were mounted: what is repeated is parsed once
        self._blocks = 0
        self._bytes = 0
        self._parts = 0

    def over(self, path: str, reason: str, **where: object) -> None:
        """Note that a limit kept something from being read."""
        self.complete = False
        self.notes.add(_note("source.limit", path, **where, reason=reason, remedy=_FEWER, code=65))

    def _refuse(self, path: str, reason: str, **where: int) -> None:
        self.notes.add(_note("block.refused", path, **where, reason=reason, remedy=_REMEDY, code=65))

    def read(self, path: str, content: bytes) -> None:
        """Read one file."""
        if _BEGIN in content:
            self._read_pem(path, content)
            return
        try:
            self._read_der(path, content)
        except _TooLargeError as reason:
            self.over(path, str(reason))
        except _RefusedError as reason:
            self.notes.add(_note("file.refused", path, reason=str(reason), remedy=_REMEDY))

    def _read_pem(self, path: str, text: bytes) -> None:
        tally = _Tally()
        try:
            self._read_blocks(path, text, tally)
        finally:
            for event, reason, remedy in tally.told():
                self.notes.add(_note(event, path, reason=reason, remedy=remedy))

    def _read_blocks(self, path: str, text: bytes, tally: _Tally) -> None:
        start = text.find(_BEGIN)
        while start >= 0:
            start += len(_BEGIN)
            following = text.find(_BEGIN, start)
            label, _, _ = text[start : start + _MAX_LABEL].partition(_DASHES)
            self._count_block()
            tally.keys |= b"PRIVATE KEY" in label
            try:
                tally.used |= self._read_block(path, text, label, start, following if following >= 0 else len(text))
            except _TooLargeError as reason:
                tally.used = True
                self.over(path, str(reason), block=tally.blocks + 1)
            except _RefusedError as reason:
                tally.refused += 1
                if tally.refused <= _MAX_NOTES_OF_FILE:
                    self._refuse(path, str(reason), block=tally.blocks + 1)
            tally.blocks += 1
            start = following

    def _read_block(self, path: str, text: bytes, label: bytes, start: int, stop: int) -> bool:
        """Read one block between two indices; returns whether it is one that may hold certificates."""
        name = label.strip()
        if name not in _CERTIFICATE_LABELS + _PKCS7_LABELS:
            return False
        start += len(label) + len(_DASHES)
        end = text.find(_END, start, stop)
        if end < 0:
            raise _RefusedError("the block has no END line: the file is truncated")
        if not text.startswith(name + _DASHES, end + len(_END)):
            raise _RefusedError("the END line does not match the BEGIN line")
        if end - start > MAX_BLOCK:
            raise _TooLargeError(f"the block has more than {MAX_BLOCK >> 20} MiB")
        der = _base64(text[start:end])
        if name in _PKCS7_LABELS:
            self._read_pkcs7(path, der)
        else:
            self._read_certificate(path, bundle.first_element(der) if name.startswith(b"TRUSTED") else der)
        return True

    def _read_der(self, path: str, content: bytes) -> None:
        if not content or content.isspace():
            raise _RefusedError("the file is empty")
        for magic, what in _FORMATS:
            if content.startswith(magic):
                raise _RefusedError(f"no certificate: {what}")
        if not content.startswith(b"\x30"):
            raise _RefusedError("no certificate: it is neither PEM nor DER")
        _require_size(content)
        try:
            self._read_pkcs7(path, content)
        except _RefusedError as reason:
            try:
                self._read_certificate(path, content)
            except _RefusedError:
                raise reason from None

    def _read_pkcs7(self, path: str, der: bytes) -> None:
        number = 0
        for number, each in enumerate(_certificates_of_pkcs7(der), start=1):
            self._count_block()
            try:
                self._read_certificate(path, each)
            except _RefusedError as reason:
                self._refuse(path, str(reason), certificate=number)
        if not number:
            raise _RefusedError("PKCS#7 without any certificate")

    def _read_certificate(self, path: str, der: bytes) -> None:
        sha256 = bundle.sha256(der)
        if sha256 in self._read:
            return
        self._count(der)
        certificate = _certificate(path, der)
        self._read.add(sha256)
        if len(self.found) >= MAX_CERTIFICATES and certificate.sha256 not in self.found:
            raise _FullError(f"more than {MAX_CERTIFICATES} certificates")
        self.found.setdefault(certificate.sha256, certificate)

    def _count_block(self) -> None:
        self._blocks += 1
        if self._blocks > MAX_BLOCKS:
            raise _FullError(f"more than {MAX_BLOCKS} PEM blocks")

    def _count(self, der: bytes) -> None:
        _require_size(der)
        self._bytes += len(der) * (_WEIGHT if len(der) > _LARGE else 1)
        self._parts += max(0, der.count(_OBJECT_IDENTIFIER) - _USUAL_PARTS)
        if self._bytes > MAX_BYTES:
            raise _FullError(f"more than {MAX_BYTES >> 20} MiB of certificates")
        if self._parts > MAX_PARTS:
            raise _FullError("certificates with too many names in them")


def _require_size(der: bytes) -> None:
    if len(der) > MAX_DER:
        raise _TooLargeError(f"it has more than {MAX_DER} bytes of DER")


def _base64(body: bytes) -> bytes:
    try:
        der = a2b_base64(body.translate(None, _BLANKS), strict_mode=True)
    except ValueError:
        der = b""
    if not der:
        raise _RefusedError("the block is not base64")
    return der


def _certificates_of_pkcs7(der: bytes) -> Iterator[bytes]:
    """Cut a PKCS#7 by hand: the time that cryptography takes grows with the square of the number of certificates.

    BER is understood where it occurs: what surrounds the certificates may be of indefinite length.
    """
    try:
        position, stop = _find_certificates(der)
        while position < stop and not der.startswith(_END_OF_CONTENTS, position):
            position, start = _after(der, position), position
            yield der[start:position]
    except (IndexError, ValueError):
        raise _RefusedError("DER that is neither a certificate nor PKCS#7 (a key, or a PKCS#12 store?)") from None


def _find_certificates(der: bytes) -> tuple[int, int]:
    position, stop = 0, len(der)
    for tag, entered in _TO_CERTIFICATES:
        if der[position] != tag:
            raise ValueError(tag)
        if entered:
            position, end = _content(der, position)
            stop = stop if end is None else end
        else:
            position = _after(der, position)
        if max(position, stop) > len(der):
            raise IndexError(position)
    return position, stop


def _content(der: bytes, position: int) -> tuple[int, int | None]:
    """Return where the content of an element begins and ends; None for one of indefinite length."""
    start, size = position + 2, der[position + 1]
    if size == _LONG:
        return start, None
    if size > _LONG:
        start += size & ~_LONG
        size = int.from_bytes(der[position + 2 : start], "big")
    return start, start + size


def _after(der: bytes, position: int) -> int:
    """Return where the next element begins; one of indefinite length may hold a few elements that are not."""
    start, end = _content(der, position)
    if end is not None:
        return end
    for _ in range(_MAX_INSIDE):
        if der.startswith(_END_OF_CONTENTS, start):
            return start + len(_END_OF_CONTENTS)
        start = _content(der, start)[1] or len(der)
    raise ValueError(position)


def _certificate(path: str, der: bytes) -> Certificate:
    try:
        return _describe(path, x509.load_der_x509_certificate(der))
    except _RefusedError:
        raise
    except Exception as error:
        raise _RefusedError("no certificate that can be parsed: it is damaged, or something else") from error


def _describe(path: str, parsed: x509.Certificate) -> Certificate:
    der = parsed.public_bytes(serialization.Encoding.DER)
    subject = parsed.subject.rfc4514_string()
    if "-----" in subject:
        raise _RefusedError("its subject looks like PEM, and would break the bundles of tools that print it beside")
    subject_id, issuer_id = parsed.subject.public_bytes(), parsed.issuer.public_bytes()
    return Certificate(
        sha256=bundle.sha256(der),
        pem=bundle.to_pem(der),
        subject=_shortened(subject) or "(empty subject)",
        issuer_id=subject_id if issuer_id == subject_id else issuer_id,
        subject_id=subject_id,
        not_before=int(parsed.not_valid_before_utc.timestamp()),
        not_after=int(parsed.not_valid_after_utc.timestamp()),
        traits=frozenset(_traits(parsed)),
        file=path,
    )


def _shortened(subject: str) -> str:
    return subject if len(subject) <= MAX_SUBJECT else subject[: MAX_SUBJECT - 1] + "…"


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
    """Return the encoded subjects of all certificates in bundles, of those that parse."""
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
    """Return the instant up to which the verdicts hold: the next date of any of them, a day while one is warned of."""
    dates = [date for each in certificates for date in (each.not_before, each.not_after - _SOON, each.not_after)]
    horizon = [now + DAY] if warned else []
    return int(min([date for date in dates if date > now] + horizon, default=now + 365 * DAY))


def timestamp(seconds: float) -> str:
    """Write an instant as RFC 3339 in UTC."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _note(event: str, path: str, *, code: int = 0, **details: object) -> Note:
    return Note(event, (("file", path), *details.items()) if path else tuple(details.items()), code)
