"""Machines for real processes: the same directories that the edge is tried with."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.edge.conftest import debian, place, rhel

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["debian", "place", "rhel"]


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """What started the tests may ignore signals, as `nohup` does, and a child would inherit that."""
    numbers = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
    ignored = [number for number in numbers if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
