"""A start with nothing to do imports nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import shim
from tests.certificates import root
from tests.edge.machine import CERTIFI
from tests.process.start import PATH, needs_root

if TYPE_CHECKING:
    from tests.edge.machine import Machine

pytestmark = needs_root
HEAVY = {
    "argparse",
    "cryptography",
    "dataclasses",
    "json",
    "pathlib",
    "re",
    "shim.apply",
    "shim.certs",
    "shim.options",
    "ssl",
    "structlog",
    "subprocess",
    "typing",
}
# Without site-packages: whatever would be needed of them is then missing.
_SCRIPT = """\
import sys
sys.path.insert(0, sys.argv.pop(1))
from shim import cli, config
cli._run(config.read({"CA_SHIM_USER": "root"}, root=sys.argv.pop(1)), dict(PATH="/bin"), ["/bin/echo", "x"], 0.0)
"""


def imported(machine: Machine) -> set[str]:
    parent = Path(shim.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-X", "importtime", "-c", _SCRIPT, parent, machine.root],
        env=PATH,
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.stdout == "x\n", done.stderr
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}


def test_a_start_with_nothing_mounted_imports_nothing_heavy(rhel: Machine) -> None:
    assert imported(rhel) & HEAVY == set()


def test_a_start_with_a_valid_receipt_imports_nothing_heavy(rhel: Machine) -> None:
    rhel.mount(a=root("A").pem)
    import time

    rhel.start(now=time.time(), USER="root")

    assert imported(rhel) & HEAVY == set()


def test_the_guard_sees_what_a_start_that_changes_something_imports(rhel: Machine) -> None:
    rhel.mount(a=root("A").pem)

    assert "shim.certs" in imported(rhel)


def test_a_start_with_a_valid_receipt_writes_nothing(rhel: Machine) -> None:
    import time

    rhel.mount(a=root("A").pem)
    rhel.start(now=time.time())
    before = {path: path.stat().st_mtime_ns for path in rhel.root.rglob("*")}
    imported(rhel)

    assert {path: path.stat().st_mtime_ns for path in rhel.root.rglob("*")} == before
    assert root("A").sha256 in rhel.held(CERTIFI)
