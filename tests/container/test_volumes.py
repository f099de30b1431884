"""What Kubernetes and an image's history do to CA files: revisions, baked CAs, mounts that only root can read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.lab import pods
from tests.lab.docker import docker
from tests.lab.subject import Mount, Subject, facts, fingerprints, lasting, named, probe_options

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_TARGET = "4.5-ubi9"
_EVAL = 'eval "$(/opt/ca-shim/bin/ca-shim env)"; exec '


@dataclass
class Rotation:
    """A container over a Kubernetes volume, questioned before and after the volume's second revision."""

    target: pods.Target
    first: pods.Answers
    second: pods.Answers


def _inquire(pod: Subject, target: pods.Target) -> pods.Answers:
    return pods.Answers(pod.run("sh", "-c", _EVAL + target.questions), target.clients)


@pytest.fixture(scope="module", params=["root", "uid-1000", "uid-1000-read-only"])
def rotation(
    request: pytest.FixtureRequest, network: str, ca: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rotation]:
    """The first revision has CA A, and CA C in a directory; the second has CA B there and nothing else."""
    identity = {"root": (), "uid-1000": pods.UID_1000, "uid-1000-read-only": (*pods.UID_1000, *pods.READ_ONLY)}
    directory = tmp_path_factory.mktemp("kubernetes")
    directory.chmod(0o755)
    volume = pods.KubernetesVolume(directory / "volume")
    volume.update({"a.pem": (ca / "ca-a.pem").read_bytes(), "team/c.pem": (ca / "ca-c.pem").read_bytes()})
    target = pods.target(_TARGET)
    mounts = (f"--volume={volume.directory}:/custom-certs:ro", pods.questions_option())
    options = (*probe_options(network), *mounts, *identity[request.param])
    with lasting(target.image, options=options) as pod:
        pod.wait_until_ready()
        first = _inquire(pod, target)
        volume.update({"team/b.pem": (ca / "ca-b.pem").read_bytes()})
        pod.restart()
        yield Rotation(target, first, _inquire(pod, target))


def test_the_charts_own_directory_is_rotated_by_install_without_a_restart(
    network: str, ca: Path, tmp_path: Path
) -> None:
    """Anchore's entrypoint has pointed requests to a copy of its own, which `install` cannot bring up to date."""
    tmp_path.chmod(0o755)
    volume = Mount(tmp_path / "certs")
    volume.hold(ca / "ca-a.pem")
    target = pods.target(_TARGET)
    option = f"--volume={volume.directory}:/home/anchore/certs:ro"
    options = (*probe_options(network), pods.questions_option(), option, "--user=0")
    with lasting(target.image, options=options) as pod:
        pod.wait_until_ready()
        environ = facts(pod.logs().stdout)["environ"]
        volume.hold(ca / "ca-b.pem")
        installed = pod.run("/opt/ca-shim/bin/ca-shim", "install", user="0")
        status = pod.run("/opt/ca-shim/bin/ca-shim", "status", user="1000")
        answers = pods.Answers(pod.run(*target.questions.split()), target.clients)

    assert "REQUESTS_CA_BUNDLE" not in str(environ)
    assert (installed.status, status.status, status.stdout.splitlines()[-1]) == (0, 0, "all well")
    assert answers.unknown == target.everyone("trusted")
    assert answers.private == target.everyone("refused")


def test_every_file_of_a_kubernetes_volume_is_trusted_once(rotation: Rotation, ca: Path) -> None:
    os_bundle, certifi = pods.shipped(rotation.target)
    mounted = fingerprints((ca / "ca-a.pem").read_text() + (ca / "ca-c.pem").read_text())

    assert rotation.first.private == rotation.target.everyone("trusted")
    assert rotation.first.unknown == rotation.target.everyone("refused")
    assert rotation.first.os_bundle == os_bundle | mounted
    assert rotation.first.python_bundle == certifi | mounted


def test_after_a_new_revision_and_a_restart_nothing_of_the_old_one_is_left(rotation: Rotation, ca: Path) -> None:
    os_bundle, certifi = pods.shipped(rotation.target)
    mounted = fingerprints((ca / "ca-b.pem").read_text())

    assert rotation.second.private == rotation.target.everyone("refused")
    assert rotation.second.unknown == rotation.target.everyone("trusted")
    assert rotation.second.os_bundle == os_bundle | mounted
    assert rotation.second.python_bundle == certifi | mounted


