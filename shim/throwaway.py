"""A throwaway CA and TLS servers on loopback that it vouches for, for as long as somebody asks them."""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import secrets
import socketserver
import ssl
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shim.loading import private_file
from shim.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_SECONDS = 10.0  # a connection
HOST = "127.0.0.1"
_LIFE = dt.timedelta(hours=1)
_NAME = "ca-shim selftest"


class Issued(Record):
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        """The certificate as PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)


class Site(Record):
    """A server's side of TLS, and the CA that it takes to accept it; the CA's key is gone."""

    root: bytes
    context: ssl.SSLContext


def site(*, sends_intermediate: bool) -> Site:
    """Make a throwaway CA and what a server on loopback needs that it vouches for."""
    root = _issue(f"{_NAME} {secrets.token_hex(4)}", None)
    issuer = _issue(f"{_name(root)} intermediate", root) if sends_intermediate else root
    leaf = _issue(HOST, issuer, address=HOST)
    plain = serialization.NoEncryption()
    key = leaf.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    chain = leaf.pem + (issuer.pem if sends_intermediate else b"")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with private_file() as file:
        file.write(key + chain)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
    return Site(root.pem, context)


def is_made_here(subject: str) -> bool:
    """Return whether a CA is one that a selftest has made."""
    return subject.startswith(f"CN={_NAME} ")


def _name(issued: Issued) -> str:
    return str(issued.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def _issue(name: str, issuer: Issued | None, address: str = "") -> Issued:
    """Make a CA, or the certificate of a server at `address`, that holds for an hour."""
    key, now = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer = issuer.key if issuer else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _LIFE)
        .not_valid_after(now + _LIFE)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .add_extension(x509.BasicConstraints(ca=not address, path_length=None), critical=True)
        .add_extension(_usage(signs=not address), critical=True)
    )
    if address:
        # As a name too: requests on a Python 2 without `ipaddress` knows no addresses.
        names = [x509.IPAddress(ipaddress.ip_address(address)), x509.DNSName(address)]
        place = x509.SubjectAlternativeName(names)
        builder = builder.add_extension(place, critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    return Issued(builder.sign(signer, hashes.SHA256()), key)


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=signs, crl_sign=signs, encipher_only=False, decipher_only=False,
    )  # fmt: skip


@contextmanager
def serving(contexts: list[ssl.SSLContext]) -> Iterator[list[int]]:
    """Serve on loopback while the block lasts, in a process of its own: this one forks, and so must have no threads."""
    servers = [_Server(context) for context in contexts]
    ports = [server.socket.getsockname()[1] for server in servers]
    ended, ends = os.pipe()
    child = os.fork()
    if not child:
        os.close(ends)
        _serve(servers, ended)
    os.close(ended)
    try:
        for server in servers:
            server.server_close()  # the child's copy stays open
        yield ports
    finally:
        os.close(ends)
        os.waitpid(child, 0)


def _serve(servers: list[_Server], ended: int) -> None:
    """Serve until the other process closes the pipe, or is no more. Never returns."""
    try:
        os.setpgid(0, 0)
        for server in servers:
            threading.Thread(target=server.serve_forever, daemon=True).start()
        os.read(ended, 1)
    finally:
        os._exit(0)


class _Handler(BaseHTTPRequestHandler):
    """A page, and a registry with one image, as far as a client that trusts it goes."""

    timeout = _SECONDS

    def do_GET(self) -> None:
        manifest = "manifests" in self.path
        kind = "application/vnd.docker.distribution.manifest.v2+json" if manifest else "application/json"
        body = b'{"schemaVersion": 2, "mediaType": "%s", "config": {}, "layers": []}' % kind.encode()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Docker-Distribution-API-Version", "registry/2.0")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - the library's name

    def log_message(self, *words: object) -> None:
        """Say nothing: the table is what is read."""


class _Server(socketserver.ThreadingTCPServer):
    """The handshake is made in the connection's own thread; clients that refuse are no error."""

    daemon_threads = True

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__((HOST, 0), _Handler)
        self._context = context

    def get_request(self) -> tuple[ssl.SSLSocket, object]:
        connection, address = super().get_request()
        connection.settimeout(_SECONDS)
        return self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

    def handle_error(self, request: object, client_address: object) -> None:
        """A refused handshake is what half of the clients are here for."""
