"""What operators call, and the order of events of a start."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from shim import apply, become, cli, probe, reconcile
from shim.errors import EXIT_CODES, NotUpdatedError, ShimError
from tests.certificates import NOW, Issued, issue, leaf, root
from tests.edge.machine import ANCHORE, CERTIFI, CERTIFI_BASE, SHIPPED, Machine, acting, needs_root

if TYPE_CHECKING:
    from collections.abc import Callable

    from shim.answers import Place

pytestmark = needs_root
A, B = root("A"), root("B")
SHIPPED_IDS = {each.sha256 for each in SHIPPED}
Shim = "Callable[..., tuple[int, str, list[dict[str, Any]]]]"


class StartedError(BaseException):
    """The application would have started."""


@pytest.fixture
def shim(rhel: Machine, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Run `ca-shim` in this process, up to the point where it becomes the application."""

    def execute(command: list[str], environ: dict[str, str]) -> None:
        raise StartedError(command, environ)

    def call(name: str, *words: str, **environ: str) -> tuple[int, str, list[dict[str, Any]]]:
        monkeypatch.setattr(become, "started_environment", lambda: dict(environ))
        monkeypatch.setattr(become, "execute", execute)
        monkeypatch.setattr(sys, "argv", ["ca-shim", name, "--root", str(rhel.root), *words])
        code = cli.main()
        out, err = capfd.readouterr()
        return code, out, [json.loads(line) for line in err.splitlines()]

    return call


def started(shim: Callable[..., Any], *words: str, **environ: str) -> tuple[list[str], dict[str, str]]:
    with pytest.raises(StartedError) as start:
        shim("run", "--user", "root", *words, **environ)
    return start.value.args[0], start.value.args[1]


def test_install_brings_the_stores_up_to_date(shim: Callable[..., Any], rhel: Machine) -> None:
    rhel.mount(a=A.pem)
    code, out, lines = shim("install")

    assert (code, out, A.sha256 in rhel.held(rhel.family.bundle)) == (0, "", True)
    assert [line["event"] for line in lines] == ["ca.installed", "trust.ready"]


@pytest.mark.parametrize("code", [65, 66])
def test_install_stops_on_a_problem_when_asked(shim: Callable[..., Any], rhel: Machine, code: int) -> None:
    rhel.mount(a=A.pem, bad=A.pem[:300])
    certs = ["--certs", "/absent"] if code == 66 else []

    assert shim("install", "--on-error", "stop", *certs)[0] == code


def test_a_named_source_without_any_ca_is_a_problem(shim: Callable[..., Any], rhel: Machine) -> None:
    rhel.mount()

    assert shim("install", "--on-error", "stop")[0] == 0
    assert shim("install", "--on-error", "stop", "--certs", "/custom-certs")[0] == 66
    assert shim("status", CA_SHIM_CERTS="/custom-certs")[0] == 1


def test_of_several_problems_the_least_code_is_given(shim: Callable[..., Any], rhel: Machine) -> None:
    rhel.mount(bad=A.pem[:300])

    assert shim("install", "--on-error", "stop", "--certs", "/custom-certs:/absent")[0] == 65


def test_plan_shows_every_step_and_changes_nothing(shim: Callable[..., Any], rhel: Machine) -> None:
    rhel.mount(a=A.pem)
    before = rhel.tree(but=())
    code, out, _ = shim("plan")

    assert (code, rhel.tree(but=())) == (0, before)
    assert "refresh   /usr/bin/update-ca-trust" in out
    assert f"write     {CERTIFI}" in out


def test_plan_gives_its_exit_code_when_something_would_change(shim: Callable[..., Any], rhel: Machine) -> None:
    assert shim("plan", "--exit-code")[0] == 0
    rhel.mount(a=A.pem)
    assert shim("plan", "--exit-code")[0] == 3


def test_plan_says_so_when_there_is_nothing_to_do(shim: Callable[..., Any]) -> None:
    assert shim("plan")[1] == "nothing to do: no CA can be used\n"


