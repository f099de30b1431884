"""`tests/benchmark`: what a start costs, each figure beside what it is measured against. No test asserts a time."""

from __future__ import annotations

import json
import statistics
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec

from tests import certificates

from . import derived, docker, hostile
from .places import CACHE, CONTEXT
from .shell import CommandError, say

if TYPE_CHECKING:
    from pathlib import Path

    from .rows import Row

_SHIM = "/opt/ca-shim/bin/ca-shim"
_COUNTS = (1, 10, 100, 1000)
_MANY = (1000, 10_000)
_ROWS = ("4.4-ubi8", "4.5-ubi9", "venv-debian12")
_BUNDLES, _VENDORS = "/home/anchore/.ca-shim", "/home/anchore/certs"
# Nobody listens at the one that `verify` asks: what is left is what it costs to look.
_COMMANDS = (
    "install",
    "run -- /bin/true",
    "plan",
    "status",
    "env",
    "export /tmp",
    "verify https://[::1]:1",
    "selftest",
)
_AS_ROOT = (("CA_SHIM_USER", "root"),)
_VENDOR = "/opt/ca-shim/wrapped/docker-entrypoint.sh"


@dataclass(frozen=True)
class Case:
    """A command to measure, and a shell script that is run before it."""

    before: str
    command: tuple[str, ...]
    user: int = 0
    env: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Taken:
    """Medians: milliseconds, and the peak of memory in MB."""

    time: float
    memory: float


_MOST = Taken(5000, 250)  # for any 64 MiB of mounted bytes


