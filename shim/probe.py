"""`ca-shim verify URL...`: does every trust store and every client of this image accept the server; if not, why."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import ssl
import sys
import time
import warnings

from cryptography import x509
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import AuthorityInformationAccessOID

from shim import bundle, certs, clients, families, host, plan, reading, reconcile, sources
from shim import environ as environ_
from shim.certs import timestamp
from shim.clients import ABSENT, ACCEPTED, NOT_LOADED, REFUSED, UNUSABLE, Answer, Failure, Server
from shim.errors import UsageError
from shim.log import printable
from shim.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from shim.accounts import Account
    from shim.certs import Certificate
    from shim.config import Config
    from shim.plan import Plan
    from shim.snapshot import Snapshot

_HTTPS = 443
_NAME = re.compile(r"[a-z0-9_]([a-z0-9._-]*[a-z0-9_.])?")
_READS = {kind.name: kind.reads for kind in clients.KINDS}


# --- plain data -------------------------------------------------------------------------------------------------------


class Link(Record):
    """A certificate that the server sends."""

    subject: str
    issuer: str
    subject_id: bytes
    issuer_id: bytes
    not_before: float
    not_after: float
    sha256: str
    names: tuple[str, ...] = ()  # that it is for
    sources: tuple[str, ...] = ()  # where it says that its issuer can be fetched


class Mounted(Record):
    """A certificate among the mounted files; `refusal` says why a store is not given it, "" when it is."""

    certificate: Certificate
    refusal: str = ""


class Store(Record):
    """A trust store; it is in force when some client of the application reads it."""

    path: str
    name: str
    content: bytes | None
    variable: str = ""  # that points to it
    in_force: bool = True
    ours: bool = False
    mounted: tuple[Mounted, ...] = ()


class Case(Record):
    """All that a diagnosis is made of."""

    server: Server
    chain: tuple[Link, ...]
    failure: Failure
    held: tuple[Certificate, ...]  # by the store
    mounted: tuple[Mounted, ...]
    now: float


class Finding(Record):
    """What is wrong, as one fixed word and as a sentence, and what to do."""

    kind: str
    problem: str
    remedy: str


class Verdict(Record):
    """What a store comes to; `strict` is why Python >= 3.13 refuses what all others accept."""

    store: Store
    failure: Failure | None
    strict: str
    finding: Finding | None


class Asked(Record):
    """What a client came to; `variable` is the one that points it to a bundle."""

    client: str
    variable: str
    answer: Answer


class Sight(Record):
    """What of the machine matters, whatever the server."""

    stores: tuple[Store, ...]
    found: tuple[clients.Client, ...]
    application: dict[str, str]  # its environment
    lacking: tuple[str, ...]  # variables that this session lacks, and the application has


class Report(Record):
    """All about one server."""

    server: Server
    chain: tuple[Link, ...] = ()
    whole: bool = True  # the chain is all that the server sends
    verdicts: tuple[Verdict, ...] = ()
    asked: tuple[Asked, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def accepted(self) -> bool:
        """Whether everybody who counts accepts the server."""
        stores = all(each.failure is None for each in self.verdicts if each.store.in_force)
        return bool(self.chain) and stores and all(each.answer.state in (ACCEPTED, UNUSABLE) for each in self.asked)


# --- the command ------------------------------------------------------------------------------------------------------


def main(settings: Config, environ: Mapping[str, str], urls: Sequence[str], *, as_json: bool) -> int:
    """Verify every server; gives 0 when everybody accepts them all, else 1. Raises UsageError for an unusable URL."""
    servers = [server_of(url, environ) for url in urls]
    account, sight = clients.runs_as(settings), see(settings, environ, time.time())
    reports = [examine(server, sight, account, time.time()) for server in servers]
    _print(json.dumps([document(each) for each in reports], indent=2) if as_json else "\n\n".join(map(text, reports)))
    return 0 if all(report.accepted for report in reports) else 1


def _print(said: str) -> None:
    sys.stdout.write(said + "\n")


def examine(server: Server, sight: Sight, account: Account | None, now: float) -> Report:
    """Ask every store and every client, and say what is to be done. Raises nothing for what the server does."""
    try:
        ders, whole = clients.chain_of(server)
        chain = tuple(map(link_of, ders))
    except OSError as error:
        return Report(server, findings=(unreachable(server, error),))
    except ValueError as error:
        problem = f"{server.authority} sends what cannot be parsed as a certificate ({str(error)[:200]})"
        return Report(server, findings=(Finding("unreadable-certificate", problem, "have it reissued"),))
    verdicts = tuple(_verdict(server, chain, store, now) for store in sight.stores)
    asked = tuple(_ask(server, sight, account))
    findings = dict.fromkeys(conclude(verdicts, asked, sight.lacking))
    return Report(server, chain, whole, verdicts, asked, tuple(findings))


def _verdict(server: Server, chain: tuple[Link, ...], store: Store, now: float) -> Verdict:
    if not store.content:
        problem = f"{store.path} ({store.name}) is missing, unreadable or empty"
        return Verdict(store, Failure(NOT_LOADED, "missing or empty"), "", Finding("store-unusable", problem, _MEND))
    failure = clients.handshake(server, store.content)
    if failure is None:
        strictly = clients.handshake(server, store.content, partial=True, strict=True)
        return Verdict(store, None, strictly.message if strictly else "", None)
    held = certs.parse(((store.path, store.content),)).certificates
    return Verdict(store, failure, "", diagnose(Case(server, chain, failure, held, store.mounted, now)))


def _ask(server: Server, sight: Sight, account: Account | None) -> Iterator[Asked]:
    for client in sight.found:
        variable = next((name for name in client.kind.reads if sight.application.get(name)), "")
        answer = clients.ask(client, server, sight.application, account)
        if answer.state != ABSENT:
            yield Asked(client.name, variable, answer)
    yield ask_go(server, sight.application)


def ask_go(server: Server, environ: Mapping[str, str]) -> Asked:
    """Answer for programs in Go by crypto/x509's search path: there may be any number of them, and none to ask."""
    variable = next((name for name in _READS["skopeo"] if environ.get(name)), "")
    path = environ.get(variable) or next(filter(os.path.isfile, families.OS_BUNDLES), "")
    failure = clients.handshake(server, reading.read_or_none(path) or b"", partial=True)
    answer = Answer(REFUSED, failure.message) if failure else Answer(ACCEPTED)
    return Asked("Go programs (search path)", variable, answer)


