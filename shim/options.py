"""The options of the command line; imported only where there are any."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, NamedTuple, NoReturn, TypedDict

from shim import __version__
from shim.config import SETTINGS
from shim.errors import EXIT_CODES, UsageError
from shim.families import COMMAND, GENERATIONS
from shim.log import say

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Command(NamedTuple):
    """A row of the README's table of commands; the rest is for its own help."""

    name: str
    words: str
    meaning: str
    options: tuple[str, ...]
    codes: tuple[int, ...]
    example: str


_READING = ("--certs", "--certifi", "--bundle-dir")
COMMANDS = (
    Command(
        "run",
        "COMMAND",
        "bring the stores up to date, become the application's user, execute COMMAND",
        ("--off", *_READING, "--user", "--on-error"),
        (64, 65, 66, 67, 71, 77, 126, 127),
        "run --user root -- COMMAND",
    ),
    Command(
        "install",
        "",
        "bring the stores up to date: in a Dockerfile, or after the mounted files have changed",
        (*_READING, "--on-error"),
        (0, 65, 66, 71),
        "install --certs /tmp/new-ca.pem --on-error stop",
    ),
    Command(
        "plan",
        "",
        "show what `install` would change, and why; changes nothing",
        (*_READING, "--exit-code", "--json"),
        (0, 3, 74),
        "plan --exit-code",
    ),
    Command(
        "status",
        "",
        "show every CA in every store: installed, missing, withdrawn, refused and why",
        (*_READING, "--strict", "--json"),
        (0, 1, 2, 74),
        "status --strict",
    ),
    Command(
        "verify",
        "URL",
        "connect to servers: which store and client accepts them, and which issuer is missing",
        (*_READING, "--user", "--json"),
        (0, 1, 64, 67, 74, 77),
        "verify https://registry.example.com harbor.example.com:8443",
    ),
    Command(
        "env",
        "",
        "print the `export` lines for a shell or probe that did not come through the shim",
        ("--bundle-dir",),
        (0, 74),
        "env",
    ),
    Command(
        "export",
        "DIR",
        "in an init container: write bundles and an env file into a shared directory",
        (*_READING, "--on-error"),
        (0, 65, 66, 71),
        "export /ca-bundles",
    ),
    Command(
        "selftest",
        "",
        "prove on this image, with a throwaway CA, that every client trusts a mounted CA",
        (*_READING, "--user", "--json"),
        (0, 1, 64, 67, 71, 74, 77, 129, 130, 143),
        "selftest",
    ),
    Command(
        "wrap",
        "NAME",
        "at image build: put the shim in front of programs, given by path or by name",
        ("--user",),
        (0, 64, 67, 74),
        f"wrap {' '.join(GENERATIONS[-1].programs)}",
    ),
)
_NARGS: dict[str, int | str] = {"run": argparse.REMAINDER, "export": 1}
_FLAGS = {
    "--exit-code": ("exit_code", "exit with 3 when something would change"),
    "--strict": ("strict", "exit with 1 also when something mounted cannot be used, or is not yet installed"),
    "--json": ("as_json", "print one JSON document"),
}


class Parsed(NamedTuple):
    """The typed twin of the argument namespace; `settings` maps variables to the values given by options."""

    command: str
    settings: Mapping[str, str]
    root: str
    words: Sequence[str]
    as_json: bool = False
    exit_code: bool = False
    strict: bool = False
    behind: Sequence[str] = ()  # what follows `--`, where it is no part of the words


class _Parser(argparse.ArgumentParser):
    """A parser that leaves the exit to `cli`, and names the nearest word that it would have taken."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}: see {self.prog} --help")

    def print_help(self, file: object = None) -> None:
        del file
        say(self.format_help().removesuffix("\n"))

    def refuse(self, word: str, known: Sequence[str]) -> NoReturn:
        """Raise UsageError for a word that nobody knows."""
        from difflib import get_close_matches

        nearest = get_close_matches(word, known, n=1, cutoff=0.5)
        meant = f"did you mean {nearest[0]}? " if nearest else ""
        raise UsageError(f"{self.prog} knows no {word.rpartition('@')[2]!a}: {meant}see {self.prog} --help")


class _Version(argparse.Action):
    """Print what the runtime brings: it is our own, whatever the image has."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        import platform
        import ssl
        from importlib.metadata import version

        brought = ", ".join(f"{name} {version(name)}" for name in ("certifi", "cryptography", "structlog"))
        say(f"ca-shim {__version__} (Python {platform.python_version()}, {ssl.OPENSSL_VERSION}, {brought})")
        parser.exit()


