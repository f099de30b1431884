"""Where the lab keeps what it makes: all of it below the repository's `.cache`, which git ignores."""

from __future__ import annotations

import hashlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache"
CONTEXT = Path(__file__).resolve().parent / "context"


def digest(*parts: object) -> str:
    """Twelve hex digits that change when one of the parts does; a path counts by all that lies below it."""
    total = hashlib.sha256()
    for part in parts:
        for line in _content(part):
            total.update(line + b"\0")
    return total.hexdigest()[:12]


def _content(part: object) -> list[bytes]:
    if not isinstance(part, Path):
        return [repr(part).encode()]
    files = sorted(p for p in part.rglob("*") if p.is_file()) if part.is_dir() else [part]
    return [line for p in files for line in (p.name.encode(), p.read_bytes())]
