"""The README as its readers use it: its commands in order, what it shows that they print, and its YAML."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

from .places import ROOT

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"`(docker exec [^`]+|docker restart [^`]+)`")


@dataclass(frozen=True)
class Command:
    """A command line, and the lines that the README shows of what it prints."""

    line: str
    shown: tuple[str, ...] = ()


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return [text for name, text in _BLOCK.findall(TEXT) if name == language]


def values(key: str) -> dict[str, Any]:
    """The chart's values of the block that has this key."""
    found = (yaml.safe_load(text) for text in blocks("yaml"))
    return next(block for block in found if key in block)


def environment(chart: dict[str, Any], component: str = "") -> list[dict[str, str]]:
    """What the chart sets for a container: `extraEnv` of all, and that of its component."""
    extra: list[dict[str, str]] = [*chart.get("extraEnv", ()), *chart.get(component, {}).get("extraEnv", ())]
    return extra


def commands() -> list[Command]:
    """Every command of the README once: of its sessions, of its scripts, and those within sentences."""
    found: dict[str, Command] = {}
    for language, text in _BLOCK.findall(TEXT):
        for command in {"console": _session, "sh": _script}.get(language, lambda _: [])(text):
            found.setdefault(command.line, command)
    for line in _INLINE.findall(TEXT):
        found.setdefault(line, Command(line))
    return list(found.values())


def _session(text: str) -> list[Command]:
    parts = [part.splitlines() for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]]
    return [Command(line.partition("  #")[0].rstrip(), tuple(shown)) for line, *shown in parts]


def _script(text: str) -> list[Command]:
    return [Command(line) for line in text.splitlines()]
