"""The Helm chart's command lines, word for word, by `/bin/sh -c`: the image's ENTRYPOINT never runs.

Behind a chart's line there may stand `--exec` and the questions: the stand-in for the program becomes these where the
real one would serve.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.lab import derived, pods
from tests.lab.servers import BY_CA_A, BY_CA_B
from tests.lab.shell import run
from tests.lab.subject import facts, fingerprints, lasting, probe_options

if TYPE_CHECKING:
    from pathlib import Path

_APIEXT = "/docker-entrypoint.sh anchore-enterprise-manager service start --no-auto-upgrade apiext"
_CATALOG = "ng-enterprise service start component_catalog --compile-config"
_UPGRADE = "anchore-enterprise-manager db --db-use-ssl --db-connect postgresql://u:p@db/anchore upgrade --dontask"
_ACTIVATE = ". /home/anchore/venv/bin/activate; "
_UI = "/docker-entrypoint.sh node /home/node/aui/build/server.js"
_CUSTOM, _VENDOR = "/custom-certs", "/home/anchore/certs"

_CASES = {
    "apiext-custom-certs": (_APIEXT, (_CUSTOM,), ()),
    "apiext-vendor-certs-read-only": (_APIEXT, (_VENDOR,), pods.READ_ONLY),
    "apiext-vendor-certs-read-only-with-tmp": (_APIEXT, (_VENDOR,), pods.READ_ONLY_WITH_TMP),
    "apiext-both": (_APIEXT, (_CUSTOM, _VENDOR), ()),
    "apiext-both-swapped-read-only": (_APIEXT, (_VENDOR, _CUSTOM), pods.READ_ONLY),
    "catalog-custom-certs-read-only": (_CATALOG, (_CUSTOM,), pods.READ_ONLY),
    "catalog-vendor-certs": (_CATALOG, (_VENDOR,), ()),
    "upgrade-custom-certs-read-only": (_UPGRADE, (_CUSTOM,), pods.READ_ONLY),
    "upgrade-vendor-certs": (_UPGRADE, (_VENDOR,), ()),
    "activated-apiext-vendor-certs": (_ACTIVATE + _APIEXT, (_VENDOR,), ()),
    "activated-catalog-custom-certs-read-only": (_ACTIVATE + _CATALOG, (_CUSTOM,), pods.READ_ONLY),
}
_WITHOUT_ANY = {
    "apiext": (_APIEXT, ()),
    "activated-apiext-read-only": (_ACTIVATE + _APIEXT, pods.READ_ONLY),
    "catalog-read-only": (_CATALOG, pods.READ_ONLY),
}
_SERVER = """
const https = require('https')
for (const [site, url] of [['private', 'https://%s/'], ['unknown', 'https://%s/']])
  https.get(url, () => console.log(site, 'trusted')).on('error', error => console.log(site, 'refused', error.code))