# --- whom to connect to -----------------------------------------------------------------------------------------------


def server_of(url: str, environ: Mapping[str, str]) -> Server:
    """Make a server of a URL, a host or host:port, behind the proxy that clients would use. Raises UsageError."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url if "://" in url else f"//{url}")
        port = _HTTPS if parts.port is None else parts.port
        name = _ascii(parts.hostname or "")
    except ValueError:
        port, name = 0, ""
    usable = port and url.isprintable() and " " not in url and parts.scheme in ("", "https")
    if not usable or not (":" in name or _NAME.fullmatch(name)):
        raise UsageError(f"{url!a} is no https URL, host or host:port: say for example ca-shim verify example.com:443")
    return _behind_proxy(Server(name, port), environ)


def _ascii(name: str) -> str:
    return name if ":" in name else name.encode("idna").decode("ascii")


def _behind_proxy(server: Server, environ: Mapping[str, str]) -> Server:
    from urllib.parse import unquote, urlsplit

    value = environ.get("https_proxy") or environ.get("HTTPS_PROXY") or ""
    exceptions = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    if not value or any(_is_meant(word.strip().lower(), server) for word in exceptions.split(",")):
        return server
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        port = parts.port or 80
    except ValueError:
        parts, port = urlsplit(""), 0
    if parts.scheme != "http" or not parts.hostname:
        raise UsageError("HTTPS_PROXY is no http:// URL: correct it, or name the server in NO_PROXY")
    user = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    secret = "Basic " + base64.b64encode(user.encode()).decode() if parts.username else ""
    proxy = Server(parts.hostname, port).authority
    return server._replace(proxy=proxy, authorization=secret)


def _is_meant(word: str, server: Server) -> bool:
    """Say whether a word of NO_PROXY means the server, as curl, requests and Go read it: a name, its parent, a net."""
    import ipaddress

    name, _, port = word.partition(":")
    name = name.removeprefix("*").removeprefix(".")
    try:
        return ipaddress.ip_address(server.host) in ipaddress.ip_network(word, strict=False)
    except ValueError:
        names = word == "*" or (name and (server.host == name or server.host.endswith(f".{name}")))
        return bool(names) and port in ("", str(server.port))


_SPEAKS = "check that the port speaks TLS, 1.2 or newer, and what is on the way"
_NO_CONNECTION = (
    (socket.gaierror, "unknown-name", "{to}: the name cannot be resolved", "check the name and the container's DNS"),
    (ConnectionRefusedError, "connection-refused", "{to} refuses connections", "check the port, and that it is served"),
    (TimeoutError, "timeout", "{to} does not answer in time", "check firewalls, network policies and HTTPS_PROXY"),
    (ConnectionResetError, "closed", "{to} closes the connection", _SPEAKS),
    (ssl.SSLEOFError, "closed", "{to} closes the connection in the handshake", _SPEAKS),
    (ssl.SSLError, "no-tls", "{to} does not speak TLS as we do ({error})", _SPEAKS),
    (OSError, "unreachable", "{to} cannot be reached ({error})", "check the address, HTTPS_PROXY and NO_PROXY"),
)


def unreachable(server: Server, error: OSError) -> Finding:
    """Say why there is no connection. Pure."""
    to = f"{server.authority} (by the proxy {server.proxy})" if server.proxy else server.authority
    words = (getattr(error, "reason", None) or error.strerror or str(error) or type(error).__name__)[:200]
    kind, problem, remedy = next(row[1:] for row in _NO_CONNECTION if isinstance(error, row[0]))
    return Finding(kind, problem.format(to=to, error=words), remedy)


# --- the machine ------------------------------------------------------------------------------------------------------


def see(settings: Config, environ: Mapping[str, str], now: float) -> Sight:
    """Look at the stores as the application sees them, whoever asks, and find the clients. Changes nothing."""
    root = settings.root
    intake = sources.read(root, settings.sources)
    snapshot = host.look(settings, environ, (), host.uid_of_application(root))
    decision = reconcile.decide(intake, snapshot, now)
    application = _application(environ, snapshot, plan.make(decision.wanted, snapshot, {}), root)
    notes = [dict(note.details) for note in decision.notes if note.event == "certificate.skipped"]
    skipped = {str(note["sha256"]): str(note["reason"]) for note in notes}
    parsed = certs.parse(intake.files).certificates
    mounted = tuple(Mounted(each, skipped.get(each.sha256, "")) for each in parsed)
    stores = (*_stores(snapshot, application, mounted, root), *_chosen_here(environ, application, mounted, root))
    found = () if root else clients.find(application, [store.path for store in snapshot.certifi])
    lacking = tuple(row.name for row in families.VARIABLES if row.name in application.keys() - environ.keys())
    return Sight(stores, found, application, lacking)


def _application(environ: Mapping[str, str], snapshot: Snapshot, planned: Plan, root: str) -> dict[str, str]:
    """Give the environment that the last start gave the application: bundles that were never made point nowhere."""
    made = {name: path for name, path in planned.variables.items() if os.path.isfile(root + path)}
    before = environ_.restored(environ, snapshot.directories, made)
    changed = {name: value for name, value in before.items() if value is not None}
    return {**{name: value for name, value in environ.items() if name not in before}, **changed, **made}


def _stores(
    snapshot: Snapshot, application: Mapping[str, str], mounted: tuple[Mounted, ...], root: str
) -> Iterator[Store]:
    """Give each bundle once: the stores, our override bundles, and whatever else a variable points to."""
    pointed = {
        application[row.name]: row.name
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
        known[each.path] = Store(each.path, f"certifi, {each.found}", each.content, mounted=mounted, in_force=in_force)
    for directory in snapshot.directories:
        bundles = [(name, content) for name, content in directory.files if name.endswith(".pem")]
        for name, content in (each for each in bundles if each[0] != "extra.pem"):
            path = f"{directory.path}/{name}"
            known[path] = Store(path, "override", content, mounted=mounted, in_force=False, ours=True)
    for path, variable in pointed.items():
        store = known.get(path) or Store(path, "chosen by somebody", _content(root + path), mounted=mounted)
        known[path] = store._replace(variable=variable, name=f"{store.name}, {variable}", in_force=True)
    yield from known.values()


def _chosen_here(
    environ: Mapping[str, str], application: Mapping[str, str], mounted: tuple[Mounted, ...], root: str
) -> Iterator[Store]:
    """Give the bundles that only this session's variables point to, as those of `docker exec` may."""
    for row in families.VARIABLES:
        path = environ.get(row.name)
        if path and path != application.get(row.name) and row.base != "nothing":
            content = _content(root + path)
            yield Store(path, f"this session's {row.name}", content, row.name, in_force=False, mounted=mounted)


