"""Servers and proxies as strange as operators meet them, on loopback, in a process of their own."""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import os
import socket
import ssl
import struct
import tempfile
import threading
import time
import warnings
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    Talk = Callable[[socket.socket], None]

NAME, ADDRESS = "localhost", "127.0.0.1"
_DAY = dt.timedelta(days=1)
_PATIENCE = 60.0  # longer than anybody who asks may wait


# --- certificates -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Issued:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

    @property
    def pem(self) -> bytes:
        """The certificate as PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The key as PEM."""
        plain = serialization.NoEncryption()
        return self.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)


def issue(  # noqa: PLR0913 - everything that can be odd about a certificate
    name: str = "",
    issuer: Issued | None = None,
    *,
    ca: bool = False,
    names: Sequence[str] = (NAME, ADDRESS),
    begins: int = -1,
    ends: int = 30,
    rsa_bits: int = 0,
    more: Sequence[tuple[x509.ExtensionType, bool]] = (),
    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
    path_length: int | None = None,
) -> Issued:
    """Return a certificate that holds from `begins` to `ends`, in days from now."""
    key = rsa.generate_private_key(65537, rsa_bits) if rsa_bits else ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else [])
    now, signer = dt.datetime.now(dt.UTC), issuer.key if issuer else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins * _DAY)
        .not_valid_after(now + ends * _DAY)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
    )
    if names and not ca:
        builder = builder.add_extension(x509.SubjectAlternativeName(list(map(_general_name, names))), critical=False)
    if not ca:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    usages = x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False)  # noqa: FBT003 - as X.509 has them
    builder = builder.add_extension(usages, critical=True)
    for extension, critical in more:
        builder = builder.add_extension(extension, critical=critical)
    return Issued(builder.sign(signer, hashes.SHA256()), key)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


@cache
def root(name: str = "Matrix root", ends: int = 3000) -> Issued:
    """Return the root of that name, always the same."""
    return issue(name, ca=True, begins=-300, ends=ends)


@cache
def middle() -> Issued:
    """Return the intermediate below the root."""
    return issue("Matrix intermediate", root(), ca=True)


# --- servers ----------------------------------------------------------------------------------------------------------


def nothing(connection: socket.socket) -> None:
    """Read until the other side has enough."""
    with contextlib.suppress(OSError):
        while connection.recv(1 << 16):
            pass


