"""Users and groups as `/etc/passwd` and `/etc/group` list them. Pure.

Never by NSS: it would map the image's plug-ins into a root process that runs on another libc.
"""

from __future__ import annotations

from shim.errors import PrivilegeError, UnknownUserError
from shim.record import Record

_PASSWD_FIELDS = 7
_GROUP_FIELDS = 4
_ID_DIGITS = 10  # of 2**32
_NAMES_OF_ROOT = ("root", "0")


class Account(Record):
    """Whom the application runs as."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]  # all of them, the primary one included
    home: str  # "" when the account has none


def primary_groups(passwd: str) -> dict[int, int]:
    """Map each uid to its primary gid."""
    return {int(row[2]): int(row[3]) for row in reversed(_rows(passwd, _PASSWD_FIELDS))}


def find(wanted: str, passwd: str, group: str) -> Account:
    """Find `name`, `uid` or `user:group` with the supplementary groups; uid 0 only for `root` and `0`.

    Raises UnknownUserError, and PrivilegeError where /etc/passwd gives uid 0 to another name.
    """
    user, colon, group_name = wanted.partition(":")
    row = _named(user, _rows(passwd, _PASSWD_FIELDS))
    if row is None and not (_is_id(user) and group_name):
        raise UnknownUserError(
            f"the user {user!a} is not in /etc/passwd: set CA_SHIM_USER to the user that runs this image's application"
            + (f", or to {user}:GROUP" if _is_id(user) else "")
        )
    name, uid, home = (row[0], int(row[2]), row[5]) if row else (user, int(user), "")
    if uid == 0 and user not in _NAMES_OF_ROOT:
        remedy = "correct it, or set CA_SHIM_USER=root to run the application as root"
        raise PrivilegeError(f"the user {user!a} has uid 0 in /etc/passwd: {remedy}")
    if colon:
        gid = _gid(group_name, group)
        return Account(name, uid, gid, (gid,), home)
    gid = int(row[3]) if row else 0
    return Account(name, uid, gid, _groups_of(name, gid, group), home)


def _gid(wanted: str, group: str) -> int:
    row = _named(wanted, _rows(group, _GROUP_FIELDS))
    if row is None and not _is_id(wanted):
        raise UnknownUserError(f"the group {wanted!a} is not in /etc/group: correct CA_SHIM_USER")
    return int(row[2]) if row else int(wanted)


def _groups_of(name: str, gid: int, group: str) -> tuple[int, ...]:
    members = [int(row[2]) for row in _rows(group, _GROUP_FIELDS) if name in row[3].split(",")]
    return tuple(dict.fromkeys([gid, *members]))


def _named(wanted: str, rows: list[list[str]]) -> list[str] | None:
    """Find a row by name, else by number, as chown(1) does."""
    by_name = next((row for row in rows if row[0] == wanted), None)
    return by_name or next((row for row in rows if _is_id(wanted) and int(row[2]) == int(wanted)), None)


def _rows(text: str, fields: int) -> list[list[str]]:
    rows = [line.split(":") for line in text.split("\n")]
    return [row for row in rows if len(row) == fields and row[0] and all(map(_is_id, row[2 : fields // 2 + 1]))]


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _ID_DIGITS and int(text) < 2**32 - 1
