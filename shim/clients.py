"""The TLS clients of an image: how each is found, asked about a server, and understood.

A client is executed as the application would execute it: with its environment, as its user, never as root by accident.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import time

from shim import become, connection, families, interpreters, signals
from shim.accounts import Account
from shim.answers import ABSENT, ACCEPTED, NOT_TRIED, REFUSED, UNCLEAR, UNREACHABLE, UNUSABLE, Answer
from shim.errors import NotExecutableError, NotFoundError, ShimError, UnknownUserError
from shim.record import Record
from shim.relay import Relay

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Mapping, Sequence

    from shim.answers import Server
    from shim.config import Config

SECONDS = 10.0  # for one client
_MAX_SAID = 64 * 1024
_MAX_REASON = 300
NOTHING = r"(?!)"  # a pattern of no line
# Whom root runs clients as where nobody named a user and the default one does not exist: a developer's machine.
_NOBODY = Account("nobody", 65534, 65534, (65534,), "/")


class Kind(Record):
    """How one kind of client is asked and understood: its patterns are tried on `exit N` and on every line it prints.

    A client that sends a request accepts the server, whatever it prints; see `relay`.
    """

    name: str
    program: str  # its name on PATH; "" is every Python of the application
    arguments: tuple[str, ...]  # `{url}` and the like are filled in
    named: tuple[str, ...]  # added when the server has a name
    numbered: tuple[str, ...]  # added when it has an address
    reads: tuple[str, ...]  # variables that point it to a bundle; the first that is set counts
    refused: str
    accepted: str = NOTHING
    script: str = ""
    hosts: str = ""  # the hosts that it can be asked about, "" for all


class Client(Record):
    """A client found on this image."""

    kind: Kind
    path: str

    @property
    def name(self) -> str:
        """The kind with the program, as a table shows it."""
        return f"{self.kind.name} ({self.path})"


# Every Python since 2.7.9, and 2.7.5 of CentOS 7: no annotations, no f-strings.
_SSL_SCRIPT = """
import socket, ssl, sys
try:
    plain = socket.create_connection((sys.argv[2], int(sys.argv[3])))
    ssl.create_default_context().wrap_socket(plain, server_hostname=sys.argv[1])
    sys.stdout.write("accepted")
except Exception as error:
    sys.stdout.write("%s: %s" % (type(error).__name__, error))
"""
_REQUESTS_SCRIPT = """
import sys
try:
    import requests
except ImportError:
    sys.stdout.write("absent")
    sys.exit(0)
try:
    requests.head(sys.argv[1])
except Exception as error:
    sys.stdout.write("%s: %s" % (type(error).__name__, error))
"""
_NODE_SCRIPT = """
const tls = require("tls"), net = require("net"), [name, host, port] = process.argv.slice(1);
const say = line => { console.log(line); process.exit(0); };
const servername = net.isIP(name) ? undefined : name;
const checkServerIdentity = (_, certificate) => tls.checkServerIdentity(name, certificate);
tls.connect({ host, port: +port, servername, checkServerIdentity }, () => say("accepted"))
  .on("error", error => say(`${error.code || error.name}: ${error.message}`));
