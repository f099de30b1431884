"""A machine in a directory: the trust layout of a family, with refresh tools that are small shell scripts."""

from __future__ import annotations

import os
import ssl
import stat
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

# All of it imported now: who is not root may be unable to read the standard library of the tests' interpreter.
from shim import apply, bundle, certs, config, families, host, preview, reconcile
from tests.certificates import NOW, pems, root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from shim.families import Family
    from shim.plan import Plan, Step
    from shim.reconcile import Outcome
    from shim.snapshot import Snapshot

_PRELOADED = (certs, ssl, tempfile)
ANCHORE, SOMEBODY = 1000, 65534
SHIPPED = [root(f"Shipped {number}") for number in range(4)]
BASE = b"# shipped by the system\n" + pems(*SHIPPED)
CERTIFI_BASE = b"# shipped by certifi\n" + pems(*SHIPPED[:3])
CERTIFI = "/usr/local/lib/python3.9/site-packages/certifi/cacert.pem"
VENV = "/home/anchore/venv"
VENV_CERTIFI = f"{VENV}/lib/python3.9/site-packages/certifi/cacert.pem"
PASSWD = b"root:x:0:0::/root:/bin/sh\nanchore:x:1000:1000::/home/anchore:/bin/sh\n"
# By the name of a family: those that have a machine here. `Machine.tool` and `install` know what else differs.
OS_RELEASES = {"rhel": b'NAME="Red Hat"\nID="rhel"\nID_LIKE="fedora"\n', "debian": b"ID=ubuntu\nID_LIKE=debian\n"}
_BASE_FILE = "/usr/share/base.pem"
_CALLS = "/calls"

# What every tool begins with: the directory that stands for /, and a record of the call.
_HEAD = """\
#!/bin/sh
root=${0%@TOOL@}
bundle=$root@BUNDLE@
echo "$*" >> "$root/calls"
"""
# The hashed directory of the newer tools: emptied of links first, filled at the end, then links for compatibility.
_UNLINK = 'cd "$root@DIRECTORY@"\nrm -f *.0 ca-shim-* compatible.crt\n'
_MAKE = 'cat "$root@BASE@" $(ls -d $root@ANCHORS@/*.crt 2> /dev/null) > "$bundle"\n'
_LINK = """\
number=0
for file in shipped*.pem $(ls -d $root@ANCHORS@/*.crt 2> /dev/null); do
  [ "$file" = "${file##*/}" ] || cp "$file" .
  ln -s "${file##*/}" "0000000$number.0"
  number=$((number + 1))
done
"""
_SLOWLY = """\
for file in "$root@BASE@" $(ls -d $root@ANCHORS@/*.crt 2> /dev/null); do
  sleep 0.01
  cat "$file" >> "$bundle"
done
sleep 0.01
"""
TOOLS = {
    "works": _MAKE,
    "links": _UNLINK + _MAKE + _LINK + "ln -s shipped0.pem compatible.crt\n",
    "links without readlink": _UNLINK + _MAKE + "echo readlink: command not found >&2\nexit 127\n",
    "links without a capability": _UNLINK + _MAKE + _LINK + "echo ln: Permission denied >&2\nexit 1\n",
    "links nothing": _UNLINK + _MAKE,
    "removes the links and fails": _UNLINK + "rm -f shipped*.pem\nexit 1\n",
    "works slowly": 'rm -f "$bundle.tmp"\n'
    + _SLOWLY.replace("$bundle", "$bundle.tmp")
    + 'mv "$bundle.tmp" "$bundle"\n',
    "works slowly in place": ': > "$bundle"\n' + _SLOWLY,
    "leaves a child": _MAKE + 'sleep 600 &\necho $! > "$root/child"\n',
    "leaves a daemon": _MAKE + "export root\nsetsid sh -c 'echo $$ > \"$root/child\"; exec sleep 600' &\n"
    'until [ -s "$root/child" ]; do sleep 0.01; done\n',
    "adds to a leftover": 'cat "$root@BASE@" $(ls -d $root@ANCHORS@/*.crt 2> /dev/null) >> "$bundle.new"\n'
    'mv "$bundle.new" "$bundle"\n',
    "works and fails": 'cat "$root@BASE@" "$root@ANCHORS@"/*.crt > "$bundle"\necho "permission denied" >&2\nexit 1\n',
    "fails": "echo broken >&2\nexit 1\n",
    "does nothing": "exit 0\n",
    "empties the bundle": ': > "$bundle"\n',
    "removes the bundle": 'rm "$bundle"\n',
    "loses the base": 'cat "$root@ANCHORS@"/*.crt > "$bundle"\n',
    "loses one of the base": 'head -n 9 "$root@BASE@" > "$bundle"\ncat "$root@ANCHORS@"/*.crt >> "$bundle"\n',
    "freezes the disk": 'mount -o remount,ro "$root"\n',
    "empties the bundle and freezes the disk": ': > "$bundle"\nmount -o remount,ro "$root"\n',
    "kills its parent": ': > "$bundle"\nkill -9 $PPID\n',
    "hangs": "sleep 600 &\nwait\n",
    "empties another output": 'cat "$root@BASE@" "$root@ANCHORS@"/*.crt > "$bundle"\n: > "$root@OUTPUT@"\n',
}

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 and not os.environ.get("CA_SHIM_REQUIRE_ROOT"),
    reason="these tests change users: run them as root",
)


