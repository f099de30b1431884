"""What operators call, and the order of events of a start."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from shim import become, cli, reconcile
from shim.errors import EXIT_CODES, NotUpdatedError, ShimError
from tests.certificates import Issued, issue, leaf, root
from tests.edge.machine import ANCHORE, CERTIFI, CERTIFI_BASE, SHIPPED, Machine, acting, needs_root

if TYPE_CHECKING:
    from collections.abc import Callable

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


def test_what_cannot_be_used_is_told_and_nothing_is_missing(shim: Callable[..., Any], rhel: Machine) -> None:
    rhel.mount(a=A.pem, bad=B.pem[:300])
    rhel.start()
    code, out, _ = shim("status")

    assert (code, "block.refused" in out) == (0, True)


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
    assert "all well, but for the lines above" in shim("status")[1]


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

    assert [each["event"] for each in document["refused"]] == ["certificate.skipped"]


def test_a_refusal_is_told_with_file_block_reason_and_remedy(shim: Callable[..., Any], rhel: Machine) -> None:
    rhel.mount(bad=A.pem[:300])
    lines = [line for line in shim("status")[1].splitlines() if line.startswith("block.refused")]

    where, why = "/custom-certs/bad.pem block 1", "the block has no END line: the file is truncated"
    assert lines == [f"block.refused: {where}: {why}; export the certificate again as PEM and mount that file"]


def _status(shim: Callable[..., Any], **environ: str) -> tuple[int, dict[str, Any]]:
    code, out, _ = shim("status", "--json", **environ)
    return code, json.loads(out)


def test_env_prints_what_the_last_start_left(shim: Callable[..., Any], rhel: Machine) -> None:
    rhel.mount(a=A.pem)
    rhel.start()

    assert shim("env")[1] == "export NODE_EXTRA_CA_CERTS=/run/ca-shim/extra.pem\n"


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
