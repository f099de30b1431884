"""`verify`, `status` and `plan` on derived images: the good state, and the broken ones that operators meet."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab import derived
from tests.lab.subject import Mount, once
from tests.process import servers

if TYPE_CHECKING:
    from pathlib import Path

_CHAIN, _OTHER, _ALONE, _WITHOUT_INTERMEDIATE = (f"https.lab.test:{port}" for port in (8443, 8444, 8445, 8446))
_USERS = {"root": (), "uid 1000, read-only": ("--user=1000", "--read-only")}
_ROWS = ("4.5-ubi9", "venv-debian12")
_OWN = "REQUESTS_CA_BUNDLE=/own/ca-c.pem"


@dataclass(frozen=True)
class Question:
    """One state of one container."""

    url: str
    mounted: tuple[str, ...]
    code: int
    kinds: tuple[str, ...]
    options: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # events that status and plan tell of; to them all of these states are well


_QUESTIONS = {
    "all is well": Question(_CHAIN, ("ca-a.pem",), 0, ()),
    "the CA is not mounted": Question(_CHAIN, (), 1, ("root-not-mounted",)),
    "the server sends no intermediate": Question(_WITHOUT_INTERMEDIATE, ("ca-a.pem",), 1, ("intermediate-not-sent",)),
    "only the intermediate is mounted": Question(
        _CHAIN, ("int-a.pem",), 1, ("only-intermediate",), notes=("certificate.warning",)
    ),
    "a bundle of the user's own is merged": Question(_CHAIN, ("ca-a.pem",), 0, (), (f"--env={_OWN}",)),
}
_SERVERS = {
    "the server's CA is another one": Question(_OTHER, ("ca-a.pem",), 1, ("intermediate-not-sent",)),
    "the server signed its certificate itself": Question(_ALONE, ("ca-a.pem",), 1, ("self-signed",)),
    "nobody listens": Question("https.lab.test:9", ("ca-a.pem",), 1, ("connection-refused",)),
    "the name does not exist": Question("nowhere.lab.test", ("ca-a.pem",), 1, ("unknown-name",)),
}


@dataclass(frozen=True)
class Place:
    """An image, and how it is started."""

    image: str
    options: tuple[str, ...]

    def verify(self, question: Question, *command: str) -> tuple[int, dict[str, Any]]:
        words = command or ("/opt/ca-shim/bin/ca-shim", "verify", "--json", question.url)
        result = once(self.image, *words, options=(*self.options, *question.options))
        assert result.stdout, result.stderr
        (document,) = json.loads(result.stdout)
        return result.status, document

    def ask_all(self, question: Question) -> dict[str, tuple[int, Any]]:
        """Give the exit code and the document of each command, asked by the application itself."""
        result = once(self.image, "/bin/sh", "-c", _ALL, question.url, options=(*self.options, *question.options))
        parts = (part.rpartition("\n= ") for part in result.stdout.split("\n==\n")[:-1])
        answers = [(int(code), json.loads(document)) for document, _, code in parts]
        return dict(zip(("verify", "status", "plan"), answers, strict=True))


_ALL = """
for words in "verify $0" status "plan --exit-code"; do
  /opt/ca-shim/bin/ca-shim $words --json; printf '\n= %s\n==\n' $?
