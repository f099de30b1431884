"""The relay: a client's TLS reaches the server that was asked for, and nothing of the server's comes after it."""

from __future__ import annotations

import os
import select
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING

import pytest

from shim import relay
from shim.answers import ACCEPTED, Server
from shim.clients import KINDS, Client, ask
from shim.relay import Relay
from tests.process.servers import (
    ADDRESS,
    NAME,
    Tls,
    closing,
    issue,
    nothing,
    recording,
    root,
    saying,
    serving,
    tls_server,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.process.servers import Talk

_CURL = "/usr/bin/curl"
_VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
needs_curl = pytest.mark.skipif(not os.path.exists(_CURL), reason="there is no curl")


def _soon() -> float:
    return time.monotonic() + 5


def _connected(door: Relay) -> socket.socket:
    return socket.create_connection((door.host, door.port))


def _served(door: Relay, until: float) -> None:
    while door.error is None and not door.requested and time.monotonic() < until:
        door.serve(select.select(door.sockets, [], [], 0.1)[0])


def _ask_curl(server: Server, place: Path, program: str = _CURL) -> str:
    (place / "ca.pem").write_bytes(root().pem)
    kind = next(kind for kind in KINDS if kind.name == "curl")
    environ = {"PATH": "/usr/bin:/bin", "CURL_CA_BUNDLE": f"{place}/ca.pem"}
    return ask(Client(kind, program), server, environ, None, 10).state


@needs_curl
@pytest.mark.parametrize("version", _VERSIONS, ids=lambda version: version.name)
def test_no_request_reaches_the_server(tmp_path: Path, version: ssl.TLSVersion) -> None:
    side = Tls((issue("a", root()),), (version, version), after=recording(tmp_path / "heard"))
    with serving([tls_server(side)]) as (port,):
        assert _ask_curl(Server(NAME, port), tmp_path) == ACCEPTED
        time.sleep(0.2)

    heard = tmp_path / "heard"
    assert not heard.exists() or heard.read_bytes() == b"called\n"


@needs_curl
def test_a_client_is_not_waited_for_once_it_has_accepted(tmp_path: Path) -> None:
    (tmp_path / "curl").write_text('#!/bin/sh\ncurl "$@"\nexec sleep 60 > /dev/null 2>&1\n', encoding="ascii")
    (tmp_path / "curl").chmod(0o755)
    begun = time.monotonic()
    with serving([tls_server(Tls((issue("a", root()),)))]) as (port,):
        assert _ask_curl(Server(NAME, port), tmp_path, f"{tmp_path}/curl") == ACCEPTED

    assert time.monotonic() - begun < 8


@pytest.mark.parametrize("version", _VERSIONS, ids=lambda version: version.name)
def test_a_handshake_is_no_request(version: ssl.TLSVersion) -> None:
    """In TLS 1.3 its last message looks like data."""
    outcome: list[str] = []
    talk = tls_server(Tls((issue("a", root()),), (version, version)))
    with serving([talk]) as (port,), Relay(Server(ADDRESS, port), _soon()) as door:
        thread = threading.Thread(target=_shake_hands, args=(door.port, outcome))
        thread.start()
        _served(door, time.monotonic() + 1)
        thread.join()

        assert outcome == [version.name.replace("_", ".")]
        assert not door.requested


def _shake_hands(port: int, outcome: list[str]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection((ADDRESS, port)) as plain, context.wrap_socket(plain) as tls:
        outcome.append(str(tls.version()))
        time.sleep(0.5)


def _connect(door: Relay, words: bytes) -> bytes:
    with _connected(door) as client:
        client.settimeout(5)
        client.sendall(words)
        for _ in range(3):
            door.serve(select.select(door.sockets, [], [], 0.2)[0])
        client.settimeout(0.2)
        try:
            return client.recv(1 << 16)
        except TimeoutError:
            return b"(waits)"
        except OSError:
            return b"(ends)"


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (b"CONNECT a.test:443 HTTP/1.1\r\n\r\n", b"HTTP/1.1 403"),
        (b"CONNECT localhost HTTP/1.1\r\n\r\n", b"HTTP/1.1 403"),
        (b"CONNECT\r\n\r\n", b"HTTP/1.1 403"),
        (b"CONNECT " + b"x" * 9000, b"HTTP/1.1 403"),
        (b"GET http://localhost/ HTTP/1.1\r\n\r\n", b"(waits)"),
    ],
)
def test_it_leads_to_the_server_that_was_asked_and_to_no_other(words: bytes, answer: bytes) -> None:
    with serving([nothing]) as (port,), Relay(Server(NAME, port), _soon()) as door:
        assert _connect(door, words).startswith(answer)