def saying(words: bytes, *, times: int = 1, pause: float = 0.0, closing: bool = True) -> Talk:
    """Return what says these words as often as that, once it has heard something."""

    def talk(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        end = time.monotonic() + _PATIENCE
        for _ in range(times):
            if time.monotonic() > end:
                return
            connection.sendall(words)
            time.sleep(pause)
        if not closing:
            nothing(connection)

    return talk


def greeting(words: bytes) -> Talk:
    """Return what speaks first."""

    def talk(connection: socket.socket) -> None:
        connection.sendall(words)
        nothing(connection)

    return talk


def dripping(words: bytes) -> Talk:
    """Return what begins well, and goes on a byte at a time."""

    def talk(connection: socket.socket) -> None:
        connection.sendall(words)
        saying(b"x", times=100, pause=0.5)(connection)

    return talk


def closing(connection: socket.socket) -> None:
    """Say nothing more."""
    del connection


def resetting(connection: socket.socket) -> None:
    """End the connection as a crash does."""
    connection.recv(1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def page(head: bytes = b"", body: bytes = b"hello", status: bytes = b"200 OK") -> Talk:
    """Return what answers every request so."""
    length = b"Content-Length: %d\r\n" % len(body)
    return saying(b"HTTP/1.1 %s\r\n%s%s\r\n%s" % (status, head, length, body))


@dataclass(frozen=True)
class Tls:
    """A server's side of TLS."""

    chain: tuple[Issued, ...] = ()
    versions: tuple[ssl.TLSVersion, ssl.TLSVersion] = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
    ciphers: str = ""
    wants_client: bool = False
    only_name: str = ""  # whoever asks for another, or for none, is sent away
    after: Talk | None = None

    def context(self) -> ssl.SSLContext:
        """Return it as ssl takes it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.NamedTemporaryFile() as file:
            file.write(self.chain[0].key_pem + b"".join(each.pem for each in self.chain))
            file.flush()
            context.set_ciphers(f"{self.ciphers or 'DEFAULT'}:@SECLEVEL=0")
            context.load_cert_chain(file.name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # old versions are what is tried
            context.minimum_version, context.maximum_version = self.versions
        context.verify_mode = ssl.CERT_REQUIRED if self.wants_client else ssl.CERT_NONE
        if self.only_name:
            unknown = ssl.AlertDescription.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
            context.sni_callback = lambda _, name, __: None if name == self.only_name else int(unknown)
        return context


def tls_server(side: Tls) -> Talk:
    """Return what makes a handshake, and then talks."""
    context = side.context()

    def talk(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as tls:
            (side.after or page())(tls)

    return talk


def slow(talk: Talk, seconds: float) -> Talk:
    """Return what takes its time before each connection."""

    def wait(connection: socket.socket) -> None:
        time.sleep(seconds)
        talk(connection)

    return wait


def far(talk: Talk, seconds: float) -> Talk:
    """Return what hears everything so much later."""

    def pass_late(connection: socket.socket) -> None:
        ours, theirs = socket.socketpair()
        threading.Thread(target=_talk, args=(theirs, talk), daemon=True).start()
        threading.Thread(target=_pass_on, args=(ours, connection), daemon=True).start()
        while piece := connection.recv(1 << 14):
            time.sleep(seconds)
            ours.sendall(piece)

    return pass_late


def once(talk: Talk) -> Talk:
    """Return what serves the first connection, and leaves the others waiting."""
    served: list[socket.socket] = []

    def serve(connection: socket.socket) -> None:
        served.append(connection)
        (talk if len(served) == 1 else nothing)(connection)

    return serve


def recording(path: Path) -> Talk:
    """Return what writes down that it was called, and what it heard."""

    def talk(connection: socket.socket) -> None:
        with path.open("ab") as file:
            file.write(b"called\n" + connection.recv(1 << 16))

    return talk


def proxy(*, password: str = "", answer: bytes = b"") -> Talk:
    """Return a proxy that knows CONNECT; with `answer` it gives that instead, `%s` being what it was told."""

    def talk(connection: socket.socket) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            piece = connection.recv(1)
            if not piece:
                return
            head += piece
        told = b"".join(line for line in head.split(b"\r\n") if line.lower().startswith(b"proxy-authorization"))
        if answer or password.encode() not in told:
            connection.sendall((answer or b"HTTP/1.1 407 %s\r\n%s\r\n\r\n").replace(b"%s", told))
            return
        port = int(head.split()[1].rpartition(b":")[2])
        with socket.create_connection((ADDRESS, port)) as other:
            connection.sendall(b"HTTP/1.1 200 Go\r\nVia: matrix\r\n\r\n")
            threading.Thread(target=_pass_on, args=(other, connection), daemon=True).start()
            _pass_on(connection, other)

    return talk


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(1 << 16):
            target.sendall(piece)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def serving(talks: Sequence[Talk], host: str = ADDRESS) -> Iterator[list[int]]:
    """Serve each on a port of its own while the block lasts."""
    listeners = [socket.create_server((host, 0), backlog=64) for _ in talks]
    child = os.fork()
    if not child:
        try:
            for listener, talk in zip(listeners, talks, strict=True):
                threading.Thread(target=_serve, args=(listener, talk), daemon=True).start()
            time.sleep(600)
        finally:
            os._exit(0)
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    try:
        yield ports
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def _serve(listener: socket.socket, talk: Talk) -> None:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_talk, args=(connection, talk), daemon=True).start()


def _talk(connection: socket.socket, talk: Talk) -> None:
    connection.settimeout(_PATIENCE)
    with connection, contextlib.suppress(OSError):
        talk(connection)