"""
_ARGUMENTS = ("-B", "-c", "{script}")
# A verdict on the certificate or the bundle; other errors of ssl come from a connection that broke.
_TLS_REFUSED = (
    r"^(SSLCertVerification|Certificate)Error"
    r"|^SSLError.*(CERTIFICATE_VERIFY_FAILED|certificate verify failed|CertificateError|PEM lib)"
    r"|^SSLError.*(\[X509|x509 certificate routines)"
)
# The variables of the table, by the situation that each is for.
_VARIABLES = {row.when: row.name for row in families.VARIABLES if not row.needs}
_OS, _REQUESTS, _CURL, _NODE = (
    _VARIABLES[when] for when in ("os overridden", "python overridden", "curl needs it", "any CA wanted")
)
KINDS = (
    # Its context is what urllib, http.client and most libraries besides requests use.
    Kind(
        "Python ssl", "", (*_ARGUMENTS, "{name}", "{host}", "{port}"), (), (), (_OS,),
        _TLS_REFUSED, "^accepted", _SSL_SCRIPT,
    ),
    # requests/sessions.py, merge_environment_settings; adapters.py says "Could not find a suitable TLS CA bundle".
    Kind(
        "requests", "", (*_ARGUMENTS, "{url}"), (), (), (_REQUESTS, _CURL),
        rf"{_TLS_REFUSED}|^(OS|IO)Error: Could not find", script=_REQUESTS_SCRIPT,
    ),
    # curl(1), EXIT CODES.
    Kind(
        "curl", "curl", ("-sS", "--head", "{url}"), (), (), (_CURL, _OS), r"^exit (51|60|77|82|83|90|91)$",
    ),
    # openssl-s_client(1): -brief and -verify_hostname exist since 1.0.2.
    Kind(
        "openssl", "openssl", ("s_client", "-brief", "-verify_return_error", "-connect", "{relay}"),
        ("-servername", "{name}", "-verify_hostname", "{name}"), ("-verify_ip", "{name}"), (_OS,),
        r"^verify error:num=", r"^exit 0$",
    ),
    # containers/image pings https://HOST/v2/ first. It is told no credentials, although no request goes out.
    Kind(
        "skopeo", "skopeo", ("inspect", "--raw", "--no-creds", "docker://{authority}/x:1"), (), (), (_OS,),
        r"x509: |tls: ", hosts=r"[a-z0-9.-]+",  # others are no part of a reference to an image
    ),
    # Node's roots are its own; the variable adds to them.
    Kind(
        "node", "node", ("-e", "{script}", "{name}", "{host}", "{port}"), (), (), (_NODE,),
        r"^\w*(CERT|ISSUER|SIGNATURE|SELF_SIGNED|ERR_SSL|EPROTO)\w*: ", "^accepted", _NODE_SCRIPT,
    ),
)  # fmt: skip


def runs_as(settings: Config) -> Account | None:
    """Return the account that root runs clients as, None when we are not root.

    Raises UnknownUserError when a named user does not exist, and PrivilegeError when root cannot become it.
    """
    try:
        account = become.find_account(settings.user, settings.root)
    except UnknownUserError:
        if settings.user_named:
            raise
        account = _NOBODY
    become.require(account)
    return account


def find(environ: Mapping[str, str], bundles: Sequence[str]) -> tuple[Client, ...]:
    """Find every client by looking at PATH, and at the places of certifi `bundles` for their interpreters."""
    path = environ.get("PATH", interpreters.DEFAULT_PATH)
    pythons = tuple(_pythons(path, bundles))
    found = []
    for kind in KINDS:
        programs = (interpreters.which("", kind.program, path),) if kind.program else pythons
        found += [Client(kind, program) for program in programs if program.startswith("/")]
    return tuple(found)


def _pythons(path: str, bundles: Sequence[str]) -> Iterator[str]:
    """Return each interpreter once: two names in one venv are one, two venvs of one interpreter are two."""
    seen = set()
    for candidate in _candidates(path, bundles):
        prefix = os.path.dirname(os.path.dirname(candidate))
        venv = prefix if os.path.isfile(f"{prefix}/pyvenv.cfg") else ""
        key = venv, os.path.realpath(candidate)
        if key not in seen and os.path.isfile(candidate):  # one that its user cannot execute is told as such
            seen.add(key)
            yield candidate


def _candidates(path: str, bundles: Sequence[str]) -> Iterator[str]:
    for bundle in bundles:
        if match := re.match(r"(/.*)/lib(?:64)?/(python[\d.]+)/", bundle):
            prefix, name = match.groups()
            yield from (f"{prefix}/bin/{each}" for each in (name, "python3", "python"))
            yield interpreters.which("", name, path)
    yield from (interpreters.which("", name, path) for name in ("python3", "python"))


def ask(
    client: Client, server: Server, environ: Mapping[str, str], account: Account | None, seconds: float = SECONDS
) -> Answer:
    """Execute the client and say whether it accepts the server; a client that does not end in time is killed.

    It is told of no proxy but our relay, so it knows no password of any other.
    """
    kind, until = client.kind, time.monotonic() + seconds
    if kind.hosts and not re.fullmatch(kind.hosts, server.host):
        return Answer(NOT_TRIED, f"{kind.name} takes no reference with such a host")
    with Relay(server, until) as relay:
        words = (*kind.arguments, *(kind.numbered if server.is_address else kind.named))
        places = {"relay": relay.authority, "host": relay.host, "port": relay.port, "name": server.host}
        authority = relay.target.authority
        command = [
            word.format(**places, authority=authority, url=f"https://{authority}/", script=kind.script)
            for word in words
        ]
        proxies = dict.fromkeys(("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY"), f"http://{relay.authority}")
        kept = {name: value for name, value in environ.items() if name not in connection.PROXY_VARIABLES}
        status, said = run([client.path, *command], {**kept, **proxies}, account, until, relay)
    if relay.requested:
        return Answer(ACCEPTED)
    answer = understand(kind, status, said.decode("utf-8", "replace"))
    if answer.state == UNCLEAR and relay.error:
        return Answer(UNREACHABLE, connection.unreachable(server, relay.error).problem)
    return answer


def understand(kind: Kind, status: int, said: str) -> Answer:
    """Return what an exit status and then words mean; what is not known for sure is unclear, never accepted. Pure."""
    lines = [f"exit {status}", *(line for line in said.split("\n") if line.strip())]
    if lines[1:] == ["absent"]:
        return Answer(ABSENT)
    if status in (NotExecutableError.code, NotFoundError.code):
        return Answer(UNUSABLE, "".join(lines[1:])[:_MAX_REASON])
    for line in lines:  # the first one that tells decides: what a server has put into others does not count
        if match := re.search(kind.refused, line):
            words = lines[1:2] if line is lines[0] else [line[match.start() :]]
            return Answer(REFUSED, _essence("".join(words)))
        if re.search(kind.accepted, line):
            return Answer(ACCEPTED)
    return Answer(UNCLEAR, " ".join(lines[:1] + lines[1:][-1:])[:_MAX_REASON])


def _essence(words: str) -> str:
    """Leave out what Python wraps around OpenSSL's reason."""
    found = re.search(r"certificate verify failed: [^()']+", words)
    return (found[0] if found else words).strip(' "')[:_MAX_REASON]