def _offered(each: Mounted, snapshot: Snapshot) -> Mounted:
    taken = plan.wanted_in((each.certificate,), snapshot.os)
    traits = ", ".join(sorted(each.certificate.traits)) or "it is on its blocklist"
    return each if taken else each._replace(refusal=f"the operating system's store leaves it out: {traits}")


def _content(path: str) -> bytes | None:
    """Read a bundle, or a directory of them, which requests takes as well."""
    if not os.path.isdir(path):
        return reading.read_or_none(path)
    return b"\n".join(reading.read_or_none(f"{path}/{name}") or b"" for name in sorted(os.listdir(path)))


def link_of(der: bytes) -> Link:
    """Describe a certificate that a server sends. Raises ValueError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        parsed = x509.load_der_x509_certificate(der)
    return Link(
        subject=parsed.subject.rfc4514_string() or "(empty subject)",
        issuer=parsed.issuer.rfc4514_string() or "(empty issuer)",
        subject_id=parsed.subject.public_bytes(),
        issuer_id=parsed.issuer.public_bytes(),
        not_before=parsed.not_valid_before_utc.timestamp(),
        not_after=parsed.not_valid_after_utc.timestamp(),
        sha256=bundle.sha256(der),
        names=tuple(_names(parsed)),
        sources=tuple(_sources(parsed)),
    )


def _names(parsed: x509.Certificate) -> Iterator[str]:
    try:
        names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return
    yield from names.get_values_for_type(x509.DNSName)
    yield from map(str, names.get_values_for_type(x509.IPAddress))


def _sources(parsed: x509.Certificate) -> Iterator[str]:
    try:
        access = parsed.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    except x509.ExtensionNotFound:
        return
    for each in access:
        if each.access_method == AuthorityInformationAccessOID.CA_ISSUERS and isinstance(
            each.access_location, x509.UniformResourceIdentifier
        ):
            yield each.access_location.value


# --- diagnosis: pure --------------------------------------------------------------------------------------------------

_MOUNT = f"mount it on {families.DEFAULT_SOURCES[0]}, then restart or run `ca-shim install`"
_MEND = "restore the file from its package, or unset the variable; then run `ca-shim install`"
_SESSION = 'in this session, run eval "$(ca-shim env)"'
_REISSUE = "have the certificate reissued"


def diagnose(case: Case) -> Finding:
    """Say why a store refuses the server and what to do. Pure."""
    if case.failure.code == NOT_LOADED:
        return Finding("store-unusable", f"a store does not load: {case.failure.message}", _MEND)
    rule = _RULES.get(case.failure.code)
    if rule is None:
        return Finding("refused", f"OpenSSL refuses the chain: {case.failure.message}", _REISSUE)
    return rule(case)


def _missing_issuer(case: Case) -> Finding:
    path = _path(case.chain)
    top = path[-1]
    name = top.issuer  # its own, when it is a root
    in_mount = [each for each in case.mounted if each.certificate.subject_id == top.issuer_id]
    in_store = [each for each in case.held if each.subject_id == top.issuer_id]
    for each in in_mount:
        if each.refusal:
            problem = f"the CA {name} is mounted ({each.certificate.file}), but {each.refusal}"
            return Finding("mounted-and-refused", problem, "have it reissued, or mount its successor")
    if in_mount and not in_store:
        problem = f"the CA {name} is mounted ({in_mount[0].certificate.file}), but not yet in this store"
        return Finding(
            "not-installed", problem, "run `ca-shim install` or restart; `ca-shim status` shows what is where"
        )
    if in_store and not any("issued-by-another" in each.traits for each in in_store):
        problem = f"a CA named {name} is trusted, but it did not sign what the server sends: it has another key"
        return Finding("other-key", problem, f"get the present one from whoever runs the CA, {_MOUNT}")
    return _incomplete(case, path, in_store)


def _incomplete(case: Case, path: tuple[Link, ...], in_store: Sequence[Certificate]) -> Finding:
    sent = {link.subject_id for link in path[1:]}
    known = [*case.held, *(each.certificate for each in case.mounted)]
    alone = [*in_store, *(each for each in known if each.subject_id in sent and "issued-by-another" in each.traits)]
    name = path[-1].issuer
    if alone:
        problem = f"the CA {alone[0].subject} is only an intermediate, and its root is not trusted"
        root = _issuer_above(alone[0], known) if in_store else name
        return Finding("only-intermediate", problem, f"get its root, {root}, {_MOUNT}")
    if len(path) == 1 and len(case.chain) == 1:
        fetch = f" (it says that its issuer can be fetched from {path[0].sources[0]})" if path[0].sources else ""
        problem = f"the server sends its own certificate alone, and the issuer {name} is not trusted here{fetch}"
        remedy = f"if that is an intermediate, have the server send it (its full chain); if it is a root, {_MOUNT}"
        return Finding("intermediate-not-sent" if case.mounted else "issuer-unknown", problem, remedy)
    if len(path) == 1:
        problem = f"none of what the server sends is {name}, which issued the server's certificate"
        return Finding("intermediate-not-sent", problem, "have the server send the right chain")
    return Finding("root-not-mounted", f"the root {name} is not trusted here", f"get it, {_MOUNT}")


def _issuer_above(certificate: Certificate, known: Sequence[Certificate]) -> str:
    """Give the name of the first issuer above that is not there."""
    by_name = {each.subject_id: each for each in known}
    seen = {certificate.sha256}
    while (above := by_name.get(certificate.issuer_id)) and above.sha256 not in seen:
        certificate = above
        seen.add(above.sha256)
    return x509.load_pem_x509_certificate(certificate.pem).issuer.rfc4514_string()


def _path(chain: tuple[Link, ...]) -> tuple[Link, ...]:
    """Give the server's certificate and its issuers as far as they are sent, whatever the order."""
    path = [chain[0]]
    rest = list(chain[1:])
    while above := next((each for each in rest if each.subject_id == path[-1].issuer_id), None):
        path.append(above)
        rest.remove(above)
    return tuple(path)


