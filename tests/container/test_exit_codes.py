"""How it ends when it may not go on: the table of exit codes, on real containers."""

from __future__ import annotations

import pytest

from tests.lab.subject import Subject, events, named, once

_SHIM = "/opt/ca-shim/bin/ca-shim"
_STOP = {"CA_SHIM_ON_ERROR": "stop"}


@pytest.mark.parametrize(
    ("sources", "code"),
    [
        ("/nowhere", 66),
        ("/ca/odd/empty.pem", 66),
        ("/ca/odd/broken-block.pem", 65),
        ("/ca/odd/truncated-block.pem", 65),
        ("/ca/odd/expired.pem", 0),
        ("/ca/odd/leaf.pem", 0),
        ("/ca/odd/key-and-certificate.pem", 0),
        ("/ca/odd/plain.pem", 0),
    ],
)
def test_on_error_stop_makes_a_problem_fatal_and_a_notice_not(idle: Subject, sources: str, code: int) -> None:
    result = idle.run(_SHIM, "run", "--", "echo", "started", env={**_STOP, "CA_SHIM_CERTS": sources})

    assert (result.status, result.stdout) == (code, "" if code else "started\n")


@pytest.mark.parametrize("sources", ["/nowhere", "/ca/odd/broken-block.pem"])
def test_without_it_the_application_starts_in_spite_of_a_problem(idle: Subject, sources: str) -> None:
    result = idle.run(_SHIM, "run", "--", "echo", "started", env={"CA_SHIM_CERTS": sources})

    assert (result.status, result.stdout) == (0, "started\n")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("run",), 64),
        (("run", "--"), 64),
        (("nonsense",), 64),
        (("run", "--nonsense", "--", "true"), 64),
        (("run", "--", "no-such-program"), 127),
        (("run", "--", "/no/such/program"), 127),
        (("run", "--", "/etc/passwd"), 126),
        (("run", "--", "/etc"), 126),
        (("run", "--user", "nobody-here", "--", "true"), 67),
        (("run", "--", "sh", "-c", "exit 42"), 42),
        (("--version",), 0),
        (("--help",), 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)
def test_the_exit_code_says_what_was_wrong(idle: Subject, words: tuple[str, ...], code: int) -> None:
    assert idle.run(_SHIM, *words).status == code


def test_whatever_stops_a_start_says_so_in_one_last_line(idle: Subject) -> None:
    result = idle.run(_SHIM, "run", "--", "/etc/passwd")

    last = events(result.stderr)[-1]
    assert (last["event"], last["code"]) == ("shim.failed", 126)


@pytest.mark.parametrize(("name", "value"), [("CA_SHIM", "perhaps"), ("CA_SHIM_ON_ERROR", "perhaps")])
def test_a_setting_that_cannot_be_understood_is_64(image: str, name: str, value: str) -> None:
    result = once(image, "echo", "started", env={name: value})

    assert (result.status, result.stdout) == (64, "")
    assert named(events(result.stderr), "shim.failed")
