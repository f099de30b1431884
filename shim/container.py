"""What tells a container from the others of its pod, with which it shares file systems such as /dev/shm. Pure."""

from __future__ import annotations

# The module behind hashlib, which would load OpenSSL at a third of the cost of a whole start.
from _blake2 import blake2b

from shim import families


def identity(mountinfo: str, hostname: str) -> str:
    """Return 12 hex digits that no other container has that could share a directory with this one.

    `mountinfo` is /proc/self/mountinfo, see proc(5). A restart keeps the digits where the kubelet names the container,
    or where the root is an overlay with a directory of its own; elsewhere the device number of the root is among them.
    """
    lines = (line.split(" ") for line in mountinfo.split("\n"))
    mounts = {fields[4]: fields for fields in lines if len(fields) > 4}  # noqa: PLR2004 - the mount point
    named = mounts.get(families.TERMINATION_LOG, [""] * 4)[3].rpartition("/")[0]
    return blake2b(f"{hostname}\n{named or _root_of(mounts.get('/', []))}".encode(), digest_size=6).hexdigest()


def _root_of(fields: list[str]) -> str:
    """Return what the line of `/` says of its file system, without numbers that each mount namespace has its own of."""
    source = fields[fields.index("-") + 1 :] if "-" in fields else []
    device = [] if any("upperdir=" in option for option in source) else fields[2:4]
    return " ".join([*device, *source])