def test_it_stands_for_a_proxy() -> None:
    with serving([nothing]) as (port,), Relay(Server(NAME, port), _soon()) as door:
        words = f"CONNECT {door.target.authority} HTTP/1.1\r\nHost: x\r\n\r\n"

        assert _connect(door, words.encode()) == b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1", NAME, "example.test"])
def test_it_listens_on_loopback_where_the_client_looks_for_the_server(host: str) -> None:
    if host == "::1" and not os.path.exists("/proc/net/if_inet6"):
        pytest.skip("there is no IPv6")
    with Relay(Server(host, 1), _soon()) as door:
        assert door.host == (host if host[-1] in "19" else ADDRESS)
        assert door.target.port == (1 if host == "example.test" else door.port)


@pytest.mark.parametrize(("talk", "error"), [(closing, ConnectionResetError), (None, ConnectionRefusedError)])
def test_a_server_that_ends_it_is_told(talk: Talk | None, error: type[OSError]) -> None:
    with serving([talk or nothing]) as (port,), Relay(Server(ADDRESS, port if talk else 1), _soon()) as door:
        _connect(door, b"\x16\x03\x01")

        assert isinstance(door.error, error)


def test_a_server_that_never_stops_is_ended() -> None:
    talk = saying(bytes(1 << 20), times=99_999)
    with serving([talk]) as (port,), Relay(Server(ADDRESS, port), _soon()) as door, _connected(door) as client:
        client.sendall(b"\x16\x03\x01")
        sink = threading.Thread(target=nothing, args=(client,))
        sink.start()
        _served(door, _soon())
        sink.join()

        assert isinstance(door.error, ConnectionResetError)


def test_a_client_that_says_nothing_is_not_waited_for_beyond_the_time() -> None:
    begun = time.monotonic()
    with serving([nothing]) as (port,), Relay(Server(ADDRESS, port), begun + 0.5) as door, _connected(door):
        door.serve(door.sockets)

    assert time.monotonic() - begun < 3


def test_only_what_the_server_says_at_first_chooses_the_version() -> None:
    records = relay._Records()  # noqa: SLF001 - as below
    certificate = b"\x0b" + bytes(37) + b"\x00\x13\x01"
    records.read(b"\x16\x03\x03" + len(certificate).to_bytes(2, "big") + certificate)

    assert not records.is_13


def test_records_are_read_in_pieces_of_any_size() -> None:
    hello = b"\x02" + bytes(3) + b"\x03\x03" + bytes(32) + b"\x20" + bytes(32) + b"\x13\x02\x00"
    said = [(21, b"\x01\x70"), (22, hello), (20, b"\x01"), (22, b""), (23, bytes(19)), (23, bytes(53)), (23, bytes(40))]
    raw = b"".join(bytes([kind]) + b"\x03\x03" + len(body).to_bytes(2, "big") + body for kind, body in said)
    for size in (1, 2, 7, len(raw)):
        records = relay._Records()  # noqa: SLF001 - what it reads is what the verdict hangs on
        for start in range(0, len(raw), size):
            records.read(raw[start : start + size])

        assert (records.data, records.is_13) == (2, True)
