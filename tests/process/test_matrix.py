"""`verify` against every server and proxy that we could think of: what it finds, in which time, and in how much memory.

Each is a real process and real sockets. The root "Matrix root" is in every bundle that clients are pointed to.
"""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from shim import families
from tests.process.servers import (
    ADDRESS,
    NAME,
    Tls,
    closing,
    dripping,
    far,
    greeting,
    issue,
    middle,
    nothing,
    once,
    page,
    proxy,
    resetting,
    root,
    saying,
    serving,
    slow,
    tls_server,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.process.servers import Issued, Talk

_SECONDS, _BYTES = 30.0, 128 * 1024 * 1024
_SECRET = "s3cr3t"


@dataclass(frozen=True)
class Case:
    """A server, what is asked about it, and what is to come out."""

    talk: Talk
    kinds: tuple[str, ...] = ()
    code: int = 1
    url: str = f"{NAME}:{{port}}"
    way: Talk | None = None  # the proxy
    environ: Mapping[str, str] = field(default_factory=dict)  # {proxy} stands for its host and port
    trusted: tuple[Issued, ...] = ()  # besides the root
    words: str = ""  # somewhere in the findings, or in the log


def _tls(*chain: Issued, **more: Any) -> Talk:
    return tls_server(Tls(chain or (issue("good", root()),), **more))


def _served(after: Talk) -> Case:
    """The handshake is accepted, and that is the question."""
    return Case(_tls(after=after), (), 0)


_UNKNOWN = root("Unknown root")
_OTHER_KEY = issue("Matrix root", ca=True)
_OLD_ROOT = issue("Old root", ca=True, begins=-20, ends=-10)
_OLD_MIDDLE = issue("Matrix intermediate", root(), ca=True, begins=-20, ends=-10)
_NO_CA = issue("No CA", root())
_NARROW = issue("Narrow root", ca=True, path_length=0)
_TOO_DEEP = issue("Too deep", _NARROW, ca=True)
_ONLY_TEST = x509.NameConstraints(permitted_subtrees=[x509.DNSName("elsewhere.test")], excluded_subtrees=None)
_BOUND = issue("Bound root", ca=True, more=[(_ONLY_TEST, True)])
_ANYBODY = x509.NameConstraints(
    permitted_subtrees=None, excluded_subtrees=[x509.DirectoryName(_UNKNOWN.certificate.subject)]
)
_BEYOND_GO = issue("Bound intermediate", root(), ca=True, more=[(_ANYBODY, True)])
_BEYOND_GO_ROOT = issue("Bound root", ca=True, more=[(_ANYBODY, True)])
_STRANGE = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4.5"), b"\x05\x00")
_BULK = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4.6"), b"\x04\x82\x80\x00" + bytes(32768))
_BROKEN = x509.UnrecognizedExtension(x509.AuthorityInformationAccess.oid, b"\x30\x03\xff")
_ALONE = issue(NAME)
_OLD_TLS = {"versions": (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1)}
_ONLY_12 = {"versions": (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2)}
_ONLY_13 = {"versions": (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_3)}

_CERTIFICATES = {
    "all is well": Case(_tls(), (), 0),
    "it is asked by its address": Case(_tls(), (), 0, f"{ADDRESS}:{{port}}"),
    "an intermediate is sent": Case(_tls(issue("a", middle()), middle()), (), 0),
    "the root is sent too": Case(_tls(issue("a", middle()), middle(), root()), (), 0),
    "the chain is in the wrong order": Case(_tls(issue("a", middle()), root(), middle()), (), 0),
    "something else is sent beside": Case(_tls(issue("a", root()), _UNKNOWN), (), 0),
    "no chain is sent": Case(_tls(issue("a", middle())), ("issuer-unknown",), words="mount it beside its root"),
    "the wrong intermediate is sent": Case(
        _tls(issue("a", middle()), _TOO_DEEP), ("intermediate-not-sent",), words="mount the intermediate beside"
    ),
    "the CA is unknown": Case(_tls(issue("a", _UNKNOWN)), ("issuer-unknown",), words="CN=Unknown root"),
    "the CA is unknown and sent": Case(_tls(issue("a", _UNKNOWN), _UNKNOWN), ("root-not-mounted",)),
    "it signed itself": Case(_tls(_ALONE), ("self-signed",)),
    "it signed itself and is trusted": Case(_tls(_ALONE), (), 0, trusted=(_ALONE,)),
    "a CA of that name has another key": Case(_tls(issue("a", _OTHER_KEY)), ("other-key",)),
    "it has expired": Case(_tls(issue("a", root(), begins=-9, ends=-2)), ("expired",), words="here it is 20"),
    "it is not valid yet": Case(_tls(issue("a", root(), begins=2)), ("not-yet-valid",), words="here it is 20"),
    "its intermediate has expired": Case(_tls(issue("a", _OLD_MIDDLE), _OLD_MIDDLE), ("expired",), words="CN=Matrix i"),
    "its root has expired": Case(_tls(issue("a", _OLD_ROOT)), ("expired",), trusted=(_OLD_ROOT,), words="CN=Old root"),
    "it has another name": Case(_tls(issue("a", root(), names=["b.test"])), ("name-mismatch",), words="b.test"),
    "it has another name and has expired": Case(
        _tls(issue("a", root(), names=["b.test"], begins=-9, ends=-2)), ("name-mismatch", "expired")
    ),
    "it has another name and is not valid yet": Case(
        _tls(issue("a", root(), names=["b.test"], begins=2)), ("name-mismatch", "not-yet-valid")
    ),
    "it has no address": Case(_tls(issue("a", root(), names=[NAME])), ("name-mismatch",), url=f"{ADDRESS}:{{port}}"),
    "it has no alternative name": Case(
        _tls(issue(NAME, root(), names=())), ("no-alternative-name",), words="Go programs (search path) refuse it"
    ),
    "it has 500 names": Case(_tls(issue("a", root(), names=[*(f"n{n}.test" for n in range(500)), NAME])), (), 0),
    "it has no subject": Case(_tls(issue("", root())), (), 0),
    "its subject steers terminals": Case(_tls(issue("\x1b[31mred\n", _UNKNOWN)), ("issuer-unknown",)),
    "its subject has words of clients": Case(
        _tls(issue("verify error:num=20 certificate verify failed x509: ", root())), (), 0
    ),
    "its issuer's place cannot be read": Case(_tls(issue("a", _UNKNOWN, more=[(_BROKEN, False)])), ("issuer-unknown",)),
    "its key has 1024 bits": Case(_tls(issue("a", root(), rsa_bits=1024)), ("weak",), words="2048"),
    "its key has 3072 bits": Case(_tls(issue("a", root(), rsa_bits=3072)), (), 0),
    "it is for clients": Case(_tls(issue("a", root(), usage=ExtendedKeyUsageOID.CLIENT_AUTH)), ("refused",)),
    "its issuer is no CA": Case(_tls(issue("a", _NO_CA), _NO_CA), ("refused",)),
    "its issuer is too deep": Case(_tls(issue("a", _TOO_DEEP), _TOO_DEEP), ("refused",), trusted=(_NARROW,)),
    "its issuer may not sign this name": Case(_tls(issue("a", _BOUND)), ("refused",), trusted=(_BOUND,)),
    "its issuer is bound in a way that Go does not know": Case(
        _tls(issue("a", _BEYOND_GO), _BEYOND_GO), (), 0, words="not tried"
    ),
    "its root is bound in a way that Go does not know": Case(
        _tls(issue("a", _BEYOND_GO_ROOT)), (), 0, trusted=(_BEYOND_GO_ROOT,), words="not tried"
    ),
    "it has an unknown critical extension": Case(_tls(issue("a", root(), more=[(_STRANGE, True)])), ("refused",)),
    "its chain has 30 certificates": Case(_tls(issue("a", root()), *[_UNKNOWN] * 29), (), 0),
    "its chain has more than 100 KB": Case(
        _tls(issue("a", root()), *[issue("a", root(), more=[(_BULK, False)])] * 4), ("chain-too-long",)
    ),
}
_PROTOCOLS = {
    "TLS 1.2 only": Case(_tls(**_ONLY_12), (), 0),
    "TLS 1.3 only": Case(_tls(**_ONLY_13), (), 0),
    "TLS 1.1 at most": Case(_tls(**_OLD_TLS), ("old-tls",), words="TLSv1.1"),
    "a client certificate in TLS 1.2": Case(_tls(wants_client=True, **_ONLY_12), ("handshake-refused",)),
    "a client certificate in TLS 1.3": Case(_tls(wants_client=True, **_ONLY_13), ("client-certificate",)),
    "a client certificate in TLS 1.3, far away": Case(
        far(_tls(wants_client=True, **_ONLY_13), 0.8), ("client-certificate",)
    ),
    "a name is required": Case(_tls(only_name=NAME), ("name-unknown",), url=f"{ADDRESS}:{{port}}", words="SNI"),
    "another name is required": Case(_tls(only_name="b.test"), ("name-unknown",)),
    **{
        f"it ends the handshake with alert {number}": Case(
            greeting(b"\x15\x03\x03\x00\x02\x02" + bytes([number])), ("handshake-refused",), words=word
        )
        for number, word in (
            (40, "HANDSHAKE_FAILURE"),
            (49, "ACCESS_DENIED"),
            (80, "INTERNAL_ERROR"),
            (120, "no application protocol"),
        )
    },
    "it speaks HTTP": Case(page(), ("no-tls",)),
    "it speaks SSH": Case(greeting(b"SSH-2.0-OpenSSH_9.6\r\n"), ("no-tls",)),
    "it speaks SMTP": Case(greeting(b"220 mail.test ESMTP\r\n"), ("no-tls",)),
    "it closes at once": Case(closing, ("closed",)),
    "it resets the connection": Case(resetting, ("closed",)),
    "it is silent": Case(nothing, ("timeout",)),
    "it drips": Case(dripping(b"\x16\x03\x03\x3f\x00\x02\x00\x3e\xf0\x03\x03"), ("timeout",)),
    "it drips records of TLS": Case(saying(b"\x16\x03\x03\x00\x04" + bytes(4), times=100, pause=0.5), ("timeout",)),
    "its handshakes take three seconds": Case(slow(_tls(), 3), ("client-failed",), words="taken all the time"),
    "it serves the first connection only": Case(once(_tls()), ("timeout",)),
    "it never stops": Case(saying(bytes(1 << 20), times=10_000), ("no-tls",)),
    "it never stops warning": Case(saying(b"\x15\x03\x03\x00\x02\x01\x70" * 9999, times=9999), ("no-tls",)),
    "nobody listens": Case(nothing, ("connection-refused",), url=f"{NAME}:1"),
    "the address has an endless scope": Case(nothing, ("unknown-name",), url=f"[fe80::1%{'a' * 99}]:1"),
    "the name does not exist": Case(nothing, ("unknown-name",), url="nowhere.invalid"),
}
_ANSWERS = {
    "it closes after the handshake": _served(closing),
    "it resets after the handshake": _served(resetting),
    "it closes after a handshake of TLS 1.2": Case(_tls(after=closing, **_ONLY_12), (), 0),
    "it resets after a handshake of TLS 1.2": Case(_tls(after=resetting, **_ONLY_12), (), 0),
    "it is silent after the handshake": _served(nothing),
    "it answers unasked": _served(greeting(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")),
    "it answers something else": _served(saying(b"220 hello\r\n")),
    "its header is huge": _served(page(b"X: %s\r\n" % (b"x" * 300_000))),
    "its header never ends": _served(saying(b"X-More: more and more\r\n" * 999, times=99_999)),
    "its body never ends": _served(saying(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(1 << 20), times=99_999)),
    "its body drips": _served(saying(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\nx", times=99, pause=0.5)),
    "its body has words of clients": _served(page(body=b"x509: timeouts, tls: dial tcp certificate verify failed")),
    "its redirect is broken": _served(page(b"Location: https://[x\r\n", status=b"302 Found")),
    "its redirect goes elsewhere": _served(page(b"Location: https://127.0.0.1:1/\r\n", status=b"302 Found")),
    "its redirect drops TLS": _served(page(b"Location: http://127.0.0.1:1/\r\n", status=b"301 Moved")),
    "its token service is elsewhere": _served(
        page(b'WWW-Authenticate: Bearer realm="https://127.0.0.1:1/t",service="x"\r\n', status=b"401 Unauthorized")
    ),
    "it finds nothing": _served(page(status=b"404 Not Found")),
    "it is broken": _served(page(status=b"500 Internal Server Error")),
}
_BY_PROXY = {"HTTPS_PROXY": "http://{proxy}"}
_WITH_PASSWORD = {"HTTPS_PROXY": f"http://me:{_SECRET}@{{proxy}}"}
_ENDLESS = saying(b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 9999, times=99_999)


def _by(way: Talk, kind: str, environ: Mapping[str, str] = _BY_PROXY, words: str = "") -> Case:
    return Case(_tls(), (kind,) if kind else (), 1 if kind else 0, way=way, environ=environ, words=words)


_PROXIES = {
    "by a proxy": _by(proxy(), ""),
    "by a proxy without a scheme": _by(proxy(), "", {"https_proxy": "{proxy}"}),
    "by a proxy with a user alone": _by(proxy(), "", {"HTTPS_PROXY": "http://a@{proxy}"}),
    "by a proxy with a password": _by(proxy(password="bWU6czNjcjN0"), "", _WITH_PASSWORD),
    "the CA is unknown behind a proxy": Case(
        _tls(issue("a", _UNKNOWN)), ("issuer-unknown",), way=proxy(), environ=_BY_PROXY
    ),
    "the proxy wants a password": _by(proxy(password="another"), "proxy-refused", words="the user and the password"),
    "the proxy repeats the password": _by(proxy(password="another"), "proxy-refused", _WITH_PASSWORD, "407"),
    "the proxy forbids": _by(proxy(answer=b"HTTP/1.1 403 Forbidden\r\n\r\n"), "proxy-refused", words="have the proxy"),
    "the proxy does not get there": _by(proxy(answer=b"HTTP/1.1 502 Bad\r\n\r\n"), "proxy-refused", words="502"),
    "the proxy is dead": _by(nothing, "proxy-connection-refused", {"HTTPS_PROXY": "http://127.0.0.1:1"},
                             f"correct HTTPS_PROXY, or add {NAME} to NO_PROXY"),
    "the proxy does not exist": _by(nothing, "proxy-unknown-name", {"HTTPS_PROXY": "http://nowhere.invalid:3128"}),
    "the proxy is silent": _by(nothing, "proxy-timeout"),
    "the proxy drips": _by(saying(b"H", times=100, pause=0.5), "proxy-timeout"),
    "the proxy drips its head": _by(saying(b"HTTP/1.1 200 OK\r\nX: x", times=100, pause=0.5), "proxy-timeout"),
    "the proxy never stops": _by(_ENDLESS, "no-tls"),
    "the proxy speaks SSH": _by(greeting(b"SSH-2.0-x\r\n\r\n"), "proxy-refused", words="something other than HTTP"),
    "the proxy closes": _by(closing, "proxy-closed"),
    "a dead proxy is not asked": _by(nothing, "", {"HTTPS_PROXY": "http://127.0.0.1:1", "NO_PROXY": NAME}),
    "the proxy's name is none": Case(nothing, code=64, environ={"HTTPS_PROXY": "http://a..b:1"}, words="HTTPS_PROXY"),
    "the proxy speaks SOCKS": Case(nothing, code=64, environ={"HTTPS_PROXY": "socks5://{proxy}"}, words="HTTPS_PROXY"),
    "the proxy cannot be read": Case(nothing, code=64, environ={"HTTPS_PROXY": f"http://a:{_SECRET}@b:c"}),
}  # fmt: skip
_URLS = {
    "the URL ends in a dot": Case(_tls(), (), 0, f"https://{NAME}.:{{port}}/"),
    "the URL has a password": Case(_tls(), (), 0, f"https://me:{_SECRET}@{NAME}:{{port}}/x?y#z"),
    "the URL has a password and no TLS": Case(nothing, code=64, url=f"http://me:{_SECRET}@{NAME}/", words="no https"),
    "the URL has a token and no TLS": Case(nothing, code=64, url=f"http://h/?token={_SECRET}", words="argument 1"),
    "the URL has a password before %40": Case(nothing, code=64, url=f"https://u:{_SECRET}%40h/", words="argument 1"),
    "the URL has a password for a port": Case(nothing, code=64, url=f"https://h:{_SECRET}", words="argument 1"),
    "the URL has two dots": Case(nothing, code=64, url="https://a..b/", words="no https"),
}
_CASES = {**_CERTIFICATES, **_PROTOCOLS, **_ANSWERS, **_PROXIES, **_URLS}


@dataclass(frozen=True)
class Result:
    """What one `verify` came to."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def document(self) -> dict[str, Any]:
        (document,) = json.loads(self.out)
        assert isinstance(document, dict)
        return document


@pytest.fixture(scope="module")
def results(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, Future[Result]]]:
    """Ask all that this run has selected, some at a time: a few take ten seconds of waiting."""
    selected = {item.callspec.params.get("name") for item in request.session.items if hasattr(item, "callspec")}
    cases = {name: case for name, case in _CASES.items() if name in selected}
    place = tmp_path_factory.mktemp("matrix")
    place.chmod(0o755)
    (place / "certs").mkdir()
    talks = [talk for case in cases.values() for talk in (case.talk, case.way or nothing)]
    with serving(talks) as ports, ThreadPoolExecutor(3) as pool:
        asked = zip(cases.items(), ports[::2], ports[1::2], strict=True)
        yield {name: pool.submit(_verify, case, place / str(port), port, way) for (name, case), port, way in asked}


def _verify(case: Case, place: Path, port: int, way: int) -> Result:
    place.mkdir()
    (place / "ca.pem").write_bytes(b"".join(each.pem for each in (root(), *case.trusted)))
    pointed = {row.name: f"{place}/ca.pem" for row in families.VARIABLES if row.exported}
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(place),
        "CA_SHIM_CERTS": f"{place.parent}/certs",
        "CA_SHIM_BUNDLE_DIR": f"{place}/bundles",
        **({"CA_SHIM_USER": "root"} if os.geteuid() == 0 else {}),
        **pointed,
        **{name: value.replace("{proxy}", f"{ADDRESS}:{way}") for name, value in case.environ.items()},
    }
    limited = f'ulimit -d {_BYTES >> 10}; exec "$@"'
    words = [sys.executable, "-I", "-B", "-m", "shim", "verify", "--json", case.url.replace("{port}", str(port))]
    begun = time.monotonic()
    process = subprocess.Popen(
        ["/bin/sh", "-c", limited, "sh", *words], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    killer = threading.Timer(2 * _SECONDS, process.kill)
    killer.start()
    out, err = (stream.read().decode() for stream in (process.stdout, process.stderr) if stream)
    for stream in (process.stdout, process.stderr):
        if stream:
            stream.close()
    process.wait()
    killer.cancel()
    return Result(process.returncode, out, err, time.monotonic() - begun)


@pytest.mark.parametrize("name", _CASES)
def test_a_server_is_understood(results: Mapping[str, Future[Result]], name: str) -> None:
    case, result = _CASES[name], results[name].result()

    assert result.code == case.code, result.out + result.err
    assert case.words in result.out + result.err
    assert "Traceback" not in result.err
    if case.code != 64:
        assert tuple(each["kind"] for each in result.document["findings"]) == case.kinds, result.out
    if case.code == 0:
        assert {each["state"] for each in result.document["clients"]} <= {"accepts", "not tried"}


@pytest.mark.parametrize("name", _CASES)
def test_no_server_takes_more_than_its_time(results: Mapping[str, Future[Result]], name: str) -> None:
    """All of them are asked under the limit of memory, and are understood all the same."""
    assert results[name].result().seconds < _SECONDS


@pytest.mark.parametrize("name", _CASES)
def test_no_password_is_repeated(results: Mapping[str, Future[Result]], name: str) -> None:
    result = results[name].result()

    for secret in (_SECRET, "bWU6czNjcjN0"):
        assert secret not in result.out + result.err