_BAKED = """FROM {image}
COPY ca-a.pem /tmp/baked/ca-a.pem
RUN ["/opt/ca-shim/bin/ca-shim", "install", "--certs", "/tmp/baked"]
RUN rm -r /tmp/baked
"""


@pytest.fixture(scope="module")
def baked(ca: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The derived image with CA A in both stores, in place, as a Dockerfile of the user's would put it there."""
    context = tmp_path_factory.mktemp("baked")
    (context / "ca-a.pem").write_bytes((ca / "ca-a.pem").read_bytes())
    (context / "Dockerfile").write_text(_BAKED.format(image=pods.target(_TARGET).image))
    tag = "ca-shim-test/baked:1"
    result = docker("build", "--tag", tag, context, timeout=300)
    assert result.status == 0, result.stderr
    yield tag
    docker("rmi", tag)


@pytest.fixture(
    scope="module",
    params=[("", ()), ("", pods.READ_ONLY), ("ca-c.pem", pods.READ_ONLY)],
    ids=["nothing-mounted", "nothing-mounted-read-only", "another-mounted-read-only"],
)
def withdrawn(request: pytest.FixtureRequest, network: str, ca: Path, baked: str) -> tuple[pods.Answers, set[str]]:
    """A pod of uid 1000 in which the baked CA is not mounted, and the fingerprints of what is."""
    mounted, root = request.param
    volume = (f"--volume={ca}/{mounted}:/custom-certs/{mounted}:ro",) if mounted else ()
    wanted = fingerprints((ca / mounted).read_text()) if mounted else set()
    return pods.ask(pods.target(_TARGET), network, *pods.UID_1000, *root, *volume, image=baked), wanted


def test_a_ca_baked_in_as_root_and_withdrawn_is_not_trusted_by_uid_1000(
    withdrawn: tuple[pods.Answers, set[str]],
) -> None:
    answers, _ = withdrawn
    said = {client: verdict for client, verdict in answers.private.items() if client != "skopeo"}

    assert set(said.values()) == {"refused"}


def test_a_ca_baked_in_as_root_and_withdrawn_is_not_trusted_by_go_programs(
    withdrawn: tuple[pods.Answers, set[str]],
) -> None:
    answers, _ = withdrawn

    assert answers.private["skopeo"] == "refused"


def test_a_ca_baked_in_as_root_and_withdrawn_is_in_no_bundle_in_force(
    withdrawn: tuple[pods.Answers, set[str]],
) -> None:
    answers, wanted = withdrawn
    os_bundle, certifi = pods.shipped(pods.target(_TARGET))

    assert answers.os_bundle == os_bundle | wanted
    assert answers.python_bundle == certifi | wanted


def test_a_ca_baked_in_as_root_and_mounted_is_trusted_by_uid_1000(network: str, baked: str, mount: Mount) -> None:
    target = pods.target(_TARGET)

    answers = pods.ask(target, network, *pods.UID_1000, *pods.READ_ONLY, mount.option, image=baked)

    assert answers.private == target.everyone("trusted")


@pytest.mark.parametrize(
    ("root", "on_error"),
    [
        ((), "warn"),
        ((), "stop"),
        (pods.READ_ONLY, "warn"),
        (pods.READ_ONLY, "stop"),
    ],
    ids=["writable-warn", "writable-stop", "read-only-warn", "read-only-stop"],
)
def test_what_only_root_can_read_is_not_removed_by_the_second_shim(
    network: str, mount: Mount, root: tuple[str, ...], on_error: str
) -> None:
    """The vendor's entrypoint starts the manager: the first shim runs as root, the second as anchore."""
    target = pods.target(_TARGET)
    mount.directory.chmod(0o700)

    answers = pods.ask(target, network, mount.option, *root, f"--env=CA_SHIM_ON_ERROR={on_error}")

    assert answers.private == target.everyone("trusted")
    assert answers.unknown == target.everyone("refused")
    assert named(answers.events, "ca.withdrawn") == []