def run(
    command: Sequence[str],
    environ: Mapping[str, str],
    account: Account | None,
    until: float,
    relay: Relay | None = None,
) -> tuple[int, bytes]:
    """Execute a command as `account` in a process group of its own; return its exit status and all that it said.

    Whatever of the group is left is killed when the command or the time has ended, or the relay has its verdict.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        _become_and_execute(command, dict(environ), account, writer)
    os.close(writer)
    signals.running.append(child)
    try:
        said = _read(reader, until, relay)
        status = _wait(child, 0.0 if relay and relay.requested else until)
    finally:
        signals.running.remove(child)
        os.close(reader)
    return status, said if status != -signal.SIGKILL else said + b"\nkilled: it took too long"


def _become_and_execute(command: Sequence[str], environ: dict[str, str], account: Account | None, said: int) -> None:
    """End in the command, or with the reason. Nothing of ours runs afterwards."""
    code = 1
    try:
        os.setsid()  # a group of its own, and no way to the terminal that root sits at
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(said, 1)
        os.dup2(said, 2)
        os.chdir("/")
        become.become(account, environ)
        become.execute(command, environ)
    except (NotExecutableError, NotFoundError) as error:
        code = error.code
        os.write(said, str(error).encode("utf-8", "backslashreplace"))
    except (OSError, ShimError) as error:
        os.write(said, str(error).encode("utf-8", "backslashreplace"))
    finally:
        os._exit(code)


def _read(reader: int, until: float, relay: Relay | None) -> bytes:
    """Read to the end, or to the deadline: a descendant outside of the group may hold the pipe for ever."""
    said = b""
    while relay is None or not relay.requested:
        waiting: list[int | socket.socket] = [reader, *(relay.sockets if relay else ())]
        ready = select.select(waiting, [], [], max(0.0, until - time.monotonic()))[0]
        if relay:
            relay.serve(ready)
        piece = os.read(reader, 1 << 14) if reader in ready else b""
        if not ready or (reader in ready and not piece):
            break
        said = (said + piece)[:_MAX_SAID]
    return said


def _wait(child: int, until: float) -> int:
    """Return the exit status; the group is killed while its leader is a zombie, so that its number is nobody else's."""
    while not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) and time.monotonic() < until:
        time.sleep(0.005)
    kill(child)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill(child: int) -> None:
    """Kill a client with its group, or alone when it has not come to have one yet."""
    for each in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            each(child, signal.SIGKILL)
