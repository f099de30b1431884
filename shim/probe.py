"""`ca-shim verify URL...`: does every trust store and every client of this image accept the server; if not, why."""

from __future__ import annotations

import contextlib
import json
import os
import re
import ssl
import time
import warnings

from cryptography import x509
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import AuthorityInformationAccessOID

from shim import (
    bundle,
    certs,
    clients,
    connection,
    diagnosis,
    families,
    host,
    interpreters,
    plan,
    reading,
    writer,
)
from shim.answers import (
    ABSENT,
    ACCEPTED,
    NOT_ASKED,
    NOT_CONNECTED,
    NOT_LOADED,
    NOT_TRIED,
    REFUSED,
    UNCLEAR,
    UNREACHABLE,
    Answer,
    Asked,
    Case,
    Failure,
    Finding,
    Link,
    Mounted,
    Place,
    Report,
    Server,
    Store,
    Verdict,
)
from shim.application import how_to_install, started, view
from shim.certs import timestamp
from shim.log import printable, say
from shim.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import TypeVar

    from shim.accounts import Account
    from shim.config import Config
    from shim.reconcile import Decision
    from shim.snapshot import Snapshot

    _Kind = TypeVar("_Kind", bound=x509.ExtensionType)

_SECONDS = 25.0  # for one server, so that all of it ends within 30
_GO = "Go programs (search path)"
_LATE = Answer(NOT_ASKED, "the server has taken all the time there is")
_AS_COMMAND = (
    "start that command through the shim, which then looks for its interpreter; or name the file in CA_SHIM_CERTIFI"
)
_UNUSED = ("file.refused", "block.refused", "source.unreadable", "source.limit")
_PLAIN = b"-----BEGIN CERTIFICATE-----"
_BEYOND_GO = Answer(NOT_TRIED, "a CA has critical name constraints of a kind that Go does not know")
_KNOWN_TO_GO = (x509.DNSName, x509.RFC822Name, x509.IPAddress, x509.UniformResourceIdentifier)
_UNREADABLE = "(names that cannot be read)"
# How the types of extensions, 2.5.29.x and 1.3.6.1.5.5.7.1.x of RFC 5280, are written in DER.
_TYPE = re.compile(rb"(\x06\x03\x55(?=\x1d)|\x06\x08\x2b\x06\x01\x05\x05\x07(?=\x01)).(.)", re.DOTALL)
_TYPES: dict[type[x509.ExtensionType], bytes] = {
    x509.SubjectAlternativeName: b"\x06\x03\x55\x1d\x11",
    x509.NameConstraints: b"\x06\x03\x55\x1d\x1e",
    x509.AuthorityInformationAccess: b"\x06\x08\x2b\x06\x01\x05\x05\x07\x01\x01",
}
_READS = {kind.name: kind.reads for kind in clients.KINDS}


class Sight(Record):
    """What of the machine matters, whatever the server."""

    stores: tuple[Store, ...]
    found: tuple[clients.Client, ...]
    application: dict[str, str]  # its environment
    lacking: tuple[str, ...]  # variables that this session lacks, and the application has
    place: Place = Place()
    root: str = ""  # a directory that stands for `/`


# --- the command ------------------------------------------------------------------------------------------------------


def main(
    settings: Config, environ: Mapping[str, str], urls: Sequence[str], command: Sequence[str] = (), *, as_json: bool
) -> int:
    """Verify every server; return 0 when everybody accepts them all, else 1. Raises UsageError for an unusable URL."""
    servers = [connection.server_of(url, environ, number) for number, url in enumerate(urls, 1)]
    account = clients.runs_as(settings)
    sight = as_seen_by(account, see(settings, environ, time.time(), command))
    reports = [examine(server, sight, account, time.time()) for server in servers]
    say(json.dumps([document(each) for each in reports], indent=2) if as_json else "\n\n".join(map(text, reports)))
    return 0 if all(report.accepted for report in reports) else 1


