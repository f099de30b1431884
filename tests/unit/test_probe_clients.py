"""The clients: what their words mean, where they are found, and that none outlives its time."""

from __future__ import annotations

import os
import pty
import time
from typing import TYPE_CHECKING, Any

import pytest

from shim import clients, config, connection
from shim.accounts import Account
from shim.answers import ABSENT, ACCEPTED, NOT_LOADED, NOT_TRIED, REFUSED, UNCLEAR, UNUSABLE, Answer, Server
from shim.clients import Client
from shim.errors import PrivilegeError, UnknownUserError

if TYPE_CHECKING:
    from pathlib import Path

_KINDS = {kind.name: kind for kind in clients.KINDS}
_SERVER = Server("a.test", 8443)

# What the real programs said, shortened; versions as on the bases of the table of systems.
_SAID = {
    "curl refuses": ("curl", 60, "curl: (60) SSL certificate problem\nMore details", REFUSED, "curl: (60) SSL certi"),
    "curl finds no bundle": ("curl", 77, "curl: (77) error setting certificate", REFUSED, "curl: (77)"),
    "curl is cut off in the handshake": ("curl", 35, "curl: (35) reset", UNCLEAR, "exit 35 curl: (35)"),
    "curl ends well without a request": ("curl", 0, "HTTP/1.1 200 OK", UNCLEAR, "exit 0 HTTP"),
    "curl does not know the option": ("curl", 2, "curl: option -q: is unknown", UNCLEAR, "exit 2 curl: option"),
    "openssl accepts": ("openssl", 0, "CONNECTION ESTABLISHED\nVerification: OK", ACCEPTED, ""),
    "openssl refuses": ("openssl", 1, "depth=0\nverify error:num=20:unable to", REFUSED, "verify error:num=20"),
    "openssl accepts a name with words of its own": (
        "openssl",
        0,
        "Peer certificate: CN = verify error certificate verify failed\nVerification: OK",
        ACCEPTED,
        "",
    ),
    "openssl refuses a name with words of its own": (
        "openssl",
        1,
        "depth=0 CN = verify error:num=1:x\nverify error:num=20:unable",
        REFUSED,
        "verify error:num=20",
    ),
    "openssl is cut off by a name with words of its own": (
        "openssl",
        1,
        "Peer certificate: CN = x verify error:num=1:x\u2028verify error:num=1:x",
        UNCLEAR,
        "exit 1",
    ),
    "openssl finds no server": ("openssl", 1, "connect:errno=111", UNCLEAR, "exit 1 connect:errno=111"),
    "openssl has no such option": ("openssl", 1, "s_client: Option unknown option -brief", UNCLEAR, "exit 1 s_client"),
    "skopeo refuses": ("skopeo", 1, 'fatal msg="pinging: x509: certificate signed by"', REFUSED, "x509: certificate s"),
    "skopeo finds no server": ("skopeo", 1, 'msg="pinging: dial tcp: lookup a.test: no such host"', UNCLEAR, "exit 1"),
    "skopeo does not know the option": ("skopeo", 1, "unknown flag: --no-creds", UNCLEAR, "exit 1 unknown flag"),
    "ssl accepts": ("Python ssl", 0, "accepted", ACCEPTED, ""),
    "ssl refuses": ("Python ssl", 0, "SSLCertVerificationError: self-signed", REFUSED, "SSLCert"),
    "ssl of Python 2 refuses": ("Python ssl", 0, "CertificateError: hostname", REFUSED, "Certif"),
    "ssl finds no server": ("Python ssl", 0, "ConnectionRefusedError: [Errno 111]", UNCLEAR, "exit 0 Connection"),
    "ssl crashes": ("Python ssl", 1, "Traceback\nSyntaxError: invalid", UNCLEAR, "exit 1 SyntaxError"),
    "requests is not there": ("requests", 0, "absent", ABSENT, ""),
    "requests refuses": ("requests", 0, "SSLError: Pool (CERTIFICATE_VERIFY_FAILED)", REFUSED, "SSLError"),
    "requests is cut off": ("requests", 0, "SSLError: Pool (SSLZeroReturnError(6))", UNCLEAR, "exit 0 SSLError"),
    "requests is sent an alert": (
        "requests",
        0,
        "SSLError: Pool ([SSL: SSLV3_ALERT_CERTIFICATE_UNKNOWN] sslv3 alert certificate unknown)",
        UNCLEAR,
        "exit 0 SSLError",
    ),
    "requests is cut off from a host of that name": (
        "requests",
        0,
        "SSLError: HTTPSConnectionPool(host='hostname.certificate.test') reset",
        UNCLEAR,
        "exit 0 SSL",
    ),
    "requests misses the name": ("requests", 0, 'SSLError: Pool (CertificateError("hostname', REFUSED, "SSLError"),
    "requests finds no bundle": ("requests", 0, "OSError: Could not find a suitable TLS CA", REFUSED, "OSError"),
    "node accepts": ("node", 0, "accepted", ACCEPTED, ""),
    "node refuses": ("node", 0, "UNABLE_TO_VERIFY_LEAF_SIGNATURE: unable", REFUSED, "UNABLE_TO"),
    "node misses the name": ("node", 0, "ERR_TLS_CERT_ALTNAME_INVALID: Hostname", REFUSED, "ERR_TLS"),
    "node is sent a name with words of its own": ("node", 0, "ERR_TLS_CERT_X: x\naccepted", REFUSED, "ERR_TLS"),
    "node finds no server": ("node", 0, "ECONNREFUSED: connect", UNCLEAR, "exit 0 ECONNREFUSED"),
    "a client is killed": ("node", -9, "killed: it took too long", UNCLEAR, "exit -9 killed"),
    "a client is silent": ("skopeo", 3, "", UNCLEAR, "exit 3"),
    "a client may not be executed": ("curl", 126, "cannot be executed (permission denied)", UNUSABLE, "cannot be"),
}


