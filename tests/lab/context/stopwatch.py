"""Runs inside a container, by the runtime's own interpreter: measures commands and prints JSON.

stopwatch.py REPETITIONS CASES, where CASES is JSON: {name: {"before": shell, "command": [...], "user": uid}}. What is
before a command is not measured. Cases take turns, so that whatever else the machine does falls on all of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any


def measure(case: dict[str, Any]) -> tuple[float, float]:
    """Give milliseconds and the peak of memory in MB."""
    subprocess.run(["/bin/sh", "-euc", case["before"]], check=True)
    start = time.perf_counter()
    child = os.fork()
    if not child:
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        os.setgroups([])
        os.setgid(case["user"])
        os.setuid(case["user"])
        os.execve(case["command"][0], case["command"], {"PATH": os.environ["PATH"], **case["env"]})
    _, status, usage = os.wait4(child, 0)
    took = time.perf_counter() - start
    if status:
        raise SystemExit(f"{case['command']} ended with {os.waitstatus_to_exitcode(status)}")
    return took * 1000, usage.ru_maxrss / 1000


repetitions, cases = int(sys.argv[1]), json.loads(sys.argv[2])
results: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
for _ in range(repetitions):
    for name, case in cases.items():
        results[name].append(measure(case))
sys.stdout.write(json.dumps(results))
