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

from shim import become, families, interpreters, signals
from shim.accounts import Account
from shim.answers import ABSENT, ACCEPTED, REFUSED, UNCLEAR, UNREACHABLE, UNUSABLE, Answer
from shim.errors import NotExecutableError, NotFoundError, ShimError, UnknownUserError
from shim.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from shim.answers import Server
    from shim.config import Config

SECONDS = 20.0
_MAX_SAID = 64 * 1024
_MAX_REASON = 300
# Whom root runs clients as where nobody named a user and the default one does not exist: a developer's machine.
_NOBODY = Account("nobody", 65534, 65534, (65534,), "/")


class Kind(Record):
    """How one kind of client is asked and understood; patterns are tried on `exit N` and all that it said."""

    name: str
    program: str  # its name on PATH; "" is every Python of the application
    arguments: tuple[str, ...]  # `{url}` and the like are filled in
    named: tuple[str, ...]  # added when the server has a name
    numbered: tuple[str, ...]  # added when it has an address
    tunnel: tuple[str, ...]  # added when there is a proxy that the client does not find by itself
    reads: tuple[str, ...]  # variables that point it to a bundle; the first that is set counts
    refused: str
    unreachable: str
    accepted: str
    script: str = ""


class Client(Record):
    """A client found on this image."""

    kind: Kind
    path: str

    @property
    def name(self) -> str:
        """The kind with the program, as a table shows it."""
        return f"{self.kind.name} ({self.path})"


# Every Python since 2.7.9, and 2.7.5 of CentOS 7: no annotations, no f-strings. ssl knows no proxies.
_SSL_SCRIPT = """
import os, ssl, sys
try:
    from http.client import HTTPSConnection
except ImportError:
    from httplib import HTTPSConnection
host, port, seconds, proxy = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
gate = proxy.rpartition(":")
try:
    context = ssl.create_default_context()
    connection = HTTPSConnection(gate[0] or host, int(gate[2] or port), timeout=seconds, context=context)
    if proxy:
        word = os.environ.get("PROXY_AUTHORIZATION")
        connection.set_tunnel(host, port, {"Proxy-Authorization": word} if word else {})
    connection.connect()
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
    requests.get(sys.argv[1], timeout=float(sys.argv[2]), allow_redirects=False, stream=True)
    sys.stdout.write("accepted")
except Exception as error:
    sys.stdout.write("%s: %s" % (type(error).__name__, error))
"""
_NODE_SCRIPT = """
const [host, port, proxy] = process.argv.slice(1);
const tls = require("tls"), http = require("http"), net = require("net");
const say = line => { console.log(line); process.exit(0); };
const fail = error => say(`${error.code || error.name}: ${error.message}`);
const open = socket => tls.connect(
  { host, port: +port, socket, servername: net.isIP(host) ? undefined : host }, () => say("accepted")
).on("error", fail);
if (!proxy) open();
else {
  const gate = new URL(`http://${proxy}`), word = process.env.PROXY_AUTHORIZATION;
  const headers = word ? { "Proxy-Authorization": word } : {};
  http.request({ host: gate.hostname, port: gate.port, method: "CONNECT", path: `${host}:${port}`, headers })
    .on("connect", (answer, socket) => answer.statusCode === 200 ? open(socket) : say(`proxy: ${answer.statusCode}`))
    .on("error", fail).end();
}
"""
_ARGUMENTS = ("-B", "-c", "{script}")
# A verdict on the certificate or the bundle; other errors of ssl come from a connection that broke.
_TLS_REFUSED = r"^(SSLCertVerification|Certificate)Error|^SSLError.*(CERTIFICATE|certificate|hostname|X509|PEM)"
# The variables of the table, by the situation that each is for.
_VARIABLES = {row.when: row.name for row in families.VARIABLES if not row.needs}
_OS, _REQUESTS, _CURL, _NODE = (
    _VARIABLES[when] for when in ("os overridden", "python overridden", "curl needs it", "any CA wanted")
)
KINDS = (
    # Its context is what urllib, http.client and most libraries besides requests use.
    Kind(
        "Python ssl", "", (*_ARGUMENTS, "{host}", "{port}", "{seconds}", "{proxy}"), (), (), (), (_OS,),
        _TLS_REFUSED, r"^(SSL\w*Error|(OS|IO|Connection\w*|Timeout)Error|timeout|gaierror|herror|error)\b",
        r"^accepted", _SSL_SCRIPT,
    ),
    # requests/sessions.py, merge_environment_settings; adapters.py says "Could not find a suitable TLS CA bundle".
    Kind(
        "requests", "", (*_ARGUMENTS, "{url}", "{seconds}"), (), (), (), (_REQUESTS, _CURL),
        rf"{_TLS_REFUSED}|^(OS|IO)Error: Could not find",
        r"^SSLError|^ProxyError|^Connect\w*(Error|Timeout)(?!.*(BadStatusLine|RemoteDisconnected))",
        r"^accepted|^ReadTimeout|^ConnectionError.*(BadStatusLine|RemoteDisconnected)", _REQUESTS_SCRIPT,
    ),
    # curl(1), EXIT CODES; time_appconnect is not 0 once the handshake is over, whatever becomes of the request.
    Kind(
        "curl", "curl",
        ("-sS", "-o", os.devnull, "-w", "appconnect %{{time_appconnect}}\n", "--max-time", "{seconds}", "{url}"),
        (), (), (), (_CURL, _OS),
        r"^exit (51|60|77|82|83|90|91)$", r"^exit (5|6|7|35|97)$|^curl: \(28\) (?!Operation)",
        r"^exit 0$|^appconnect (?![0.,]+$)",
    ),
    # openssl-s_client(1): -brief and -verify_hostname exist since 1.0.2, -proxy since 1.1.0, -proxy_user since 3.0.
    Kind(
        "openssl", "openssl", ("s_client", "-brief", "-verify_return_error", "-connect", "{authority}"),
        ("-servername", "{host}", "-verify_hostname", "{host}"), ("-verify_ip", "{host}"), ("-proxy", "{proxy}"),
        (_OS,),
        r"verify error|certificate verify failed", r"errno|CONNECT failed|BIO_lookup|[Nn]ame or service", r"^exit 0$",
    ),
    # containers/image pings https://HOST/v2/ first; any answer in HTTP comes after the handshake. No stranger is to be
    # told credentials.
    Kind(
        "skopeo", "skopeo", ("inspect", "--raw", "--no-creds", "docker://{authority}/x:1"), (), (), (),
        (_OS,),
        r"x509: |tls: ", r"dial tcp|lookup |timeout|deadline|proxyconnect|HTTP response to HTTPS|: EOF",
        r"^exit 0$|status code|StatusCode|HTTP status|manifest|unauthorized|denied|invalid character",
    ),
    # Node's roots are its own; the variable adds to them. It knows no proxies.
    Kind(
        "node", "node", ("-e", "{script}", "{host}", "{port}", "{proxy}"), (), (), (), (_NODE,),
        r"^\w*(CERT|ISSUER|SIGNATURE|SELF_SIGNED|ERR_SSL|EPROTO)\w*: ", r"^(proxy|E[A-Z_]+): ", r"^accepted",
        _NODE_SCRIPT,
    ),
)  # fmt: skip


