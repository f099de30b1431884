"""`ca-shim export DIR`: in an init container, write the bundles that the main containers point their variables to."""

from __future__ import annotations

import os

from shim import apply, bundle, families, host, loading, plan, reading, reconcile, sources, writer
from shim.errors import NotUpdatedError
from shim.snapshot import Directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from shim.config import Config
    from shim.reconcile import Decision


def export(config: Config, environ: Mapping[str, str], target: str, now: float) -> Decision:
    """Write os.pem, python.pem, extra.pem and env into `target`, whole and loadable, with this image's own roots.

    The first two hold the roots even when no CA is mounted, so that a variable that points to one is never wrong; all
    hold what is wanted now and nothing withdrawn. Raises NotUpdatedError when the directory cannot be written.
    """
    intake = sources.read(config.root, config.sources)
    found = host.look(config, environ, ())
    snapshot = found._replace(directories=(_as_directory(config.root + target, target),))
    decision = reconcile.decide(config, intake, snapshot, now)
    material = plan.Material(decision.wanted, snapshot, decision.may_go)
    files = {name: _content(name, base, material) for name, base in _FILES}
    pointing = {row.name: f"{target}/{row.store_file}" for row in families.VARIABLES if row.exported}
    try:
        lock = _lock(config.root + target)
        for name, content in {**files, "env": plan.env_file(pointing)}.items():
            path = f"{config.root}{target}/{name}"
            apply.replace(path, content, writer.myself())
    except (OSError, apply.StoreError) as error:
        reason = (error.strerror or "").lower() if isinstance(error, OSError) else str(error)
        raise NotUpdatedError(f"{target} cannot be written ({reason}): mount a writable volume there") from error
    os.close(lock)
    return decision


def _lock(path: str) -> int:
    """Keep other exports from writing into a directory; a file system that locks none, as NFS, goes without."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return apply.lock(descriptor, apply.LOCK_SECONDS)
    except apply.StoreError as error:
        raise NotUpdatedError(f"another export keeps writing into {path}: wait for its end, or stop it") from error
    except OSError:
        return descriptor


_FILES = (("os.pem", "os"), ("python.pem", "python"), ("extra.pem", "nothing"))


def _as_directory(path: str, name: str) -> Directory:
    """Read what an earlier run left, so that what cannot be seen to be withdrawn is kept."""
    found = ((file, reading.read_or_none(f"{path}/{file}")) for file, _ in _FILES)
    files = tuple((file, content) for file, content in found if content is not None)
    return Directory(name, exists=os.path.isdir(path), writable=True, files=files)


def _content(name: str, base: str, material: plan.Material) -> bytes:
    """Return a bundle of what OpenSSL loads. Raises StoreError when it does not load."""
    content = plan.bundle_file(name, base, "", material)
    if base != "nothing" and not bundle.fingerprints(content):
        content = bundle.merged("", bundle.items(_own_roots()), tuple(each.item for each in material.wanted))
    items = bundle.items(content)
    good = loading.loadable([item.pem for item in items])
    bad = frozenset(item.sha256 for item, loads in zip(items, good, strict=True) if not loads)
    refused = material.refused | bad
    return _content(name, base, material._replace(refused=refused)) if refused > material.refused else content


def _own_roots() -> bytes:
    """An image without any store, as the bare runtime is, gets the roots that we bring."""
    import certifi

    return reading.read(certifi.where())
