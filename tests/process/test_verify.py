"""`ca-shim verify` against real TLS servers on loopback, with the clients of this machine."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import socket
import ssl
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shim import bundle, clients, config, connection, probe, reconcile, throwaway
from shim.accounts import Account
from shim.answers import ACCEPTED, NOT_LOADED, Case, Failure, Report, Server
from shim.errors import UsageError
from tests.process import servers

if TYPE_CHECKING:
    from collections.abc import Iterator


def _soon() -> float:
    return time.monotonic() + 10


_BUNDLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@pytest.fixture
def site() -> throwaway.Site:
    return throwaway.site(sends_intermediate=True)


@pytest.fixture
def port(site: throwaway.Site) -> Iterator[int]:
    with throwaway.serving([site.context]) as ports:
        yield ports[0]


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """A user who mounts nothing, on this machine's PATH; root says aloud that it stays root."""
    (tmp_path / "certs").mkdir()
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "CA_SHIM_CERTS": f"{tmp_path}/certs",
        "CA_SHIM_BUNDLE_DIR": f"{tmp_path}/bundles",
        **({"CA_SHIM_USER": "root"} if os.geteuid() == 0 else {}),
    }


def _verify(environ: dict[str, str], url: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, object]]:
    code = probe.main(config.read(environ), environ, [url], as_json=True)
    (document,) = json.loads(capsys.readouterr().out)
    return code, document


def _kinds(document: dict[str, object]) -> list[str]:
    findings = document["findings"]
    assert isinstance(findings, list)
    return [finding["kind"] for finding in findings]