def runs_as(settings: Config) -> Account | None:
    """Give whom root is to run clients as, None when we are not root.

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
    """Give each interpreter once: two names in one venv are one, two venvs of one interpreter are two."""
    seen = set()
    for candidate in _candidates(path, bundles):
        prefix = os.path.dirname(os.path.dirname(candidate))
        venv = prefix if os.path.isfile(f"{prefix}/pyvenv.cfg") else ""
        key = venv, os.path.realpath(candidate)
        if key not in seen and os.access(candidate, os.X_OK):
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
    """Execute the client and say whether it accepts the server; a client that does not end in time is killed."""
    values = {**server._asdict(), "authority": server.authority, "url": f"https://{server.authority}/"}
    kind = client.kind
    words = (
        *kind.arguments,
        *(kind.numbered if server.is_address else kind.named),
        *(kind.tunnel if server.proxy else ()),
    )
    command = [word.format(**values, script=kind.script, seconds=max(1, int(seconds) - 2)) for word in words]
    secrets = {"PROXY_AUTHORIZATION": server.authorization} if server.authorization else {}
    status, said = run([client.path, *command], {**environ, **secrets}, account, seconds)
    return understand(kind, status, _without_passwords(said.decode("utf-8", "replace"), environ))


def _without_passwords(said: str, environ: Mapping[str, str]) -> str:
    """Blank what stands before the host in proxies' URLs: clients quote them when they complain."""
    for name, value in environ.items():
        user = value.rpartition("@")[0].rpartition("://")[2]
        if name.lower().endswith("_proxy") and user:
            said = said.replace(user, "(user)")
    return said


def understand(kind: Kind, status: int, said: str) -> Answer:
    """Say what an exit status and words mean; what is not known for sure is unclear, never accepted. Pure."""
    lines = [f"exit {status}", *(line for line in said.splitlines() if line.strip())]
    if lines[1:] == ["absent"]:
        return Answer(ABSENT)
    if status in (NotExecutableError.code, NotFoundError.code):
        return Answer(UNUSABLE, "".join(lines[1:])[:_MAX_REASON])
    for state, pattern in ((REFUSED, kind.refused), (UNREACHABLE, kind.unreachable), (ACCEPTED, kind.accepted)):
        telling = {line: match for line in lines if (match := re.search(pattern, line))}
        if telling:
            words = [line[match.start() :] for line, match in telling.items() if line != lines[0]] or lines[1:2]
            return Answer(state, "" if state == ACCEPTED else _essence("".join(words[:1])))
    return Answer(UNCLEAR, " ".join(lines[:1] + lines[1:][-1:])[:_MAX_REASON])


def _essence(words: str) -> str:
    """Leave out what Python wraps around OpenSSL's reason."""
    found = re.search(r"certificate verify failed: [^()']+", words)
    return (found[0] if found else words).strip(' "')[:_MAX_REASON]


def run(
    command: Sequence[str], environ: Mapping[str, str], account: Account | None, seconds: float
) -> tuple[int, bytes]:
    """Execute a command as `account` in a process group of its own; gives its exit status and all that it said.

    Whatever of the group is left when the command or the time has ended is killed.
    """
    deadline = time.monotonic() + seconds
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        _become_and_execute(command, dict(environ), account, writer)
    os.close(writer)
    signals.running.append(child)
    try:
        said = _read(reader, deadline)
        status = _wait(child, deadline)
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


def _read(reader: int, deadline: float) -> bytes:
    """Read to the end, or to the deadline: a descendant outside of the group may hold the pipe for ever."""
    said = b""
    while select.select([reader], [], [], max(0.0, deadline - time.monotonic()))[0]:
        piece = os.read(reader, 1 << 14)
        if not piece:
            break
        said = (said + piece)[:_MAX_SAID]
    return said


def _wait(child: int, deadline: float) -> int:
    """Give the exit status; the group is killed while its leader is a zombie, so that its number is nobody else's."""
    while not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) and time.monotonic() < deadline:
        time.sleep(0.005)
    kill(child)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill(child: int) -> None:
    """Kill a client with its group, or alone when it has not come to have one yet."""
    for each in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            each(child, signal.SIGKILL)
