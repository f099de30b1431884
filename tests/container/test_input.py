"""What is mounted: every way to write a CA is understood, every mistake gets a clear line, and the rest is used."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.lab import derived, pki
from tests.lab.subject import Event, Subject, events, fingerprints, lasting, named

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.lab.rows import Row
    from tests.lab.shell import Result

_SPECIAL = """
mkdir /special
mkfifo /special/fifo
mknod /special/device c 1 5
ln -s loop-b /special/loop-a
ln -s loop-a /special/loop-b
ln -s . /special/circle
ln -s nowhere /special/dangling-link
"""
_LOAD = "import ssl, sys; [ssl.create_default_context(cafile=path) for path in sys.argv[1:]]"
_MISTAKES = {
    "not-a-certificate.txt": "file.refused",
    "empty.pem": "file.refused",
    "utf-16.pem": "file.refused",
    "pkcs12.p12": "file.refused",
    "fifo": "file.refused",
    "device": "file.refused",
    "loop-a": "source.unreadable",
    "dangling-link": "source.unreadable",
    "truncated-block.pem": "block.refused",
    "broken-block.pem": "block.refused",
    "broken-block-before-a-good-one.pem": "block.refused",
    "no-base64.pem": "block.refused",
    "key-alone.pem": "key.ignored",
    "key-and-certificate.pem": "key.ignored",
    "expired.pem": "certificate.skipped",
    "leaf.pem": "certificate.skipped",
    "intermediate-alone.pem": "certificate.warning",
    "not-yet-valid.pem": "certificate.warning",
    "expires-in-10-days.pem": "certificate.warning",
    "constraints-not-critical.pem": "certificate.warning",
    "self-issued-leaf.pem": "certificate.warning",
    "client-auth-only.pem": "certificate.warning",
    "rsa-1024.pem": "certificate.warning",
}
_USED_IN_EVERY_STORE = (
    "intermediate-alone.pem",
    "not-yet-valid.pem",
    "expires-in-10-days.pem",
    "constraints-not-critical.pem",
    "rsa-1024.pem",
    "rsa-2048.pem",
    "ec-p256.pem",
    "ec-p384.pem",
    "version-1.pem",
    "subject-with-newline.pem",
    "subject-with-escapes.pem",
    "subject-non-ascii.pem",
)
# p11-kit leaves them out of RHEL's bundle for TLS servers; certifi and Debian take what they are given.
_DROPPED_BY_RHEL = ("self-issued-leaf.pem", "client-auth-only.pem", "no-constraints.pem")


@dataclass(frozen=True)
class Mess:
    """A container in which everything odd was mounted at once."""

    row: Row
    container: Subject
    result: Result
    events: list[Event]
    os_bundle: str
    certifi: str

    def about(self, name: str) -> list[Event]:
        return [event for event in self.events if str(event.get("file", "")).endswith(f"/{name}")]


@pytest.fixture(scope="module", params=["4.5-ubi9", "venv-debian12"])
def mess(request: pytest.FixtureRequest, ca: Path) -> Iterator[Mess]:
    row = derived.row(request.param)
    options = ("--entrypoint=/bin/sleep", f"--volume={ca}:/ca:ro")
    with lasting(derived.image(row), "infinity", options=options) as container:
        container.run("sh", "-c", _SPECIAL)
        result = container.run(*_INSTALL, env={"CA_SHIM_CERTS": "/ca/odd:/special"})
        bundles = container.read(row.os_bundle), container.read(row.bundle)
        yield Mess(row, container, result, events(result.stderr), *bundles)


_INSTALL = ("/opt/ca-shim/bin/ca-shim", "install")


def _contents() -> dict[str, list[str]]:
    return dict(json.loads((pki.prepare() / "odd.json").read_text()))


def _sha256(name: str) -> set[str]:
    return fingerprints((pki.prepare() / "odd" / name).read_text())


@pytest.mark.parametrize("name", pki.ENCODINGS)
def test_every_way_to_write_a_ca_is_understood(mess: Mess, name: str) -> None:
    wanted = set(_contents()[name])

    assert wanted <= fingerprints(mess.os_bundle)
    assert wanted <= fingerprints(mess.certifi)


@pytest.mark.parametrize(("name", "event"), _MISTAKES.items(), ids=_MISTAKES)
def test_a_mistake_is_named_with_its_file_reason_and_remedy(mess: Mess, name: str, event: str) -> None:
    said = named(mess.about(name), event)

    assert said
    assert all(line["reason"] and line["remedy"] for line in said)


@pytest.mark.parametrize("name", _USED_IN_EVERY_STORE)
def test_a_ca_with_a_warning_or_an_odd_name_is_used(mess: Mess, name: str) -> None:
    assert _sha256(name) <= fingerprints(mess.os_bundle)
    assert _sha256(name) <= fingerprints(mess.certifi)


@pytest.mark.parametrize("name", _DROPPED_BY_RHEL)
def test_what_p11_kit_drops_is_used_everywhere_else(mess: Mess, name: str) -> None:
    assert (_sha256(name) <= fingerprints(mess.os_bundle)) == (not mess.row.el)
    assert _sha256(name) <= fingerprints(mess.certifi)


@pytest.mark.parametrize("name", ["expired.pem", "leaf.pem"])
def test_what_is_no_ca_today_is_in_no_store(mess: Mess, name: str) -> None:
    assert not _sha256(name) & (fingerprints(mess.os_bundle) | fingerprints(mess.certifi))


def test_install_succeeds_in_spite_of_every_mistake(mess: Mess) -> None:
    assert mess.result.status == 0, mess.result.stderr


def test_every_line_is_a_json_object(mess: Mess) -> None:
    assert [line for line in mess.result.stderr.splitlines() if not line.startswith('{"event"')] == []


def test_openssl_loads_both_stores_as_clients_do(mess: Mess) -> None:
    result = mess.container.run("/usr/bin/python3", "-c", _LOAD, mess.row.os_bundle, mess.row.bundle)

    assert result.status == 0, result.stderr


def test_no_subject_can_break_a_store(mess: Mess) -> None:
    mess.container.run(*_INSTALL, env={"CA_SHIM_CERTS": "/ca/hostile:/ca/ca-c.pem"})

    result = mess.container.run("/usr/bin/python3", "-c", _LOAD, mess.row.os_bundle, mess.row.bundle)

    mess.container.run(*_INSTALL, env={"CA_SHIM_CERTS": "/ca/odd:/special"})
    assert result.status == 0, result.stderr


def test_certifi_stays_readable_as_ascii(mess: Mess) -> None:
    where = f"{mess.row.bundle.removesuffix('/certifi/cacert.pem')}"
    script = "import sys; sys.path.insert(0, sys.argv[1]); import certifi; certifi.contents()"

    result = mess.container.run(mess.row.client, "-c", script, where)

    assert result.status == 0, result.stderr


def test_no_private_key_is_copied_anywhere(mess: Mess) -> None:
    found = mess.container.run(
        "grep", "-rl", "PRIVATE KEY", "/etc", "/run", "/tmp", "/var", "/usr/local", mess.row.bundle
    )

    assert found.stdout == ""


def test_a_second_run_over_the_same_mess_changes_nothing(mess: Mess) -> None:
    before = mess.container.checksums("/etc/pki", "/etc/ssl", "/usr/local/share", mess.row.bundle)

    result = mess.container.run(*_INSTALL, env={"CA_SHIM_CERTS": "/ca/odd:/special"})

    assert mess.container.checksums("/etc/pki", "/etc/ssl", "/usr/local/share", mess.row.bundle) == before
    assert [event["changes"] for event in named(events(result.stderr), "trust.ready")] == [0]


def test_a_missing_named_source_is_said(idle: Subject) -> None:
    result = idle.run(*_INSTALL, env={"CA_SHIM_CERTS": "/nowhere"})

    assert (result.status, len(named(events(result.stderr), "source.missing"))) == (0, 1)


def test_a_missing_default_source_is_silent(idle: Subject) -> None:
    result = idle.run(*_INSTALL)

    assert [event["event"] for event in events(result.stderr)] == ["trust.ready"]


def test_a_directory_with_no_usable_certificate_changes_no_store(idle: Subject) -> None:
    idle.run("sh", "-c", "mkdir -p /useless && cp /ca/odd/leaf.pem /ca/odd/empty.pem /useless")
    stores = ("/etc/pki", derived.row("4.5-ubi9").bundle)
    before = idle.checksums(*stores)

    result = idle.run(*_INSTALL, env={"CA_SHIM_CERTS": "/useless"})

    said = [(event["event"], event.get("file")) for event in events(result.stderr)]
    assert ("certificate.skipped", "/useless/leaf.pem") in said
    assert ("file.refused", "/useless/empty.pem") in said
    assert idle.checksums(*stores) == before


def test_an_unreadable_file_is_named_and_nothing_is_removed(idle: Subject) -> None:
    bundle = derived.row("4.5-ubi9").bundle
    idle.run("sh", "-c", "mkdir -p /half && cp /ca/ca-a.pem /ca/ca-b.pem /half")
    idle.run(*_INSTALL, env={"CA_SHIM_CERTS": "/half"})
    idle.run("chmod", "600", "/half/ca-b.pem")

    result = idle.run(*_INSTALL, user="anchore", env={"CA_SHIM_CERTS": "/half"})

    assert [event["file"] for event in named(events(result.stderr), "source.unreadable")] == ["/half/ca-b.pem"]
    assert fingerprints((pki.prepare() / "ca-b.pem").read_text()) <= fingerprints(idle.read(bundle))
    idle.run(*_INSTALL)  # nothing is mounted: the stores are as shipped again
