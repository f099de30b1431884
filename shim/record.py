"""Immutable records that cost nearly nothing to import.

``typing.NamedTuple`` and ``dataclasses`` each cost about as much as starting the bare interpreter does, and a start
that changes nothing must not pay that. The type checker sees NamedTuple; at run time it is ``collections.namedtuple``.
"""

from __future__ import annotations

__all__ = ["Note", "Notes", "Record"]

_MAX_NOTES = 200

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple as Record
else:
    from collections import namedtuple

    class _Fields(type):
        """Turn the annotations of a class body into the fields of a named tuple."""

        def __new__(mcs, name, bases, body):
            if not bases:
                return super().__new__(mcs, name, bases, body)
            fields = tuple(body.pop("__annotations__", ()))
            defaults = [body.pop(field) for field in fields if field in body]
            return type(name, (namedtuple(name, fields, defaults=defaults),), {"__slots__": (), **body})

    class Record(metaclass=_Fields):
        """Base of every record: ``class Point(Record): x: int; y: int = 0``."""


class Note(Record):
    """Something the operator should read: a fixed event and its details; a problem when ``code`` is not 0.

    ``code`` is the exit code under ``CA_SHIM_ON_ERROR=stop``.
    """

    event: str
    details: tuple[tuple[str, object], ...] = ()
    code: int = 0


class Notes:
    """Notes as they come up: the first few hundred of each event, and one that says how many more there are.

    A limit of what is told, not of what is read: the code of those left out stays.
    """

    def __init__(self) -> None:
        self._told: list[Note] = []
        self._counts: dict[str, int] = {}
        self._codes: dict[str, int] = {}  # of what was left out

    def add(self, note: Note) -> None:
        """Add one."""
        count = self._counts[note.event] = self._counts.get(note.event, 0) + 1
        if count <= _MAX_NOTES:
            self._told.append(note)
        else:
            self._codes[note.event] = max(self._codes.get(note.event, 0), note.code)

    def all(self) -> tuple[Note, ...]:
        """Return what is to be told."""
        remedy = "mend what is named above, and start again"
        rest = (
            (event, f"{self._counts[event] - _MAX_NOTES} more lines of this kind are left out") for event in self._codes
        )
        return (*self._told, *(Note(e, (("reason", why), ("remedy", remedy)), self._codes[e]) for e, why in rest))
