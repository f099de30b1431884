"""Dependencies point one way, and facts are in one place."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import shim
from shim import families

SOURCES = {path.stem: path for path in Path(shim.__file__).parent.glob("*.py")}
BUILD = {"runtime", "papers", "sbom"}  # made for the image's build: they are in no start
DATA = {"record", "errors", "families", "accounts", "bundle", "snapshot", "certs", "answers"}
DECIDING = {"plan", "environ", "verify", "diagnosis"}
PURE = DATA | DECIDING
TOP = {"__main__", "cli"}
ACTING = {"apply", "become", "wrap", "export", "selftest", "probe", "clients", "connection", "relay", "throwaway"}
UNCLEAN = {"os", "subprocess", "structlog", "sys", "socket", "shutil", "tempfile", "pathlib", "time"}


def _imports(name: str, *, lazy: bool = True) -> set[str]:
    """Give the modules that a module imports at run time, ours by their own names; `lazy` counts those in functions."""
    tree = ast.parse(SOURCES[name].read_text())
    found: set[str] = set()
    for node in ast.walk(tree) if lazy else tree.body:
        if isinstance(node, ast.ImportFrom) and node.module == "shim":
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.removeprefix("shim."))
        elif isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
    return found - _for_the_type_checker(tree)


def _for_the_type_checker(tree: ast.Module) -> set[str]:
    guarded = [node for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
    modules = {
        each.module.removeprefix("shim.")
        for node in guarded
        for each in ast.walk(node)
        if isinstance(each, ast.ImportFrom) and each.module
    }
    runtime = {
        each.module.removeprefix("shim.")
        for node in tree.body
        if node not in guarded
        for each in ast.walk(node)
        if isinstance(each, ast.ImportFrom) and each.module and each.module != "shim"
    }
    return modules - runtime - _named_from_shim(tree)


def _named_from_shim(tree: ast.Module) -> set[str]:
    return {
        each.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "shim"
        for each in node.names
    }


@pytest.mark.parametrize("name", sorted(PURE))
def test_what_decides_does_not_touch_the_machine(name: str) -> None:
    assert {each.partition(".")[0] for each in _imports(name)} & UNCLEAN == set()


@pytest.mark.parametrize("name", sorted(DATA))
def test_plain_data_depends_on_plain_data_alone(name: str) -> None:
    assert _imports(name) & SOURCES.keys() <= DATA


@pytest.mark.parametrize("name", sorted(DECIDING))
def test_deciding_depends_on_deciding_and_data_alone(name: str) -> None:
    assert _imports(name) & SOURCES.keys() <= PURE


@pytest.mark.parametrize("name", sorted(SOURCES.keys() - TOP - BUILD))
def test_nothing_but_the_top_knows_the_command_line(name: str) -> None:
    assert _imports(name) & {"cli", "__main__", "options"} == set()


@pytest.mark.parametrize("name", ["sources", "host", "reading", "interpreters", "receipt", "writer", "log", "config"])
def test_looking_does_not_depend_on_acting(name: str) -> None:
    assert _imports(name) & (ACTING | {"reconcile"}) == set()


def _reachable(name: str) -> set[str]:
    seen: set[str] = set()
    pending = [name]
    while pending:
        for each in _imports(pending.pop(), lazy=False) & SOURCES.keys() - seen:
            seen.add(each)
            pending.append(each)
    return seen


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_no_module_imports_itself_by_way_of_others(name: str) -> None:
    assert name not in _reachable(name)


def _texts(name: str) -> list[str]:
    """Give the string constants of a module, without its docstrings."""
    tree = ast.parse(SOURCES[name].read_text())
    documented = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documented
    ]


_FACTS = re.compile(
    "|".join(
        [
            *(rf"\b{each.name}\b" for each in families.VARIABLES),
            *(rf"^{word}$" for family in families.FAMILIES for word in family.ids),
            r"/home/anchore|/custom-certs|/anchore-cli|docker-entrypoint|anchore-manager",
            r"/etc/pki|/etc/ssl|/opt/rh",
        ]
    )
)


@pytest.mark.parametrize("name", sorted(SOURCES.keys() - BUILD - {"families"}))
def test_facts_are_named_in_families_alone(name: str) -> None:
    assert [text for text in _texts(name) if _FACTS.search(text)] == []


def test_one_door_leads_to_other_programs() -> None:
    doors = {name for name in SOURCES.keys() - BUILD if "subprocess" in _imports(name)}

    assert doors == {"apply"}


def test_nobody_but_the_top_exits() -> None:
    """A forked child that must not return ends by os._exit, which is another matter."""
    exits = {
        name
        for name in SOURCES.keys() - BUILD
        for node in ast.walk(ast.parse(SOURCES[name].read_text()))
        if (isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.exit")
        or (isinstance(node, ast.Name) and node.id in ("SystemExit", "exit", "quit"))
    }

    assert exits <= TOP