def main(words: list[str]) -> int:
    """Print every figure of some rows."""
    repetitions = int(words[0]) if words else 7
    if docker.missing():
        say(f"Docker is needed: {docker.missing()}")
        return 1
    certs = _certificates(max(_MANY))
    for name in words[1:] or _ROWS:
        row = derived.row(name)
        _tell(f"{name}, medians of {repetitions}")
        _unchanged(row, certs, repetitions * 3)
        _as_root(row, certs, repetitions)
        _by_override(row, certs, repetitions)
        _many(row, certs, max(3, repetitions // 2))
        _commands(row, certs, 1)
        _hostile(row)
    return 0


def _unchanged(row: Row, certs: Path, repetitions: int) -> None:
    start = Case("", (_SHIM, "run", "--", "/bin/true"), env=(*_AS_ROOT, ("CA_SHIM_CERTS", "/certs/10")))
    bare = Case("", ("/opt/ca-shim/bin/python3", "-I", "-c", "pass"))
    _figure("nothing to change / bare interpreter", _measure(row, certs, repetitions, start, bare), "must <= 3.0")


def _as_root(row: Row, certs: Path, repetitions: int) -> None:
    """Each time from the stores as they were shipped; the tool alone gets the same CAs as anchors."""
    tool = "/usr/bin/update-ca-trust" if row.el else "/usr/sbin/update-ca-certificates"
    anchors = "/etc/pki/ca-trust/source/anchors" if row.el else "/usr/local/share/ca-certificates/alone"
    aside = f"test -e /shipped.pem || cp {row.bundle} /shipped.pem"
    fresh = f"{aside}; cp /shipped.pem {row.bundle}; rm -rf {anchors}/*.crt {row.anchors}/ca-shim* /run/ca-shim"
    clean = f"{fresh}; {tool} {'' if row.el else '--fresh'} > /dev/null 2>&1 || true"
    alone = f"{clean}; mkdir -p {anchors}; for f in /certs/10/*; do cp $f {anchors}/${{f##*/}}.crt; done"
    ours = Case(clean, (_SHIM, "run", "--", "/bin/true"), env=(*_AS_ROOT, ("CA_SHIM_CERTS", "/certs/10")))
    theirs = Case(alone, ("/bin/sh", "-c", f"{tool} || true"))
    _figure(
        "first start as root / the system's tool, 10 CAs",
        _measure(row, certs, repetitions, ours, theirs),
        "must <= 1.25",
    )


def _by_override(row: Row, certs: Path, repetitions: int) -> None:
    for count in _COUNTS:
        clean = f"rm -rf {_BUNDLES} /run/ca-shim* {_VENDORS}_override {_VENDORS}"
        vendors = f"{clean}; mkdir -p {_VENDORS}; cp /certs/{count}/* {_VENDORS}; chown -R 1000 {_VENDORS}"
        env = (("CA_SHIM_CERTS", f"/certs/{count}"), ("CA_SHIM_BUNDLE_DIR", _BUNDLES))
        ours = Case(clean, (_SHIM, "run", "--", "/bin/true"), 1000, env)
        theirs = Case(vendors, (_VENDOR, "/bin/true"), 1000, (("HOME", "/home/anchore"),))
        few = repetitions if count < max(_COUNTS) else min(3, repetitions)
        must = "must < 1" if count in (100, 1000) else "goal <= 2" if count == 1 else "goal < 1"
        _figure(f"override / the vendor's entrypoint, {count} CAs", _measure(row, certs, few, ours, theirs), must)


def _many(row: Row, certs: Path, repetitions: int) -> None:
    cases = [
        Case(
            f"rm -rf {_BUNDLES}",
            (_SHIM, "run", "--", "/bin/true"),
            1000,
            (("CA_SHIM_CERTS", f"/certs/{count}"),),
        )
        for count in _MANY[::-1]
    ]
    most, fewer = _measure(row, certs, repetitions, *cases)
    _figure("override, 10,000 / 1,000 CAs", (most, fewer), f"must <= 12, < 150 MB: {most.memory:.0f} MB")


def _commands(row: Row, certs: Path, repetitions: int) -> None:
    """As root, after a start has put all of them into the stores: how long it takes, and how much memory."""
    env = (*_AS_ROOT, ("CA_SHIM_CERTS", "/certs/1000"))
    served = " ".join(f"{name}={value}" for name, value in env) + f" {_SHIM} install 2> /dev/null"
    bare = Case("", ("/opt/ca-shim/bin/python3", "-I", "-c", "pass"))
    cases = (Case(served, ("/bin/sh", "-c", f"{_SHIM} {words} || true"), env=env) for words in _COMMANDS)
    against, *taken = _measure(row, certs, repetitions, bare, *cases)
    for words, each in zip(_COMMANDS, taken, strict=True):
        _figure(
            f"ca-shim {words.partition(' ')[0]}, 1,000 CAs / bare interpreter", (each, against), f"{each.memory:.0f} MB"
        )


def _hostile(row: Row) -> None:
    """Once each: whoever mounts 64 MiB of this waits no longer the next time."""
    directory = CACHE / "hostile"
    for name in hostile.prepare(directory):
        env = (("CA_SHIM_CERTS", f"/certs/{name}"),)
        (taken,) = _measure(row, directory, 1, Case(f"rm -rf {_BUNDLES}", (_SHIM, "run", "--", "/bin/true"), 1000, env))
        well = "" if taken.time < _MOST.time and taken.memory < _MOST.memory else "   TOO MUCH"
        must = f"must < {_MOST.time / 1000:.0f} s, < {_MOST.memory:.0f} MB"
        _tell(f"  64 MiB of {name:42}{taken.time:9.1f} ms, {taken.memory:5.0f} MB   ({must}){well}")


def _measure(row: Row, certs: Path, repetitions: int, *cases: Case) -> tuple[Taken, ...]:
    described = {
        str(number): {"before": case.before, "command": case.command, "user": case.user, "env": dict(case.env)}
        for number, case in enumerate(cases)
    }
    options = (f"--volume={certs}:/certs:ro", f"--volume={CONTEXT / 'stopwatch.py'}:/stopwatch.py:ro", "--user=0")
    words = ("-ISB", "/stopwatch.py", str(repetitions), json.dumps(described))
    entry = "--entrypoint=/opt/ca-shim/bin/python3"
    done = docker.docker("run", "--rm", *options, entry, derived.image(row), *words, timeout=1800)
    if done.status:
        raise CommandError(done.stderr[-2000:])
    return tuple(_medians(samples) for samples in json.loads(done.stdout).values())


def _medians(samples: list[tuple[float, float]]) -> Taken:
    times, peaks = zip(*samples, strict=True)
    return Taken(statistics.median(times), statistics.median(peaks))


def _figure(name: str, taken: tuple[Taken, ...], aim: str) -> None:
    measured, against = taken
    ratio = measured.time / against.time
    _tell(f"  {name:52}{measured.time:9.1f} /{against.time:9.1f} ms = {ratio:6.2f}   ({aim})")


def _tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _certificates(most: int) -> Path:
    """Directories by the number of the CAs in them, one CA a file; they hold for ten years."""
    directory = CACHE / "benchmark"
    if not (directory / str(most)).exists():
        say(f"issuing {most} CAs")
        pems = [certificates.issue(f"Benchmark CA {number}", key=_key()).pem for number in range(most)]
        for count in sorted({*_COUNTS, *_MANY}):
            (directory / f"{count}.new").mkdir(parents=True, exist_ok=True)
            for number, pem in enumerate(pems[:count]):
                (directory / f"{count}.new" / f"{number}.pem").write_bytes(pem)
            (directory / f"{count}.new").rename(directory / str(count))
    return directory


def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