def test_a_server_of_a_ca_that_is_not_mounted_is_refused_by_all(
    environ: dict[str, str], port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    code, document = _verify(environ, f"127.0.0.1:{port}", capsys)

    assert (code, document["accepted"]) == (1, False)
    assert _kinds(document) == ["root-not-mounted"]
    chain, asked = document["chain"], document["clients"]
    assert isinstance(chain, list)
    assert isinstance(asked, list)
    assert [link["names"] for link in chain] == [["127.0.0.1", "127.0.0.1"], []]
    assert {client["state"] for client in asked} == {"refuses"}


def test_a_server_is_accepted_by_all_that_are_pointed_to_its_ca(
    environ: dict[str, str], site: throwaway.Site, port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.pem").write_bytes(site.root)
    bundles = {**dict.fromkeys(_BUNDLES, f"{tmp_path}/own.pem"), "NODE_EXTRA_CA_CERTS": f"{tmp_path}/own.pem"}

    code, document = _verify({**environ, **bundles}, f"https://127.0.0.1:{port}/", capsys)

    assert (code, _kinds(document)) == (0, []), document


def test_a_mounted_ca_that_no_store_has_yet_is_told(
    environ: dict[str, str], site: throwaway.Site, port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "certs/ca.pem").write_bytes(site.root)

    code, document = _verify(environ, f"127.0.0.1:{port}", capsys)

    assert (code, _kinds(document)) == (1, ["not-installed"])


def test_a_bundle_that_does_not_exist_is_told(
    environ: dict[str, str], port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, document = _verify({**environ, "REQUESTS_CA_BUNDLE": f"{tmp_path}/gone.pem"}, f"127.0.0.1:{port}", capsys)

    assert code == 1
    assert "store-unusable" in _kinds(document)


def test_a_directory_of_certificates_is_a_bundle_too(
    environ: dict[str, str], site: throwaway.Site, port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "hashed").mkdir()
    (tmp_path / "hashed/12345678.0").write_bytes(site.root)

    _, document = _verify({**environ, "REQUESTS_CA_BUNDLE": f"{tmp_path}/hashed"}, f"127.0.0.1:{port}", capsys)

    stores = document["stores"]
    assert isinstance(stores, list)
    assert {"accepts"} == {store["state"] for store in stores if store["path"].endswith("/hashed")}


@pytest.fixture
def overridden(environ: dict[str, str], site: throwaway.Site, tmp_path: Path) -> config.Config:
    """The CA is mounted, and a start has served it by override."""
    (tmp_path / "certs/ca.pem").write_bytes(site.root)
    settings = config.read(environ)._replace(in_place=False)
    assert reconcile.reconcile(settings, environ, (), time.time()).variables
    return settings


def _examine(settings: config.Config, environ: dict[str, str], port: int) -> Report:
    sight = probe.see(settings, environ, time.time())
    return probe.examine(Server("127.0.0.1", port), sight, None, time.time())


def test_the_application_has_variables_that_a_session_lacks(
    overridden: config.Config, environ: dict[str, str], port: int
) -> None:
    report = _examine(overridden, environ, port)

    assert report.accepted, probe.text(report)
    assert [finding.kind for finding in report.findings] == ["session"]
    assert {each.store.name for each in report.verdicts if each.store.in_force} >= {"override, SSL_CERT_FILE"}


def test_a_session_with_a_bundle_of_its_own_is_told(
    overridden: config.Config, environ: dict[str, str], port: int, tmp_path: Path
) -> None:
    (tmp_path / "own.pem").write_bytes(throwaway.site(sends_intermediate=False).root)
    report = _examine(overridden, {**environ, "REQUESTS_CA_BUNDLE": f"{tmp_path}/own.pem"}, port)

    assert report.accepted
    assert "this session's REQUESTS_CA_BUNDLE" in report.findings[0].problem


def test_what_an_interpreter_does_not_have_is_not_listed(
    environ: dict[str, str], port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "python3"
    program.write_text("#!/bin/sh\necho absent\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setattr("shim.interpreters.certifi_bundles", lambda *_: {})

    report = _examine(config.read(environ), {**environ, "PATH": str(tmp_path)}, port)

    assert [each.client for each in report.asked] == ["Go programs (search path)"]


def test_a_certificate_that_cannot_be_parsed_is_told(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "chain_of", lambda *_: ((b"no certificate",), True))

    assert [finding.kind for finding in _examine(config.read(environ), environ, 1).findings] == [
        "unreadable-certificate"
    ]


def test_a_proxy_that_speaks_something_else_is_told(
    environ: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_greet, args=(listener,))
        thread.start()
        proxy = f"http://127.0.0.1:{listener.getsockname()[1]}"
        code, document = _verify({**environ, "HTTPS_PROXY": proxy}, "192.0.2.1", capsys)
        thread.join()

    assert (code, _kinds(document)) == (1, ["proxy-refused"])
    assert "something other than HTTP" in str(document["findings"])


def _greet(listener: socket.socket) -> None:
    other, _ = listener.accept()
    with other:
        other.sendall(b"SSH-2.0-x\r\n")
        other.recv(4096)


def test_a_connection_that_breaks_is_no_verdict_on_the_bundle(site: throwaway.Site, environ: dict[str, str]) -> None:
    """The first connection shows the chain, and then the server is gone."""
    with throwaway.serving([site.context]) as ports:
        sight = probe.see(config.read(environ), environ, time.time())
        real = connection.chain_of(Server("127.0.0.1", ports[0]), _soon())
    chain = tuple(map(probe.link_of, real[0]))
    case = Case(Server("127.0.0.1", ports[0]), chain, Failure(0, ""), (), (), time.time())
    verdict = probe.verdict_of(case, sight.stores[0], _soon())

    assert verdict.finding is not None
    assert verdict.finding.kind == "connection-refused"


def test_people_get_a_text(environ: dict[str, str], port: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert probe.main(config.read(environ), environ, [f"127.0.0.1:{port}"], as_json=False) == 1

    said = capsys.readouterr().out
    assert f"127.0.0.1:{port}: NOT accepted by all" in said
    assert "what to do" in said


@pytest.mark.parametrize(("answer", "kind"), [(b"", "closed"), (b"220 mail.test ESMTP\r\n", "no-tls")])
def test_what_does_not_speak_tls_is_told(
    environ: dict[str, str], answer: bytes, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(4096)
                connection.sendall(answer)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(4096):
                    pass

        thread = threading.Thread(target=greet)
        thread.start()
        code, document = _verify(environ, f"127.0.0.1:{listener.getsockname()[1]}", capsys)
        thread.join()

    assert (code, document["chain"], _kinds(document)) == (1, [], [kind])


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone reads what others cannot")
@pytest.mark.parametrize("mode", ["file", "directory", "group", "open"])
def test_a_store_that_the_application_cannot_read_is_told(
    environ: dict[str, str], site: throwaway.Site, port: int, mode: str
) -> None:
    account = Account("somebody", 1234, 1234, (1234, 4321), "/")
    with tempfile.TemporaryDirectory() as place:
        path = f"{place}/own.pem"
        Path(path).write_bytes(site.root)
        os.chown(path, 0, 4321)
        os.chmod(place, 0o700 if mode == "directory" else 0o755)
        os.chmod(path, {"file": 0o600, "group": 0o640}.get(mode, 0o644))
        settings, environ = config.read(environ), {**environ, "SSL_CERT_FILE": path}
        sight = probe.as_seen_by(account, probe.see(settings, environ, time.time()))
        (store,) = (each for each in sight.stores if each.path == path)
        verdict = probe.verdict_of(Case(Server("127.0.0.1", port), (), Failure(0, ""), (), (), 0), store, _soon())

    if mode in ("group", "open"):
        assert verdict.failure is None
    else:
        assert verdict.failure == Failure(NOT_LOADED, "cannot be read by uid 1234")
        assert verdict.finding
        assert "chmod 644" in verdict.finding.remedy
    assert os.geteuid() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone reads what others cannot")
def test_stores_are_read_as_the_user_of_the_clients(
    environ: dict[str, str], site: throwaway.Site, port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.pem").write_bytes(site.root)
    (tmp_path / "own.pem").chmod(0o600)
    environ |= {"CA_SHIM_USER": "nobody", "SSL_CERT_FILE": f"{tmp_path}/own.pem"}

    _, document = _verify(environ, f"127.0.0.1:{port}", capsys)

    assert "store-unusable" in _kinds(document)
    assert "cannot be read by uid" in str(document["stores"])


def test_an_unusable_url_is_found_before_anybody_is_asked(environ: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        probe.main(config.read(environ), environ, ["example.com", "http://example.com"], as_json=False)


def test_a_machine_in_a_directory_has_stores_and_no_clients(environ: dict[str, str], port: int, tmp_path: Path) -> None:
    sight = probe.see(config.read(environ, root=str(tmp_path)), environ, 0)
    report = probe.examine(Server("127.0.0.1", port), sight, None, 0)

    assert sight.found == ()
    assert [each.client for each in report.asked] == ["Go programs (search path)"]


_GO_READS = {
    "a bundle of the search list": ({}, "etc/ssl/ca-bundle.pem", "accepts"),
    "a directory": ({}, "etc/pki/tls/certs/own", "accepts"),
    "a directory, beside a bundle that is not there": ({"SSL_CERT_FILE": "/gone"}, "etc/ssl/certs/own", "accepts"),
    "a chosen bundle": ({"SSL_CERT_FILE": "/own"}, "own", "accepts"),
    "one of the chosen directories": ({"SSL_CERT_DIR": "/gone:/own"}, "own/a.pem", "accepts"),
    "no other directory": ({"SSL_CERT_DIR": "/gone"}, "etc/ssl/certs/own", "refuses"),
    "no other bundle": ({"SSL_CERT_FILE": "/gone"}, "etc/ssl/ca-bundle.pem", "refuses"),
}


@pytest.mark.parametrize("case", _GO_READS.values(), ids=_GO_READS.keys())
def test_go_reads_bundles_and_directories(
    case: tuple[dict[str, str], str, str], site: throwaway.Site, port: int, tmp_path: Path
) -> None:
    environ, path, state = case
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_bytes(site.root + b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")

    assert probe.ask_go(Server("127.0.0.1", port), environ, str(tmp_path)).answer.state == state


@pytest.mark.parametrize("content", ["der", "trusted"])
def test_go_reads_plain_pem_only(site: throwaway.Site, port: int, tmp_path: Path, content: str) -> None:
    der = ssl.PEM_cert_to_DER_cert(site.root.decode())
    (tmp_path / "own.pem").write_bytes({"der": der}.get(content, bundle.to_pem(der, b"TRUSTED CERTIFICATE")))
    environ = {"SSL_CERT_FILE": "/own.pem"}

    assert probe.ask_go(Server("127.0.0.1", port), environ, str(tmp_path)).answer.state == "refuses"


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone reads what others cannot")
def test_go_reads_as_the_user_of_the_clients(site: throwaway.Site, port: int, tmp_path: Path) -> None:
    (tmp_path / "own.pem").write_bytes(site.root)
    (tmp_path / "own.pem").chmod(0o600)
    account = Account("somebody", 1234, 1234, (1234,), "/")
    asked = probe.ask_go(Server("127.0.0.1", port), {"SSL_CERT_FILE": "/own.pem"}, str(tmp_path), account=account)

    assert asked.answer.state == "refuses"


# --- our own handshake ------------------------------------------------------------------------------------------------


def test_an_intermediate_alone_is_an_anchor_for_go_only(site: throwaway.Site, port: int) -> None:
    server = Server("127.0.0.1", port)
    ders, whole = connection.chain_of(server, _soon())
    middle = bundle.to_pem(ders[1])

    assert (len(ders), whole) == (2, True)
    assert connection.handshake(server, middle, _soon(), connection.GO) is None
    assert connection.handshake(server, middle, _soon()) == Failure(2, "unable to get issuer certificate")
    assert connection.handshake(server, site.root, _soon(), connection.PYTHON_313) is None


def test_go_takes_a_key_of_1024_bits_and_openssl_does_not() -> None:
    with servers.serving([servers.tls_server(servers.Tls((servers.issue("a", servers.root(), rsa_bits=1024),)))]) as (
        at,
    ):
        server, root = Server("127.0.0.1", at), servers.root().pem
        failure = connection.handshake(server, root, _soon())

        assert connection.handshake(server, root, _soon(), connection.GO) is None
    assert failure is not None
    assert failure.code == 66


def test_go_does_not_exchange_keys_by_rsa_and_openssl_does() -> None:
    leaf, only_12 = servers.issue("a", servers.root(), rsa_bits=2048), (ssl.TLSVersion.TLSv1_2,) * 2
    side = servers.Tls((leaf,), versions=only_12, ciphers="AES128-GCM-SHA256")
    with servers.serving([servers.tls_server(side)]) as (at,):
        server, root = Server("127.0.0.1", at), servers.root().pem

        assert connection.handshake(server, root, _soon()) is None
        with pytest.raises(ssl.SSLError, match="handshake failure"):
            connection.handshake(server, root, _soon(), connection.GO)


def test_another_name_is_refused(site: throwaway.Site, port: int) -> None:
    failure = connection.handshake(Server("localhost", port), site.root, _soon())

    assert failure is not None
    assert failure.code == 62


def test_a_server_that_is_gone_is_no_verification_error(site: throwaway.Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    with pytest.raises(ConnectionRefusedError):
        connection.handshake(Server("127.0.0.1", port), site.root, _soon())


# --- by a proxy -------------------------------------------------------------------------------------------------------


class _Proxy(http.server.BaseHTTPRequestHandler):
    """Passes CONNECT on to the port asked for, for whoever knows the password."""

    def do_CONNECT(self) -> None:
        if self.headers.get("Proxy-Authorization") != "Basic bWU6c2VjcmV0":
            self.send_error(407)
            return
        with socket.create_connection(("127.0.0.1", int(self.path.rpartition(":")[2]))) as other:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=_pass_on, args=(other, self.connection))
            back.start()
            _pass_on(self.connection, other)
            back.join()

    def log_message(self, *words: object) -> None:
        """Say nothing."""


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    try:
        while piece := source.recv(65536):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return


@contextlib.contextmanager
def _proxy() -> Iterator[int]:
    """A process of its own, since the clients are forked."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Proxy)
    child = os.fork()
    if not child:
        try:
            server.serve_forever()
        finally:
            os._exit(0)
    port = server.server_address[1]
    server.server_close()
    try:
        yield port
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_a_server_behind_a_proxy_is_reached_by_our_own_handshake_and_python(site: throwaway.Site, port: int) -> None:
    with _proxy() as gate:
        server = Server("127.0.0.1", port, f"127.0.0.1:{gate}", "Basic bWU6c2VjcmV0")
        python = next(client for client in clients.find(dict(os.environ), ()) if client.kind.name == "Python ssl")

        assert len(connection.chain_of(server, _soon())[0]) == 2
        assert connection.handshake(server, site.root, _soon()) is None
        assert clients.ask(python, server, dict(os.environ), None).state == "refuses"


def test_a_client_that_trusts_the_ca_accepts_by_the_proxy(site: throwaway.Site, port: int, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(site.root)
    environ = {**os.environ, **dict.fromkeys((*_BUNDLES, "NODE_EXTRA_CA_CERTS"), f"{tmp_path}/ca.pem")}
    with _proxy() as gate:
        server = Server("127.0.0.1", port, f"127.0.0.1:{gate}", "Basic bWU6c2VjcmV0")
        environ["https_proxy"] = f"http://me:secret@127.0.0.1:{gate}"
        found = [client for client in clients.find(environ, ()) if client.kind.name in ("Python ssl", "curl", "node")]

        assert {clients.ask(client, server, environ, None).state for client in found} == {ACCEPTED}


def test_a_proxy_that_refuses_is_told(environ: dict[str, str], port: int, capsys: pytest.CaptureFixture[str]) -> None:
    with _proxy() as gate:
        proxied = {**environ, "HTTPS_PROXY": f"http://127.0.0.1:{gate}"}
        code, document = _verify(proxied, f"127.0.0.1:{port}", capsys)

    assert (code, _kinds(document)) == (1, ["proxy-refused"])
    assert "407" in str(document["findings"])