def test_plan_does_not_call_well_what_cannot_be_served(shim: Callable[..., Any], rhel: Machine) -> None:
    rhel.mount(a=A.pem)
    rhel.path(rhel.family.tool).unlink()
    shim("install", "--bundle-dir", "/absent/bundles")

    assert shim("plan", "--bundle-dir", "/absent/bundles")[1].splitlines()[-1] == "nothing can be done: see above"


def test_plan_as_json_is_one_document(shim: Callable[..., Any], rhel: Machine) -> None:
    rhel.mount(a=A.pem, leaf=leaf().pem)
    document = json.loads(shim("plan", "--json")[1])

    assert document["variables"] == {"NODE_EXTRA_CA_CERTS": "/run/ca-shim/extra.pem"}
    assert [note["event"] for note in document["notes"]] == ["certificate.skipped"]


def _states(document: dict[str, Any], certificate: Issued) -> dict[str, str]:
    """Give the states of a CA by the end of each store's path."""
    (authority,) = (each for each in document["cas"] if each["sha256"] == certificate.sha256)
    return {os.path.basename(path): state for path, state in authority["states"].items()}


def test_status_of_a_machine_that_was_served_is_well(shim: Callable[..., Any], rhel: Machine) -> None:
    rhel.mount(a=A.pem)
    rhel.start()
    code, out, _ = shim("status")

    assert (code, out.splitlines()[-1]) == (0, "all well")
    assert re.search(
        r"^installed +installed +installed +\S+Z +[0-9a-f]{12} +CN=A \(/custom-certs/a.pem\)$", out, re.MULTILINE
    )


def test_status_names_what_is_missing(shim: Callable[..., Any], rhel: Machine) -> None:
    rhel.mount(a=A.pem)
    code, document = _status(shim)

    assert (code, _states(document, A)) == (1, {"tls-ca-bundle.pem": "missing", "cacert.pem": "missing"})


def test_status_says_so_when_no_ca_is_mounted(shim: Callable[..., Any]) -> None:
    code, out, _ = shim("status")

    assert (code, "no CA can be used" in out, "/custom-certs" in out) == (0, True, True)


def test_status_names_a_store_that_does_not_load(shim: Callable[..., Any], rhel: Machine) -> None:
    rhel.write(CERTIFI, b"")
    code, out, _ = shim("status")

    assert (code, f"{CERTIFI}  (known place) DOES NOT LOAD" in out) == (2, True)


def test_status_names_what_is_withdrawn_and_still_there(shim: Callable[..., Any], rhel: Machine) -> None:
    rhel.mount(a=A.pem)
    rhel.start()
    rhel.mount()
    rhel.path("/run/ca-shim/receipt").unlink()
    code, document = _status(shim)

    assert (code, set(_states(document, A).values())) == (1, {"withdrawn"})
    assert "CN=A (no longer mounted)" in shim("status")[1]


@pytest.mark.parametrize("mounted", [{}, {"a": A.pem, "b": B.pem}, {"bad": A.pem[:300]}], ids=["fewer", "more", "bad"])
def test_what_is_mounted_after_a_good_start_does_not_make_it_a_bad_one(
    shim: Callable[..., Any], rhel: Machine, mounted: dict[str, bytes]
) -> None:
    """Else a change of a ConfigMap would end the readiness of every pod at once."""
    rhel.mount(a=A.pem)
    rhel.start()
    rhel.mount(**mounted)
    code, out, _ = shim("status")

    verdict = out.splitlines()[-1].partition(":")[0]
    assert (code, verdict) == (0, "as the last start left it; what is mounted now asks for something else")


def test_a_store_that_is_not_as_the_start_left_it_lacks_what_is_missing(
    shim: Callable[..., Any], rhel: Machine
) -> None:
    rhel.mount(a=A.pem)
    rhel.start()
    rhel.write(CERTIFI, CERTIFI_BASE)

    assert shim("status")[0] == 1


