"""Whoever asks in a session of their own: what starts have left for the application, and how far it is believed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from shim import application, cli, plan, writer
from tests.certificates import NOW, root
from tests.edge.machine import ANCHORE, Machine, acting, needs_root

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = needs_root
A = root("A")
LEFT = f"/tmp/ca-shim-{ANCHORE}"
SET = "export SSL_CERT_FILE=/left.pem\n"


@pytest.fixture
def session(rhel: Machine) -> Callable[[str], dict[str, str]]:
    """Give what root's session takes for the application's environment when `anchore` has left this env file."""

    def look(text: str) -> dict[str, str]:
        rhel.write(f"{LEFT}/env", text.encode("utf-8", "surrogateescape"), owner=ANCHORE)
        return application.view(rhel.config(), {}, NOW).environ

    return look


@pytest.mark.parametrize(
    "path",
    ["/run/ca-shim/os.pem", "/a b/os.pem", "/it's/os.pem", "/$HOME/`id`/os.pem", "/Főtanúsítvány/os.pem"],
)
def test_a_path_that_we_left_is_read_back(session: Callable[[str], dict[str, str]], path: str) -> None:
    assert session(plan.env_file({"SSL_CERT_FILE": path}).decode()) == {"SSL_CERT_FILE": path}


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("export PATH=/tmp/bin", id="not a client's variable"),
        pytest.param("export SSL_CERT_FILE=relative.pem", id="relative"),
        pytest.param("export SSL_CERT_FILE=", id="empty"),
        pytest.param("SSL_CERT_FILE=/x", id="not exported"),
        pytest.param("export SSL_CERT_FILE=/x\x1b[2J", id="escape sequence"),
        pytest.param("export SSL_CERT_FILE=/x\u202e", id="right to left"),
        pytest.param("export SSL_CERT_FILE=/x\udcff", id="not UTF-8"),
        pytest.param("export SSL_CERT_FILE='/x", id="open quote"),
        pytest.param("export SSL_CERT_FILE=/x'", id="closing quote"),
        pytest.param("export 'SSL_CERT_FILE'=/x", id="quoted name"),
    ],
)
def test_what_no_start_leaves_is_not_believed(session: Callable[[str], dict[str, str]], line: str) -> None:
    assert session(line + "\n") == {}


def test_an_env_file_that_is_too_large_is_not_read(session: Callable[[str], dict[str, str]]) -> None:
    assert session(SET + "#" * 65536) == {}
    assert session(SET + "#" * 60000) == {"SSL_CERT_FILE": "/left.pem"}


def test_a_link_leads_root_no_further_than_its_owner(rhel: Machine) -> None:
    rhel.write("/secret", SET.encode(), mode=0o600)
    rhel.mkdir(LEFT, owner=ANCHORE)
    rhel.link(f"{LEFT}/env", str(rhel.path("/secret")), owner=ANCHORE)

    assert application.view(rhel.config(), {}, NOW).environ == {}
    assert application.env_file(str(rhel.path(f"{LEFT}/env"))) == ""


def test_root_that_can_be_nobody_else_reads_as_root(
    session: Callable[[str], dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(writer.Acting, "__enter__", fail)

    assert session(SET) == {"SSL_CERT_FILE": "/left.pem"}


def shim(
    rhel: Machine, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str, list[str]]:
    monkeypatch.setattr("sys.argv", ["ca-shim", words[0], "--root", str(rhel.root), *words[1:]])
    monkeypatch.setattr("shim.become.started_environment", dict[str, str])
    code = cli.main()
    out, err = capfd.readouterr()
    return code, out, err.splitlines()


def test_env_names_the_user_who_has_to_ask(
    rhel: Machine, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    rhel.mount(a=A.pem)
    with acting(ANCHORE):
        rhel.start()
    code, out, lines = shim(rhel, monkeypatch, capfd, "env")
    line = json.loads(lines[0])

    assert (code, out, line["event"], line["uid"]) == (0, "", "env.elsewhere", ANCHORE)
    assert f"docker exec -u {ANCHORE}" in line["remedy"]


def test_env_says_nothing_to_whom_it_serves(
    rhel: Machine, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    rhel.mount(a=A.pem)
    rhel.start()
    first = shim(rhel, monkeypatch, capfd, "env")
    with acting(ANCHORE):
        second = shim(rhel, monkeypatch, capfd, "env")

    assert first == second == (0, "export NODE_EXTRA_CA_CERTS=/run/ca-shim/extra.pem\n", [])


def test_env_says_nothing_where_nobody_needs_a_variable(
    rhel: Machine, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert shim(rhel, monkeypatch, capfd, "env") == (0, "", [])


def test_status_names_the_user_whose_variables_they_are(
    rhel: Machine, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    rhel.mount(a=A.pem)
    with acting(ANCHORE):
        rhel.start()
    _, out, _ = shim(rhel, monkeypatch, capfd, "status")

    assert f'to have them here, as uid {ANCHORE}: eval "$(/opt/ca-shim/bin/ca-shim env)"' in out