def examine(server: Server, sight: Sight, account: Account | None, now: float, seconds: float = _SECONDS) -> Report:
    """Ask every store and every client, and say what is to be done, in no more than about that time.

    Raises nothing for what the server does.
    """
    until = time.monotonic() + seconds
    try:
        ders, whole = connection.chain_of(server, until)
    except OSError as error:
        return Report(server, findings=(connection.unreachable(server, error),))
    try:
        chain = tuple(map(link_of, ders))
    except Exception as error:  # noqa: BLE001 - the parser has one for each of a stranger's ideas
        problem = f"{server.authority} sends what cannot be parsed as a certificate ({str(error)[:200]})"
        return Report(server, findings=(Finding("unreadable-certificate", problem, "have it reissued"),))
    case = Case(server, chain, Failure(NOT_CONNECTED, ""), (), (), now, sight.place)
    verdicts = tuple(verdict_of(case, store, until) for store in sight.stores)
    asked = tuple(_ask(server, sight, account, until, chain))
    findings = dict.fromkeys(diagnosis.conclude(case, verdicts, asked, sight.lacking))
    return Report(server, chain, whole, verdicts, asked, tuple(findings))


def verdict_of(case: Case, store: Store, until: float) -> Verdict:
    """Connect trusting exactly what a store holds; whatever the server does, it raises nothing."""
    if store.unreadable:
        problem = f"{store.path} ({store.name}) {store.unreadable}"
        finding = Finding("store-unusable", problem, diagnosis.MAKE_READABLE)
        return Verdict(store, Failure(NOT_LOADED, store.unreadable), "", finding)
    if not store.content:
        problem = f"{store.path} ({store.name}) is missing, unreadable or empty"
        return Verdict(
            store, Failure(NOT_LOADED, "missing or empty"), "", Finding("store-unusable", problem, diagnosis.MEND)
        )
    try:
        failure = connection.handshake(case.server, store.content, until)
        strictly = None if failure else connection.handshake(case.server, store.content, until, connection.PYTHON_313)
    except OSError as error:
        return Verdict(store, Failure(NOT_CONNECTED, str(error)), "", connection.unreachable(case.server, error))
    if failure is None:
        return Verdict(store, None, strictly.message if strictly else "", None)
    held = certs.parse(((store.path, store.content),)).certificates
    place = case.place._replace(install=store.install or case.place.install)
    case = case._replace(failure=failure, held=held, mounted=store.mounted, place=place)
    return Verdict(store, failure, "", diagnosis.diagnose(case))


def _ask(
    server: Server, sight: Sight, account: Account | None, until: float, chain: tuple[Link, ...]
) -> Iterator[Asked]:
    for client in sight.found:
        variable = next((name for name in client.kind.reads if sight.application.get(name)), "")
        seconds = min(until - time.monotonic(), clients.SECONDS)
        answer = clients.ask(client, server, sight.application, account, seconds) if seconds > 0 else _LATE
        if answer.state != ABSENT:
            yield _timely(Asked(client.name, variable, answer), until)
    yield _timely(ask_go(server, sight.application, sight.root, until, account=account, chain=chain), until)


def _timely(asked: Asked, until: float) -> Asked:
    """Blame the lack of time, where there was none, and not the client for what it says when it is killed."""
    late = asked.answer.state in (UNCLEAR, UNREACHABLE) and time.monotonic() >= until
    return asked._replace(answer=_LATE) if late else asked