@dataclass(frozen=True, repr=False)
class Machine:
    """The directory, and the family whose layout is in it."""

    root: Path
    family: Family

    def path(self, name: str) -> Path:
        """Give the real path of a path on the machine."""
        return self.root / name.lstrip("/")

    def write(self, name: str, content: bytes, mode: int = 0o644, owner: int = 0) -> Path:
        """Write a file, with its directories; all that is new belongs to `owner`."""
        path = self.path(name)
        self.mkdir(os.path.dirname(name), owner=owner)
        path.write_bytes(content)
        path.chmod(mode)
        os.chown(path, owner, owner)
        return path

    def mkdir(self, name: str, mode: int = 0o755, owner: int = 0) -> Path:
        """Make a directory and those above it; all that is new belongs to `owner`."""
        path = self.path(name)
        if not path.is_dir():
            if path != self.root:
                self.mkdir(os.path.dirname(name), owner=owner)
            path.mkdir()
            path.chmod(mode)
            os.chown(path, owner, owner)
        return path

    def link(self, name: str, target: str, owner: int = 0) -> Path:
        """Make a symbolic link."""
        path = self.path(name)
        path.symlink_to(target)
        os.lchown(path, owner, owner)
        return path

    def read(self, name: str) -> bytes:
        """Give a file's content."""
        return self.path(name).read_bytes()

    def held(self, name: str) -> frozenset[str]:
        """Give the fingerprints in a bundle."""
        return bundle.fingerprints(self.read(name))

    def tool(self, behaviour: str) -> None:
        """Exchange the refresh tool."""
        family = self.family
        anchors = family.anchors if family is families.RHEL else os.path.dirname(family.anchors) + "/*"
        text = (_HEAD + TOOLS[behaviour]).replace("@TOOL@", family.tool).replace("@BUNDLE@", family.bundle)
        text = text.replace("@BASE@", _BASE_FILE).replace('"$root@ANCHORS@"', f"$root{anchors}")
        text = text.replace("@ANCHORS@", anchors).replace("@OUTPUT@", family.outputs[0])
        text = text.replace("@DIRECTORY@", family.directories[0])
        self.write(family.tool, text.encode(), 0o755)

    def hash(self) -> str:
        """Make the directory with hashed links that the newer tools keep; return its path."""
        directory = self.family.directories[0]
        for number, each in enumerate(SHIPPED):
            self.write(f"{directory}/shipped{number}.pem", each.pem)
            self.link(f"{directory}/0000000{number}.0", f"shipped{number}.pem")
        self.link(f"{directory}/compatible.crt", "shipped0.pem")
        return directory

    @property
    def calls(self) -> list[str]:
        """The arguments of every call of the refresh tool."""
        path = self.path(_CALLS)
        return path.read_text().splitlines() if path.exists() else []

    def mount(self, **files: bytes) -> None:
        """Make `/custom-certs` hold these files, by their names without `.pem`, and nothing else."""
        directory = self.mkdir("/custom-certs")
        for old in directory.iterdir():
            old.unlink()
        for name, content in files.items():
            self.write(f"/custom-certs/{name}.pem", content)

    def config(self, **variables: str) -> config.Config:
        """Give the settings that CA_SHIM_ variables make on this machine."""
        return config.read({f"CA_SHIM_{name}": value for name, value in variables.items()}, root=str(self.root))

    def look(self, environ: Mapping[str, str] | None = None, **variables: str) -> Snapshot:
        """Take a snapshot."""
        return host.look(self.config(**variables), environ or {}, ())

    def start(
        self,
        environ: Mapping[str, str] | None = None,
        command: Sequence[str] = ("/bin/true",),
        now: float = NOW,
        **variables: str,
    ) -> Outcome:
        """Reconcile, as a start of the container does."""
        return reconcile.reconcile(self.config(**variables), environ or {}, command, now)

    def plan(self, environ: Mapping[str, str] | None = None, now: float = NOW, **variables: str) -> Plan:
        """Give what a start would do."""
        _, planned = preview.make(self.config(**variables), environ or {}, (), now)
        return planned

    def tree(self, *, but: Sequence[str] = ("receipt", "lock", "calls")) -> dict[str, tuple[int, int, int, bytes]]:
        """Give all that is on the machine: mode, owner, group and content by path, without files of these names."""
        return {
            str(path.relative_to(self.root)): _described(path)
            for path in sorted(self.root.rglob("*"))
            if path.name not in but
        }


