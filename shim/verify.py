"""After acting: which certificate is where. Pure."""

from __future__ import annotations

from shim import bundle, plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shim.snapshot import Snapshot


def holdings(snapshot: Snapshot) -> dict[str, frozenset[str]]:
    """Return the fingerprints that each store and each override bundle holds, by its path."""
    files = {store.path: store.content for store in snapshot.certifi}
    if snapshot.os.path:
        files[snapshot.os.path] = snapshot.os.content
    for directory in snapshot.directories:
        files.update(
            {f"{directory.path}/{name}": content for name, content in directory.files if name.endswith(".pem")}
        )
    return {path: bundle.fingerprints(content) for path, content in files.items()}


def ours(snapshot: Snapshot) -> dict[str, frozenset[str]]:
    """Return the fingerprints that each store holds because of us, and what of extra.pem is ours, by path."""
    found = {snapshot.os.path: plan.ours_in(snapshot.os)} if snapshot.os.path else {}
    for store in snapshot.certifi:
        if bundle.looks_whole(store.content):
            found[store.path] = bundle.fingerprints(bundle.split(store.content)[1])
    for directory in snapshot.directories:
        for name, content in directory.files:
            if name == "extra.pem":
                found[f"{directory.path}/{name}"] = frozenset(item.sha256 for item in bundle.marked(content))
    return found


def withdrawn(before: Snapshot, after: Snapshot) -> dict[str, list[str]]:
    """Map every fingerprint of ours that is gone to the stores that it is gone from."""
    have = holdings(after)
    gone: dict[str, list[str]] = {}
    for path, held in ours(before).items():
        for sha256 in sorted(held - have.get(path, frozenset())):
            gone.setdefault(sha256, []).append(path)
    return gone


def installed(snapshot: Snapshot) -> tuple[tuple[str, bytes], ...]:
    """Return what is ours in every store, as (path, content) to parse."""
    whole = (store for store in snapshot.certifi if bundle.looks_whole(store.content))
    blocks = [(store.path, bundle.split(store.content)[1]) for store in whole]
    extras = [
        (f"{directory.path}/{name}", b"".join(item.pem for item in bundle.marked(content)))
        for directory in snapshot.directories
        for name, content in directory.files
        if name == "extra.pem"
    ]
    return tuple(file for file in (*snapshot.os.anchors, *blocks, *extras) if file[1])
