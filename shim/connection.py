"""Connections to servers: whom, by which proxy, what they send, and whether a bundle vouches for it."""

from __future__ import annotations

import base64
import re
import socket
import ssl

from shim.answers import NOT_LOADED, Failure, Finding, Server
from shim.errors import UsageError
from shim.loading import private_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Protocol

    class _Peer(Protocol):
        """What ssl keeps a certificate of the other side in."""

        def public_bytes(self) -> str:
            """Give it as PEM."""


_HTTPS = 443
_PROXIES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
_CONNECT_SECONDS = 10.0
_NAME = re.compile(r"[a-z0-9_]([a-z0-9._-]*[a-z0-9_.])?")


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

    value = next((environ[name] for name in _PROXIES if environ.get(name)), "")
    exceptions = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    if not value or any(_is_meant(word.strip().lower(), server) for word in exceptions.split(",")):
        return server
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        port = parts.port or 80
    except ValueError:
        parts, port = urlsplit(""), 0
    rest = parts.path.strip("/") + parts.query + parts.fragment
    if parts.scheme != "http" or not parts.hostname or rest or not value.isprintable() or " " in value:
        raise UsageError("HTTPS_PROXY is no http:// URL that we can use: correct it, or name the server in NO_PROXY")
    user = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    secret = "Basic " + base64.b64encode(user.encode("utf-8", "surrogateescape")).decode() if parts.username else ""
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
    (ssl.SSLError, "no-tls", "{to} answers, but makes no TLS connection with us ({error})", _SPEAKS),
    (OSError, "unreachable", "{to} cannot be reached ({error})", "check the address, HTTPS_PROXY and NO_PROXY"),
)


def unreachable(server: Server, error: OSError) -> Finding:
    """Say why there is no connection. Pure."""
    to = f"{server.authority} (by the proxy {server.proxy})" if server.proxy else server.authority
    words = (getattr(error, "reason", None) or error.strerror or str(error) or type(error).__name__)[:200]
    if isinstance(error, ssl.SSLError) and re.search("ALERT_(HANDSHAKE|CERTIFICATE|BAD_CERT)", words):
        problem = f"{to} breaks the handshake off ({words})"
        return Finding("handshake-refused", problem, "it may want a client certificate, or other protocols or ciphers")
    kind, problem, remedy = next(row[1:] for row in _NO_CONNECTION if isinstance(error, row[0]))
    return Finding(kind, problem.format(to=to, error=words), remedy)


def connect(server: Server) -> socket.socket:
    """Open a connection to the server, through the proxy when there is one. Raises OSError."""
    import http.client

    if not server.proxy:
        return socket.create_connection((server.host, server.port), _CONNECT_SECONDS)
    gate, _, port = server.proxy.rpartition(":")
    tunnel = http.client.HTTPConnection(gate.strip("[]"), int(port), timeout=_CONNECT_SECONDS)
    headers = {"Proxy-Authorization": server.authorization} if server.authorization else {}
    tunnel.set_tunnel(server.host, server.port, headers)
    try:
        tunnel.connect()
    except http.client.HTTPException as error:
        tunnel.close()
        raise OSError(f"the proxy answers something else than HTTP ({type(error).__name__})") from error
    return tunnel.sock


def chain_of(server: Server) -> tuple[tuple[bytes, ...], bool]:
    """Give what the server sends, as DER, and whether that is all it sends. Trusts nothing; raises OSError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # only looked at: nothing is said to this server and nothing it says is used
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # a weak certificate is to be shown, not refused
    with connect(server) as plain, context.wrap_socket(plain, server_hostname=server.host) as tls:
        public: Callable[[], list[bytes]] | None = getattr(tls, "get_unverified_chain", None)  # Python >= 3.13
        if public:
            return tuple(public()), True
        private: Callable[[], list[_Peer]] | None = getattr(getattr(tls, "_sslobj", None), "get_unverified_chain", None)
        if private:
            return tuple(ssl.PEM_cert_to_DER_cert(each.public_bytes()) for each in private()), True
        leaf = tls.getpeercert(binary_form=True)
        return (leaf,) if leaf else (), False


def handshake(server: Server, bundle: bytes, *, partial: bool = False, strict: bool = False) -> Failure | None:
    """Connect trusting exactly `bundle`, as OpenSSL, requests and Python up to 3.12 verify; None when that works.

    With `partial` an intermediate may be an anchor, as for Go; with both, it is what Python >= 3.13 does.
    Raises OSError when it does not come to a verdict.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags = ssl.VERIFY_X509_TRUSTED_FIRST
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN if partial else 0
    context.verify_flags |= ssl.VERIFY_X509_STRICT if strict else 0
    try:
        _load(context, bundle)
    except ssl.SSLError as error:
        return Failure(NOT_LOADED, f"OpenSSL does not load it ({error.reason or error})")
    try:
        with connect(server) as plain, context.wrap_socket(plain, server_hostname=server.host):
            return None
    except ssl.SSLCertVerificationError as error:
        return Failure(error.verify_code, error.verify_message)


def _load(context: ssl.SSLContext, bundle: bytes) -> None:
    """Load as clients do, from a file: `cadata` accepts and refuses other things. The path is never opened twice."""
    with private_file() as file:
        file.write(bundle)
        file.flush()
        context.load_verify_locations(cafile=f"/proc/self/fd/{file.fileno()}")