def ask_go(  # noqa: PLR0913 - all that a program in Go depends on
    server: Server,
    environ: Mapping[str, str],
    root: str = "",
    until: float | None = None,
    *,
    account: Account | None = None,
    chain: tuple[Link, ...] = (),
) -> Asked:
    """Answer for programs in Go by crypto/x509's search path: there may be any number of them, and none to ask."""
    variable = next((name for name in (*_READS["skopeo"], families.CERT_DIR) if environ.get(name)), "")
    until = time.monotonic() + clients.SECONDS if until is None else until
    with _acting(account):
        items = {each.sha256: each for content in _read_as_go(environ, root) for each in bundle.items(content)}
    pem = b"".join(each.pem for each in items.values() if each.pem.startswith(_PLAIN))
    held = certs.parse((("", pem),)).certificates  # it skips what it cannot parse
    try:
        failure = connection.handshake(server, b"".join(each.pem for each in held), until, connection.GO)
    except OSError as error:
        return Asked(_GO, variable, Answer(UNREACHABLE, connection.unreachable(server, error).problem))
    if failure:
        return Asked(_GO, variable, Answer(REFUSED, failure.message))
    issuers = {link.issuer_id for link in chain}
    links = [
        *chain,
        *(link_of(ssl.PEM_cert_to_DER_cert(each.pem.decode())) for each in held if each.subject_id in issuers),
    ]
    return Asked(_GO, variable, _BEYOND_GO if any(link.beyond_go for link in links) else Answer(ACCEPTED))


def _read_as_go(environ: Mapping[str, str], root: str) -> Iterator[bytes]:
    """Read the first bundle that can be read, and all of the directories; crypto/x509/root_unix.go."""
    files = [file] if (file := environ.get(_READS["skopeo"][0])) else families.OS_BUNDLES
    yield next(filter(None, (reading.read_or_none(root + path) for path in files)), b"")
    chosen = environ.get(families.CERT_DIR)
    for directory in chosen.split(":") if chosen else families.GO_DIRECTORIES:
        with contextlib.suppress(OSError):
            names = sorted(os.listdir(f"{root}{directory}"))
            yield from filter(None, (reading.read_or_none(f"{root}{directory}/{name}") for name in names))


# --- the machine ------------------------------------------------------------------------------------------------------


def see(settings: Config, environ: Mapping[str, str], now: float, command: Sequence[str] = ()) -> Sight:
    """Look at the stores as the application sees them, whoever asks, and find the clients. Changes nothing."""
    root = settings.root
    intake, snapshot, decision, application = view(settings, environ, now, command)
    notes = [dict(note.details) for note in decision.notes if note.event == "certificate.skipped"]
    skipped = {str(note["sha256"]): str(note["reason"]) for note in notes}
    parsed = certs.parse(intake.files).certificates
    mounted = tuple(Mounted(each, skipped.get(each.sha256, "")) for each in parsed)
    stores = (*_stores(snapshot, application, mounted, root), *_chosen_here(environ, application, mounted, root))
    found = () if root else clients.find(application, [store.path for store in snapshot.certifi])
    read = {name for client in found for name in client.kind.reads}
    missing = read & (application.keys() - environ.keys())
    lacking = tuple(row.name for row in families.VARIABLES if row.name in missing)
    return Sight(stores, found, application, lacking, _place(settings, snapshot, decision), root)


def as_seen_by(account: Account | None, sight: Sight) -> Sight:
    """Mark the stores that root can read and the account that clients run as cannot. Raises PermissionError."""
    if sight.root:
        return sight
    with _acting(account):
        stores = tuple(
            each._replace(unreadable=f"cannot be read by uid {os.geteuid()}")
            if each.content and not os.access(sight.root + each.path, os.R_OK, effective_ids=True)
            else each
            for each in sight.stores
        )
    return sight._replace(stores=stores)


def _acting(account: Account | None) -> writer.Acting:
    owner = writer.Owner(account.uid, account.gid, account.groups) if account else writer.myself()
    return writer.Acting(owner)


def _place(settings: Config, snapshot: Snapshot, decision: Decision) -> Place:
    source = next(each.path for each in settings.sources if each.path != families.BAKED)
    notes = [(note.event, dict(note.details)) for note in decision.notes]
    unused = [
        (f"{details.get('file', 'some')} ({details['reason']})", str(details["remedy"]))
        for event, details in notes if event in _UNUSED
    ]  # fmt: skip
    elsewhere = [f"; {details['file']} is, but is no source" for event, details in notes if event == "source.elsewhere"]
    return Place(
        mount=f"put it among the files mounted on {source}, then {how_to_install(settings)}",
        install=how_to_install(settings, seen=started(settings, snapshot)),
        unused=tuple(unused),
        elsewhere="".join(elsewhere),
    )


