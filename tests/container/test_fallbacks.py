"""Root that is not almighty: each store falls back by itself, with one line, and every client still trusts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.lab import pods
from tests.lab.docker import docker
from tests.lab.subject import Mount, Subject, fingerprints, lasting, named, once, probe_options

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_TOOL = "/usr/bin/update-ca-trust"
_SHIM = "/opt/ca-shim/bin/ca-shim"
_STOP = "--env=CA_SHIM_ON_ERROR=stop"
_TOOLS = {
    "failing": "exit 1",
    "emptying-the-bundle": ": > /etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "lying": "exit 0",
}
# The limit of 120 s would be most of CI's patience.
_HASTY = """
import sys
sys.path.append("/opt/ca-shim/site")
from shim import apply, cli
apply.TOOL_SECONDS = 1
sys.argv = ["ca-shim", "run", "--", *sys.argv[1:]]
sys.exit(cli.main())
"""


@dataclass(frozen=True)
class Fallback:
    """What happened where one store, or none, could be changed in place."""

    target: pods.Target
    answers: pods.Answers

    def lines(self, event: str) -> list[object]:
        """The stores of these lines."""
        return [line["store"] for line in named(self.answers.events, event)]

    def check(self) -> None:
        """Every client accepts CA A and refuses CA B, and no base root is missing."""
        os_bundle, certifi = pods.shipped(self.target)
        assert self.answers.private == self.target.everyone("trusted")
        assert self.answers.unknown == self.target.everyone("refused")
        assert os_bundle <= self.answers.os_bundle
        assert certifi <= self.answers.python_bundle


@pytest.fixture(scope="module")
def target() -> pods.Target:
    return pods.target("4.5-ubi9")


def _tool(directory: Path, script: str) -> str:
    path = directory / "update-ca-trust"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return f"--volume={path}:{_TOOL}:ro"


@pytest.mark.parametrize("script", _TOOLS.values(), ids=list(_TOOLS))
def test_a_refresh_tool_that_does_not_do_its_work_is_answered_by_override(
    network: str, mount: Mount, tmp_path: Path, target: pods.Target, script: str
) -> None:
    """And that is no problem: with on-error stop the application starts."""
    answers = pods.ask(target, network, mount.option, _tool(tmp_path, script), _STOP)

    fallback = Fallback(target, answers)
    fallback.check()
    told = "store.overridden" if script == _TOOLS["lying"] else "store.failed"
    assert [line["event"] for line in answers.events if line.get("store") == target.os_bundle] == [told]


def test_a_refresh_tool_that_exits_with_1_and_has_done_its_work_is_no_failure(
    network: str, mount: Mount, tmp_path: Path, target: pods.Target
) -> None:
    real = tmp_path / "real"
    real.write_text(docker("run", "--rm", "--entrypoint=cat", target.base, _TOOL).stdout)
    real.chmod(0o755)
    tool = _tool(tmp_path, "/mnt/real; exit 1")

    answers = pods.ask(target, network, mount.option, tool, f"--volume={real}:/mnt/real:ro", _STOP)

    fallback = Fallback(target, answers)
    fallback.check()
    assert fallback.lines("store.overridden") == fallback.lines("store.failed") == []
    assert "SSL_CERT_FILE" not in answers.environment


def test_root_without_the_capability_that_the_refresh_needs_is_served(
    network: str, mount: Mount, target: pods.Target
) -> None:
    answers = pods.ask(target, network, mount.option, "--cap-drop=DAC_OVERRIDE", _STOP)

    fallback = Fallback(target, answers)
    fallback.check()
    assert len(fallback.lines("store.overridden")) <= 1
    assert fallback.lines("store.failed") == []


@pytest.mark.parametrize("which", ["os", "certifi"])
def test_a_bundle_that_is_a_mount_of_its_own_is_overridden_with_one_line(
    network: str, mount: Mount, tmp_path: Path, target: pods.Target, which: str
) -> None:
    """A rename over it gives EBUSY; of the operating system's, it is the refresh tool that says so."""
    bundle = target.os_bundle if which == "os" else target.certifi
    (tmp_path / "out").mkdir()
    (tmp_path / "out").chmod(0o777)
    copy = (f"--volume={tmp_path}/out:/out", "--entrypoint=cp", f"--user={0 if which == 'os' else 1000}")
    once(target.base, bundle, "/out/bundle.pem", options=copy)

    answers = pods.ask(target, network, mount.option, f"--volume={tmp_path}/out/bundle.pem:{bundle}", _STOP)

    fallback = Fallback(target, answers)
    fallback.check()
    told = "store.failed" if which == "os" else "store.overridden"
    assert [line["event"] for line in answers.events if line.get("store") == bundle] == [told]


