"""A real pod by `podman kube play`: ConfigMap, init container, emptyDir, and the strictest security context.

Podman is no cluster: its ConfigMap volume has plain files (test_volumes has the kubelet's links), and the pod shares
the machine's network, where the lab's servers are. Where podman is missing or can start no pod, test_init_container
and test_without_root put the same questions to Docker with the same constraints.
"""

from __future__ import annotations

import json
import resource
import shutil
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab import derived, images, pods, readme
from tests.lab.docker import docker
from tests.lab.shell import Result, attempt, run
from tests.lab.subject import PROBE, facts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_Values = dict[str, Any]

_WITHOUT_MOUNT = "vendors-image-without-mount"
_LINE = "/docker-entrypoint.sh anchore-enterprise-manager service start --no-auto-upgrade apiext --exec "
_CONTEXT = {
    "runAsUser": 1000,
    "runAsGroup": 1000,
    "readOnlyRootFilesystem": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
}
_SCRIPTS: list[_Values] = [
    {"name": "probe", "mountPath": "/probe.sh"},
    {"name": "questions", "mountPath": "/questions.sh"},
]
# The Docker packages bring runc; crun refuses the mixed cgroups of some machines.
_RUNTIME = "runc" if shutil.which("runc") else "crun"


@pytest.fixture(scope="module")
def podman(network: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Result]:
    """The podman command, told where the servers are; a skip when it is missing or can start no pod."""
    if not shutil.which("podman"):
        pytest.skip("no podman command (Debian: podman crun catatonit netavark)")
    directory = tmp_path_factory.mktemp("podman")
    (directory / "hosts").write_text(f"127.0.0.1 localhost\n{_address(network)} registry.lab.test https.lab.test\n")
    (directory / "containers.conf").write_text(_settings(directory / "hosts"))
    environment = {"CONTAINERS_CONF": f"{directory}/containers.conf"}

    def command(*words: str | Path) -> Result:
        return attempt("podman", *words, environment=environment, timeout=300)

    name = f"ca-shim-test-{uuid.uuid4().hex[:8]}"
    command("pod", "create", "--network=host", "--name", name)
    started = command("pod", "start", name)
    command("pod", "rm", "--force", name)
    if started.status:
        pytest.skip(f"podman can start no pod here: {started.stderr.strip()[-300:]}")
    return command


