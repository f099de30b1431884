"""Python packages that the stand-ins install without network, fetched with the pip settings of this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .places import CACHE
from .shell import run, say

# requests as the older images have it, without its own certifi.
_REQUESTS = {
    2: ("requests==2.27.1", "urllib3==1.26.18", "idna==2.10", "chardet==4.0.0"),
    3: ("requests==2.27.1", "urllib3==1.26.18", "idna==3.4", "charset-normalizer==2.0.12"),
}
_PYTHON = {2: "27", 3: "39"}


def fetch(generation: int, certifi: str) -> Path:
    """The directory of one generation's wheels: certifi of that age and requests; fetched if it is missing."""
    packages = (*_REQUESTS[generation], f"certifi=={certifi}")
    directory = CACHE / "wheels" / f"python{generation}-certifi-{certifi}"
    if not directory.exists():
        say(f"pip download {' '.join(packages)}")
        partial = directory.with_name(f"{directory.name}.{os.getpid()}")
        pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", partial)
        # Pure Python all of them, so a wheel for any Python serves.
        only = ("--only-binary=:all:", "--platform=any", "--python-version", _PYTHON[generation])
        run(*pip, *only, *packages, environment=os.environ)
        partial.rename(directory)
    return directory
