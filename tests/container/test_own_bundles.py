"""Variables that the user has set already: bundles are merged with ours, and what points to nothing is repaired."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.lab import pods
from tests.lab.subject import Mount, fingerprints, named

if TYPE_CHECKING:
    from pathlib import Path

_FILES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
_IDENTITIES = {"root": (), "uid-1000-read-only": (*pods.UID_1000, *pods.READ_ONLY)}
_CELLS = [
    *[("4.5-ubi9", identity) for identity in _IDENTITIES],
    ("venv-debian12", "uid-1000-read-only"),
    ("ui", "uid-1000-read-only"),
]


@pytest.fixture(params=_CELLS, ids="-".join)
def cell(request: pytest.FixtureRequest, mount: Mount) -> tuple[pods.Target, tuple[str, ...]]:
    """An image with CA A mounted, and who it runs as."""
    name, identity = request.param
    return pods.target(name), (mount.option, *_IDENTITIES[identity])


def test_every_client_trusts_the_users_own_ca_and_the_mounted_one(
    network: str, ca: Path, cell: tuple[pods.Target, tuple[str, ...]]
) -> None:
    """The user's bundle has CA B and nothing else: not one public root comes into it either."""
    target, options = cell
    variables = [f"--env={name}=/own/ca-b.pem" for name in _FILES]

    answers = pods.ask(target, network, *options, f"--volume={ca}/ca-b.pem:/own/ca-b.pem:ro", *variables)

    assert answers.private == target.everyone("trusted")
    assert answers.unknown == target.everyone("trusted")
    merged = fingerprints((ca / "ca-a.pem").read_text() + (ca / "ca-b.pem").read_text())
    assert (answers.os_bundle, answers.python_bundle, answers.extra_bundle) == (merged, merged, merged)


def test_variables_that_point_to_nothing_are_repaired_with_a_warning(
    network: str, ca: Path, cell: tuple[pods.Target, tuple[str, ...]]
) -> None:
    target, options = cell
    os_bundle, certifi = pods.shipped(target)
    ours = fingerprints((ca / "ca-a.pem").read_text())

    answers = pods.ask(target, network, *options, *(f"--env={name}=/nowhere/ca.pem" for name in _FILES))

    assert answers.private == target.everyone("trusted")
    assert answers.unknown == target.everyone("refused")
    assert answers.os_bundle == os_bundle | ours
    assert answers.python_bundle == (certifi or os_bundle) | ours
    assert sorted(str(event["variable"]) for event in named(answers.events, "variable.repaired")) == sorted(_FILES)


def test_an_unhashed_ssl_cert_dir_keeps_no_client_from_the_mounted_ca(
    network: str, cell: tuple[pods.Target, tuple[str, ...]]
) -> None:
    target, options = cell

    answers = pods.ask(target, network, *options, "--env=SSL_CERT_DIR=/usr/share")

    assert answers.private == target.everyone("trusted")
    assert answers.unknown == target.everyone("refused")
    assert answers.environment["SSL_CERT_DIR"] == "/usr/share"


@pytest.mark.parametrize("identity", _IDENTITIES)
def test_a_bundle_of_the_users_for_curl_alone_steers_requests_too(
    network: str, ca: Path, mount: Mount, identity: str
) -> None:
    target = pods.target("4.5-ubi9")
    own = (f"--volume={ca}/ca-b.pem:/own/ca-b.pem:ro", "--env=CURL_CA_BUNDLE=/own/ca-b.pem")

    answers = pods.ask(target, network, mount.option, *own, *_IDENTITIES[identity])

    assert answers.private == target.everyone("trusted")
    assert answers.unknown["curl"] == "trusted"
    assert {answers.unknown[client] for client in ("openssl", "ssl", "skopeo")} == {"refused"}