def _self_signed(case: Case) -> Finding:
    leaf = case.chain[0]
    problem = f"the server has a certificate signed by itself, {leaf.subject}"
    if any(each.certificate.sha256 == leaf.sha256 for each in case.mounted):
        return Finding("not-installed", f"{problem}, which is mounted but not in this store", "run `ca-shim status`")
    return Finding("self-signed", problem, f"give the server a certificate of your CA; or trust this one: {_MOUNT}")


def _wrong_name(case: Case) -> Finding:
    names = ", ".join(case.chain[0].names[:10]) or "no name at all"
    problem = f"the server's certificate is not for {case.server.host}, but for {names}"
    return Finding("name-mismatch", problem, "use one of these names, or have it reissued with this one")


def _expired(case: Case) -> Finding:
    for number, link in enumerate(case.chain):
        if link.not_after < case.now:
            what = "the server's certificate" if number == 0 else "a CA that the server sends,"
            problem = f"{what} {link.subject} expired at {timestamp(link.not_after)}"
            return Finding("expired", problem, "renew it on the server")
    old = [each for each in case.held if each.subject_id == case.chain[-1].issuer_id and each.not_after < case.now]
    problem = f"the trusted CA {old[0].subject if old else case.chain[-1].issuer} has expired"
    return Finding("expired", problem, f"get its successor, {_MOUNT}")


