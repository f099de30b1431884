"""Machines for real processes: the same directories that the edge is tried with."""

from __future__ import annotations

from tests.edge.conftest import debian, place, rhel

__all__ = ["debian", "place", "rhel"]
