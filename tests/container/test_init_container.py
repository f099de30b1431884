"""An init container writes the bundles, the main container is the vendor's image as it is; and `env` for shells."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.lab import derived, pods, readme
from tests.lab.subject import Mount, events, fingerprints, lasting, named, once, probe_options

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.shell import Result

_BUNDLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
_SERVICES = (
    "analyzer",
    "api",
    "catalog",
    "componentCatalog",
    "dataSyncer",
    "notifications",
    "policyEngine",
    "reports",
    "reportsWorker",
    "simpleQueue",
    "ui",
)
_MOUNTS = {"smokeTest": True, "upgradeJob": False, "osaaMigrationJob": False}


def _variables(component: str) -> tuple[str, ...]:
    """What the README's values set for the containers of a component of the chart."""
    pairs = readme.environment(readme.values("initContainers"), component)
    return tuple(f"--env={pair['name']}={pair['value']}" for pair in pairs)


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """What an emptyDir is to the containers of a pod."""
    directory = tmp_path / "ca-bundles"
    directory.mkdir()
    directory.chmod(0o777)
    return directory


def _export(mount: Mount, shared: Path, user: tuple[str, ...] = pods.UID_1000) -> Result:
    options = (*user, *pods.READ_ONLY, mount.option, f"--volume={shared}:/ca-bundles")
    return once(derived.runtime("3.11"), "export", "/ca-bundles", options=options)


@pytest.mark.parametrize(("name", "component"), [("4.5-ubi9", "api"), ("ui", "ui")])
def test_every_client_of_the_vendors_own_image_trusts_what_an_init_container_exported(
    network: str, mount: Mount, shared: Path, name: str, component: str
) -> None:
    target = pods.target(name)
    result = _export(mount, shared)

    main = (*pods.UID_1000, *pods.READ_ONLY, f"--volume={shared}:/ca-bundles:ro", *_variables(component))
    answers = pods.ask(target, network, *main, image=target.base)

    assert result.status == 0, result.stderr
    assert answers.private == target.everyone("trusted")
    assert answers.unknown == target.everyone("refused")


@pytest.mark.parametrize("component", _MOUNTS)
def test_a_pod_of_the_chart_where_nothing_was_exported_keeps_the_roots_that_its_image_ships(
    network: str, shared: Path, component: str
) -> None:
    """The smoke-test pod runs no init container, and `wait-for-db` of two jobs has no mount."""
    target = pods.target("4.5-ubi9")
    mounts = (f"--volume={shared}:/ca-bundles:ro",) if _MOUNTS[component] else ()
    options = (*pods.UID_1000, *pods.READ_ONLY, *mounts, *_variables(component))

    answers = pods.ask(target, network, *options, image=target.base)

    assert (answers.os_bundle, answers.python_bundle) == pods.shipped(target)
    assert answers.private == target.everyone("refused")


def test_node_only_warns_where_the_file_to_add_is_missing(network: str) -> None:
    target = pods.target("ui")

    answers = pods.ask(target, network, *pods.UID_1000, *pods.READ_ONLY, *_variables("smokeTest"), image=target.base)

    said = answers.result.stdout
    assert "Ignoring extra certs" in said
    assert re.findall(r"^(trusted|refused|broken)\b", said, re.MULTILINE) == ["refused", "refused"]


def test_every_service_of_the_chart_that_runs_anchores_image_gets_the_bundles() -> None:
    """The chart's components are those of version 4.1.4."""
    chart = readme.values("initContainers")
    named = {
        component: {each["name"] for each in readme.environment(chart, component)}
        for component in chart
        if "extraEnv" in chart[component]
    }

    assert tuple(named) == _SERVICES
    assert [each for each in named.values() if each != {"NODE_EXTRA_CA_CERTS", *_BUNDLES}] == []
    assert {each["name"] for each in readme.environment(chart)} == {"NODE_EXTRA_CA_CERTS"}


def test_an_exported_directory_follows_the_mount(mount: Mount, ca: Path, shared: Path) -> None:
    user = ("--user=65532:65532", *pods.RESTRICTED)
    _export(mount, shared, user)
    mount.hold(ca / "ca-b.pem")
    result = _export(mount, shared, user)

    private, new = (fingerprints((ca / name).read_text()) for name in ("ca-a.pem", "ca-b.pem"))
    for name in ("os.pem", "python.pem", "extra.pem"):
        held = fingerprints((shared / name).read_text())
        assert new <= held
        assert not private & held
    assert [event["certificates"] for event in named(events(result.stderr), "trust.exported")] == [1]


def test_export_into_a_directory_that_cannot_be_written_fails_and_says_so(mount: Mount) -> None:
    options = (*pods.UID_1000, *pods.READ_ONLY, mount.option)

    result = once(derived.runtime("3.11"), "export", "/usr", options=options)

    assert result.status == 71
    assert len(named(events(result.stderr), "shim.failed")) == 1


def test_ca_shim_env_gives_a_docker_exec_session_the_trust_of_the_application(network: str, mount: Mount) -> None:
    target = pods.target("4.5-ubi9")
    options = (*probe_options(network), pods.questions_option(), mount.option, *pods.UID_1000, *pods.READ_ONLY)
    with lasting(target.image, options=options) as pod:
        pod.wait_until_ready()
        plain = pods.Answers(pod.run(*target.questions.split()), target.clients)
        script = f'eval "$(/opt/ca-shim/bin/ca-shim env)"; {target.questions}'
        told = pods.Answers(pod.run("sh", "-c", script), target.clients)

    assert plain.private == target.everyone("refused")
    assert told.private == target.everyone("trusted")
    assert told.unknown == target.everyone("refused")