done"""


@pytest.fixture(params=_ROWS)
def row_image(request: pytest.FixtureRequest) -> str:
    return derived.image(derived.row(request.param))


@pytest.fixture(params=_USERS.values(), ids=list(_USERS))
def place(request: pytest.FixtureRequest, row_image: str, network: str, ca: Path, mount: Mount) -> Place:
    own = f"--volume={ca}:/own:ro"
    return Place(row_image, (f"--network={network}", mount.option, own, *request.param))


def _kinds(document: dict[str, Any]) -> tuple[str, ...]:
    return tuple(finding["kind"] for finding in document["findings"])


def _clients(document: dict[str, Any], state: str) -> set[str]:
    return {each["client"].partition(" (")[0] for each in document["clients"] if each["state"] == state}


@pytest.mark.parametrize("question", _QUESTIONS.values(), ids=_QUESTIONS.keys())
def test_a_state_is_told_with_its_cause(place: Place, mount: Mount, ca: Path, question: Question) -> None:
    mount.hold(*(ca / name for name in question.mounted))

    answers = place.ask_all(question)
    (code, (document,)), (well, status), (unchanged, plan) = answers.values()

    assert (code, _kinds(document)) == (question.code, question.kinds), document
    assert (well, [each["event"] for each in status["refused"]]) == (0, [*question.notes]), status
    assert (unchanged, plan["steps"], [each["event"] for each in plan["notes"]]) == (0, [], [*question.notes]), plan
    states = {state for each in status["cas"] for state in each["states"].values()}
    assert states <= {"installed", "by override"}


@pytest.mark.parametrize("question", _SERVERS.values(), ids=_SERVERS.keys())
def test_what_is_wrong_with_the_server_is_told(image: str, network: str, mount: Mount, question: Question) -> None:
    code, document = Place(image, (f"--network={network}", mount.option)).verify(question)

    assert (code, _kinds(document)) == (question.code, question.kinds), document


def test_every_client_of_the_image_is_asked(place: Place) -> None:
    _, document = place.verify(_QUESTIONS["all is well"])

    assert _clients(document, "accepts") == {"Python ssl", "requests", "curl", "openssl", "skopeo", "Go programs"}


def test_go_takes_an_intermediate_for_an_anchor(place: Place, mount: Mount, ca: Path) -> None:
    mount.hold(ca / "int-a.pem")

    _, document = place.verify(_QUESTIONS["only the intermediate is mounted"])

    assert {"skopeo", "Go programs"} <= _clients(document, "accepts")
    assert {"Python ssl", "requests", "openssl"} <= _clients(document, "refuses")


def test_a_mounted_ca_that_was_never_installed_is_told(place: Place) -> None:
    question = Question(_CHAIN, ("ca-a.pem",), 1, ("not-installed",), ("--entrypoint=",))

    (code, (document,)), (missing, status), (changes, plan) = place.ask_all(question).values()

    assert (code, _kinds(document)) == (question.code, question.kinds), document
    assert (missing, {*status["cas"][0]["states"].values()}) == (1, {"missing"}), status
    assert (changes, bool(plan["steps"])) == (3, True), plan


def test_a_bundle_of_the_users_own_that_hides_the_stores_is_told(place: Place) -> None:
    """It was set after the start: with stores in place it is in force, with override bundles only this session's."""
    script = f"{_OWN} exec /opt/ca-shim/bin/ca-shim verify --json {_CHAIN}"

    _, document = place.verify(_QUESTIONS["all is well"], "/bin/sh", "-c", script)

    (finding,) = (each for each in document["findings"] if "/own/ca-c.pem" in each["problem"])
    assert finding["kind"] == ("session" if "--read-only" in place.options else "variable-hides-stores")


_ANSWERS = {
    "a redirect": (b"302 Found", b"Location: https://elsewhere.test:%d/"),
    "a redirect without TLS": (b"301 Moved", b"Location: http://elsewhere.test:%d/"),
    "a token service": (
        b"401 Unauthorized",
        b'WWW-Authenticate: Bearer realm="https://elsewhere.test:%d/t",service="x"',
    ),
    "words of clients": (b"500 x509: timeouts, certificate verify failed", b"X-Port: %d"),
}


@pytest.mark.parametrize(("status", "header"), _ANSWERS.values(), ids=_ANSWERS.keys())
def test_every_client_is_judged_by_the_server_asked_and_calls_no_other(
    image: str, mount: Mount, tmp_path: Path, status: bytes, header: bytes
) -> None:
    (tmp_path / "root.pem").write_bytes(servers.root().pem)
    mount.hold(tmp_path / "root.pem")
    hosts = (f"--add-host={name}.test:host-gateway" for name in ("server", "elsewhere"))
    chain = (servers.issue("server", servers.root(), names=["server.test"]),)
    everywhere = "0.0.0.0"
    with servers.serving([servers.recording(tmp_path / "called")], everywhere) as (elsewhere,):
        after = servers.page(header % elsewhere + b"\r\n", status=status)
        with servers.serving([servers.tls_server(servers.Tls(chain, after=after))], everywhere) as (port,):
            place = Place(image, (mount.option, *hosts))
            code, document = place.verify(Question(f"https://server.test:{port}", (), 0, ()))

    assert (code, _kinds(document)) == (0, ()), document
    assert "skopeo" in _clients(document, "accepts")
    assert not (tmp_path / "called").exists()


def test_clients_never_run_as_root(row_image: str, network: str, mount: Mount) -> None:
    """What the application's user can write on its PATH would be root's otherwise."""
    curl = "/home/anchore/venv/bin/curl"
    planted = f"printf '#!/bin/sh\\nid -u >&2\\nexit 60\\n' > {curl}; chmod 755 {curl}"
    script = f"{planted}; /opt/ca-shim/bin/ca-shim verify --json {_CHAIN}"
    options = (f"--network={network}", mount.option, "--user=0", "--entrypoint=/bin/sh")
    result = once(row_image, "-c", script, options=options)

    (document,) = json.loads(result.stdout)
    (asked,) = (each for each in document["clients"] if each["client"].startswith("curl"))
    assert (asked["client"], asked["reason"]) == (f"curl ({curl})", "1000")
