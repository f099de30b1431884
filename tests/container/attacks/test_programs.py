"""What uid 1000, or a mistaken setting, can do with programs and files that root looks at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.lab import derived
from tests.lab.subject import Mount, Subject, events, lasting, named, once

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.lab.shell import Result

_ROW = derived.row("4.5-ubi9")
_BIN = "/home/anchore/venv/bin"
_OWN = "/opt/ca-shim/wrapped"
_MARK = "BEGIN ca-shim"


@pytest.fixture
def subject(image: str, mount: Mount) -> Iterator[Subject]:
    """A container that waits, with CA A mounted: uid 1000 acts in it, and then the application is started by root."""
    with lasting(image, "infinity", options=("--entrypoint=/bin/sleep", mount.option)) as subject:
        yield subject


def attack(subject: Subject, script: str) -> Result:
    return subject.run("bash", "-euc", script, user="1000")


def start(subject: Subject, *command: str, env: Mapping[str, str] | None = None) -> Result:
    result = subject.run("/docker-entrypoint.sh", *command, user="0", env=env)
    assert named(events(result.stderr), "shim.bug") == []
    return result


@pytest.mark.parametrize(
    "plant",
    [
        pytest.param(r"printf '#!{bin}/python3\0x\n' > {bin}/server", id="NUL in the first line"),
        pytest.param(r"printf '#!\0\n' > {bin}/server", id="NUL for an interpreter"),
        pytest.param(r"printf '#!/bin/sh\n. /a\0b\n. /{long}/bin/activate\n' > {bin}/server", id="an absurd script"),
        pytest.param("ln -s server {bin}/server", id="a link to itself"),
        pytest.param("for n in {{0..1500}}; do ln -s $((n+1)) {bin}/$n; done; ln -s 0 {bin}/server", id="many links"),
        pytest.param("mkdir -p {bin}/server && chmod 0 {bin}/server", id="a directory that cannot be read"),
    ],
)
def test_no_program_of_anchore_s_keeps_root_from_its_work(subject: Subject, mount: Mount, plant: str) -> None:
    planted = attack(subject, plant.format(bin=_BIN, long="x" * 4000) + f"; chmod -f 755 {_BIN}/server || true")
    assert planted.status == 0, planted.stderr

    start(subject, "server")
    assert _MARK in subject.read(_ROW.bundle)

    mount.hold()
    start(subject, "server")
    assert _MARK not in subject.read(_ROW.bundle)


def test_anchore_cannot_change_a_moved_program(subject: Subject) -> None:
    moved = [f"{_OWN}/docker-entrypoint.sh", *(f"{_OWN}{_BIN}/{name}" for name in _ROW.programs)]

    assert [attack(subject, f"test -w {path}").status for path in moved] == [1] * len(moved)
    assert attack(subject, f"ls {' '.join(moved)}").status == 0


def test_a_named_file_that_is_no_certifi_is_left_alone(subject: Subject) -> None:
    before = subject.read("/etc/passwd")
    result = start(subject, _ROW.programs[0], "--exit", "7", env={"CA_SHIM_CERTIFI": "/etc/passwd"})

    assert subject.read("/etc/passwd") == before
    assert result.status == 7
    assert [event["store"] for event in named(events(result.stderr), "store.failed")][:1] == ["/etc/passwd"]


@pytest.mark.parametrize("setting", [{}, {"CA_SHIM": "off"}, {"CA_SHIM_USER": "1000"}], ids=str)
def test_a_line_of_passwd_makes_nobody_root(image: str, tmp_path: Path, setting: dict[str, str]) -> None:
    passwd = tmp_path / "passwd"
    passwd.write_text("root:x:0:0::/root:/bin/sh\nanchore:x:0:0::/home/anchore:/bin/sh\n1000:x:0:0::/:/bin/sh\n")
    result = once(image, _ROW.programs[0], options=(f"--volume={passwd}:/etc/passwd:ro",), env=setting)

    assert (result.status, result.stdout) == (77, "")
    assert "has uid 0 in /etc/passwd" in result.stderr
