"""The options of the command line; imported only where there are any."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from shim import __version__
from shim.config import SETTINGS
from shim.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Command(NamedTuple):
    """A row of the README's table of commands."""

    name: str
    words: str
    meaning: str


COMMANDS = (
    Command("run", "COMMAND", "bring the stores up to date, become the application's user, execute COMMAND"),
    Command("install", "", "bring the stores up to date: in a Dockerfile, or after the mounted files have changed"),
    Command("wrap", "NAME", "at image build: put the shim in front of programs, given by path or by name"),
)


class Parsed(NamedTuple):
    """The typed twin of the argument namespace; `settings` maps variables to the values given by options."""

    command: str
    settings: Mapping[str, str]
    root: str
    words: Sequence[str]


class _Parser(argparse.ArgumentParser):
    """A parser that leaves the exit to `cli`."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}: see {self.prog} --help")


def parse(arguments: Sequence[str]) -> Parsed:
    """Parse a command line; raises UsageError. `--help` and `--version` print and exit, as everywhere."""
    parser = _parser()
    found = vars(parser.parse_args(arguments))
    words = found.get("words") or []
    settings = {row.variable: found[row.variable] for row in SETTINGS if found.get(row.variable) is not None}
    return Parsed(found["command"], settings, found.get("root") or "", words[1:] if words[:1] == ["--"] else words)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="ca-shim", description="Make every TLS client of this container trust the CA files mounted on it."
    )
    parser.add_argument("--version", action="version", version=f"ca-shim {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    for row in COMMANDS:
        sub = commands.add_parser(row.name, help=row.meaning, description=row.meaning, allow_abbrev=False)
        _add_settings(sub)
        if row.words:
            nargs = argparse.REMAINDER if row.name == "run" else "+"
            sub.add_argument("words", nargs=nargs, metavar=row.words)
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    for row in SETTINGS:
        meaning = f"{row.meaning} (default: {row.default}; variable: {row.variable})".replace("%", "%%")
        if row.option == "--off":
            parser.add_argument(row.option, dest=row.variable, action="store_const", const="off", help=meaning)
        else:
            parser.add_argument(row.option, dest=row.variable, metavar=row.option[2:].upper(), help=meaning)
    parser.add_argument("--root", metavar="DIR", help="a directory that stands for / (default: /)")
