"""The streams of the container are the application's, whoever the shim started as; what is said there is short."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.lab.docker import docker
from tests.lab.subject import Mount, Subject, events, named, once

if TYPE_CHECKING:
    from pathlib import Path

_REOPEN = "echo out > /dev/stdout; echo err > /dev/stderr; id -u"
_SHIM = "/opt/ca-shim/bin/ca-shim"


@pytest.mark.parametrize("user", ["0", "1000"])
@pytest.mark.parametrize("terminal", [False, True], ids=["pipes", "terminal"])
def test_the_application_can_open_its_streams_again(image: str, user: str, *, terminal: bool) -> None:
    options = (f"--user={user}", *(["--tty"] if terminal else []))

    result = once(image, "sh", "-c", _REOPEN, options=options)

    said = (result.stdout + result.stderr).splitlines()
    assert {"out", "err", "1000"} <= {*said}
    assert result.status == 0


def test_it_can_behind_a_shell_of_root_s_as_helm_has_it(image: str) -> None:
    script = f"true; /docker-entrypoint.sh sh -c '{_REOPEN}'; true"

    result = once(image, "-c", script, options=("--entrypoint=/bin/sh", "--user=0"))

    assert result.stdout.splitlines()[-2:] == ["out", "1000"]
    assert result.stderr.splitlines()[-1] == "err"


def test_it_can_in_a_session_of_docker_exec(idle: Subject) -> None:
    result = idle.run(_SHIM, "run", "--off", "--", "sh", "-c", _REOPEN, user="0")

    assert (result.stdout, result.stderr) == ("out\n1000\n", "err\n")


def test_the_terminal_of_a_shell_of_root_s_is_not_given_away(image: str) -> None:
    script = f'{_SHIM} run --off -- true; stat -Lc "owner %u" /proc/self/fd/1'

    result = once(image, "-c", script, options=("--entrypoint=/bin/sh", "--user=0", "--tty"))

    assert "owner 0" in result.stdout


@pytest.mark.parametrize("user", ["0", "1000"])
def test_a_mounted_bundle_of_public_roots_makes_no_line_for_each(
    image: str, mount: Mount, ca: Path, tmp_path: Path, user: str
) -> None:
    """OpenShift injects the whole bundle of its nodes, with the cluster's own CAs."""
    roots = tmp_path / "roots.pem"
    roots.write_text(
        once(image, "cat", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem").stdout, errors="surrogateescape"
    )
    mount.hold(roots, ca / "ca-a.pem")

    lines = events(once(image, "true", options=(f"--user={user}", mount.option)).stderr)

    assert len(named(lines, "ca.held")) == 1
    assert len(lines) < 30, [line["event"] for line in lines]


def test_the_health_check_asks_the_service_and_no_proxy_and_says_one_line(image: str) -> None:
    question = "{{json .Config.Healthcheck.Test}}"
    _, program, *words = json.loads(docker("image", "inspect", "--format", question, image).stdout)

    result = once(image, *words, options=(f"--entrypoint={program}",), env={"http_proxy": "http://127.0.0.1:9"})

    assert result.status == 7
    assert [("8228" in line, line[:5]) for line in result.stderr.splitlines()] == [(True, "curl:")]
