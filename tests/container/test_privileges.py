"""Who the application runs as, and that root runs only what root owns."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.lab.docker import docker
from tests.lab.subject import Mount, Subject, events, facts, lasting, named, once

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MANAGER = "anchore-enterprise-manager"
_PLANTED = "import os, sys\nos.write(2, b'PLANTED\\n')\n"


def test_an_unknown_user_stops_the_start_with_67(image: str) -> None:
    result = once(image, "echo", "started", env={"CA_SHIM_USER": "nobody-here"})

    assert (result.status, result.stdout) == (67, "")


def test_the_message_about_an_unknown_user_names_it(image: str) -> None:
    result = once(image, "echo", "started", env={"CA_SHIM_USER": "nobody-here"})

    said = named(events(result.stderr), "shim.failed")
    assert [event["code"] for event in said] == [67]
    assert "nobody-here" in str(said[0]["reason"])


@pytest.mark.parametrize(
    ("user", "uid", "gid"),
    [
        ("root", 0, 0),
        ("0", 0, 0),
        ("anchore", 1000, 1000),
        ("1000", 1000, 1000),
        ("anchore:daemon", 1000, 1),
        ("2", 2, 2),
    ],
)
def test_the_application_runs_as_the_user_named(image: str, user: str, uid: int, gid: int) -> None:
    said = facts(once(image, _MANAGER, env={"CA_SHIM_USER": user}).stdout)

    assert (said["uid"], said["gid"]) == ([uid, uid], [gid, gid])


@pytest.mark.parametrize("user", ["1000:1000", "1000:0", "12345:0"])
def test_whoever_is_not_root_stays_who_it_is(image: str, user: str) -> None:
    uid, gid = map(int, user.split(":"))

    said = facts(once(image, _MANAGER, options=(f"--user={user}",)).stdout)

    assert (said["uid"], said["gid"]) == ([uid, uid], [gid, gid])


def test_root_without_the_right_to_become_somebody_stops_with_77(image: str) -> None:
    result = once(image, "echo", "started", options=("--cap-drop=ALL",))

    assert (result.status, result.stdout) == (77, "")


def test_root_with_nothing_but_the_right_to_become_somebody_starts_the_application(image: str, mount: Mount) -> None:
    options = ("--cap-drop=ALL", "--cap-add=SETUID", "--cap-add=SETGID", mount.option)

    result = once(image, _MANAGER, options=options)

    assert facts(result.stdout)["uid"] == [1000, 1000]


def test_root_cannot_be_had_again(image: str) -> None:
    script = "import os; os.setuid(0)"

    result = once(image, "python3", "-c", script)

    assert "PermissionError" in result.stderr


@pytest.mark.parametrize("module", ["structlog", "certifi", "cryptography", "ssl", "shim", "sitecustomize", "os"])
def test_a_module_planted_in_the_working_directory_is_not_run(
    image: str, mount: Mount, tmp_path: Path, module: str
) -> None:
    planted = _plant(tmp_path, module)

    result = once(image, "/bin/true", options=(mount.option, planted, "--workdir=/planted"))

    assert (result.status, "PLANTED" in result.stderr) == (0, False)


@pytest.mark.parametrize("variable", ["PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "PYTHONSTARTUP"])
def test_python_variables_of_the_application_do_not_steer_the_shim(
    image: str, mount: Mount, tmp_path: Path, variable: str
) -> None:
    planted = _plant(tmp_path, "structlog")
    value = "/planted/structlog.py" if variable == "PYTHONSTARTUP" else "/planted"

    result = once(image, "/bin/true", options=(mount.option, planted), env={variable: value})

    assert (result.status, "PLANTED" in result.stderr) == (0, False)


@pytest.mark.parametrize("variable", ["OPENSSL_CONF", "SSL_CERT_FILE", "SSL_CERT_DIR", "OPENSSL_MODULES"])
def test_openssl_variables_of_the_application_do_not_steer_the_shim(image: str, mount: Mount, variable: str) -> None:
    result = once(image, "/bin/true", options=(mount.option,), env={variable: "/nowhere"})

    assert result.status == 0
    assert not named(events(result.stderr), "shim.bug")


@pytest.fixture
def checked(image: str) -> Iterator[Subject]:
    """A container whose health check runs every second, with a curl planted in front of the real one."""
    options = ("--health-interval=1s", "--health-start-period=0s", "--health-timeout=20s")
    with lasting(image, options=options) as subject:
        subject.wait_until_ready()
        script = "printf '#!/bin/sh\\nid -u >> /tmp/curl-ran-as\\n' > venv/bin/curl && chmod 755 venv/bin/curl"
        assert subject.run("sh", "-c", f"cd /home/anchore && {script}", user="anchore").status == 0
        yield subject


def test_a_curl_planted_in_the_venv_is_not_run_as_root_by_the_health_check(checked: Subject) -> None:
    before = len(_checks(checked))
    checked.wait_for(lambda: len(_checks(checked)) >= before + 2)

    assert "0" not in checked.run("cat", "/tmp/curl-ran-as", user="0").stdout.split()


def test_the_health_check_really_asks_the_service(checked: Subject) -> None:
    checked.wait_for(lambda: len(_checks(checked)) >= 1)
    output = str(_checks(checked)[-1])

    assert "8228" in output or "connect" in output


def _checks(subject: Subject) -> list[object]:
    """The results of the health check that Docker still has: the last five."""
    answer = docker("inspect", "--format", "{{json .State.Health.Log}}", subject.id).stdout
    return list(json.loads(answer) or [])


def _plant(directory: Path, module: str) -> str:
    directory.chmod(0o755)
    (directory / f"{module}.py").write_text(_PLANTED)
    return f"--volume={directory}:/planted:ro"
