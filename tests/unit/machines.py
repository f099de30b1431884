"""Snapshots of machines as values, for what decides."""

from __future__ import annotations

from shim import families
from shim.snapshot import CertifiStore, Directory, OsStore, Setting, Snapshot
from shim.writer import ROOT
from tests.certificates import pems, root

SHIPPED = pems(root("Shipped 1"), root("Shipped 2"))
CERTIFI = "/usr/lib/python3/site-packages/certifi/cacert.pem"
RUN = Directory("/run/ca-shim", exists=True, writable=True, files=())

RHEL = OsStore(families.RHEL, families.RHEL.bundle, SHIPPED, (), b"", (), "")
DEBIAN = OsStore(families.DEBIAN, families.DEBIAN.bundle, SHIPPED, (), b"", (), "")
READ_ONLY = "it is not writable"


def certifi(path: str = CERTIFI, content: bytes = SHIPPED, blocked: str = "", *, leftover: str = "") -> CertifiStore:
    """Give a certifi bundle of root's."""
    return CertifiStore(path, "known place", content, ROOT, blocked, leftover)


def setting(name: str, origin: str, content: bytes | None, real: str = "") -> Setting:
    """Give a variable that somebody set."""
    return Setting(name, origin, real or origin, content, superseded=False)


def machine(
    os: OsStore = RHEL,
    *stores: CertifiStore,
    directories: tuple[Directory, ...] = (RUN,),
    settings: tuple[Setting, ...] = (),
    curl: bool = False,
) -> Snapshot:
    """Give a machine with one writable directory for bundles."""
    return Snapshot(os, stores, directories, settings, curl)
