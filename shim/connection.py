"""Connections to a server: its name, the proxy that leads there, what it sends, and whether a bundle vouches for it."""

from __future__ import annotations

import base64
import functools
import ipaddress
import re
import socket
import ssl
import threading
import time

from shim.answers import NOT_LOADED, Failure, Finding, Server
from shim.errors import UsageError
from shim.loading import private_file
from shim.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Protocol

    _Address = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]

    class _Peer(Protocol):
        """What ssl keeps a certificate of the other side in."""

        def public_bytes(self) -> str:
            """Return it as PEM."""


_HTTPS = 443
_PROXIES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
PROXY_VARIABLES = (*_PROXIES, "http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY")
_SECONDS = 10.0  # one connection with its handshake
_ALERT_SECONDS = 0.5  # after a handshake, for what a server objects to; or twice as long as the handshake took
_MAX_HEAD = 8 * 1024  # bytes of what a proxy answers, and of what a client asks one for
_NAME = re.compile(r"[a-z0-9_]([a-z0-9._-]*[a-z0-9_])?")


class Manner(Record):
    """How one group of clients verifies a chain."""

    flags: int = 0
    level: int = 2  # OpenSSL's: 2 refuses keys of less than 112 bits of security, 1 those of less than 80
    common_name: bool = True  # it stands for a missing subjectAltName
    ciphers: str = "DEFAULT"


OPENSSL = Manner()  # and requests, and Python up to 3.12
PYTHON_313 = Manner(ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT)
# It takes RSA 1024, and no SHA-1; since 1.22, no key exchange by RSA.
GO = Manner(ssl.VERIFY_X509_PARTIAL_CHAIN, level=1, common_name=False, ciphers="DEFAULT:!kRSA")


class ProxyError(OSError):
    """The connection fails at the proxy or before it; `cause` says why."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


class _AnswerError(OSError):
    """The proxy answers, and opens no way to the server."""


class _OldError(OSError):
    """The server speaks nothing newer than what clients have given up."""


# --- where to connect -------------------------------------------------------------------------------------------------


def server_of(url: str, environ: Mapping[str, str], number: int = 1) -> Server:
    """Return the server that a URL, a host or host:port means, behind the proxy that clients would use.

    Raises UsageError. It says which argument is wrong and repeats no part of it: any part may be a password.
    """
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url if "://" in url else f"//{url}")
        port = _HTTPS if parts.port is None else parts.port
        name = _host(parts.hostname or "")
    except ValueError:
        port, name = 0, ""
    if not port or not name or not url.isprintable() or " " in url or parts.scheme not in ("", "https"):
        raise UsageError(
            f"argument {number} is no https URL, host or host:port: write for example ca-shim verify example.com:443"
        )
    return _behind_proxy(Server(name, port), environ)


def _host(name: str) -> str:
    """Return a host's name as DNS and TLS have it, "" when it is none. Raises ValueError."""
    if ":" in name:
        return name
    name = name.encode("idna").decode("ascii").removesuffix(".")
    return name if _NAME.fullmatch(name) else ""


def _behind_proxy(server: Server, environ: Mapping[str, str]) -> Server:
    from urllib.parse import unquote, urlsplit

    variable = next((name for name in _PROXIES if environ.get(name)), "")
    value = environ.get(variable, "")
    exceptions = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    if not value or any(_is_meant(word.strip().lower(), server) for word in exceptions.split(",")):
        return server
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        port, name = parts.port or 80, _host(parts.hostname or "")
    except ValueError:
        parts, port, name = urlsplit(""), 0, ""
    rest = parts.path.strip("/") + parts.query + parts.fragment
    if parts.scheme != "http" or not name or rest or not value.isprintable() or " " in value:
        raise UsageError(f"{variable} is no http:// URL that we can use: correct it, or add {server.host} to NO_PROXY")
    user = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    secret = "Basic " + base64.b64encode(user.encode("utf-8", "surrogateescape")).decode() if parts.username else ""
    return server._replace(proxy=Server(name, port).authority, authorization=secret, variable=variable)


def _is_meant(word: str, server: Server) -> bool:
    """Return whether a word of NO_PROXY means the server, as curl, requests and Go read it: name, parent or net."""
    name, _, port = word.partition(":")
    name = name.removeprefix("*").removeprefix(".")
    try:
        return ipaddress.ip_address(server.host) in ipaddress.ip_network(word, strict=False)
    except ValueError:
        names = word == "*" or (name and (server.host == name or server.host.endswith(f".{name}")))
        return bool(names) and port in ("", str(server.port))


# --- connecting -------------------------------------------------------------------------------------------------------