@pytest.fixture(scope="module")
def pod(podman: Callable[..., Result], ca: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A pod that has run to its end; gives its name."""
    _hand_over(podman, tmp_path_factory.mktemp("images") / "images.tar")
    name = f"ca-shim-test-{uuid.uuid4().hex[:8]}"
    manifest = tmp_path_factory.mktemp("pod") / "pod.yaml"
    certificates = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "corporate-cas"}}
    documents = ({**certificates, "data": {"ca-a.pem": (ca / "ca-a.pem").read_text()}}, _pod(name))
    manifest.write_text("\n---\n".join(json.dumps(document) for document in documents))
    result = podman("kube", "play", manifest)
    try:
        assert result.status == 0, result.stderr
        yield name
    finally:
        podman("pod", "rm", "--force", name)


@pytest.fixture(scope="module", params=["vendors-image-after-export", "derived-image"])
def answers(request: pytest.FixtureRequest, podman: Callable[..., Result], pod: str) -> pods.Answers:
    return _answers(podman, f"{pod}-{request.param}")


def _answers(podman: Callable[..., Result], container: str) -> pods.Answers:
    podman("wait", container)
    return pods.Answers(podman("logs", container), pods.target("4.5-ubi9").clients)


def test_every_client_in_a_real_pod_trusts_the_config_maps_ca(answers: pods.Answers) -> None:
    assert answers.private == pods.target("4.5-ubi9").everyone("trusted")


def test_every_client_in_a_real_pod_refuses_a_server_of_an_unknown_ca(answers: pods.Answers) -> None:
    assert answers.unknown == pods.target("4.5-ubi9").everyone("refused")


def test_a_container_of_the_pod_without_the_mount_keeps_the_roots_that_its_image_ships(
    podman: Callable[..., Result], pod: str
) -> None:
    """As `wait-for-db` of the chart's jobs."""
    target = pods.target("4.5-ubi9")
    without = _answers(podman, f"{pod}-{_WITHOUT_MOUNT}")

    assert (without.os_bundle, without.python_bundle) == pods.shipped(target)
    assert without.private == target.everyone("refused")


def test_the_real_pod_is_as_restricted_as_it_claims(answers: pods.Answers) -> None:
    said = facts(answers.result.stdout)
    status = said["status"]

    assert isinstance(status, dict)
    assert said["uid"] == [1000, 1000]
    assert (status["NoNewPrivs"], status["CapBnd"]) == (["1"], ["0000000000000000"])
    assert "Read-only file system" in answers.result.stderr


def _address(network: str) -> str:
    servers = run("docker", "ps", "--quiet", f"--filter=network={network}", f"--filter=ancestor={images.servers()}")
    return run("docker", "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", servers)


def _settings(hosts: Path) -> str:
    """Podman's own limits are higher than those of some machines."""
    names = {"nofile": resource.RLIMIT_NOFILE, "nproc": resource.RLIMIT_NPROC}
    most = {name: min(resource.getrlimit(limit)[1] % 2**64, 4096) for name, limit in names.items()}
    limits = ", ".join(f'"{name}={value}:{value}"' for name, value in most.items())
    engine = f'[engine]\nruntime = "{_RUNTIME}"\ncgroup_manager = "cgroupfs"\n'
    return f'[containers]\nbase_hosts_file = "{hosts}"\ndefault_ulimits = [{limits}]\n{engine}'


def _hand_over(podman: Callable[..., Result], archive: Path) -> None:
    """`docker save`, `podman load`, for those that podman does not have."""
    target = pods.target("4.5-ubi9")
    wanted = (derived.runtime("3.11"), target.base, target.image)
    ids = {tag: run("docker", "image", "inspect", "--format", "{{.Id}}", tag).partition(":")[2] for tag in wanted}
    missing = [tag for tag, found in ids.items() if podman("image", "exists", found).status]
    if missing:
        assert docker("save", "--output", archive, *missing).status == 0
        loaded = podman("load", "--input", archive)
        archive.unlink()
        assert loaded.status == 0, loaded.stderr
    for tag, found in ids.items():
        podman("tag", found, f"localhost/{tag}")


def _pod(name: str) -> _Values:
    """What the chart makes of the README's values: its volumes, mounts, variables and init container, word for word."""
    target, ours, init = pods.target("4.5-ubi9"), readme.values("ui"), readme.values("initContainers")
    command = {"command": ["/bin/sh", "-c"], "args": [f"touch /written; {_LINE}{target.questions}"]}
    (exporter,) = init["initContainers"]
    main = {**command, "env": readme.environment(init, "api"), "volumeMounts": [*init["extraVolumeMounts"], *_SCRIPTS]}
    waiting = {**command, "env": readme.environment(init, "upgradeJob"), "volumeMounts": _SCRIPTS}
    wrapped = {**command, "volumeMounts": [*ours["extraVolumeMounts"], *_SCRIPTS]}
    spec = {
        "restartPolicy": "Never",
        "hostNetwork": True,
        "securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000},
        "volumes": [
            *init["extraVolumes"],
            *(volume for volume in ours["extraVolumes"] if volume not in init["extraVolumes"]),
            {"name": "probe", "hostPath": {"path": str(PROBE)}},
            {"name": "questions", "hostPath": {"path": str(pods.QUESTIONS)}},
        ],
        "initContainers": [_container(derived.runtime("3.11"), exporter)],
        "containers": [
            _container(target.base, {**main, "name": "vendors-image-after-export"}),
            _container(target.base, {**waiting, "name": _WITHOUT_MOUNT}),
            _container(target.image, {**wrapped, "name": "derived-image"}),
        ],
    }
    return {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name}, "spec": spec}


def _container(image: str, described: _Values) -> _Values:
    place = {"image": f"localhost/{image}", "imagePullPolicy": "Never"}
    return {**described, **place, "securityContext": _CONTEXT}
