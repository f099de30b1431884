"""docker stop ends it at once, also while the shim is still working; a start that was killed is made good."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.lab import derived
from tests.lab.docker import docker
from tests.lab.subject import Mount, Subject, fingerprints, lasting, once

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Longer than the patience of any test: who waits for it is killed, and then the exit code says so.
_SLOW = "#!/bin/sh\ntouch /tmp/refreshing\nsleep 300\n"


@pytest.fixture
def busy(image: str, mount: Mount, tmp_path: Path) -> Iterator[Subject]:
    """A container whose shim waits for the refresh of the OS store."""
    slow = tmp_path / "update-ca-trust"
    slow.write_text(_SLOW)
    slow.chmod(0o755)
    with lasting(image, options=(mount.option, f"--volume={slow}:/usr/bin/update-ca-trust:ro")) as subject:
        subject.wait_for(lambda: subject.run("test", "-e", "/tmp/refreshing").status == 0)
        yield subject


def test_docker_stop_ends_a_running_application_in_its_own_way(image: str, mount: Mount) -> None:
    with lasting(image, options=(mount.option,)) as subject:
        subject.wait_until_ready()

        assert subject.stop() == 0


def test_docker_stop_ends_the_shim_in_the_middle_of_its_work(busy: Subject) -> None:
    assert busy.stop() == 143


def test_an_interrupt_ends_the_shim_in_the_middle_of_its_work(busy: Subject) -> None:
    busy.kill("INT")

    assert busy.exit_code() == 130


def test_the_application_never_starts_once_the_shim_was_stopped(busy: Subject) -> None:
    busy.stop()

    assert busy.logs().stdout == ""


@pytest.mark.parametrize("signal", ["TERM", "KILL"])
def test_the_start_after_one_that_was_cut_off_brings_the_stores_up_to_date(
    image: str, mount: Mount, ca: Path, tmp_path: Path, signal: str
) -> None:
    row = derived.row("4.5-ubi9")
    slow = tmp_path / "update-ca-trust"
    slow.write_text("#!/bin/sh\n[ -e /tmp/refreshing ] && exec /tmp/real\ntouch /tmp/refreshing\nsleep 300\n")
    slow.chmod(0o755)
    real = tmp_path / "real"
    real.write_text(once(image, "cat", "/usr/bin/update-ca-trust", env={"CA_SHIM": "off"}).stdout)
    real.chmod(0o755)
    tools = (f"--volume={slow}:/usr/bin/update-ca-trust:ro", f"--volume={real}:/tmp/real:ro")
    with lasting(image, options=(mount.option, *tools)) as subject:
        subject.wait_for(lambda: subject.run("test", "-e", "/tmp/refreshing").status == 0)
        subject.kill(signal)
        subject.exit_code()

        docker("start", subject.id)
        subject.wait_until_ready()

        wanted = fingerprints((ca / "ca-a.pem").read_text())
        assert wanted <= fingerprints(subject.read(row.os_bundle))
        assert wanted <= fingerprints(subject.read(row.bundle))
