"""`ca-shim selftest` on derived images: every client proven, and every byte as it was before."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab import derived, pods
from tests.lab.subject import Mount, Subject, events, lasting, named, once

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.lab.rows import Row

_SHIM = "/opt/ca-shim/bin/ca-shim"
_ENTRYPOINT = (f"--entrypoint={_SHIM}",)
_USERS = {
    "root": (),
    "uid 1000, read-only": ("--user=1000", "--read-only"),
    "an arbitrary uid with gid 0, read-only": ("--user=12345:0", "--read-only"),
    "root, no network": ("--network=none",),
}
_ROWS = ("4.5-ubi9", "venv-debian12")
_CLIENTS = {"Python ssl", "requests", "curl", "openssl", "skopeo", "Go programs"}


@pytest.fixture(params=_ROWS)
def row(request: pytest.FixtureRequest) -> Row:
    return derived.row(request.param)


def _selftest(image: str, *options: str) -> tuple[int, dict[str, Any]]:
    result = once(image, "selftest", "--json", options=(*_ENTRYPOINT, *options))
    assert result.stdout, result.stderr
    return result.status, json.loads(result.stdout)


@pytest.mark.parametrize("options", _USERS.values(), ids=_USERS.keys())
def test_every_client_is_proven(row: Row, options: tuple[str, ...]) -> None:
    code, document = _selftest(derived.image(row), *options)

    assert (code, document["good"], document["left"], document["problems"]) == (0, True, [], []), document
    assert {each["client"].partition(" (")[0] for each in document["rows"]} == _CLIENTS
    assert document["mode"] == (
        "by override, nothing of this machine is changed" if "--read-only" in options else "in place"
    )


def test_node_is_proven_on_the_user_interfaces_image() -> None:
    code, document = _selftest(pods.target("ui").image)

    assert code == 0, document
    assert "node (/usr/bin/node)" in {each["client"] for each in document["rows"]}


@pytest.fixture
def running(row: Row, mount: Mount) -> Iterator[tuple[Row, Subject]]:
    """The application, with CA A installed; selftest is run beside it."""
    with lasting(derived.image(row), *_idle(row), options=(mount.option, "--user=0")) as subject:
        subject.wait_until_ready()  # not only handed over: the second shim of the chain reads the mount as well
        yield row, subject


def _idle(row: Row) -> tuple[str, ...]:
    return () if row.entrypoint else ("/usr/bin/anchore-engine",)


def _stores(row: Row, subject: Subject) -> str:
    return subject.checksums(row.bundle, row.os_bundle, row.anchors, "/run/ca-shim/*.pem")


def test_beside_a_running_application_every_byte_is_as_before(
    running: tuple[Row, Subject], mount: Mount, ca: Path
) -> None:
    """Whatever is mounted meanwhile."""
    row, subject = running
    mount.hold(ca / "ca-b.pem")
    subject.run("chmod", "604", row.os_bundle, user="0")
    before = _stores(row, subject)
    result = subject.run(_SHIM, "selftest", user="0")

    assert result.status == 0, result.stdout
    assert _stores(row, subject) == before
    assert subject.run("stat", "-c", "%a %u %g", row.os_bundle).stdout == "604 0 0\n"
    assert "selftest" not in subject.run("ls", "-a", "/tmp", user="0").stdout


# Starts a selftest of root's, and one program of the application's user after the other until it ends.
_AS_THE_USER = """
{shim} selftest > /tmp/said 2>&1 & started=$!
while kill -0 $started 2> /dev/null; do
  setpriv --reuid 1000 --regid 1000 --clear-groups {shim} run -- true 2> /dev/null