def parse(arguments: Sequence[str]) -> Parsed:
    """Parse a command line; raises UsageError. `--help` and `--version` print and exit, as everywhere."""
    parser, commands = _parser()
    names = [row.name for row in COMMANDS]
    first = arguments[0] if arguments else "--help"
    if first not in (*names, "-h", "--help", "--version"):
        parser.refuse(first, names)
    behind: Sequence[str] = ()
    if first == "verify" and "--" in arguments:
        end = arguments.index("--")
        arguments, behind = arguments[:end], arguments[end + 1 :]
    known, strange = parser.parse_known_args([first, *arguments[1:]])
    found = vars(known)
    if strange:
        of_command = next(row for row in COMMANDS if row.name == found["command"])
        commands[of_command.name].refuse(strange[0], [*of_command.options, "--root", "--help"])
    words = found.get("words") or []
    settings = {row.variable: found[row.variable] for row in SETTINGS if found.get(row.variable) is not None}
    words = words[1:] if words[:1] == ["--"] else words
    flags = {name: bool(found.get(name)) for name in ("as_json", "exit_code", "strict")}
    return Parsed(found["command"], settings, found.get("root") or "", words, behind=behind, **flags)


def _parser() -> tuple[_Parser, dict[str, _Parser]]:
    parser = _Parser(
        prog=_NAME,
        description="Make every TLS client of this container trust the CA files mounted on it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action=_Version, nargs=0, help="print the versions of ca-shim and of what it brings"
    )
    commands = parser.add_subparsers(
        dest="command", required=True, title="commands", metavar="COMMAND", parser_class=_Parser
    )
    made = {row.name: commands.add_parser(row.name, help=row.meaning, **_help_of(row)) for row in COMMANDS}
    for row in COMMANDS:
        _add_options(made[row.name], row)
    return parser, made


_NAME = "ca-shim"
_EPILOG = f"""\
every command has a --help of its own, with its options, their variables and its exit codes

when a client fails:     {_NAME} verify https://registry.example.com
on an image of yours:    docker run --rm --entrypoint {COMMAND} IMAGE selftest
"""


class _Help(TypedDict):
    description: str
    epilog: str
    allow_abbrev: bool
    formatter_class: type[argparse.HelpFormatter]


def _help_of(row: Command) -> _Help:
    """A sentence, and after the options the exit codes that this command has, and an example."""
    codes = "".join(f"  {each.code:<5}{each.meaning}\n" for each in EXIT_CODES if each.code in row.codes)
    return _Help(
        description=f"{row.meaning[0].upper()}{row.meaning[1:]}.",
        epilog=f"exit codes:\n{codes}\nexample:\n  {_NAME} {row.example}",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _add_options(parser: argparse.ArgumentParser, command: Command) -> None:
    for row in (row for row in SETTINGS if row.option in command.options):
        meaning = f"{row.meaning} (default: {row.default}; variable: {row.variable})".replace("%", "%%")
        if row.value:
            parser.add_argument(row.option, dest=row.variable, metavar=row.value, help=meaning)
        else:
            parser.add_argument(row.option, dest=row.variable, action="store_const", const="off", help=meaning)
    for option, (name, meaning) in _FLAGS.items():
        if option in command.options:
            parser.add_argument(option, dest=name, action="store_true", help=meaning)
    parser.add_argument("--root", metavar="DIR", help="a directory that stands for / (default: /)")
    if command.words:
        parser.add_argument(
            "words", nargs=_NARGS.get(command.name, "+"), metavar=command.words, help=_WORDS[command.words]
        )


_WORDS = {
    "COMMAND": "the command and its arguments, after --",
    "URL": "an https URL, a host or host:port; after -- the command whose own interpreter is looked at too",
    "DIR": "a directory that this user can write, as an emptyDir",
    "NAME": "a path, or a name that is looked for on PATH and where Anchore's images keep programs",
}
