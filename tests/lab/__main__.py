"""`python -m tests.lab` builds every image and certificate that the container tests need."""

from __future__ import annotations

import time

from . import images, pki, wheels
from .shell import say

start = time.monotonic()
pki.prepare()
wheels.fetch_runtime(images.PYTHONS)
images.prepare()
say(f"everything is there after {time.monotonic() - start:.0f} s")