done
wait $started
"""


def test_starts_of_the_application_s_user_do_not_disturb_it(running: tuple[Row, Subject]) -> None:
    row, subject = running
    before = _stores(row, subject)
    result = subject.run("sh", "-c", _AS_THE_USER.format(shim=_SHIM), user="0")

    assert result.status == 0, subject.read("/tmp/said")
    assert _stores(row, subject) == before


# Starts a selftest, waits until its CA is installed, and sends it a signal.
_STOPPED = """
{shim} selftest > /tmp/said 2>&1 & started=$!
until ls {anchors} 2> /dev/null | grep -q selftest; do sleep 0.05; kill -0 $started || exit 99; done
kill -{signal} $started
wait $started
"""


@pytest.mark.parametrize(("signal", "code"), [("TERM", 143), ("HUP", 129)])
def test_a_signal_undoes_what_was_installed(running: tuple[Row, Subject], signal: str, code: int) -> None:
    row, subject = running
    before = _stores(row, subject)
    script = _STOPPED.format(shim=_SHIM, anchors=row.anchors, signal=signal)

    assert subject.run("sh", "-c", script, user="0").status == code
    assert "undone: every store is as it was before" in subject.read("/tmp/said")
    assert _stores(row, subject) == before


def test_after_a_kill_the_next_start_removes_the_throwaway_ca(running: tuple[Row, Subject]) -> None:
    row, subject = running
    before = _stores(row, subject)
    subject.run("sh", "-c", _STOPPED.format(shim=_SHIM, anchors=row.anchors, signal="KILL"), user="0")
    assert _stores(row, subject) != before

    subject.run("sh", "-c", f"{_SHIM} install 2> /tmp/said", user="0")

    assert _stores(row, subject) == before
    (withdrawn,) = named(events(subject.read("/tmp/said")), "ca.withdrawn")
    assert "ca-shim selftest" in str(withdrawn)


def test_after_a_kill_the_next_selftest_removes_all_that_was_left(running: tuple[Row, Subject]) -> None:
    row, subject = running
    before = _stores(row, subject)
    subject.run("sh", "-c", _STOPPED.format(shim=_SHIM, anchors=row.anchors, signal="KILL"), user="0")
    assert _stores(row, subject) != before
    assert "selftest" in subject.run("ls", "/tmp", user="0").stdout

    result = subject.run(_SHIM, "selftest", user="0")

    assert (result.status, result.stdout.splitlines()[-1]) == (0, "good"), result.stdout
    # A bundle that was needed while the killed one's tool still worked may stay: an application may read it.
    assert set(before.splitlines()) <= set(_stores(row, subject).splitlines())
    assert subject.run("sh", "-c", f"ls {row.anchors} | grep selftest", user="0").stdout == ""
    assert "selftest" not in subject.run("ls", "/tmp", user="0").stdout


# Starts a selftest, waits until its CA is installed, and runs another command beside it.
_BESIDE = """
{shim} selftest > /tmp/first 2>&1 & started=$!
until ls {anchors} 2> /dev/null | grep -q selftest; do sleep 0.05; kill -0 $started || exit 99; done
{shim} {command} > /tmp/second 2>&1; second=$?
wait $started
echo $? $second
"""


def _beside(running: tuple[Row, Subject], command: str) -> tuple[str, str, str]:
    """The exit codes of a selftest and of a command beside it, and what the two said."""
    row, subject = running
    script = _BESIDE.format(shim=_SHIM, anchors=row.anchors, command=command)
    codes = subject.run("sh", "-c", script, user="0").stdout.strip()
    return codes, subject.read("/tmp/first"), subject.read("/tmp/second")


def test_a_second_selftest_says_that_another_runs(running: tuple[Row, Subject]) -> None:
    row, subject = running
    before = _stores(row, subject)
    codes, first, second = _beside(running, "selftest")

    assert (codes, first.splitlines()[-1]) == ("0 71", "good"), first
    assert second.count("\n") == 1
    assert "another selftest is running" in second
    assert _stores(row, subject) == before


def test_a_start_beside_a_selftest_waits_for_its_end(running: tuple[Row, Subject], mount: Mount, ca: Path) -> None:
    """What it installs meanwhile stays, and the throwaway CA does not."""
    row, subject = running
    mount.hold(ca / "ca-a.pem", ca / "ca-b.pem")
    codes, first, second = _beside(running, "install")

    assert (codes, first.splitlines()[-1]) == ("0 0", "good"), first
    (summary,) = named(events(second), "trust.ready")
    assert (summary["problems"], set(dict(summary["stores"]).values())) == (0, {"in place"})  # type: ignore[call-overload]
    assert "selftest" not in subject.run("ls", row.anchors, user="0").stdout
    after = _stores(row, subject)
    subject.run(_SHIM, "install", user="0")
    assert _stores(row, subject) == after
    assert subject.run(_SHIM, "status", user="0").status == 0
