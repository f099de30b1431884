"""The application must not be able to tell that the shim was there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import pytest

from tests.lab import derived, images
from tests.lab.docker import docker
from tests.lab.subject import Mount, events, facts, lasting, named, once

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.rows import Row

# The README's table of variables, as far as it concerns a start with a CA on a store that is written in place.
_DOCUMENTED = ("CA_SHIM", "NODE_EXTRA_CA_CERTS=")
_AWKWARD = {"a.b": "survives", "SPACED": " two  words ", "EMPTY": "", "ACCENT": "é", "PYTHONPATH": "/somewhere"}


@dataclass(frozen=True)
class Pair:
    """The same command in the base image and in the derived one."""

    row: Row
    mount: Mount

    def without(self, *command: str) -> str:
        return once(images.anchore(self.row), *command, env=_AWKWARD, options=self._options).stdout

    def behind(self, *command: str) -> str:
        return once(derived.image(self.row), *command, env=_AWKWARD, options=self._options).stdout

    @property
    def _options(self) -> tuple[str, ...]:
        return (self.mount.option, "--hostname=anchore")

    @cached_property
    def described_without(self) -> dict[str, object]:
        return facts(self.without(self.row.programs[0], "two words", "*", ""))

    @cached_property
    def described_behind(self) -> dict[str, object]:
        return facts(self.behind(self.row.programs[0], "two words", "*", ""))


@pytest.fixture(scope="module", params=["0.2-centos7", "0.3-ubuntu18.04", "0.4-ubi7", "4.5-ubi9"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, ca: Path) -> Pair:
    directory = tmp_path_factory.mktemp("pair")
    directory.chmod(0o755)
    mount = Mount(directory / "certs")
    mount.hold(ca / "ca-a.pem")
    return Pair(derived.row(request.param), mount)


@pytest.mark.parametrize("fact", ["pid", "uid", "gid", "groups", "cwd", "umask", "fds", "executable"])
def test_the_application_sees_the_same(pair: Pair, fact: str) -> None:
    assert pair.described_behind[fact] == pair.described_without[fact]


def test_the_arguments_are_the_same(pair: Pair) -> None:
    behind, without = pair.described_behind["argv"], pair.described_without["argv"]

    assert isinstance(behind, list)
    assert isinstance(without, list)
    assert behind[1:] == without[1:]


def test_the_environment_is_the_same_but_for_documented_variables(pair: Pair) -> None:
    behind, without = pair.described_behind["environ"], pair.described_without["environ"]

    assert isinstance(behind, list)
    assert [line for line in behind if not line.startswith(_DOCUMENTED)] == without


def test_the_private_ca_is_given_to_node(pair: Pair) -> None:
    variables = pair.described_behind["environ"]

    assert isinstance(variables, list)
    assert [line for line in variables if line.startswith("NODE_EXTRA_CA_CERTS=/")]


def test_ignored_and_blocked_signals_are_the_same(pair: Pair) -> None:
    """Asked by a program that is no Python: Python changes its own."""
    status = ("-E", "^(Sig(Ign|Blk)|ShdPnd|NoNewPrivs|Seccomp):", "/proc/self/status")
    shim = ("--entrypoint=/opt/ca-shim/bin/ca-shim", pair.mount.option)

    without = once(images.anchore(pair.row), *status, options=("--entrypoint=grep",))
    behind = once(derived.image(pair.row), "run", "--", "grep", *status, options=shim)

    assert behind.stdout == without.stdout
    assert "SigIgn:\t0000000000000000" in behind.stdout


def test_limits_are_the_same(pair: Pair) -> None:
    command = (pair.row.programs[0], "--exec", "cat", "/proc/self/limits")

    assert pair.behind(*command).partition("Limit")[2] == pair.without(*command).partition("Limit")[2]


def test_no_capability_is_left_to_anybody_but_root(pair: Pair) -> None:
    status = pair.described_behind["status"]

    assert isinstance(status, dict)
    left = {name: status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")}
    without = pair.described_without["status"]
    assert isinstance(without, dict)
    assert left == {name: without[name] for name in left}
    assert (set(map(tuple, left.values())) == {("0000000000000000",)}) == pair.row.anchore


def test_stdout_belongs_to_the_application(image: str, mount: Mount) -> None:
    assert once(image, "echo", "x", options=(mount.option,)).stdout == "x\n"


def test_stdin_reaches_the_application(image: str) -> None:
    assert docker("run", "--rm", "--interactive", image, "cat", stdin=b"\0abc\n").stdout == "\0abc\n"


@pytest.mark.parametrize("code", [0, 1, 7, 64, 137, 255])
def test_the_exit_code_passes_through(image: str, code: int) -> None:
    assert once(image, "anchore-enterprise-manager", "--exit", str(code)).status == code


def test_the_cmd_of_the_image_is_what_runs(image: str) -> None:
    with lasting(image) as subject:
        subject.wait_until_ready()

        assert facts(subject.logs().stdout)["argv"] == [
            "/opt/ca-shim/wrapped/home/anchore/venv/bin/anchore-enterprise-manager",
            "service",
            "start",
            "--all",
        ]


def test_entrypoint_and_cmd_stay_as_the_base_has_them(image: str) -> None:
    question = "{{json .Config.Entrypoint}} {{json .Config.Cmd}} {{json .Config.WorkingDir}}"
    base = images.anchore(derived.row("4.5-ubi9"))

    answers = {docker("image", "inspect", "--format", question, tag).stdout for tag in (image, base)}

    assert len(answers) == 1


def test_a_shell_in_between_as_helm_has_it_changes_nothing(image: str, mount: Mount) -> None:
    script = "/docker-entrypoint.sh anchore-enterprise-manager --exit 3"

    result = once(image, "-c", script, options=("--entrypoint=/bin/sh", mount.option))

    assert result.status == 3
    assert facts(result.stdout)["uid"] == [1000, 1000]


def test_the_second_of_two_wrapped_programs_has_nothing_to_do(image: str, mount: Mount) -> None:
    result = once(image, "anchore-enterprise-manager", options=(mount.option,))

    assert [event["changes"] for event in named(events(result.stderr), "trust.ready")][1:] == [0]


def test_off_becomes_the_user_and_changes_no_store(image: str, mount: Mount) -> None:
    row = derived.row("4.5-ubi9")

    result = once(
        image,
        row.programs[0],
        "--exec",
        "grep",
        "-c",
        "ca-shim",
        row.bundle,
        options=(mount.option,),
        env={"CA_SHIM": "off"},
    )

    assert facts(result.stdout)["uid"] == [1000, 1000]
    assert result.stdout.splitlines()[-1] == "0"


@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize(
    "words", ["{} /docker-entrypoint.sh", "cd / && {} docker-entrypoint.sh", ". /docker-entrypoint.sh"]
)
def test_a_shell_that_is_given_a_wrapper_starts_the_program(image: str, mount: Mount, shell: str, words: str) -> None:
    script = f'set -- anchore-enterprise-manager --exit 3; {words.format(shell)} "$@"'

    result = once(image, "-c", script, options=(f"--entrypoint=/bin/{shell}", mount.option))

    assert result.status == 3
    assert facts(result.stdout)["uid"] == [1000, 1000]
    assert [event["changes"] for event in named(events(result.stderr), "trust.ready")][1:] == [0]


def test_a_venv_that_only_a_script_names_is_served(image: str, mount: Mount) -> None:
    bundle = derived.row("4.5-ubi9").bundle.replace("/home/anchore", "/srv/app")
    make = (
        "mkdir /srv/app && cp -a /home/anchore/venv /srv/app/ && cd /srv/app && "
        "printf '#!/bin/bash\\nsource /srv/app/venv/bin/activate\\nexec \"$@\"\\n' > app && chmod 755 app && "
        f'/opt/ca-shim/bin/ca-shim run -- /srv/app/app grep -c "BEGIN ca-shim" {bundle}'
    )

    result = once(image, "-c", make, options=("--entrypoint=/bin/sh", mount.option))

    assert (result.stdout, result.status) == ("1\n", 0), result.stderr
