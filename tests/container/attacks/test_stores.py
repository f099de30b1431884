"""The user of the application writes where root's start will read and write."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.lab import derived
from tests.lab.subject import Mount, Subject, fingerprints, lasting, named

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SHIM = "/opt/ca-shim/bin/ca-shim"
_ROW = derived.row("4.5-ubi9")
_BLOCK = f"""
{{ echo; echo '# BEGIN ca-shim (managed: changed at every start of the container)'
   echo "# CN=Evil sha256=$(openssl x509 -in /evil/ca-b.pem -outform der | sha256sum | cut -d' ' -f1)"
   openssl x509 -in /evil/ca-b.pem
   echo '# END ca-shim'; }} >> {_ROW.bundle}
"""
# A FIFO in place of whatever is made beside certifi, as soon as it is there.
_EXCHANGE = """
import os, sys
while True:
    for name in os.listdir(sys.argv[1]):
        if name.startswith("cacert.pem."):
            try:
                os.mkfifo(sys.argv[1] + "/fifo")
                os.rename(sys.argv[1] + "/fifo", sys.argv[1] + "/" + name)
            except OSError:
                pass
"""


@pytest.fixture
def victim(image: str, mount: Mount, ca: Path) -> Iterator[Subject]:
    """A container that waits; its user `anchore` has CA B at hand, which nobody mounted."""
    options = ("--entrypoint=/bin/sleep", mount.option, f"--volume={ca}:/evil:ro")
    with lasting(image, "infinity", options=options) as subject:
        yield subject


@pytest.mark.parametrize("command", ["install", "selftest"])
@pytest.mark.parametrize("sources", ["/custom-certs", "/custom-certs:/absent"])
def test_a_ca_that_the_user_wrote_between_our_marks_never_reaches_the_system_s_store(
    victim: Subject, ca: Path, command: str, sources: str
) -> None:
    evil = fingerprints((ca / "ca-b.pem").read_text())
    planted = victim.run("sh", "-c", _BLOCK, user="anchore")
    done = victim.run(_SHIM, command, user="0", env={"CA_SHIM_CERTS": sources})

    assert planted.status == 0, planted.stderr
    assert done.status == 0, done.stdout + done.stderr
    assert evil <= fingerprints(victim.read(_ROW.bundle)) or command == "install"
    assert not evil & fingerprints(victim.read(_ROW.os_bundle))
    assert not evil & fingerprints(victim.run("sh", "-c", f"cat {_ROW.anchors}/* /run/ca-shim/*.pem", user="0").stdout)


def test_a_fifo_in_place_of_what_root_writes_hangs_no_start(victim: Subject, mount: Mount, ca: Path) -> None:
    directory = _ROW.bundle.rpartition("/")[0]
    victim.run("sh", "-c", f"python3 -c '{_EXCHANGE}' {directory} > /dev/null 2>&1 &", user="anchore")
    for number in range(10):
        mount.hold(ca / ("ca-a.pem" if number % 2 else "int-a.pem"))
        done = victim.run("timeout", "20", _SHIM, "install", user="0")

        assert done.status == 0, done.stderr


_POD = ("--read-only", "--user=1000", "--hostname=pod")


def test_containers_of_one_pod_do_not_touch_each_other_s_bundles(
    image: str, mount: Mount, ca: Path, tmp_path: Path
) -> None:
    """They share /dev/shm, the user, the image and the host's name, as in the chart's API pod."""
    other = Mount(tmp_path / "other")
    other.hold(ca / "ca-b.pem")
    first_ca, second_ca = (fingerprints((ca / name).read_text()) for name in ("ca-a.pem", "ca-b.pem"))
    with lasting(image, options=(*_POD, "--ipc=shareable", mount.option)) as first:
        first.wait_until_ready()
        before = _bundles(first)
        for options in ((), (other.option,)):
            with lasting(image, options=(*_POD, f"--ipc=container:{first.id}", *options)) as second:
                second.wait_until_ready()
                bundles = _bundles(second)
                assert bool(bundles) is bool(options)
                assert all(second_ca <= held and not first_ca & held for held in bundles.values())
        after = _bundles(first)
        status = first.run(_SHIM, "status")

    assert before == after
    assert before
    assert all(first_ca <= held and not second_ca & held for held in after.values())
    assert status.status == 0, status.stdout


def _bundles(subject: Subject) -> dict[str, set[str]]:
    """The fingerprints in every bundle that a variable of the application points to."""
    pairs = subject.run(_SHIM, "env").stdout.split()
    paths = {word.partition("=")[2].strip("'") for word in pairs if "=" in word}
    assert named(subject.events(), "store.failed") == []
    return {path: fingerprints(subject.read(path)) for path in paths}
