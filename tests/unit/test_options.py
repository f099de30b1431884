"""The command line."""

from __future__ import annotations

import pytest

from shim import __version__, cli, options
from shim.config import SETTINGS
from shim.errors import EXIT_CODES, UsageError
from shim.options import Parsed


@pytest.mark.parametrize(
    ("arguments", "parsed"),
    [
        pytest.param(["install"], Parsed("install", {}, "", []), id="install"),
        pytest.param(["install", "--root", "/r"], Parsed("install", {}, "/r", []), id="root"),
        pytest.param(["run", "--", "echo", "x"], Parsed("run", {}, "", ["echo", "x"]), id="run"),
        pytest.param(["run", "echo", "--user", "x"], Parsed("run", {}, "", ["echo", "--user", "x"]), id="no dashes"),
        pytest.param(["run", "--", "--", "x"], Parsed("run", {}, "", ["--", "x"]), id="dashes of the command"),
        pytest.param(["run", "--off", "--", "x"], Parsed("run", {"CA_SHIM": "off"}, "", ["x"]), id="off"),
        pytest.param(
            ["run", "--user", "root", "--", "x", "--help"],
            Parsed("run", {"CA_SHIM_USER": "root"}, "", ["x", "--help"]),
            id="the command's own help",
        ),
        pytest.param(["run"], Parsed("run", {}, "", []), id="no command"),
        pytest.param(["verify", "a"], Parsed("verify", {}, "", ["a"]), id="verify"),
        pytest.param(
            ["verify", "--json", "a", "b", "--", "x", "--json", "--"],
            Parsed("verify", {}, "", ["a", "b"], as_json=True, behind=["x", "--json", "--"]),
            id="verify for a command",
        ),
        pytest.param(["status", "--strict"], Parsed("status", {}, "", [], strict=True), id="strict"),
        pytest.param(["wrap", "a", "b"], Parsed("wrap", {}, "", ["a", "b"]), id="wrap"),
    ],
)
def test_a_command_line_is_understood(arguments: list[str], parsed: Parsed) -> None:
    assert options.parse(arguments) == parsed


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["unknown"], id="unknown command"),
        pytest.param(["install", "--unknown"], id="unknown option"),
        pytest.param(["install", "word"], id="word too many"),
        pytest.param(["install", "--certs"], id="option without its value"),
        pytest.param(["install", "--us", "root"], id="abbreviated option"),
        pytest.param(["wrap"], id="nothing to wrap"),
        pytest.param(["verify", "--", "x"], id="nothing to verify"),
    ],
)
def test_a_wrong_command_line_is_a_usage_error_that_names_the_help(arguments: list[str]) -> None:
    with pytest.raises(UsageError, match=r"[:?] see ca-shim( \w+)? --help$"):
        options.parse(arguments)


@pytest.mark.parametrize("arguments", [["https://me:s3cret@a.test/"], ["verify", "--x=https://me:s3cret@a.test/", "a"]])
def test_a_password_on_the_command_line_is_not_repeated(arguments: list[str]) -> None:
    with pytest.raises(UsageError) as error:
        options.parse(arguments)

    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "nearest"),
    [(["statsu"], "status"), (["status", "--jsn"], "--json"), (["run", "--usr", "x", "--", "y"], "--user")],
    ids=" ".join,
)
def test_the_nearest_word_is_named(arguments: list[str], nearest: str) -> None:
    with pytest.raises(UsageError, match=rf"did you mean {nearest}\?"):
        options.parse(arguments)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["install", "--help"], ["run", "--help"]], ids=" ".join)
def test_help_is_printed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        options.parse(arguments)

    assert (end.value.code, capsys.readouterr().out.startswith("usage: ca-shim")) == (0, True)


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        options.parse(["--version"])

    assert capsys.readouterr().out.startswith(f"ca-shim {__version__}")


def test_every_command_but_run_is_wired() -> None:
    assert {row.name for row in options.COMMANDS} == {"run", *cli._COMMANDS}  # noqa: SLF001 - the table is the wiring


@pytest.mark.parametrize("row", options.COMMANDS, ids=lambda row: row.name)
def test_the_help_of_a_command_is_whole(row: options.Command, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        options.parse([row.name, "--help"])
    said = capsys.readouterr().out

    assert all(option in said for option in row.options)
    assert all(f"\n  {code} " in said for code in row.codes)
    assert f"ca-shim {row.example}\n" in said


@pytest.mark.parametrize("row", options.COMMANDS, ids=lambda row: row.name)
def test_the_example_of_a_command_is_understood(row: options.Command) -> None:
    assert options.parse(row.example.split()).command == row.name


def test_every_setting_and_every_exit_code_is_told_by_some_command() -> None:
    assert {row.option for row in SETTINGS} <= {option for row in options.COMMANDS for option in row.options}
    assert {row.code for row in EXIT_CODES} - {70} == {code for row in options.COMMANDS for code in row.codes}