@pytest.mark.parametrize(("kind", "status", "said", "state", "reason"), _SAID.values(), ids=_SAID.keys())
def test_what_a_client_says_is_understood(kind: str, status: int, said: str, state: str, reason: str) -> None:
    answer = clients.understand(_KINDS[kind], status, said)

    assert answer.state == state
    assert answer.reason.startswith(reason)


@pytest.mark.parametrize("host", ["::1", "my_registry"])
def test_a_host_that_skopeo_cannot_parse_is_not_tried(host: str) -> None:
    answer = clients.ask(Client(_KINDS["skopeo"], "/bin/false"), Server(host, 1), {}, None)

    assert answer.state == NOT_TRIED


def test_a_reason_has_its_limit() -> None:
    assert len(clients.understand(_KINDS["skopeo"], 1, "x509: " + "x" * 5000).reason) <= 300


# --- finding ----------------------------------------------------------------------------------------------------------


def _program(path: Path, text: str = "#!/bin/sh\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


def test_programs_are_found_on_the_applications_path(tmp_path: Path) -> None:
    _program(tmp_path / "a/curl")
    _program(tmp_path / "b/curl")
    _program(tmp_path / "b/node")

    found = clients.find({"PATH": f"{tmp_path}/a:{tmp_path}/b"}, ())

    assert [client.path for client in found] == [f"{tmp_path}/a/curl", f"{tmp_path}/b/node"]


def test_a_relative_path_is_nobodys_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _program(tmp_path / "curl")
    monkeypatch.chdir(tmp_path)

    assert clients.find({"PATH": ".:"}, ()) == ()


def test_the_interpreter_beside_a_certifi_is_asked_for_ssl_and_requests(tmp_path: Path) -> None:
    python = _program(tmp_path / "venv/bin/python3.9")
    (tmp_path / "venv/pyvenv.cfg").touch()
    (tmp_path / "venv/bin/python3").symlink_to("python3.9")

    found = clients.find({"PATH": str(tmp_path)}, [f"{tmp_path}/venv/lib/python3.9/site-packages/certifi/cacert.pem"])

    assert [(client.kind.name, client.path) for client in found] == [
        ("Python ssl", str(python)),
        ("requests", str(python)),
    ]


def test_an_interpreter_that_its_user_cannot_execute_is_a_row_like_any_other(tmp_path: Path) -> None:
    python = _program(tmp_path / "venv/bin/python3.9")
    python.chmod(0o600)

    found = clients.find({"PATH": str(tmp_path)}, [f"{tmp_path}/venv/lib/python3.9/site-packages/certifi/cacert.pem"])

    assert {client.path for client in found} == {str(python)}
    assert {clients.ask(client, _SERVER, {}, None, 5).state for client in found} == {UNUSABLE}


def test_an_interpreter_elsewhere_is_found_by_its_version(tmp_path: Path) -> None:
    python = _program(tmp_path / "bin/python3.6")

    found = clients.find({"PATH": f"{tmp_path}/bin"}, [f"{tmp_path}/local/lib64/python3.6/site-packages/certifi/c.pem"])

    assert {client.path for client in found} == {str(python)}


def test_two_venvs_of_one_interpreter_are_two_clients(tmp_path: Path) -> None:
    python = _program(tmp_path / "python3.9")
    for name in ("one", "two"):
        (tmp_path / name / "bin").mkdir(parents=True)
        (tmp_path / name / "pyvenv.cfg").touch()
        (tmp_path / name / "bin/python3").symlink_to(python)
    bundles = [f"{tmp_path}/{name}/lib/python3.9/site-packages/certifi/cacert.pem" for name in ("one", "two")]

    assert len(clients.find({"PATH": "/nowhere"}, bundles)) == 4


def test_a_bundle_in_no_known_place_has_no_interpreter() -> None:
    assert clients.find({"PATH": "/nowhere"}, ["/srv/cacert.pem"]) == ()


# --- asking -----------------------------------------------------------------------------------------------------------


def _ask(tmp_path: Path, kind: str, script: str, server: Server = _SERVER, seconds: float = 10) -> Answer:
    program = _program(tmp_path / "client", f"#!/bin/sh\n{script}\n")
    return clients.ask(Client(_KINDS[kind], str(program)), server, {"PATH": "/usr/bin:/bin"}, None, seconds)


def test_a_client_cannot_reach_the_terminal_of_whoever_asks(tmp_path: Path) -> None:
    """What is pushed into root's terminal would be executed by root's shell."""
    child, terminal = pty.fork()
    if not child:
        status, _ = clients.run(
            ["/bin/sh", "-c", ": > /dev/tty"], {"PATH": "/usr/bin:/bin"}, None, time.monotonic() + 10
        )
        (tmp_path / "status").write_text(str(status))
        os._exit(0)
    os.waitpid(child, 0)
    os.close(terminal)

    assert (tmp_path / "status").read_text() != "0"


def test_a_client_is_told_of_our_relay_alone(tmp_path: Path) -> None:
    """What knows no password of a proxy repeats none."""
    program = _program(tmp_path / "client", '#!/bin/sh\nenv; echo "$*"; exit 60\n')
    proxies = dict.fromkeys(connection.PROXY_VARIABLES, "http://me:s3cret@p.test:1")
    server = Server("a.test", 1, "p.test:1", "Basic s3cret")
    said: list[bytes] = []
    run = clients.run

    def listen(*words: Any) -> tuple[int, bytes]:
        status, output = run(*words)
        said.append(output)
        return status, output

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clients, "run", listen)
        clients.ask(Client(_KINDS["curl"], str(program)), server, {"PATH": "/usr/bin:/bin", **proxies}, None, 10)

    assert b"s3cret" not in said[0]
    assert b"https_proxy=http://127.0.0.1:" in said[0]
    assert b"no_proxy" not in said[0].lower()


