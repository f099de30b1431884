"""`ca-shim export DIR`: in an init container, write the bundles that the main containers point their variables to."""

from __future__ import annotations

import os

from shim import apply, bundle, families, host, plan, reading, reconcile, sources, writer
from shim.errors import NotUpdatedError
from shim.snapshot import Directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from shim.config import Config
    from shim.reconcile import Decision
    from shim.snapshot import Snapshot


def export(config: Config, environ: Mapping[str, str], target: str, now: float) -> Decision:
    """Write os.pem, python.pem, extra.pem and env into `target`, whole and loadable, with this image's own roots.

    The first two hold the roots even when no CA is mounted, so that a variable that points to one is never wrong; all
    hold what is wanted now and nothing withdrawn. Raises NotUpdatedError when the directory cannot be written.
    """
    intake = sources.read(config.root, config.sources)
    found = host.look(config, environ, ())
    snapshot = found._replace(directories=(_as_directory(config.root + target, target),))
    decision = reconcile.decide(config, intake, snapshot, now)
    files = {name: _content(base, decision, snapshot) for name, base in _FILES}
    pointing = {row.name: f"{target}/{row.store_file}" for row in families.VARIABLES if row.exported}
    try:
        for name, content in {**files, "env": plan.env_file(pointing)}.items():
            path = f"{config.root}{target}/{name}"
            apply.replace(path, content, writer.myself(), pem=len(bundle.fingerprints(content)))
    except (OSError, apply.StoreError) as error:
        reason = (error.strerror or "").lower() if isinstance(error, OSError) else str(error)
        raise NotUpdatedError(f"{target} cannot be written ({reason}): mount a writable volume there") from error
    return decision


_FILES = (("os.pem", "os"), ("python.pem", "python"), ("extra.pem", "nothing"))


def _as_directory(path: str, name: str) -> Directory:
    """Read what an earlier run left, so that what cannot be seen to be withdrawn is kept."""
    extra = reading.read_or_none(f"{path}/extra.pem")
    return Directory(name, exists=os.path.isdir(path), writable=True, files=(("extra.pem", extra),) if extra else ())


def _content(base: str, decision: Decision, snapshot: Snapshot) -> bytes:
    content = plan.override_file(base, "", decision.wanted, snapshot)
    if base != "nothing" and not bundle.fingerprints(content):
        return bundle.merged("", bundle.items(_own_roots()), tuple(each.item for each in decision.wanted))
    return content


def _own_roots() -> bytes:
    """An image without any store, as the bare runtime is, gets the roots that we bring."""
    import certifi

    return reading.read(certifi.where())
