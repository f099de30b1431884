"""The user of the application plants links where root's start looks for CAs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.lab import derived
from tests.lab.subject import Subject, events, fingerprints, lasting

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_ROW = derived.row("4.5-ubi9")
_CERTS = "/home/anchore/certs"
_SHIM = "/opt/ca-shim/bin/ca-shim"
_START = (_SHIM, "run", "--", "/bin/true")
_SECRET = """
mkdir -p /root/secret-name && cp /ca/ca-b.pem /root/secret-name/secret-file.pem
cp /ca/ca-b.pem /secret.pem
chmod 700 /root && chmod 600 /secret.pem /root/secret-name/secret-file.pem
"""
_LINKS = {
    "the source leads to /root": f"ln -s /root {_CERTS}",
    "the source leads below /root": f"ln -s /root/secret-name {_CERTS}",
    "the source leads to a file of root's": f"ln -s /secret.pem {_CERTS}",
    "a file leads to a file of root's": f"mkdir {_CERTS} && ln -s /secret.pem {_CERTS}/a.pem",
    "a directory leads below /root": f"mkdir {_CERTS} && ln -s /root/secret-name {_CERTS}/a",
    "by way of another link": f"mkdir {_CERTS} && ln -s /secret.pem /tmp/l && ln -s /tmp/l {_CERTS}/a.pem",
    "the source leads to /proc": f"ln -s /proc {_CERTS}",
    "the source leads to /proc/1/root": f"ln -s /proc/1/root/root/secret-name {_CERTS}",
}


@pytest.fixture
def victim(image: str, ca: Path) -> Iterator[Subject]:
    """A container that waits, with a CA that root alone can read."""
    options = ("--entrypoint=/bin/sleep", f"--volume={ca}:/ca:ro")
    with lasting(image, "infinity", options=options) as subject:
        secret = subject.run("sh", "-euc", f"{_SECRET} rm -rf {_CERTS}", user="0")
        assert secret.status == 0, secret.stderr
        yield subject


@pytest.mark.parametrize("plant", _LINKS.values(), ids=_LINKS)
def test_a_planted_link_shows_root_nothing_that_its_planter_could_not_see(
    victim: Subject, ca: Path, plant: str
) -> None:
    planted = victim.run("sh", "-euc", plant, user="anchore")
    done = victim.run(*_START, user="0")
    bundles = victim.run("sh", "-c", f"cat {_ROW.bundle} {_ROW.os_bundle} /run/ca-shim/*.pem", user="0").stdout

    assert (planted.status, done.status) == (0, 0), planted.stderr + done.stderr
    assert not fingerprints((ca / "ca-b.pem").read_text()) & fingerprints(bundles)
    assert "secret-name" not in done.stderr.replace("/root/secret-name", "")
    assert "secret-file" not in done.stderr
    assert len(done.stderr) < 5000
    told = [event for event in events(done.stderr) if event["event"] != "source.unusable"]
    assert {event["file"] for event in told if "file" in event} <= {_CERTS, f"{_CERTS}/a", f"{_CERTS}/a.pem"}


def test_what_the_user_can_read_there_is_trusted(victim: Subject, ca: Path) -> None:
    planted = victim.run(
        "sh", "-euc", f"mkdir {_CERTS} && cp /ca/ca-a.pem {_CERTS} && chmod 600 {_CERTS}/*", user="anchore"
    )
    done = victim.run(*_START, user="0")

    assert (planted.status, done.status) == (0, 0), planted.stderr + done.stderr
    assert fingerprints((ca / "ca-a.pem").read_text()) <= fingerprints(victim.read(_ROW.os_bundle))