_WORDS = {
    "a name": (_SERVER, "-servername a.test -verify_hostname a.test"),
    "an address": (Server("192.0.2.1", 1), "-verify_ip 192.0.2.1"),
    "an address of six": (Server("2001:db8::1", 1), "-verify_ip 2001:db8::1"),
}


@pytest.mark.parametrize(("server", "words"), _WORDS.values(), ids=_WORDS.keys())
def test_a_client_is_told_the_server_and_led_to_the_relay(tmp_path: Path, server: Server, words: str) -> None:
    reason = _ask(tmp_path, "openssl", 'echo "verify error:num=1: $*"; exit 1', server).reason

    assert words in reason
    assert "-connect 127.0.0.1:" in reason


def test_a_client_that_hangs_is_killed_with_its_group(tmp_path: Path) -> None:
    begun = time.monotonic()
    answer = _ask(tmp_path, "curl", f"sleep 60 & echo $! > {tmp_path}/child; exec sleep 60", seconds=0.5)

    assert time.monotonic() - begun < 10
    assert answer == Answer(UNCLEAR, "exit -9 killed: it took too long")
    assert _is_gone(int((tmp_path / "child").read_text(encoding="ascii")))


def test_a_client_that_hides_its_output_is_killed_too(tmp_path: Path) -> None:
    assert _ask(tmp_path, "curl", "exec > /dev/null 2>&1; exec sleep 60", seconds=0.5).state == UNCLEAR


