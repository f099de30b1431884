"""A way to one server for one client: TLS passes until the client has accepted or refused, and nothing after that.

It listens on loopback. A client speaks TLS to it at once, or asks it for the server as one asks a proxy. A client sends
a request only when it has accepted the certificate. So its request is its verdict, and ends the connection: the server
never gets one, and no redirect, token service, header or body of the server's ever reaches a client.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket

from shim import connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container
    from types import TracebackType
    from typing import Self

    from shim.answers import Server

_LOOPBACK = "127.0.0.1"
_MAX_SENT = 1024 * 1024  # bytes of a server's handshake, of which OpenSSL takes a tenth
_CHANGE, _HANDSHAKE, _DATA = 20, 22, 23  # types of TLS records, RFC 8446, B.1
_SERVER_HELLO = b"\x02"
# Finished is longer and an alert is shorter: in TLS 1.3 both are records of data.
_MIN_DATA = 40


class Relay:
    """Passes one client's connections on to `server` while the block lasts, whenever `serve` is called."""

    def __init__(self, server: Server, until: float) -> None:
        self.requested = False  # the client has sent a request: it accepts the server's certificate
        self.error: OSError | None = None  # why the server, or its proxy, could not be reached
        self._server = server
        self._until = until
        local = _is_local(server.host)
        host = server.host if local and server.host != "localhost" else _LOOPBACK
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family)
        self.host, self.port = host, int(self._listener.getsockname()[1])
        # Go asks no proxy for a local server, so that one is asked by its name and our port.
        self.target = server._replace(port=self.port) if local else server
        self._ways: list[_Way] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        for way in self._ways:
            way.close()

    @property
    def authority(self) -> str:
        """Where it listens."""
        return self.target._replace(host=self.host, port=self.port).authority

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """Those on which it waits."""
        return (self._listener, *(each for way in self._ways for each in way.open))

    def serve(self, ready: Container[object]) -> None:
        """Pass on what has come on these sockets, or open another way. Raises nothing."""
        for way in [*self._ways]:
            for each in [each for each in way.open if each in ready]:
                if way.open:
                    self._pass(way, each)
        if self._listener in ready:
            self._admit()

    def _admit(self) -> None:
        client, _ = self._listener.accept()
        way = None
        with contextlib.suppress(OSError):
            client.settimeout(connection.left(self._until))
            way = self._open(client)
        if way is None:
            client.close()
        else:
            self._ways.append(way)

    def _open(self, client: socket.socket) -> _Way | None:
        asked = client.recv(1, socket.MSG_PEEK) == b"C"  # no record of TLS begins so
        if asked and connection.read_head(client, self._until).split()[1:2] != [self.target.authority.encode()]:
            client.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            return None
        try:
            server = connection.connect(self._server, self._until)
        except OSError as error:
            self.error = error
            return None
        with contextlib.suppress(OSError):
            client.sendall(b"HTTP/1.1 200 OK\r\n\r\n" * asked)
        return _Way(client, server)

    def _pass(self, way: _Way, source: socket.socket) -> None:
        try:
            source.settimeout(connection.left(self._until))
            way.take(source)
        except OSError:
            way.close()
        self.requested |= way.requested
        if not way.open:
            self.error = self.error or (ConnectionResetError() if source is way.server else None)
            self._ways.remove(way)


class _Way:
    """A client's connection and the server's; reads along as far as TLS can be read."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client, self.server = client, server
        self.open = [client, server]
        self.requested = False
        self._said = _Records()
        self._sent = _Records()
        self._budget = _MAX_SENT

    def take(self, source: socket.socket) -> None:
        """Pass one piece on, or end what is over. Raises OSError."""
        piece = source.recv(1 << 14)
        if source is self.client:
            self._said.read(piece)
            self.requested = self._said.data > (1 if self._sent.is_13 else 0)  # its first in 1.3 is Finished
            self._end_or_send(self.server, b"" if self.requested else piece)
        elif self._said.data if self._sent.is_13 else self._sent.is_finished:  # whatever a server adds is not passed
            self.open = self.open if piece else [self.client]
        else:
            self._sent.read(piece)
            self._budget -= len(piece)
            self._end_or_send(self.client, piece if self._budget > 0 else b"")

    def _end_or_send(self, target: socket.socket, piece: bytes) -> None:
        if piece:
            target.sendall(piece)
        else:
            self.close()

    def close(self) -> None:
        """End both connections."""
        self.client.close()
        self.server.close()
        self.open = []


class _Records:
    """What can be read of one side of a TLS connection without its keys."""

    def __init__(self) -> None:
        self.data = 0  # records of data that are longer than an alert
        self.is_13 = False  # it has chosen TLS 1.3
        self.is_finished = False  # up to TLS 1.2: the last message of its handshake is read
        self._is_encrypted = False
        self._rest = b""

    def read(self, piece: bytes) -> None:
        """Read whole records, and keep what is left of the last one."""
        self._rest += piece
        while len(self._rest) >= (size := 5 + int.from_bytes(self._rest[3:5], "big")):
            kind, body = self._rest[0], self._rest[5:size]
            self._rest = self._rest[size:]
            self.data += kind == _DATA and len(body) >= _MIN_DATA
            self.is_finished |= kind == _HANDSHAKE and self._is_encrypted
            self._is_encrypted |= kind == _CHANGE
            if kind == _HANDSHAKE and body[:1] == _SERVER_HELLO:
                cipher = 39 + int.from_bytes(body[38:39], "big")  # it follows the session's id
                self.is_13 |= body[cipher : cipher + 1] == b"\x13"


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
