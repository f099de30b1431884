"""Immutable records that cost nearly nothing to import.

``typing.NamedTuple`` and ``dataclasses`` each cost about as much as starting the bare interpreter does, and a start
that changes nothing must not pay that. The type checker sees NamedTuple; at run time it is ``collections.namedtuple``.
"""

from __future__ import annotations

__all__ = ["Note", "Record"]

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