def _not_yet_valid(case: Case) -> Finding:
    late = next((each for each in case.chain if each.not_before > case.now), case.chain[0])
    problem = f"{late.subject} is not valid before {timestamp(late.not_before)}"
    return Finding("not-yet-valid", problem, "check this machine's clock, or wait")


# By OpenSSL's verify codes, x509_vfy.h.
_RULES = {
    2: _missing_issuer, 19: _missing_issuer, 20: _missing_issuer, 21: _missing_issuer, 7: _missing_issuer,
    9: _not_yet_valid, 10: _expired, 18: _self_signed, 62: _wrong_name, 64: _wrong_name,
}  # fmt: skip


def conclude(verdicts: tuple[Verdict, ...], asked: tuple[Asked, ...], lacking: tuple[str, ...]) -> Iterator[Finding]:
    """Say what follows from all answers together: the same cause once, and who hides a store."""
    counting = [each for each in verdicts if each.store.in_force]
    accepted = (each.store for each in verdicts if each.failure is None and not each.store.variable)
    accepting = [store.path for store in sorted(accepted, key=lambda store: not store.in_force)]  # the hidden ones last
    for each in counting:
        if each.failure and each.store.variable and not each.store.ours and accepting:
            variable, path = each.store.variable, each.store.path
            problem = f"{variable} points to {path}, which hides {accepting[-1]}, where the server is accepted"
            remedy = f"unset {variable}; or start the application through ca-shim, which merges the two"
            yield Finding("variable-hides-stores", problem, remedy)
        elif each.finding:
            yield each.finding
    refused = [each for each in asked if each.answer.state == REFUSED]
    for each_asked in refused if all(each.failure is None for each in counting) else []:
        problem = f"{each_asked.client} refuses although every store accepts: {each_asked.answer.reason}"
        yield Finding("client-refuses", problem, "it reads another store, or verifies more strictly: see its words")
    for each_asked in (each for each in asked if each.answer.state not in (ACCEPTED, REFUSED, UNUSABLE)):
        problem = f"{each_asked.client} could not be asked: {each_asked.answer.reason}"
        yield Finding("client-failed", problem, "see its words; proxies and privileges are the usual causes")
    for each in (each for each in verdicts if each.store.variable and not each.store.in_force and each.failure):
        problem = f"{each.store.name}, {each.store.path}, hides the stores in this session; the application has another"
        yield Finding("session", problem, _SESSION)
    if lacking:
        yield Finding("session", f"this session lacks the application's {', '.join(lacking)}", _SESSION)