@pytest.fixture
def waiting(network: str, mount: Mount, target: pods.Target) -> Iterator[Subject]:
    """A container of root's that waits, with CA A mounted."""
    options = (*probe_options(network), pods.questions_option(), mount.option, "--entrypoint=/bin/sleep")
    with lasting(target.image, "infinity", options=options) as subject:
        yield subject


def test_a_missing_refresh_tool_is_answered_by_override(waiting: Subject, target: pods.Target) -> None:
    waiting.run("rm", _TOOL)

    result = waiting.run(_SHIM, "run", "--on-error=stop", "--", *target.questions.split())

    fallback = Fallback(target, pods.Answers(result, target.clients))
    fallback.check()
    assert [line["reason"] for line in named(fallback.answers.events, "store.overridden")] == [f"{_TOOL} is missing"]


def test_a_refresh_tool_that_hangs_is_killed_and_answered_by_override(waiting: Subject, target: pods.Target) -> None:
    """Here after one second instead of 120; what it had started is killed with it."""
    waiting.run("sh", "-c", f"printf '#!/bin/sh\\nsleep 1000 & wait\\n' > {_TOOL}")

    result = waiting.run("/opt/ca-shim/bin/python3", "-ISB", "-c", _HASTY, *target.questions.split())

    fallback = Fallback(target, pods.Answers(result, target.clients))
    fallback.check()
    assert fallback.lines("store.failed") == [target.os_bundle]
    processes = waiting.run("sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").stdout
    assert "sleep infinity" in processes
    assert "sleep 1000" not in processes


def test_with_stop_a_store_that_can_be_served_in_no_way_is_fatal(mount: Mount, target: pods.Target) -> None:
    options = (*pods.UID_1000, *pods.READ_ONLY, mount.option, _STOP, "--env=CA_SHIM_BUNDLE_DIR=/usr/bundles")

    result = once(target.image, "echo", "started", options=options)

    assert (result.status, result.stdout) == (71, "")


def test_with_stop_an_ordinary_secret_of_anchores_is_no_problem(
    network: str, ca: Path, tmp_path: Path, target: pods.Target
) -> None:
    """The CA, a server's certificate and its key side by side, as uid 1000 on a read-only root."""
    volume = pods.KubernetesVolume(tmp_path / "secret")
    tmp_path.chmod(0o755)
    leaf, key = (ca / "servers" / f"registry-a.{suffix}" for suffix in ("pem", "key"))
    files = {"ca.crt": (ca / "ca-a.pem").read_bytes(), "tls.crt": leaf.read_bytes(), "tls.key": key.read_bytes()}
    volume.update(files)
    mounted = f"--volume={volume.directory}:/home/anchore/certs:ro"

    answers = pods.ask(target, network, *pods.UID_1000, *pods.READ_ONLY, mounted, _STOP)

    Fallback(target, answers).check()
    assert not fingerprints(leaf.read_text()) & (answers.os_bundle | answers.python_bundle | answers.extra_bundle)
    assert {str(line["file"]) for line in named(answers.events, "key.ignored")} == {"/home/anchore/certs/tls.key"}
