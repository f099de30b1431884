"""The tables of the README say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shim import config, errors, families, log, options
from tests.lab.clients import CLIENTS

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def _table(heading: str) -> list[str]:
    """Give the rows of the first table below a heading, without its head."""
    section = re.split(rf"^#+ {re.escape(heading)}$", README, flags=re.MULTILINE)[1]
    lines = section[section.index("\n|") + 1 :].split("\n\n")[0].splitlines()
    return lines[2:]


def _row(*cells: object) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def _code(text: str) -> str:
    return f"`{text}`"


TABLES = {
    "Systems": [
        _row(
            each.versions,
            each.base,
            each.family.name,
            _code(each.certifi + "/"),
            each.user,
            ", ".join(map(_code, each.programs)),
        )
        for each in families.GENERATIONS
    ],
    "Stores": [
        _row(each.name, ", ".join(map(_code, each.ids)), _code(each.anchors), _code(each.tool), _code(each.bundle))
        for each in families.FAMILIES
    ],
    "Commands": [_row(_code(f"ca-shim {each.name} {each.words}".strip()), each.meaning) for each in options.COMMANDS],
    "Settings": [
        _row(_code(each.variable), _code(each.option), each.default, each.meaning) for each in config.SETTINGS
    ],
    "Variables of clients": [
        _row(
            _code(each.name),
            _code(each.store_file) if each.exported else "its own",
            f"{each.when}{f', {_code(each.needs)} there' if each.needs else ''}" if each.exported else "it had a value",
            each.clients,
        )
        for each in families.VARIABLES
    ],
    "Clients": [
        _row(each.name, each.in_place, each.certifi_in_place, each.by_override, each.reads) for each in CLIENTS
    ],
    "Events": [_row(_code(each.name), each.level, each.meaning) for each in log.EVENTS],
    "Exit codes": [_row(each.code, each.meaning) for each in errors.EXIT_CODES],
}


@pytest.mark.parametrize("heading", TABLES)
def test_the_table_is_that_of_the_code(heading: str) -> None:
    assert _table(heading) == TABLES[heading]