def _stores(
    snapshot: Snapshot, application: Mapping[str, str], mounted: tuple[Mounted, ...], root: str
) -> Iterator[Store]:
    """Return each bundle once: the stores, our override bundles, and whatever else a variable points to."""
    pointed = {
        application[row.name]: row
        for row in reversed(families.VARIABLES)
        if row.base != "nothing" and application.get(row.name)
    }
    replaced = {name for name in _READS["openssl"] + _READS["requests"] if application.get(name)}
    known = {}
    if snapshot.os.path:
        here = tuple(each if each.refusal else _offered(each, snapshot) for each in mounted)
        known[snapshot.os.path] = Store(
            snapshot.os.path, "operating system", snapshot.os.content, mounted=here,
            in_force=not replaced & {*_READS["openssl"]},
        )  # fmt: skip
    for each in snapshot.certifi:
        in_force = not replaced & {*_READS["requests"]}
        store = Store(each.path, f"certifi, {each.found}", each.content, mounted=mounted, in_force=in_force)
        known[each.path] = store._replace(install=_AS_COMMAND) if each.found == interpreters.OF_COMMAND else store
    for directory in snapshot.directories:
        bundles = [(name, content) for name, content in directory.files if name.endswith(".pem")]
        for name, content in (each for each in bundles if each[0] != "extra.pem"):
            path = f"{directory.path}/{name}"
            known[path] = Store(path, "override", content, mounted=mounted, in_force=False, ours=True)
    for path, row in pointed.items():
        chosen = Store(path, "set on the container", host.bundle_behind(root, row, path), mounted=mounted)
        store = known.get(path) or chosen
        known[path] = store._replace(variable=row.name, name=f"{store.name}, {row.name}", in_force=True)
    yield from known.values()


def _chosen_here(
    environ: Mapping[str, str], application: Mapping[str, str], mounted: tuple[Mounted, ...], root: str
) -> Iterator[Store]:
    """Return the bundles that only this session's variables point to, as those of `docker exec` may."""
    for row in families.VARIABLES:
        path = environ.get(row.name)
        if path and path != application.get(row.name) and row.base != "nothing":
            content = host.bundle_behind(root, row, path)
            yield Store(path, f"this session's {row.name}", content, row.name, in_force=False, mounted=mounted)


def _offered(each: Mounted, snapshot: Snapshot) -> Mounted:
    taken = plan.wanted_in((each.certificate,), snapshot.os)
    traits = ", ".join(sorted(each.certificate.traits)) or "it is on its blocklist"
    return each if taken else each._replace(refusal=f"the operating system's store leaves it out: {traits}")