# --- what is printed --------------------------------------------------------------------------------------------------


def text(report: Report) -> str:
    """Render a report for people; everything that a stranger wrote is escaped. Pure."""
    return "\n".join(map(printable, _lines(report)))


def _lines(report: Report) -> Iterator[str]:
    way = f" by the proxy {report.server.proxy}" if report.server.proxy else ""
    yield f"{report.server.authority}{way}: {'accepted by all' if report.accepted else 'NOT accepted by all'}"
    if report.chain:
        yield "  it sends" + ("" if report.whole else " (this Python shows the first certificate only)")
    for number, link in enumerate(report.chain):
        yield f"    {number}  {link.subject}"
        yield f"       issued by {link.issuer}, expires {timestamp(link.not_after)}"
        yield f"       sha256 {link.sha256}"
    if report.verdicts:
        yield "  stores"
    for each in report.verdicts:
        state = f"refuses: {each.failure.message}" if each.failure else "accepts"
        strict = f" (Python >= 3.13 refuses: {each.strict})" if each.strict else ""
        unused = "" if each.store.in_force else " (not in use)"
        yield f"    {each.store.path} [{each.store.name}]{unused} {state}{strict}"
    if report.asked:
        yield "  clients"
    for one in report.asked:
        variable = f" by {one.variable}" if one.variable else ""
        yield f"    {one.client}{variable} {one.answer.state}{': ' * bool(one.answer.reason)}{one.answer.reason}"
    if report.findings:
        yield "  what to do"
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
    return {**store, "state": REFUSED if each.failure else ACCEPTED, "reason": reason, "strict": each.strict}
