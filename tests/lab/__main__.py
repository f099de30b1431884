"""`python -m tests.lab` builds every image and certificate that the container tests need."""

from __future__ import annotations

import time

from . import images, pki
from .shell import say

start = time.monotonic()
pki.prepare()
images.prepare()
say(f"everything is there after {time.monotonic() - start:.0f} s")