def test_what_a_client_leaves_behind_is_killed(tmp_path: Path) -> None:
    script = f"sleep 60 > /dev/null 2>&1 & echo $! > {tmp_path}/child; exit 0"

    assert _ask(tmp_path, "openssl", script).state == ACCEPTED
    assert _is_gone(int((tmp_path / "child").read_text(encoding="ascii")))


def _is_gone(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            with open(f"/proc/{pid}/stat", encoding="ascii") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except FileNotFoundError:
            return True
        time.sleep(0.02)
    return False


def test_a_flood_of_words_is_cut(tmp_path: Path) -> None:
    status, said = clients.run(
        ["/bin/sh", "-c", "yes | head -c 1000000"], {"PATH": "/usr/bin:/bin"}, None, time.monotonic() + 20
    )

    assert (status, len(said)) == (0, 64 * 1024)
    assert tmp_path.exists()


def test_a_client_gets_no_input_and_no_directory_of_ours() -> None:
    status, said = clients.run(["/bin/sh", "-c", "pwd; cat"], {"PATH": "/usr/bin:/bin"}, None, time.monotonic() + 20)

    assert (status, said) == (0, b"/\n")


def test_what_cannot_be_executed_says_so(tmp_path: Path) -> None:
    (tmp_path / "client").write_bytes(b"")

    assert clients.ask(Client(_KINDS["curl"], f"{tmp_path}/client"), _SERVER, {}, None).state == UNUSABLE


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_root_runs_clients_as_the_applications_user() -> None:
    account = Account("nobody", 65534, 65534, (65534,), "/")
    status, said = clients.run(
        ["/bin/sh", "-c", "id -u; id -g; id -G"], {"PATH": "/usr/bin:/bin"}, account, time.monotonic() + 20
    )

    assert (status, said.split()) == (0, [b"65534"] * 3)


# --- whom as ----------------------------------------------------------------------------------------------------------


def test_a_user_that_somebody_named_must_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)

    with pytest.raises(UnknownUserError):
        clients.runs_as(config.read({"CA_SHIM_USER": "no-such-user"}))


def test_without_the_default_user_clients_run_as_nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("shim.become.require", lambda _: None)
    account = clients.runs_as(config.read({}, root=str(tmp_path)))

    assert account is not None
    assert account.uid == 65534


def test_root_that_cannot_become_the_user_executes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(account: Account) -> None:
        raise PrivilegeError(account.name)

    monkeypatch.setattr("shim.become.find_account", lambda user, root: Account(user + root, 1, 1, (1,), "/"))
    monkeypatch.setattr("shim.become.require", refuse)

    with pytest.raises(PrivilegeError):
        clients.runs_as(config.read({}))


def test_what_python_wraps_around_the_reason_is_left_out() -> None:
    requests = next(kind for kind in clients.KINDS if kind.name == "requests")
    inner = "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: unable to get issuer certificate (_ssl.c:1)"
    said = f"SSLError: HTTPSConnectionPool(host='a', port=1): Max retries (Caused by SSLError(E(1, '{inner}')))"

    answer = clients.understand(requests, 0, said)

    assert answer == Answer(REFUSED, "certificate verify failed: unable to get issuer certificate")


def test_a_bundle_that_does_not_load_is_told_without_a_connection() -> None:
    failure = connection.handshake(Server("unresolvable.invalid", 1), b"no bundle", time.monotonic() + 5)

    assert failure is not None
    assert failure.code == NOT_LOADED


def test_each_client_is_known_to_read_its_own_variables() -> None:
    assert {kind.name: kind.reads for kind in clients.KINDS} == {
        "Python ssl": ("SSL_CERT_FILE",),
        "requests": ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
        "curl": ("CURL_CA_BUNDLE", "SSL_CERT_FILE"),
        "openssl": ("SSL_CERT_FILE",),
        "skopeo": ("SSL_CERT_FILE",),
        "node": ("NODE_EXTRA_CA_CERTS",),
    }