def left(until: float) -> float:
    """Return the seconds that a connection may take, up to an instant of the monotonic clock. Raises TimeoutError."""
    seconds = until - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return min(seconds, _SECONDS)


def connect(server: Server, until: float) -> socket.socket:
    """Open a connection to the server, through the proxy when there is one. Raises OSError."""
    until = min(until, time.monotonic() + _SECONDS)
    if not server.proxy:
        return _open(server.host, server.port, until)
    name, _, port = server.proxy.rpartition(":")
    try:
        plain = _open(name.strip("[]"), int(port), until)
        try:
            _ask_proxy(plain, server, until)
        except OSError:
            plain.close()
            raise
    except OSError as error:
        raise ProxyError(error) from error
    return plain


def _open(host: str, port: int, until: float) -> socket.socket:
    refusal: OSError = TimeoutError()
    for family, kind, protocol, _, address in _addresses(host, port):
        plain = socket.socket(family, kind, protocol)
        try:
            plain.settimeout(left(until))
            plain.connect(address)
        except OSError as error:
            plain.close()
            refusal = error
        else:
            plain.settimeout(left(until))
            return plain
    raise refusal


@functools.cache
def _addresses(host: str, port: int) -> list[_Address]:
    """Look a name up, once. getaddrinfo(3) knows no time limit: its thread is left alone when it is late."""
    found: list[list[_Address] | OSError] = []

    def look() -> None:
        try:
            found.append([*socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)])
        except OSError as error:
            found.append(error)
        except UnicodeError as error:  # a part of the name is too long
            found.append(socket.gaierror(socket.EAI_NONAME, str(error)))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(_SECONDS)
    result = found[0] if found else socket.gaierror(0, "the name servers do not answer")
    if isinstance(result, OSError):
        raise result
    return result


def _ask_proxy(plain: socket.socket, server: Server, until: float) -> None:
    word = f"Proxy-Authorization: {server.authorization}\r\n" if server.authorization else ""
    plain.sendall(f"CONNECT {server.authority} HTTP/1.1\r\nHost: {server.authority}\r\n{word}\r\n".encode())
    head = read_head(plain, until)
    if not head:
        raise ConnectionResetError
    answer = re.match(rb"HTTP/1\.\d (\d{3})\b", head)
    if answer is None:
        raise _AnswerError("something other than HTTP")
    if answer[1] != b"200":  # never the words behind it: some proxies repeat what they were asked, password included
        raise _AnswerError(answer[1].decode())


def read_head(plain: socket.socket, until: float) -> bytes:
    """Read a head of HTTP, byte by byte since TLS may follow at once. Raises OSError; what is too long ends early."""
    head = b""
    while not head.endswith(b"\r\n\r\n") and len(head) < _MAX_HEAD:
        plain.settimeout(left(until))
        piece = plain.recv(1)
        if not piece:
            break
        head += piece
    return head


# --- what a server sends ----------------------------------------------------------------------------------------------


def chain_of(server: Server, until: float) -> tuple[tuple[bytes, ...], bool]:
    """Return what the server sends, as DER, and whether that is all it sends. Trusts nothing; raises OSError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # only looked at: nothing is said to this server and nothing it says is used
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # a weak certificate is to be shown, not refused
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    plain = connect(server, until)
    begun = time.monotonic()
    with plain, context.wrap_socket(plain, server_hostname=server.host) as tls:
        took = time.monotonic() - begun
        sent = _sent(tls)
        version = tls.version() or ""
        if version < "TLSv1.2":
            raise _OldError(version)
        if version > "TLSv1.2":
            _hear_refusal(tls, min(left(until), max(_ALERT_SECONDS, 2 * took)))
    return sent


def _sent(tls: ssl.SSLSocket) -> tuple[tuple[bytes, ...], bool]:
    public: Callable[[], list[bytes]] | None = getattr(tls, "get_unverified_chain", None)  # Python >= 3.13
    if public:
        return tuple(public()), True
    private: Callable[[], list[_Peer]] | None = getattr(getattr(tls, "_sslobj", None), "get_unverified_chain", None)
    if private:
        return tuple(ssl.PEM_cert_to_DER_cert(each.public_bytes()) for each in private()), True
    leaf = tls.getpeercert(binary_form=True)
    return (leaf,) if leaf else (), False


def _hear_refusal(tls: ssl.SSLSocket, seconds: float) -> None:
    """From TLS 1.3 on, a server that wants a certificate of the client says so only after the handshake."""
    try:
        tls.settimeout(seconds)
        tls.recv(1)
    except ssl.SSLError as error:
        if "CERTIFICATE" in (error.reason or ""):
            raise
    except OSError:
        return


def handshake(server: Server, bundle: bytes, until: float, manner: Manner = OPENSSL) -> Failure | None:
    """Connect trusting exactly `bundle`, as clients of that manner verify; None when that works.

    Raises OSError when it does not come to a verdict.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags = ssl.VERIFY_X509_TRUSTED_FIRST | manner.flags
    context.hostname_checks_common_name = manner.common_name
    context.set_ciphers(f"{manner.ciphers}:@SECLEVEL={manner.level}")
    try:
        _load(context, bundle)
    except ssl.SSLError as error:
        return Failure(NOT_LOADED, f"OpenSSL does not load it ({error.reason or error})")
    try:
        with connect(server, until) as plain, context.wrap_socket(plain, server_hostname=server.host):
            return None
    except ssl.SSLCertVerificationError as error:
        return Failure(error.verify_code, error.verify_message)