def link_of(der: bytes) -> Link:
    """Describe a certificate that a server sends. Raises ValueError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        parsed = x509.load_der_x509_certificate(der)
        names, sources, beyond_go = tuple(_names(der)), tuple(_sources(der)), _is_beyond_go(der)
    return Link(
        subject=parsed.subject.rfc4514_string() or "(empty subject)",
        issuer=parsed.issuer.rfc4514_string() or "(empty issuer)",
        subject_id=parsed.subject.public_bytes(),
        issuer_id=parsed.issuer.public_bytes(),
        not_before=parsed.not_valid_before_utc.timestamp(),
        not_after=parsed.not_valid_after_utc.timestamp(),
        sha256=bundle.sha256(der),
        names=names,
        sources=sources,
        beyond_go=beyond_go,
    )


def _names(der: bytes) -> Iterator[str]:
    try:
        names = _extension(der, x509.SubjectAlternativeName)
    except ValueError:
        yield _UNREADABLE
        return
    if names:
        yield from names.value.get_values_for_type(x509.DNSName)
        yield from map(str, names.value.get_values_for_type(x509.IPAddress))


def _sources(der: bytes) -> Iterator[str]:
    try:
        access = _extension(der, x509.AuthorityInformationAccess)
    except ValueError:
        return
    for each in access.value if access else ():
        if each.access_method == AuthorityInformationAccessOID.CA_ISSUERS and isinstance(
            each.access_location, x509.UniformResourceIdentifier
        ):
            yield each.access_location.value


def _is_beyond_go(der: bytes) -> bool:
    try:
        found = _extension(der, x509.NameConstraints)
    except ValueError:
        return True
    if found is None or not found.critical:
        return False
    names = (*(found.value.permitted_subtrees or ()), *(found.value.excluded_subtrees or ()))
    return not all(isinstance(each, _KNOWN_TO_GO) for each in names)


def _extension(der: bytes, kind: type[_Kind]) -> x509.Extension[_Kind] | None:
    """Return an extension, whatever the others are like: the parser reads all of them, or none.

    So the others get types that it does not know. Raises ValueError when this one cannot be read.
    """
    own = _TYPES[kind]
    others = _TYPE.sub(lambda found: found[0] if found[0] == own else found[1] + b"\x7f" + found[2], der)
    with contextlib.suppress(x509.ExtensionNotFound):
        return x509.load_der_x509_certificate(others).extensions.get_extension_for_class(kind)
    return None


# --- what is printed --------------------------------------------------------------------------------------------------


def text(report: Report) -> str:
    """Render a report for people; everything that a stranger wrote is escaped. Pure."""
    return "\n".join(map(printable, _lines(report)))


def _lines(report: Report) -> Iterator[str]:
    way = f" by the proxy {report.server.proxy}" if report.server.proxy else ""
    verdict = "accepted by all" if report.accepted else "NOT accepted by all" if report.chain else "not reached"
    yield f"{report.server.authority}{way}: {verdict}"
    if report.chain:
        yield "  it sends" + ("" if report.whole else " (this Python shows the first certificate only)")
    for number, link in enumerate(report.chain):
        yield f"    {number}  {link.subject}"
        yield f"       issued by {link.issuer}, expires {timestamp(link.not_after)}"
        yield f"       sha256 {link.sha256}"
    if report.verdicts:
        yield "  stores"
    for each in report.verdicts:
        state = f"{_state(each)}: {each.failure.message}" if each.failure else ACCEPTED
        strict = f" (Python >= 3.13 refuses: {each.strict})" if each.strict else ""
        unused = "" if each.store.in_force else " (not in use)"
        yield f"    {each.store.path} [{each.store.name}]{unused} {state}{strict}"
    if report.asked:
        yield "  clients"
    for one in report.asked:
        variable = f" by {one.variable}" if one.variable else ""
        yield f"    {one.client}{variable} {one.answer.state}{': ' * bool(one.answer.reason)}{one.answer.reason}"
    if report.findings:
        yield "  to know" if report.accepted else "  what to do"
    for finding in report.findings:
        yield f"    {finding.problem}"
        yield f"      -> {finding.remedy} [{finding.kind}]"


def document(report: Report) -> dict[str, object]:
    """Render a report for programs. Pure."""
    asked = report.asked
    return {
        "server": report.server.authority,
        "proxy": report.server.proxy,
        "accepted": report.accepted,
        "chain": [_link(link) for link in report.chain],
        "chain_is_whole": report.whole,
        "stores": [_store(each) for each in report.verdicts],
        "clients": [{"client": each.client, "variable": each.variable, **each.answer._asdict()} for each in asked],
        "findings": [finding._asdict() for finding in report.findings],
    }


def _link(link: Link) -> dict[str, object]:
    dates = {"not_before": timestamp(link.not_before), "not_after": timestamp(link.not_after)}
    return {"subject": link.subject, "issuer": link.issuer, **dates, "sha256": link.sha256, "names": link.names}


def _store(each: Verdict) -> dict[str, object]:
    store = {"path": each.store.path, "name": each.store.name, "in_use": each.store.in_force}
    reason = each.failure.message if each.failure else ""
    return {**store, "state": _state(each), "reason": reason, "strict": each.strict}


def _state(each: Verdict) -> str:
    connected = each.failure is None or each.failure.code != NOT_CONNECTED
    return ACCEPTED if each.failure is None else REFUSED if connected else UNREACHABLE
