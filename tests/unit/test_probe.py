"""What `verify` says: a diagnosis for every way in which a server is refused, and nothing unescaped."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import os
import socket
import ssl
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import AuthorityInformationAccessOID

from shim import connection, diagnosis, probe
from shim.answers import (
    ACCEPTED,
    NOT_ASKED,
    NOT_CONNECTED,
    NOT_LOADED,
    NOT_TRIED,
    REFUSED,
    UNCLEAR,
    UNREACHABLE,
    UNUSABLE,
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
from shim.errors import UsageError
from tests import certificates
from tests.certificates import DAY, NOW

if TYPE_CHECKING:
    from collections.abc import Mapping

_ROOT = certificates.root("Test root")
_MIDDLE = certificates.intermediate("Test intermediate", "Test root")
_LEAF = certificates.issue("leaf.test", issuer=_MIDDLE, ca=False)
_DIRECT = certificates.leaf("leaf.test", "Test root")
_ALONE = certificates.issue("leaf.test", ca=False)
_OLD_LEAF = certificates.issue("leaf.test", issuer=_MIDDLE, ca=False, begins=-20, ends=-10)
_OLD_MIDDLE = certificates.issue("Test intermediate", issuer=_ROOT, begins=-20, ends=-10)
_OLD_ROOT = certificates.issue("Test root", begins=-20, ends=-10)
_OLD_OTHER = certificates.issue("Other root", begins=-20, ends=-10)
_NEW_ROOT = certificates.issue("Test root", begins=-5)
_COMING_ROOT = certificates.issue("Test root", begins=5)
_UNCROSSED = certificates.root("New root")
_CROSSED = certificates.intermediate("New root", "Elder root")
_CROSSED_LEAF = certificates.issue("leaf.test", issuer=_UNCROSSED, ca=False)
_COMING = certificates.issue("leaf.test", issuer=_MIDDLE, ca=False, begins=5)

_NO_ISSUER, _NO_LOCAL_ISSUER, _SELF_IN_CHAIN, _SELF, _EXPIRED, _EARLY, _NAME, _SIGNATURE = 2, 20, 19, 18, 10, 9, 62, 7


_PLACE = Place("put it on /custom-certs, then restart", "run install, or restart")


def _case(
    code: int,
    *sent: certificates.Issued,
    held: tuple[certificates.Issued, ...] = (),
    mounted: tuple[Mounted, ...] = (),
) -> Case:
    chain = tuple(probe.link_of(each.der) for each in sent)
    failure = Failure(code, "what OpenSSL says")
    return Case(Server("leaf.test", 443), chain, failure, tuple(each.parsed for each in held), mounted, NOW, _PLACE)


_CASES = {
    "nothing is mounted": (_case(_NO_LOCAL_ISSUER, _LEAF, _MIDDLE), "root-not-mounted", "CN=Test root"),
    "the root is sent and not trusted": (_case(_SELF_IN_CHAIN, _LEAF, _MIDDLE, _ROOT), "root-not-mounted", "Test root"),
    "the intermediate is not sent": (
        _case(_NO_LOCAL_ISSUER, _LEAF, held=(_ROOT,), mounted=(Mounted(_ROOT.parsed),)),
        "intermediate-not-sent",
        "CN=Test intermediate",
    ),
    "one certificate is sent, nothing is mounted": (
        _case(_NO_LOCAL_ISSUER, _LEAF),
        "issuer-unknown",
        "no CA is mounted at all",
    ),
    "the CA of that name with the new key is mounted and not installed": (
        _case(_SIGNATURE, _LEAF, _MIDDLE, held=(_ROOT,), mounted=(Mounted(_NEW_ROOT.parsed),)),
        "not-installed",
        "/custom-certs/ca.pem",
    ),
    "an expired CA and its successor are mounted": (
        _case(_NO_LOCAL_ISSUER, _LEAF, _MIDDLE, mounted=(Mounted(_OLD_ROOT.parsed, "expired"), Mounted(_ROOT.parsed))),
        "not-installed",
        "not yet in this store",
    ),
    "a successor with another key is installed beside the expired CA": (
        _case(
            _SIGNATURE,
            _LEAF,
            _MIDDLE,
            held=(_ROOT,),
            mounted=(Mounted(_OLD_ROOT.parsed, "expired"), Mounted(_ROOT.parsed)),
        ),
        "other-key",
        "another key",
    ),
    "a cross-signed CA is sent, and mounted as a root of its own": (
        _case(_NO_LOCAL_ISSUER, _CROSSED_LEAF, _CROSSED, mounted=(Mounted(_UNCROSSED.parsed),)),
        "not-installed",
        "CN=New root",
    ),
    "the server's certificate is mounted, and no CA": (
        _case(_NO_LOCAL_ISSUER, _LEAF, mounted=(Mounted(_LEAF.parsed, "it is a leaf"),)),
        "leaf-mounted",
        "/custom-certs/ca.pem",
    ),
    "another intermediate is sent": (
        _case(_NO_LOCAL_ISSUER, _LEAF, certificates.root("Somebody else")),
        "intermediate-not-sent",
        "none of what the server sends",
    ),
    "only the intermediate is mounted": (
        _case(_NO_ISSUER, _LEAF, _MIDDLE, held=(_MIDDLE,), mounted=(Mounted(_MIDDLE.parsed),)),
        "only-intermediate",
        "CN=Test intermediate",
    ),
    "only the intermediate is mounted, and it is not sent": (
        _case(_NO_ISSUER, _LEAF, held=(_MIDDLE,), mounted=(Mounted(_MIDDLE.parsed),)),
        "only-intermediate",
        "CN=Test intermediate",
    ),
    "the root is mounted and not installed": (
        _case(_NO_LOCAL_ISSUER, _LEAF, _MIDDLE, mounted=(Mounted(_ROOT.parsed),)),
        "not-installed",
        "/custom-certs/ca.pem",
    ),
    "the root is mounted and refused": (
        _case(_NO_LOCAL_ISSUER, _LEAF, _MIDDLE, mounted=(Mounted(_ROOT.parsed, "it has expired"),)),
        "mounted-and-refused",
        "it has expired",
    ),
    "a root of that name has another key": (
        _case(_SIGNATURE, _LEAF, _MIDDLE, held=(_ROOT,)),
        "other-key",
        "another key",
    ),
    "the server signed its certificate itself": (_case(_SELF, _ALONE), "self-signed", "signed by itself"),
    "the server's own certificate is mounted": (
        _case(_SELF, _ALONE, mounted=(Mounted(_ALONE.parsed),)),
        "not-installed",
        "mounted",
    ),
    "the name is another one": (_case(_NAME, _LEAF, _MIDDLE), "name-mismatch", "not for leaf.test, but for no name"),
    "the server's certificate has expired": (_case(_EXPIRED, _OLD_LEAF, _MIDDLE), "expired", "the server's"),
    "the intermediate has expired": (_case(_EXPIRED, _LEAF, _OLD_MIDDLE), "expired", "CN=Test intermediate"),
    "the root has expired": (_case(_EXPIRED, _LEAF, _MIDDLE, held=(_OLD_ROOT,)), "expired", "the trusted CA CN=Test"),
    "the root has expired, and so has something else that is sent": (
        _case(_EXPIRED, _LEAF, _MIDDLE, _OLD_OTHER, held=(_OLD_ROOT,)),
        "expired",
        "the trusted CA CN=Test root",
    ),
    "the root is not valid yet": (
        _case(_EARLY, _LEAF, _MIDDLE, held=(_COMING_ROOT,)),
        "not-yet-valid",
        "CN=Test root is not valid before",
    ),
    "it is not valid yet": (_case(_EARLY, _COMING, _MIDDLE), "not-yet-valid", "not valid before"),
    "the store does not load": (_case(NOT_LOADED, _LEAF), "store-unusable", "does not load"),
    "OpenSSL objects to something else": (_case(26, _LEAF), "refused", "what OpenSSL says"),
}


_HTML = ("/custom-certs/ca.pem (it is neither PEM nor DER)", "export it as PEM")
_UNUSED = _PLACE._replace(unused=(_HTML,))
_PLACED: dict[str, tuple[Case, str, str, str]] = {
    "a mounted file is refused": (
        _case(_NO_LOCAL_ISSUER, _LEAF, _MIDDLE)._replace(place=_UNUSED),
        "mounted-and-refused", "CN=Test root is not trusted here; of the mounted files /custom-certs/ca.pem (it is",
        "if it is in there, export it as PEM; or else get it, put it on /custom-certs",
    ),
    "a mounted file is refused, another is not": (
        _case(_NO_LOCAL_ISSUER, _LEAF, _MIDDLE, mounted=(Mounted(_UNCROSSED.parsed),))._replace(place=_UNUSED),
        "root-not-mounted", "/custom-certs/ca.pem (it is neither PEM nor DER) cannot be used", "export it as PEM",
    ),
    "a mounted file is refused, and the server signed itself": (
        _case(_SELF, _ALONE)._replace(place=_UNUSED), "mounted-and-refused", "/custom-certs/ca.pem", "export it as PEM",
    ),
    "something is mounted elsewhere": (
        _case(_NO_LOCAL_ISSUER, _LEAF)._replace(place=_PLACE._replace(elsewhere="; /certs is, but is no source")),
        "issuer-unknown", "no CA is mounted at all; /certs is, but is no source", "or mount it beside its root",
    ),
    "the root is mounted and not installed": (
        _case(_NO_LOCAL_ISSUER, _LEAF, _MIDDLE, mounted=(Mounted(_ROOT.parsed),)),
        "not-installed", "not yet in this store", "run install, or restart",
    ),
    "a self-signed certificate is mounted, and the store leaves it out": (
        _case(_SELF, _ALONE, mounted=(Mounted(_ALONE.parsed, "the store leaves it out: not-ca"),)),
        "mounted-and-refused", "which is mounted, but the store leaves it out: not-ca", "and mount that CA",
    ),
    "it has expired": (_case(_EXPIRED, _OLD_LEAF, _MIDDLE), "expired", "(here it is 2027-06-01T", "clock"),
    "its CA has expired": (_case(_EXPIRED, _LEAF, _MIDDLE, held=(_OLD_ROOT,)), "expired", "(here it is", "get its"),
    "it is not valid yet": (_case(_EARLY, _COMING, _MIDDLE), "not-yet-valid", "(here it is 2027", "clock"),
    "its key is weak": (_case(66, _LEAF), "weak", "too weak (what OpenSSL says)", "2048"),
}  # fmt: skip


@pytest.mark.parametrize(("case", "kind", "problem", "remedy"), _PLACED.values(), ids=_PLACED.keys())
def test_a_remedy_is_one_that_helps_here(case: Case, kind: str, problem: str, remedy: str) -> None:
    finding = diagnosis.diagnose(case)

    assert finding.kind == kind
    assert problem in finding.problem
    assert remedy in finding.remedy


@pytest.mark.parametrize(("case", "kind", "words"), _CASES.values(), ids=_CASES.keys())
def test_a_refusal_is_diagnosed_with_a_remedy(case: Case, kind: str, words: str) -> None:
    finding = diagnosis.diagnose(case)

    assert finding.kind == kind
    assert words in finding.problem
    assert finding.remedy


def test_the_root_above_a_mounted_intermediate_is_named() -> None:
    case = _case(_NO_ISSUER, _LEAF, held=(_MIDDLE,), mounted=(Mounted(_MIDDLE.parsed),))

    assert "CN=Test root" in diagnosis.diagnose(case).remedy


def test_a_loop_of_intermediates_ends() -> None:
    one = certificates.issue("One", issuer=certificates.root("Two"))
    two = certificates.issue("Two", issuer=certificates.root("One"))
    leaf = certificates.issue("leaf.test", issuer=one, ca=False)

    assert diagnosis.diagnose(_case(_NO_ISSUER, leaf, held=(one, two))).kind == "only-intermediate"


def test_the_place_of_the_issuer_is_told() -> None:
    case = _case(_NO_LOCAL_ISSUER, _LEAF)
    link = case.chain[0]._replace(sources=("http://pki.test/ca.der",))

    assert "http://pki.test/ca.der" in diagnosis.diagnose(case._replace(chain=(link,))).problem


# --- whom to connect to -----------------------------------------------------------------------------------------------

_URLS = {
    "https://example.com": ("example.com", 443),
    "https://Example.COM:8443/path?query": ("example.com", 8443),
    "example.com": ("example.com", 443),
    "example.com:5000": ("example.com", 5000),
    "192.0.2.1:5000": ("192.0.2.1", 5000),
    "[2001:db8::1]:5000": ("2001:db8::1", 5000),
    "https://user:secret@example.com/": ("example.com", 443),
    "bücher.example": ("xn--bcher-kva.example", 443),
    "my_registry": ("my_registry", 443),
}
_UNUSABLE = ("", "http://example.com", "docker://example.com/x", "example.com:0", "example.com:x", "example.com:70000",
             "a b", "-oProxy", "exa\nmple.com", "https://", "ex$ample", "." * 300)  # fmt: skip


@pytest.mark.parametrize(("url", "expected"), _URLS.items())
def test_a_url_names_a_server(url: str, expected: tuple[str, int]) -> None:
    assert connection.server_of(url, {}) == Server(*expected)


@pytest.mark.parametrize("url", _UNUSABLE)
def test_an_unusable_url_is_a_usage_error(url: str) -> None:
    with pytest.raises(UsageError, match="is no https URL"):
        connection.server_of(url, {})


_PROXIES = {
    "a proxy": ({"HTTPS_PROXY": "http://proxy.test:3128"}, "proxy.test:3128"),
    "without a scheme": ({"https_proxy": "proxy.test:3128"}, "proxy.test:3128"),
    "without a port": ({"https_proxy": "http://proxy.test"}, "proxy.test:80"),
    "an exempt name": ({"HTTPS_PROXY": "http://p.test", "NO_PROXY": "other.test, registry.test"}, ""),
    "an exempt parent": ({"HTTPS_PROXY": "http://p.test", "NO_PROXY": ".test"}, ""),
    "an exempt port": ({"HTTPS_PROXY": "http://p.test", "NO_PROXY": "registry.test:5000"}, ""),
    "another port": ({"HTTPS_PROXY": "http://p.test", "NO_PROXY": "registry.test:5001"}, "p.test:80"),
    "everything exempt": ({"HTTPS_PROXY": "http://p.test", "no_proxy": "*"}, ""),
    "nothing exempt": ({"HTTPS_PROXY": "http://p.test", "no_proxy": ","}, "p.test:80"),
}


@pytest.mark.parametrize(("environ", "proxy"), _PROXIES.values(), ids=_PROXIES.keys())
def test_the_proxy_is_the_one_that_clients_use(environ: Mapping[str, str], proxy: str) -> None:
    assert connection.server_of("registry.test:5000", environ).proxy == proxy


def test_a_proxy_for_everything_serves_too() -> None:
    assert connection.server_of("a.test", {"ALL_PROXY": "http://p.test:1"}).proxy == "p.test:1"


@pytest.mark.parametrize("value", ["http://me:12/s3cret@p.test:1", "http://me:s3c@r/et@p.test", "http://me:s3 cret@p"])
def test_a_proxy_that_cannot_be_read_is_a_usage_error_without_its_password(value: str) -> None:
    with pytest.raises(UsageError) as error:
        connection.server_of("a.test", {"HTTPS_PROXY": value})

    assert "cret" not in str(error.value)


@pytest.mark.parametrize("variable", ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])
def test_the_variable_that_names_the_proxy_is_told(variable: str) -> None:
    with pytest.raises(UsageError, match=f"^{variable} is no"):
        connection.server_of("a.test", {variable: "socks5://p.test"})

    server = connection.server_of("a.test", {variable: "http://p.test"})
    for error in (connection.ProxyError(TimeoutError()), connection.ProxyError(OSError("407")), TimeoutError()):
        assert variable in connection.unreachable(server, error).remedy


def test_a_password_of_any_bytes_is_no_error() -> None:
    proxy = os.fsdecode(b"http://me:s3cret%ff\xff@p.test:1")

    with pytest.raises(UsageError, match="correct it"):
        connection.server_of("a.test", {"HTTPS_PROXY": proxy})


def test_a_net_may_be_exempt() -> None:
    environ = {"HTTPS_PROXY": "http://p.test", "NO_PROXY": "10.0.0.0/8"}

    assert (connection.server_of("10.1.2.3", environ).proxy, connection.server_of("11.1.2.3", environ).proxy) == (
        "",
        "p.test:80",
    )


def test_a_password_goes_to_the_proxy_and_into_no_output() -> None:
    server = connection.server_of("a.test", {"HTTPS_PROXY": "http://me:secret%21@p.test:1"})

    assert server.authorization == "Basic bWU6c2VjcmV0IQ=="
    assert "secret" not in probe.text(Report(server)) + json.dumps(probe.document(Report(server)))


@pytest.mark.parametrize("proxy", ["socks5://p.test", "https://p.test", "http://p.test:x", "http://"])
def test_a_proxy_that_we_cannot_speak_to_is_a_usage_error(proxy: str) -> None:
    with pytest.raises(UsageError, match="HTTPS_PROXY"):
        connection.server_of("a.test", {"HTTPS_PROXY": proxy})


_NO_CONNECTION: dict[str, tuple[OSError, str]] = {
    "no such name": (socket.gaierror(-2, "Name or service not known"), "unknown-name"),
    "refused": (ConnectionRefusedError(111, "Connection refused"), "connection-refused"),
    "slow": (TimeoutError(), "timeout"),
    "reset": (ConnectionResetError(104, "reset"), "closed"),
    "end of file": (ssl.SSLEOFError(8, "EOF occurred"), "closed"),
    "no TLS": (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"), "no-tls"),
    "proxy": (OSError("Tunnel connection failed: 403 Forbidden"), "unreachable"),
}


@pytest.mark.parametrize(("error", "kind"), _NO_CONNECTION.values(), ids=_NO_CONNECTION.keys())
def test_no_connection_is_explained(error: OSError, kind: str) -> None:
    finding = connection.unreachable(Server("a.test", 443, "p.test:1"), error)

    assert finding.kind == kind
    assert "a.test:443 (by the proxy p.test:1)" in finding.problem


# --- what follows from all answers together ---------------------------------------------------------------------------

_FAILURE = Failure(20, "unable to get local issuer certificate")
_FINDING = Finding("root-not-mounted", "the root is missing", "mount it")


_ANY = _case(0, _LEAF)._replace(chain=(probe.link_of(_LEAF.der)._replace(names=("leaf.test",)),))


def _verdict(path: str, failure: Failure | None = None, **fields: Any) -> Verdict:
    return Verdict(Store(path, "a store", b"", **fields), failure, "", _FINDING if failure else None)


def _kinds(*verdicts: Verdict, asked: tuple[Asked, ...] = (), lacking: tuple[str, ...] = ()) -> list[str]:
    return [finding.kind for finding in diagnosis.conclude(_ANY, verdicts, asked, lacking)]


def test_a_connection_that_broke_hides_no_store() -> None:
    broken = _verdict("/own.pem", Failure(NOT_CONNECTED, "reset"), variable="REQUESTS_CA_BUNDLE")

    assert "variable-hides-stores" not in _kinds(_verdict("/os"), _verdict("/certifi", in_force=False), broken)


def test_a_variable_that_hides_a_store_is_named_with_the_store() -> None:
    hiding = _verdict("/own.pem", _FAILURE, variable="REQUESTS_CA_BUNDLE")
    found = list(diagnosis.conclude(_ANY, (_verdict("/os"), _verdict("/certifi", in_force=False), hiding), (), ()))

    assert [finding.kind for finding in found] == ["variable-hides-stores"]
    assert "/own.pem, which hides /certifi" in found[0].problem


def test_a_variable_hides_nothing_when_no_store_accepts() -> None:
    assert _kinds(_verdict("/os", _FAILURE), _verdict("/own", _FAILURE, variable="SSL_CERT_FILE")) == [
        "root-not-mounted",
        "root-not-mounted",
    ]


def test_a_store_that_nobody_uses_is_no_finding() -> None:
    assert _kinds(_verdict("/os", _FAILURE, in_force=False)) == []


def test_a_bundle_of_this_session_alone_is_told_as_such() -> None:
    here = _verdict("/own", _FAILURE, in_force=False, variable="REQUESTS_CA_BUNDLE")

    assert _kinds(_verdict("/os"), here, lacking=("SSL_CERT_FILE",)) == ["session", "session"]


_ASKED = {
    ACCEPTED: [],
    UNUSABLE: ["client-unusable"],
    NOT_TRIED: [],
    NOT_ASKED: ["client-failed"],
    REFUSED: ["client-refuses"],
    UNREACHABLE: ["client-failed"],
    UNCLEAR: ["client-failed"],
}


@pytest.mark.parametrize(("state", "kinds"), _ASKED.items())
def test_a_client_that_stands_alone_is_told(state: str, kinds: list[str]) -> None:
    assert _kinds(_verdict("/os"), asked=(Asked("curl", "", Answer(state, "words")),)) == kinds


def test_clients_that_fail_for_one_reason_are_told_once() -> None:
    states = (UNCLEAR, UNCLEAR, UNUSABLE, UNUSABLE)
    asked = tuple(Asked(f"client {number}", "", Answer(state, "words")) for number, state in enumerate(states))
    found = list(diagnosis.conclude(_ANY, (_verdict("/os"),), asked, ()))

    assert [finding.kind for finding in found] == ["client-failed", "client-unusable"]
    assert "client 0, client 1 could not" in found[0].problem
    assert "client 2, client 3 cannot be asked" in found[1].problem


def test_a_client_that_could_not_be_asked_is_no_finding_beside_its_stores() -> None:
    asked = (Asked("curl", "", Answer(UNREACHABLE, "the server closes the connection")),)

    assert _kinds(_verdict("/os", _FAILURE), asked=asked) == ["root-not-mounted"]


def test_a_certificate_without_alternative_names_is_one_cause() -> None:
    asked = tuple(Asked(name, "", Answer(REFUSED, "no name")) for name in ("requests", "Go programs"))
    (finding,) = diagnosis.conclude(_case(0, _LEAF), (_verdict("/os"),), asked, ())

    assert finding.kind == "no-alternative-name"
    assert "requests, Go programs refuse it" in finding.problem


def test_a_client_that_refuses_with_its_store_is_no_finding_of_its_own() -> None:
    assert _kinds(_verdict("/os", _FAILURE), asked=(Asked("curl", "", Answer(REFUSED, "no")),)) == ["root-not-mounted"]


# --- what is printed --------------------------------------------------------------------------------------------------

_LINK = Link("CN=\x1b[31mevil\nforged", "CN=x", b"s", b"i", NOW, NOW + DAY, "ab", ("a.test",), ())
_EVIL = Report(
    Server("a.test", 443),
    (_LINK,),
    whole=False,
    verdicts=(_verdict("/os", Failure(20, "\x1b]0;title\x07")), _verdict("/x")._replace(strict="no key id")),
    asked=(Asked("curl", "SSL_CERT_FILE", Answer(REFUSED, "bad\x07bell")), Asked("node", "", Answer(ACCEPTED))),
    findings=(Finding("refused", "the CA \x1b[0m", "mend it"),),
)


def test_what_a_stranger_wrote_is_escaped() -> None:
    said = probe.text(_EVIL)

    assert all(character.isprintable() or character == "\n" for character in said)
    assert not [line for line in said.splitlines() if line.startswith("forged")]


def test_a_report_tells_what_is_not_certain() -> None:
    said = probe.text(_EVIL)

    assert "shows the first certificate only" in said
    assert "Python >= 3.13 refuses: no key id" in said
    assert "curl by SSL_CERT_FILE refuses: bad" in said


def test_the_document_is_json_and_says_the_same() -> None:
    document = json.loads(json.dumps(probe.document(_EVIL)))

    assert document["accepted"] is False
    assert [store["state"] for store in document["stores"]] == ["refuses", "accepts"]
    assert document["clients"][0] == {
        "client": "curl",
        "variable": "SSL_CERT_FILE",
        "state": "refuses",
        "reason": "bad\x07bell",
    }


def test_a_server_is_accepted_when_all_that_counts_accept_it() -> None:
    unused = _verdict("/os", _FAILURE, in_force=False)
    report = Report(Server("a.test", 1), (_LINK,), verdicts=(unused, _verdict("/os.pem")))

    assert report.accepted
    assert report._replace(asked=(Asked("skopeo", "", Answer(NOT_TRIED)),)).accepted
    assert not report._replace(chain=()).accepted
    assert not report._replace(verdicts=(_verdict("/os", _FAILURE),)).accepted
    assert not report._replace(asked=(Asked("curl", "", Answer(UNCLEAR)),)).accepted


def test_a_certificate_that_is_sent_is_described() -> None:
    link = probe.link_of(_LEAF.der)

    assert (link.subject, link.issuer, link.names, link.sources) == ("CN=leaf.test", "CN=Test intermediate", (), ())


def test_names_and_the_place_of_the_issuer_are_read() -> None:
    der = _with_extensions(
        x509.SubjectAlternativeName([x509.DNSName("a.test"), x509.IPAddress(ipaddress.ip_address("192.0.2.1"))]),
        x509.AuthorityInformationAccess(
            [
                x509.AccessDescription(
                    AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier("http://o.test")
                ),
                x509.AccessDescription(
                    AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier("http://pki.test/ca.der")
                ),
            ]
        ),
    )
    link = probe.link_of(der)

    assert (link.names, link.sources) == (("a.test", "192.0.2.1"), ("http://pki.test/ca.der",))


_AIA, _SAN = AuthorityInformationAccessOID, x509.SubjectAlternativeName.oid
_PLACE_OF_ISSUER = x509.AuthorityInformationAccess(
    [x509.AccessDescription(_AIA.CA_ISSUERS, x509.UniformResourceIdentifier("http://pki.test/ca.der"))]
)
_BROKEN = {
    "the place of the issuer": (x509.AuthorityInformationAccess.oid, ("a.test",), ()),
    "the names": (_SAN, ("(names that cannot be read)",), ("http://pki.test/ca.der",)),
    "the usage": (x509.KeyUsage.oid, ("a.test",), ("http://pki.test/ca.der",)),
}


@pytest.mark.parametrize(("oid", "names", "sources"), _BROKEN.values(), ids=_BROKEN.keys())
def test_an_extension_that_cannot_be_read_costs_its_own_column(
    oid: x509.ObjectIdentifier, names: tuple[str, ...], sources: tuple[str, ...]
) -> None:
    whole = (x509.SubjectAlternativeName([x509.DNSName("a.test")]), _PLACE_OF_ISSUER)
    broken = x509.UnrecognizedExtension(oid, b"\x30\x03\xff")
    link = probe.link_of(_with_extensions(*(each for each in whole if each.oid != oid), broken))

    assert (link.names, link.sources) == (names, sources)


def _with_extensions(*extensions: x509.ExtensionType) -> bytes:
    name, now = certificates.named("a.test"), dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(_ROOT.key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + dt.timedelta(1))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(_ROOT.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
