"""`python -m tests.lab` builds every image and certificate that the container tests need."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from . import derived, images, pki, wheels
from .rows import CLIENTS, ROWS
from .shell import say

start = time.monotonic()
pki.prepare()
wheels.fetch_runtime(images.PYTHONS)
images.prepare()
# The first build makes the runtime stage that all others take from the cache; these wait for storage, not for a core.
first, *others = ROWS
derived.image(first)
with ThreadPoolExecutor(3) as pool:
    list(pool.map(derived.image, (*others, CLIENTS)))
say(f"everything is there after {time.monotonic() - start:.0f} s")