def test_an_expired_ca_is_named_with_its_file_and_makes_no_start_a_bad_one(
    shim: Callable[..., Any], rhel: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    rhel.mount(a=A.pem)
    rhel.start()
    monkeypatch.setattr(time, "time", lambda: A.certificate.not_valid_after_utc.timestamp() + 1)
    code, out, _ = shim("status")

    assert (code, "withdrawn" in out, "CN=A (/custom-certs/a.pem)" in out) == (0, True, True)


_UNUSED = {
    "a truncated block beside a CA": ({"a": A.pem, "bad": B.pem[:300]}, "block.refused", "the file is truncated"),
    "a web page": ({"a": b"<html>404</html>"}, "source.unusable", "mount CA certificates on /custom-certs:/home/"),
    "UTF-16": ({"a": A.pem.decode().encode("utf-16")}, "source.unusable", "it is UTF-16 text"),
    "a Java key store": ({"a": b"\xfe\xed\xfe\xed\x00"}, "source.unusable", "it is a Java key store"),
    "a leaf and its key": ({"a": leaf().pem + leaf().key_pem}, "source.unusable", "it is a leaf, no CA"),
    "what the store leaves out": ({"a": issue("No CA", ca=False).pem}, "certificate.warning", "p11-kit"),
}


@pytest.mark.parametrize(("mounted", "event", "words"), _UNUSED.values(), ids=_UNUSED.keys())
def test_what_cannot_be_used_is_told_and_makes_no_pod_unready(
    shim: Callable[..., Any], rhel: Machine, mounted: dict[str, bytes], event: str, words: str
) -> None:
    rhel.mount(**mounted)
    rhel.start()
    code, out, _ = shim("status")

    assert (code, event in out, words in out) == (0, True, True), out
    assert shim("status", "--strict")[0] == 1


def test_strict_asks_no_more_of_what_is_well(shim: Callable[..., Any], rhel: Machine) -> None:
    rhel.mount(a=A.pem)
    rhel.start()
    assert shim("status", "--strict")[0] == 0
    rhel.mount(a=A.pem, b=B.pem)
    assert (shim("status")[0], shim("status", "--strict")[0]) == (0, 1)


def test_files_without_any_ca_are_a_warning_in_the_log(shim: Callable[..., Any], rhel: Machine) -> None:
    rhel.mount(a=b"<html>")
    _, _, lines = shim("install")

    (warning,) = (line for line in lines if line["event"] == "source.unusable")
    assert warning["level"] == "warning"
    assert warning["remedy"] == "mount CA certificates on /custom-certs:/home/anchore/certs"


def test_what_cannot_be_read_is_missing_and_install_does_not_help(shim: Callable[..., Any], rhel: Machine) -> None:
    rhel.mount(a=A.pem)
    rhel.path("/custom-certs/a.pem").chmod(0)
    with acting(ANCHORE):
        code, out, _ = shim("status")

    assert (code, out.splitlines()[-1]) == (
        1,
        "something is missing: `install` here does not change that, see the lines above",
    )
    assert ("defaultMode: 0444" in out, "source.unusable" in out) == (True, True)


def test_a_program_started_past_the_wrappers_is_told(shim: Callable[..., Any], rhel: Machine) -> None:
    rhel.mount(a=A.pem)

    assert "no start of the shim has been seen here" in shim("status")[1].splitlines()[-1]
    rhel.start()
    rhel.write(CERTIFI, CERTIFI_BASE)
    last = shim("status")[1].splitlines()[-1]
    assert last == "something is missing: run `/opt/ca-shim/bin/ca-shim install`, or restart"


def test_a_withdrawn_ca_that_came_back_is_not_called_missing(shim: Callable[..., Any], rhel: Machine) -> None:
    """As after a selftest that was killed."""
    rhel.mount(a=A.pem)
    rhel.start()
    held = rhel.read(CERTIFI)
    rhel.mount()
    rhel.start()
    rhel.write(CERTIFI, b"\n" + held)  # as no start has left it
    code, out, _ = shim("status")

    last = "something is not as it should be: run `/opt/ca-shim/bin/ca-shim install`, or restart"
    assert (code, out.splitlines()[-1]) == (1, last)


_MOUNTS = {  # whether each looks like a slip
    "/custom-cert": True, "/certs": True, "/custom_certs": True, "/customcerts": True, "/custom-certs.d": True,
    "/home/anchore/cert": True, "/custom-crets": True, "/custom-certs.pem": True,
    "/custom-certs": False, "/custom-certs/ca.pem": False, "/home/anchore/certs": False, "/": False, "/data": False,
    "/etc/ssl/certs": False, "/opt/ca-shim/certs.d": False, "/home/anchore": False, "/var/log/anchore": False,
}  # fmt: skip


_SLIP = ["source.missing", "source.elsewhere"]


@pytest.mark.parametrize(("mount", "meant"), _MOUNTS.items())
def test_a_mount_that_looks_like_a_slip_is_named(
    shim: Callable[..., Any], rhel: Machine, mount: str, *, meant: bool
) -> None:
    rhel.write("/proc/self/mountinfo", f"36 35 98:0 / {mount} ro,noatime - ext4 /dev/root rw\n".encode())
    for command in ("status", "plan"):
        lines = [line for line in shim(command)[1].splitlines() if line.startswith("source.elsewhere")]

        expected = f"source.elsewhere: {mount}: it is mounted, but it is no source; if the CAs are there, "
        assert lines == [f"{expected}mount it on /custom-certs"] * meant


@pytest.mark.parametrize(("certs", "events"), [("/custom-certs", ["source.missing"]), ("/absent", _SLIP)])
def test_a_named_source_that_holds_nothing_is_told_once(
    shim: Callable[..., Any], rhel: Machine, certs: str, events: list[str]
) -> None:
    rhel.write("/proc/self/mountinfo", b"36 35 98:0 / /certs ro - ext4 /dev/root rw\n")
    rhel.mount(page=b"<html>")
    _, document = _status(shim, CA_SHIM_CERTS=certs)

    assert [note["event"] for note in document["refused"] if note["event"] != "file.refused"] == events


def test_a_slip_is_nobodys_business_while_a_ca_is_there(shim: Callable[..., Any], rhel: Machine) -> None:
    rhel.write("/proc/self/mountinfo", b"36 35 98:0 / /certs ro - ext4 /dev/root rw\n")
    rhel.mount(a=A.pem)

    assert "source.elsewhere" not in shim("plan")[1]


def test_switched_off_nothing_is_missing(shim: Callable[..., Any], rhel: Machine) -> None:
    rhel.mount(a=A.pem)
    code, out, _ = shim("status", CA_SHIM="off")

    assert (code, out.splitlines()[-1]) == (0, "CA_SHIM=off: starts do not look at the stores")


def test_a_bundle_that_nobody_reads_does_not_break_the_status(shim: Callable[..., Any], rhel: Machine) -> None:
    rhel.mount(a=A.pem)
    rhel.start()
    rhel.mount()
    shim("install")
    rhel.write("/run/ca-shim/pip.pem", A.pem + B.pem[:300])

    assert shim("status")[0] == 0


def test_a_fifo_behind_a_variable_holds_nobody_up(shim: Callable[..., Any], rhel: Machine) -> None:
    os.mkfifo(rhel.path("/run/fifo"))
    code, out, _ = shim("status", GIT_SSL_CAINFO="/run/fifo")

    assert (code, "/run/fifo  (GIT_SSL_CAINFO) DOES NOT LOAD" in out) == (2, True)


def test_status_tells_by_which_bundle_a_store_is_served(shim: Callable[..., Any], rhel: Machine) -> None:
    rhel.mount(a=A.pem)
    rhel.path(rhel.family.tool).unlink()
    rhel.start()
    code, document = _status(shim)

    assert code == 0
    assert [each["replaced_by"] for each in document["stores"] if each["found"] == "operating system"] == [
        "/run/ca-shim/os.pem"
    ]
    assert _states(document, A)["tls-ca-bundle.pem"] == "by override"
    assert "clients read 3" in shim("status")[1]


def test_status_tells_of_a_withdrawn_ca_that_an_override_hides(shim: Callable[..., Any], rhel: Machine) -> None:
    rhel.mount(a=A.pem)
    rhel.start()
    rhel.path(rhel.family.tool).unlink()
    rhel.mount(b=B.pem)
    rhel.start()
    code, document = _status(shim)

    assert (code, _states(document, A)) == (0, {"tls-ca-bundle.pem": "withdrawn by override"})


def test_status_does_not_ask_a_store_for_what_its_tool_leaves_out(shim: Callable[..., Any], rhel: Machine) -> None:
    odd = issue("No CA", ca=False)
    rhel.mount(odd=odd.pem)
    rhel.start()
    code, document = _status(shim)

    assert (code, _states(document, odd)["tls-ca-bundle.pem"]) == (0, "refused")
    assert "all well, except for the lines above" in shim("status")[1]


def test_status_judges_the_applications_variables_and_not_the_sessions(shim: Callable[..., Any], rhel: Machine) -> None:
    rhel.mount(a=A.pem)
    own = str(rhel.write("/own.pem", B.pem))
    rhel.start({"REQUESTS_CA_BUNDLE": own})
    code, document = _status(shim, REQUESTS_CA_BUNDLE=own)

    assert (code, document["session"]) == (0, ["REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"])


def test_status_names_a_bundle_of_somebodys_that_hides_the_stores(shim: Callable[..., Any], rhel: Machine) -> None:
    rhel.mount(a=A.pem)
    rhel.start()
    own = rhel.write("/own.pem", B.pem)
    code, document = _status(shim, REQUESTS_CA_BUNDLE=f"/{own.name}")

    assert (code, _states(document, A)["own.pem"]) == (1, "missing")


@pytest.mark.parametrize(("starts", "asks"), [(0, ANCHORE), (ANCHORE, 0)], ids=["root starts", "root asks"])
def test_status_is_the_applications_whoever_asks(
    shim: Callable[..., Any], rhel: Machine, starts: int, asks: int
) -> None:
    rhel.mount(a=A.pem)
    with acting(starts):
        rhel.start()
    with acting(asks):
        code, document = _status(shim)

    assert (code, document["settled"]) == (0, True), document
    assert "NODE_EXTRA_CA_CERTS" in {each["found"] for each in document["stores"]}


def test_status_takes_no_directory_where_clients_want_a_file(shim: Callable[..., Any], rhel: Machine) -> None:
    rhel.write("/own/a.pem", A.pem)

    assert shim("status", GIT_SSL_CAINFO="/own")[0] == 2


def test_status_names_a_variable_that_points_to_nothing(shim: Callable[..., Any]) -> None:
    code, out, _ = shim("status", GIT_SSL_CAINFO="/absent.pem")

    assert (code, "/absent.pem  (GIT_SSL_CAINFO) DOES NOT LOAD" in out) == (2, True)


def test_status_takes_a_hashed_directory_for_a_bundle(shim: Callable[..., Any], rhel: Machine) -> None:
    rhel.mount(a=A.pem)
    rhel.start()
    rhel.write("/own/a.pem", A.pem)
    code, document = _status(shim, REQUESTS_CA_BUNDLE="/own")

    assert (code, _states(document, A)["own"]) == (0, "installed")


def test_status_as_json_tells_what_was_refused(shim: Callable[..., Any], rhel: Machine) -> None:
    rhel.mount(old=issue(ends=-1000).pem)
    _, document = _status(shim)

    assert [each["event"] for each in document["refused"]] == ["certificate.skipped", "source.unusable"]


def test_a_refusal_is_told_with_file_block_reason_and_remedy(shim: Callable[..., Any], rhel: Machine) -> None:
    rhel.mount(bad=A.pem[:300])
    lines = [line for line in shim("status")[1].splitlines() if line.startswith("block.refused")]

    where, why = "/custom-certs/bad.pem block 1", "the block has no END line: the file is truncated"
    assert lines == [f"block.refused: {where}: {why}; export the certificate again as PEM and mount that file"]


def _status(shim: Callable[..., Any], **environ: str) -> tuple[int, dict[str, Any]]:
    code, out, _ = shim("status", "--json", **environ)
    return code, json.loads(out)


# --- what `verify` knows of this place --------------------------------------------------------------------------------


def _place(machine: Machine, *, off: bool = False, **variables: str) -> Place:
    settings = machine.config(**variables)._replace(off=off)
    return probe.see(settings, {}, NOW).place


def test_verify_names_files_that_are_not_used(rhel: Machine) -> None:
    rhel.mount(page=b"<html>", short=A.pem[:300])
    unused = dict(_place(rhel).unused)

    assert set(unused) == {
        "/custom-certs/page.pem (no certificate: it is neither PEM nor DER)",
        "/custom-certs/short.pem (the block has no END line: the file is truncated)",
    }


def test_verify_names_a_file_that_its_user_cannot_read(rhel: Machine) -> None:
    rhel.mount(a=A.pem)
    rhel.path("/custom-certs/a.pem").chmod(0o600)
    with acting(ANCHORE):
        ((what, remedy),) = _place(rhel).unused

    assert what == "/custom-certs/a.pem (permission denied)"
    assert "defaultMode: 0444" in remedy


def test_verify_knows_what_brings_a_ca_into_the_stores(rhel: Machine) -> None:
    rhel.mount(a=A.pem)
    assert "no start of the shim has been seen here" in _place(rhel).install
    assert "CA_SHIM=off" in _place(rhel, off=True).install
    rhel.start()
    assert _place(rhel).install == "run `/opt/ca-shim/bin/ca-shim install`, or restart"
    assert "mounted on /srv/cas, then" in _place(rhel, CERTS="/srv/cas").mount


def test_verify_names_a_mount_that_looks_like_a_slip(rhel: Machine) -> None:
    rhel.write("/proc/self/mountinfo", b"36 35 98:0 / /certs ro - ext4 /dev/root rw\n")

    assert _place(rhel).elsewhere == "; /certs is, but is no source"


def test_the_interpreter_of_a_command_is_looked_at(rhel: Machine) -> None:
    own = "/srv/app/lib/python3.12/site-packages/certifi/cacert.pem"
    rhel.write(own, CERTIFI_BASE)
    rhel.write("/srv/app/bin/python3", b"", 0o755)
    rhel.write("/srv/app/bin/app", b"#!/srv/app/bin/python3\n", 0o755)

    def stores(*command: str) -> list[str]:
        return [store.path for store in probe.see(rhel.config(), {}, NOW, command).stores]

    assert (own in stores("/srv/app/bin/app", "x"), own in stores()) == (True, False)


def test_a_start_is_not_missed_where_there_was_nothing_to_leave(rhel: Machine) -> None:
    rhel.start()
    rhel.mount(page=b"<html>")

    assert _place(rhel).mount.endswith("then run `/opt/ca-shim/bin/ca-shim install`, or restart")


def test_env_prints_what_the_last_start_left(shim: Callable[..., Any], rhel: Machine) -> None:
    rhel.mount(a=A.pem)
    rhel.start()

    assert shim("env")[1] == "export NODE_EXTRA_CA_CERTS=/run/ca-shim/extra.pem\n"


def test_env_prints_a_line_as_a_shell_reads_it(shim: Callable[..., Any], rhel: Machine) -> None:
    rhel.mount(a=A.pem)
    rhel.start(BUNDLE_DIR="/run/a\u2028b")

    assert shim("env", CA_SHIM_BUNDLE_DIR="/run/a\u2028b")[1] == (
        "export NODE_EXTRA_CA_CERTS='/run/a\u2028b/extra.pem'\n"
    )


def test_env_prints_nothing_when_nothing_is_needed(shim: Callable[..., Any]) -> None:
    assert shim("env")[:2] == (0, "")


def test_export_writes_bundles_for_every_client(shim: Callable[..., Any], rhel: Machine) -> None:
    rhel.mount(a=A.pem)
    rhel.mkdir("/shared", 0o777)
    code, _, lines = shim("export", "/shared")

    assert (code, lines[-1]["event"]) == (0, "trust.exported")
    assert rhel.held("/shared/os.pem") == SHIPPED_IDS | {A.sha256}
    assert rhel.held("/shared/extra.pem") == {A.sha256}
    assert b"export SSL_CERT_FILE=/shared/os.pem\n" in rhel.read("/shared/env")


def test_export_without_any_ca_still_gives_the_roots(shim: Callable[..., Any], rhel: Machine) -> None:
    rhel.mkdir("/shared")
    shim("export", "/shared")

    assert rhel.held("/shared/os.pem") == SHIPPED_IDS


def test_export_to_a_missing_directory_fails_and_says_so(shim: Callable[..., Any]) -> None:
    code, _, lines = shim("export", "/absent")

    assert (code, lines[-1]["event"]) == (NotUpdatedError.code, "shim.failed")


def test_export_waits_for_another_and_says_so(
    shim: Callable[..., Any], rhel: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = apply.lock(os.open(rhel.mkdir("/shared"), os.O_RDONLY), 0)
    monkeypatch.setattr(apply, "LOCK_SECONDS", 0.1)
    code, _, lines = shim("export", "/shared")
    os.close(held)

    assert (code, lines[-1]["event"]) == (NotUpdatedError.code, "shim.failed")
    assert "another export keeps writing into" in lines[-1]["reason"]
    assert os.listdir(rhel.path("/shared")) == []


def test_export_works_where_directories_cannot_be_locked(
    shim: Callable[..., Any], rhel: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.EBADF, f"flock({descriptor}, {operation})")

    rhel.mkdir("/shared")
    monkeypatch.setattr(fcntl, "flock", flock)

    assert shim("export", "/shared")[0] == 0


def test_export_changes_no_store(shim: Callable[..., Any], rhel: Machine) -> None:
    rhel.mount(a=A.pem)
    rhel.mkdir("/shared")
    before = rhel.tree(but=())
    shim("export", "/shared")

    assert {path: what for path, what in rhel.tree(but=()).items() if not path.startswith("shared/")} == before


def test_wrap_prints_a_line_for_each_program(shim: Callable[..., Any], rhel: Machine) -> None:
    rhel.write("/opt/ca-shim/bin/ca-shim", b"wrapper", 0o755)
    rhel.write("/docker-entrypoint.sh", b"#!/bin/sh\n", 0o755)

    assert shim("wrap", "/docker-entrypoint.sh", "absent")[1] == (
        "/docker-entrypoint.sh: wrapped\nabsent: not in this image, skipped\n"
    )


def test_wrap_fails_the_build_when_the_user_is_missing(shim: Callable[..., Any], rhel: Machine) -> None:
    rhel.write("/docker-entrypoint.sh", b"#!/bin/sh\n", 0o755)

    assert shim("wrap", "--user", "absent", "/docker-entrypoint.sh")[0] == 67
    assert rhel.read("/docker-entrypoint.sh") == b"#!/bin/sh\n"


def test_an_error_of_ours_is_logged_and_the_application_starts(
    shim: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reconcile, "reconcile", _fail)

    assert started(shim, "--", "echo", PIP_CERT="/x") == (["echo"], {"PIP_CERT": "/x", "HOME": "/root"})
    line = json.loads(capfd.readouterr().err.splitlines()[0])
    assert (line["event"], "ZeroDivisionError" in line["traceback"]) == ("shim.bug", True)


def test_an_error_of_ours_is_fatal_when_asked(shim: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "reconcile", _fail)
    code, _, lines = shim("run", "--user", "root", "--on-error", "stop", "--", "echo")

    assert (code, [line["event"] for line in lines]) == (70, ["shim.bug", "shim.failed"])


def _fail(*_: object) -> None:
    raise ZeroDivisionError


def test_the_application_gets_the_variables_of_the_start(shim: Callable[..., Any], rhel: Machine) -> None:
    rhel.mount(a=A.pem)

    assert started(shim, "--", "echo")[1] == {"HOME": "/root", "NODE_EXTRA_CA_CERTS": "/run/ca-shim/extra.pem"}


def test_a_variable_of_an_earlier_shim_that_is_needed_no_more_is_taken_back(
    shim: Callable[..., Any], rhel: Machine
) -> None:
    rhel.mount(a=A.pem)
    _, environ = started(shim, "--", "echo")
    rhel.mount()

    assert started(shim, "--", "echo", **environ)[1] == {"HOME": "/root"}


def _classes(kind: type[ShimError] = ShimError) -> list[type[ShimError]]:
    return [kind, *(each for sub in kind.__subclasses__() for each in _classes(sub))]


@pytest.mark.parametrize("error", _classes(), ids=lambda error: error.__name__)
def test_the_code_of_every_error_is_in_the_table(error: type[ShimError]) -> None:
    assert error.code in {row.code for row in EXIT_CODES}