setTimeout(() => process.exit(), 2000)
"""


@dataclass(frozen=True)
class Case:
    """One line of the chart and what the clients said behind it; the first directory has CA A, the second CA C."""

    target: pods.Target
    answers: pods.Answers
    mounted: set[str]


@pytest.fixture(scope="module")
def target() -> pods.Target:
    return pods.target("4.5-ubi9")


@pytest.fixture(scope="module", params=_CASES.values(), ids=list(_CASES))
def case(request: pytest.FixtureRequest, network: str, ca: Path, target: pods.Target) -> Case:
    line, directories, root = request.param
    held = dict(zip(directories, (ca / "ca-a.pem", ca / "ca-c.pem"), strict=False))
    volumes = [f"--volume={file}:{directory}/{file.name}:ro" for directory, file in held.items()]
    answers = pods.ask(target, network, *pods.UID_1000, *root, *volumes, line=f"{line} --exec {target.questions}")
    return Case(target, answers, fingerprints("".join(file.read_text() for file in held.values())))


def test_every_client_trusts_the_mounted_ca(case: Case) -> None:
    assert case.answers.private == case.target.everyone("trusted")


def test_every_client_still_refuses_a_server_of_an_unknown_ca(case: Case) -> None:
    assert case.answers.unknown == case.target.everyone("refused")


def test_the_bundles_in_force_hold_every_root_of_the_base_and_every_mounted_ca(case: Case) -> None:
    os_bundle, certifi = pods.shipped(case.target)

    assert case.answers.os_bundle == os_bundle | case.mounted
    assert case.answers.python_bundle == certifi | case.mounted


def test_the_program_gets_the_words_of_the_line(case: Case) -> None:
    said = facts(case.answers.result.stdout)

    assert isinstance(said["argv"], list)
    assert said["argv"][1:3] in (["service", "start"], ["db", "--db-use-ssl"])
    assert said["uid"] == [1000, 1000]


@pytest.mark.parametrize(
    ("root", "requests"), [((), "trusted"), (pods.READ_ONLY, "broken")], ids=["writable", "read-only"]
)
def test_before_the_shim_the_vendors_own_way_reaches_a_part_of_the_clients(
    network: str, ca: Path, target: pods.Target, root: tuple[str, ...], requests: str
) -> None:
    volume = f"--volume={ca}/ca-a.pem:{_VENDOR}/ca-a.pem:ro"

    answers = pods.ask(
        target,
        network,
        *pods.UID_1000,
        *root,
        volume,
        line=f"{_APIEXT} --exec {target.questions}",
        image=target.base,
    )

    said = {client: verdict.partition(":")[0] for client, verdict in answers.private.items()}
    assert said["requests"] == requests
    assert {said[client] for client in ("openssl", "ssl")} == {"refused"}


@pytest.fixture(scope="module", params=_WITHOUT_ANY.values(), ids=list(_WITHOUT_ANY))
def without_any(request: pytest.FixtureRequest, network: str, target: pods.Target) -> tuple[pods.Answers, pods.Answers]:
    """The same line on the derived image and on its base, no CA mounted anywhere."""
    line, root = request.param
    line = f"{line} --exec {target.questions}"
    options = (*pods.UID_1000, *root, "--hostname=pod")
    derived = pods.ask(target, network, *options, line=line)
    return derived, pods.ask(target, network, *options, line=line, image=target.base)


def test_without_any_ca_no_variable_is_set_that_the_base_does_not_have(
    without_any: tuple[pods.Answers, pods.Answers],
) -> None:
    behind, base = without_any

    assert behind.environment == {**base.environment, "CA_SHIM_USER": "anchore"}


def test_without_any_ca_every_client_refuses_for_the_certificate_and_nothing_else(
    target: pods.Target, without_any: tuple[pods.Answers, pods.Answers]
) -> None:
    behind, _ = without_any

    assert behind.private == target.everyone("refused")


def test_without_any_ca_the_bundles_are_as_shipped(
    target: pods.Target, without_any: tuple[pods.Answers, pods.Answers]
) -> None:
    behind, _ = without_any

    assert (behind.os_bundle, behind.python_bundle) == pods.shipped(target)


def test_the_service_of_the_line_as_it_stands_trusts_the_ca(network: str, ca: Path, target: pods.Target) -> None:
    """Nothing stands behind this line: the stand-in's own clients connect before it says that it is ready."""
    urls = f"--env=PROBE_URL=https://{BY_CA_A.https}/ https://{BY_CA_B.https}/"
    volume = f"--volume={ca}/ca-a.pem:{_VENDOR}/ca-a.pem:ro"
    options = (*probe_options(network), *pods.UID_1000, *pods.READ_ONLY, volume, urls, "--entrypoint=/bin/sh")
    with lasting(target.image, "-c", _APIEXT, options=options) as pod:
        pod.wait_until_ready()
        lines = [line for line in pod.logs().stdout.splitlines() if line.startswith("probe: ")]

    said = [json.loads(line.removeprefix("probe: ")) for line in lines]
    assert [(client, verdict) for client, url, verdict, _ in said if BY_CA_A.https in url] == [
        ("requests", "OK"),
        ("ssl", "OK"),
    ]
    assert [(client, verdict) for client, url, verdict, _ in said if BY_CA_B.https in url] == [
        ("requests", "FAIL"),
        ("ssl", "FAIL"),
    ]