def _described(path: Path) -> tuple[int, int, int, bytes]:
    status = path.lstat()
    content = b""
    if stat.S_ISLNK(status.st_mode):
        content = os.fsencode(path.readlink())
    elif stat.S_ISREG(status.st_mode):
        content = path.read_bytes()
    return status.st_mode, status.st_uid, status.st_gid, content


def install(root: Path, family: Family) -> Machine:
    """Lay a machine of this family out, with a certifi of root's and a `/run`."""
    machine = Machine(root, family)
    machine.write("/etc/os-release", OS_RELEASES[family.name])
    machine.write("/etc/passwd", PASSWD)
    machine.write("/etc/group", b"root:x:0:\nanchore:x:1000:\n")
    machine.write(_BASE_FILE, BASE)
    machine.write(family.bundle, BASE)
    for output in family.outputs:
        machine.write(output, b"another form of the roots\n")
    machine.mkdir(family.anchors if family is families.RHEL else os.path.dirname(family.anchors))
    machine.write(CERTIFI, CERTIFI_BASE)
    machine.mkdir("/run")
    machine.mkdir("/tmp", 0o1777)
    machine.mkdir("/custom-certs")
    machine.tool("works")
    return machine


@contextmanager
def acting(uid: int, gid: int | None = None) -> Iterator[None]:
    """Be another user for a while: the effective ids, as the kernel checks them, and no other group."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(uid if gid is None else gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


class KilledError(BaseException):
    """The process is no more."""


def start_and_kill(machine: Machine, steps: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Start, and be killed after so many steps; gives whether there were as many. The kernel frees the lock."""
    left = [steps]
    locks: list[int] = []

    def lasting(action: Callable[[str, Step], None]) -> Callable[[str, Step], None]:
        def act(root: str, step: Step) -> None:
            if left[0] == 0:
                raise KilledError
            left[0] -= 1
            action(root, step)

        return act

    def lock(directory: str, take: Callable[[str], tuple[int, bool]] = apply._lock) -> tuple[int, bool]:  # noqa: SLF001 - what the kernel does
        taken = take(directory)
        locks.append(taken[0])
        return taken

    with monkeypatch.context() as patch:
        patch.setattr(apply, "_lock", lock)
        for name, action in apply._ACTIONS.items():  # noqa: SLF001 - the one door that every step passes
            patch.setitem(apply._ACTIONS, name, lasting(action))  # noqa: SLF001
        try:
            machine.start()
        except KilledError:
            os.close(locks[-1])
            return True
    return False
