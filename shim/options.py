"""The options of the command line; imported only where there are any."""

from __future__ import annotations

import argparse
import sys
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
    Command("plan", "", "show what `install` would change, and why; changes nothing"),
    Command("status", "", "show every CA in every store: installed, missing, withdrawn, refused and why"),
    Command("verify", "URL", "connect to servers: which store and client accepts them, and which issuer is missing"),
    Command("env", "", "print the `export` lines for a shell or probe that did not come through the shim"),
    Command("export", "DIR", "in an init container: write bundles and an env file into a shared directory"),
    Command("selftest", "", "prove on this image, with a throwaway CA, that every client trusts a mounted CA"),
    Command("wrap", "NAME", "at image build: put the shim in front of programs, given by path or by name"),
)


_JSON = ("plan", "status", "verify", "selftest")
_NARGS: dict[str, int | str] = {"run": argparse.REMAINDER, "export": 1}


class Parsed(NamedTuple):
    """The typed twin of the argument namespace; `settings` maps variables to the values given by options."""

    command: str
    settings: Mapping[str, str]
    root: str
    words: Sequence[str]
    as_json: bool = False
    exit_code: bool = False


class _Parser(argparse.ArgumentParser):
    """A parser that leaves the exit to `cli`."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}: see {self.prog} --help")


class _Version(argparse.Action):
    """Print what the runtime brings: it is our own, whatever the image has."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        import platform
        import ssl
        from importlib.metadata import version

        brought = ", ".join(f"{name} {version(name)}" for name in ("certifi", "cryptography", "structlog"))
        text = f"ca-shim {__version__} (Python {platform.python_version()}, {ssl.OPENSSL_VERSION}, {brought})\n"
        sys.stdout.write(text)
        parser.exit()


def parse(arguments: Sequence[str]) -> Parsed:
    """Parse a command line; raises UsageError. `--help` and `--version` print and exit, as everywhere."""
    parser = _parser()
    found = vars(parser.parse_args(arguments))
    words = found.get("words") or []
    settings = {row.variable: found[row.variable] for row in SETTINGS if found.get(row.variable) is not None}
    words = words[1:] if words[:1] == ["--"] else words
    flags = {name: bool(found.get(name)) for name in ("as_json", "exit_code")}
    return Parsed(found["command"], settings, found.get("root") or "", words, **flags)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="ca-shim", description="Make every TLS client of this container trust the CA files mounted on it."
    )
    parser.add_argument(
        "--version", action=_Version, nargs=0, help="print the versions of ca-shim and of what it brings"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    for row in COMMANDS:
        sub = commands.add_parser(row.name, help=row.meaning, description=row.meaning, allow_abbrev=False)
        _add_settings(sub)
        if row.name in _JSON:
            sub.add_argument("--json", dest="as_json", action="store_true", help="print one JSON document")
        if row.name == "plan":
            sub.add_argument("--exit-code", action="store_true", help="exit with 3 when something would change")
        if row.words:
            nargs = _NARGS.get(row.name, "+")
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