@pytest.mark.parametrize(
    ("which", "root", "private"),
    [("base", (), "refused"), ("derived", (), "trusted"), ("derived", pods.READ_ONLY, "trusted")],
    ids=["before", "writable", "read-only"],
)
def test_the_ui_line_trusts_the_ca(  # noqa: PLR0913, PLR0917 - the cell and what it needs
    network: str, ca: Path, tmp_path: Path, which: str, root: tuple[str, ...], private: str
) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "server.js").write_text(_SERVER % (BY_CA_A.https, BY_CA_B.https))
    ui = pods.target("ui")
    volumes = (
        f"--volume={tmp_path}/server.js:/home/node/aui/build/server.js:ro",
        f"--volume={ca}/ca-a.pem:{_CUSTOM}/ca-a.pem:ro",
    )

    answers = pods.ask(
        ui, network, *pods.UID_1000, *root, *volumes, line=_UI, image=ui.base if which == "base" else ui.image
    )

    said = dict(line.split()[:2] for line in answers.result.stdout.splitlines())
    assert said == {"private": private, "unknown": "refused"}


def test_the_chart_s_own_node_extra_ca_certs_of_the_ui_is_added_to(network: str, ca: Path, tmp_path: Path) -> None:
    """`ui.ldapsRootCaCertName` is a file of `certStoreSecretName`: here CA C's, which signs no server."""
    tmp_path.chmod(0o755)
    (tmp_path / "server.js").write_text(_SERVER % (BY_CA_A.https, BY_CA_B.https))
    ui = pods.target("ui")
    options = (
        f"--volume={tmp_path}/server.js:/home/node/aui/build/server.js:ro",
        f"--volume={ca}/ca-a.pem:{_CUSTOM}/ca-a.pem:ro",
        f"--volume={ca}/ca-c.pem:{_VENDOR}/ldaps.pem:ro",
        f"--env=NODE_EXTRA_CA_CERTS={_VENDOR}/ldaps.pem",
    )

    answers = pods.ask(ui, network, *pods.UID_1000, *pods.READ_ONLY, *options, line=_UI)

    said = dict(line.split()[:2] for line in answers.result.stdout.splitlines())
    assert said == {"private": "trusted", "unknown": "refused"}


@pytest.fixture(scope="module")
def kubernetes() -> str:
    """The image that the README builds for Kubernetes."""
    return derived.image(derived.row("4.5-ubi9"), "RUN_AS=1000")


def test_the_user_of_the_image_for_kubernetes_is_a_number_other_than_0(kubernetes: str) -> None:
    """The kubelet cannot tell of a name that it is not root, where `runAsNonRoot: true` is set."""
    assert run("docker", "image", "inspect", "--format", "{{.Config.User}}", kubernetes) == "1000"


@pytest.mark.parametrize("root", [(), pods.READ_ONLY], ids=["writable", "read-only"])
def test_a_pod_without_run_as_user_runs_the_image_for_kubernetes_as_1000_and_trusts_the_ca(
    network: str, ca: Path, target: pods.Target, kubernetes: str, root: tuple[str, ...]
) -> None:
    """As the chart's smoke-test pod."""
    volume = f"--volume={ca}/ca-a.pem:{_CUSTOM}/ca-a.pem:ro"
    line = f"{_UPGRADE} --exec {target.questions}"

    answers = pods.ask(target, network, *pods.RESTRICTED, *root, volume, line=line, image=kubernetes)

    assert facts(answers.result.stdout)["uid"] == [1000, 1000]
    assert answers.private == target.everyone("trusted")
    assert answers.unknown == target.everyone("refused")
