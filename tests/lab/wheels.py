"""Python packages for builds without network, fetched with the pip settings of this machine."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import threading
from typing import TYPE_CHECKING

from .places import CACHE, ROOT, digest
from .shell import run, say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

# requests as the older images have it, without its own certifi.
_REQUESTS = {
    2: ("requests==2.27.1", "urllib3==1.26.18", "idna==2.10", "chardet==4.0.0"),
    3: ("requests==2.27.1", "urllib3==1.26.18", "idna==3.4", "charset-normalizer==2.0.12"),
}
_PYTHON = {2: "27", 3: "39"}

# What the runtime image's pip accepts, newest first.
_PLATFORMS = [f"manylinux_2_{minor}_{platform.machine()}" for minor in range(36, 4, -1)]


def fetch(generation: int, certifi: str) -> Path:
    """The directory of one generation's wheels: certifi of that age and requests; fetched if it is missing."""
    # Pure Python all of them, so a wheel for any Python serves.
    options = ("--no-deps", "--platform=any", "--python-version", _PYTHON[generation])
    packages = (*_REQUESTS[generation], f"certifi=={certifi}")
    return _fetched(f"python{generation}-certifi-{certifi}", packages, options)


def fetch_for(version: str, *packages: str) -> Path:
    """The directory of packages, and what they need, for one version of Python on this machine's processor."""
    return _fetched(f"python{version}-{digest(packages, _PLATFORMS)}", packages, _tags(version))


def _fetched(name: str, packages: tuple[str, ...], options: tuple[str, ...]) -> Path:
    def download(directory: Path) -> None:
        pip = (sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--dest", directory)
        run(*pip, *options, *packages, environment=os.environ)

    return _kept(name, download)


def fetch_runtime(versions: Iterable[str]) -> Path:
    """The directory of what Dockerfile.example installs under these Pythons, and this one; fetched if missing."""
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    lock, wanted = ROOT / "requirements.lock", sorted({*versions, here})

    def download(directory: Path) -> None:
        for version in wanted:
            _download_locked(lock, directory, version)

    return _kept(f"locked-{digest(lock, wanted)}", download)


def _kept(name: str, download: Callable[[Path], None]) -> Path:
    """The directory of that name in the cache, whole: filled by `download` if it is missing."""
    directory = CACHE / "wheels" / name
    if not directory.exists():
        say(f"pip download: {name}")
        partial = directory.with_name(f"{name}.{os.getpid()}.{threading.get_ident()}")
        download(partial)
        try:
            partial.rename(directory)
        except OSError:  # somebody else was quicker
            shutil.rmtree(partial)
    return directory


def _download_locked(lock: Path, directory: Path, version: str) -> None:
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "--dest", directory)
    run(*pip, "--only-binary=:all:", *_tags(version), "-r", lock, environment=os.environ)


def _tags(version: str) -> tuple[str, ...]:
    """What a wheel may be tagged with, for pip."""
    abis = (f"cp{version.replace('.', '')}", "abi3", "none")
    return (
        "--implementation=cp",
        f"--python-version={version}",
        *(f"--abi={abi}" for abi in abis),
        *(f"--platform={name}" for name in (*_PLATFORMS, "any")),
    )
