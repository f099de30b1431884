"""`ca-shim export` by several init containers at once."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from tests.certificates import root
from tests.edge.machine import SHIPPED
from tests.process.start import PATH, PYTHON, needs_root

if TYPE_CHECKING:
    from tests.edge.machine import Machine

pytestmark = needs_root
_AT_ONCE = 8


def test_several_at_once_into_one_directory_all_succeed(rhel: Machine) -> None:
    ca = root("A")
    rhel.mount(a=ca.pem)
    rhel.mkdir("/shared", 0o777)
    command = [*PYTHON, "-m", "shim", "export", "--root", str(rhel.root), "/shared"]
    started = [subprocess.Popen(command, env=PATH, stderr=subprocess.PIPE) for _ in range(_AT_ONCE)]
    ended = [(process.communicate(timeout=120)[1], process.returncode) for process in started]

    assert [code for _, code in ended] == [0] * _AT_ONCE, ended
    assert sorted(os.listdir(rhel.path("/shared"))) == ["env", "extra.pem", "os.pem", "python.pem"]
    assert rhel.held("/shared/os.pem") == {each.sha256 for each in (*SHIPPED, ca)}
