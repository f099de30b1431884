"""An error of ours, wherever it is, keeps no application from starting."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

from shim import become, cli, config, log, reconcile
from tests.certificates import root
from tests.edge.machine import Machine, needs_root

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = needs_root
A = root("A")


class StartedError(BaseException):
    """The application would have started."""


class UnspeakableError(Exception):
    """Not even its description works."""

    def __repr__(self) -> str:
        raise RecursionError


@pytest.fixture
def start(
    rhel: Machine, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[[], tuple[dict[str, str], list[dict[str, Any]]]]:
    """Start up to the point where the application would; gives its environment and the log."""

    def execute(_: list[str], environ: dict[str, str]) -> None:
        raise StartedError(environ)

    def call() -> tuple[dict[str, str], list[dict[str, Any]]]:
        monkeypatch.setattr(become, "started_environment", lambda: {"CA_SHIM_CERT": "/x"})
        monkeypatch.setattr(become, "execute", execute)
        monkeypatch.setattr(sys, "argv", ["ca-shim", "run", "--root", str(rhel.root), "--user", "root", "--", "echo"])
        with pytest.raises(StartedError) as started:
            cli.main()
        return started.value.args[0], [json.loads(line) for line in capfd.readouterr().err.splitlines()]

    rhel.mount(a=A.pem)
    return call


def failing(error: BaseException) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize("error", [ZeroDivisionError(), MemoryError(), RecursionError(), UnspeakableError()], ids=type)
@pytest.mark.parametrize(("module", "name"), [(config, "unknown"), (log, "notes"), (reconcile, "reconcile")])
def test_an_error_is_told_and_the_application_starts(
    start: Callable[[], tuple[dict[str, str], list[dict[str, Any]]]],
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    name: str,
    error: Exception,
) -> None:
    monkeypatch.setattr(module, name, failing(error))
    _, lines = start()
    bug = next(line for line in lines if line["event"] == "shim.bug")

    assert type(error).__name__ in bug["reason"]
    assert lines[-1]["event"] == "handover"


def test_what_was_reconciled_counts_though_it_cannot_be_told(
    start: Callable[[], tuple[dict[str, str], list[dict[str, Any]]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "notes", failing(ZeroDivisionError()))
    environ, _ = start()

    assert environ["NODE_EXTRA_CA_CERTS"] == "/run/ca-shim/extra.pem"


@pytest.mark.parametrize("value", ["corp.pem", "./corp.pem", "../corp.pem", ""])
@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"])
def test_a_relative_variable_where_the_directory_is_gone_points_to_nothing(
    rhel: Machine, place: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    (place / "gone").mkdir()
    monkeypatch.chdir(place / "gone")
    os.rmdir(place / "gone")
    rhel.mount(a=A.pem)
    outcome = rhel.start({name: value})

    assert A.sha256 in rhel.held(outcome.variables[name])
    assert outcome.problems == ()