def _load(context: ssl.SSLContext, bundle: bytes) -> None:
    """Load as clients do, from a file: `cadata` accepts and refuses other things. The path is never opened twice."""
    with private_file() as file:
        file.write(bundle)
        file.flush()
        context.load_verify_locations(cafile=f"/proc/self/fd/{file.fileno()}")


# --- why there is no connection ---------------------------------------------------------------------------------------

_SPEAKS = "check that the port speaks TLS, 1.2 or newer, and what is on the way"
_NEWER = "have TLS 1.2 or newer switched on there, with newer ciphers and keys"
# The first row whose class and words fit; the words of ssl.SSLError are OpenSSL's reasons.
_NO_CONNECTION = (
    (socket.gaierror, "", "unknown-name", "{to}: the name cannot be resolved", "check the name, and the DNS here"),
    (ConnectionRefusedError, "", "connection-refused", "{to} refuses connections", "check the port"),
    (TimeoutError, "", "timeout", "{to} does not answer in time", "check firewalls, network policies and {variable}"),
    (ConnectionResetError, "", "closed", "{to} closes the connection", _SPEAKS),
    (ssl.SSLEOFError, "", "closed", "{to} closes the connection in the handshake", _SPEAKS),
    (_OldError, "", "old-tls", "{to} speaks {error} at most, which clients have given up", _NEWER),
    (
        ssl.SSLError, "PROTOCOL_VERSION|UNSUPPORTED_PROTOCOL", "old-tls",
        "{to} speaks no version of TLS that clients still speak", _NEWER,
    ),
    (
        ssl.SSLError, "UNRECOGNIZED_NAME", "name-unknown", "{to} serves nothing by the name {host}",
        "ask for it by the name that it serves (SNI), not by an address",
    ),
    (
        ssl.SSLError, "CERTIFICATE_REQUIRED", "client-certificate", "{to} wants a certificate of the client",
        "give the client its certificate and key: which CA it trusts is not the question",
    ),
    (
        ssl.SSLError, "_ALERT_| alert ", "handshake-refused", "{to} breaks the handshake off by an alert ({error})",
        "see its log: it may want a client certificate, a name (SNI), a protocol (ALPN), or other versions or ciphers",
    ),
    (
        ssl.SSLError, "EXCESSIVE_MESSAGE_SIZE", "chain-too-long",
        "{to} sends over 100 KB of certificates, which OpenSSL refuses",
        "have it send its own certificate and the intermediates only",
    ),
    (ssl.SSLError, "", "no-tls", "{to} answers, but makes no TLS connection with us ({error})", _SPEAKS),
    (_AnswerError, "", "refused", "{to} opens no way to {host}: it answers {error}", ""),
    (OSError, "", "unreachable", "{to} cannot be reached ({error})", "check the address, {variable} and NO_PROXY"),
)  # fmt: skip
_PROXY_REMEDIES = {
    "407": "correct the user and the password in {variable}, or add {host} to NO_PROXY",
    "403": "have the proxy allow {host}, or add it to NO_PROXY",
}


def unreachable(server: Server, error: OSError) -> Finding:
    """Return why there is no connection, and whether the server or the proxy is the cause. Pure."""
    to = f"{server.authority} (by the proxy {server.proxy})" if server.proxy else server.authority
    cause = error.cause if isinstance(error, ProxyError) else error
    words = (getattr(cause, "reason", None) or cause.strerror or str(cause) or type(cause).__name__)[:200]
    rows = (row[2:] for row in _NO_CONNECTION if isinstance(cause, row[0]) and re.search(row[1], words))
    kind, problem, remedy = next(rows)
    if isinstance(error, ProxyError):
        kind, to = f"proxy-{kind}", f"the proxy {server.proxy}"
        remedy = _PROXY_REMEDIES.get(words, "correct {variable}, or add {host} to NO_PROXY")
    values = {"to": to, "error": words, "host": server.host, "variable": server.variable}
    return Finding(kind, problem.format(**values), remedy.format(**values))
