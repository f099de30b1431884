"""Become: the user, the signals and the exec that hand this process over to the application."""

from __future__ import annotations

import os
import stat
from errno import ENOEXEC

from shim import accounts, reading, signals, writer
from shim.errors import NotExecutableError, NotFoundError, PrivilegeError
from shim.interpreters import DEFAULT_PATH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping, Sequence

    from shim.accounts import Account


def started_environment() -> dict[str, str]:
    """Return the environment as the kernel keeps it from our start; Python may have added LC_CTYPE to its own."""
    try:
        with open("/proc/self/environ", "rb") as file:
            raw = file.read()
    except OSError:
        return dict(os.environ)
    pairs: dict[str, str] = {}
    for entry in raw.split(b"\0"):
        name, equals, value = entry.partition(b"=")
        if equals and name:
            pairs.setdefault(os.fsdecode(name), os.fsdecode(value))
    return pairs


def find_account(user: str, root: str) -> Account | None:
    """Return the account that root is to become, None when we are not root. Raises UnknownUserError."""
    if os.geteuid() != 0:
        return None
    passwd, group = (
        (reading.read_or_none(f"{root}/etc/{name}") or b"").decode("utf-8", "surrogateescape")
        for name in ("passwd", "group")
    )
    return accounts.find(user, passwd, group)


def require(account: Account | None) -> None:
    """Raise PrivilegeError now if `become` will: it is the one line that such a start should print."""
    if account is None or account.uid == 0:
        return
    try:
        with writer.Acting(writer.Owner(account.uid, account.gid)):
            return
    except OSError as error:
        raise _refused(account, error) from error


def become(account: Account | None, environ: MutableMapping[str, str]) -> None:
    """Switch to the account for good, and prove it; afterwards HOME fits. Without an account nothing changes.

    Raises PrivilegeError: the application never runs as root by accident.
    """
    if account is None:
        return
    if account.home and environ.get("HOME", "/") in ("", "/", "/root"):
        environ["HOME"] = account.home
    if account.uid == 0 and _is_already(account):
        return
    _give_streams(account.uid)
    try:
        os.setgroups(account.groups)
        os.setresgid(account.gid, account.gid, account.gid)
        os.setresuid(account.uid, account.uid, account.uid)
    except OSError as error:
        raise _refused(account, error) from error
    if account.uid != 0 and _can_return():
        raise PrivilegeError(f"after becoming {account.name} root could be had back: clear the container's securebits")


def _give_streams(uid: int) -> None:
    """Return the FIFOs, sockets and the terminal at descriptors 0 to 2 to a user, as container runtimes do.

    Else /dev/stdout and /dev/stderr would not open for the application. The group stays, and so does a terminal that
    a shell of root's reads its commands from: its new owner could type there.
    """
    for descriptor in (0, 1, 2):
        try:
            mode = os.fstat(descriptor).st_mode
            alone = os.isatty(descriptor) and os.getsid(0) == os.getpid()
            if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or alone:
                os.fchown(descriptor, uid, -1)
        except OSError:  # it is closed, or its owner cannot be changed here: the application can still write to it
            continue


def _refused(account: Account, error: OSError) -> PrivilegeError:
    reason = (error.strerror or "refused").lower()
    return PrivilegeError(
        f"root cannot become {account.name} ({reason}): allow the capabilities SETUID and SETGID, "
        f"start the container as uid {account.uid}, or say CA_SHIM_USER=root"
    )


def _is_already(account: Account) -> bool:
    return os.getresgid() == (account.gid,) * 3


def _can_return() -> bool:
    try:
        os.setuid(0)
    except OSError:
        return False
    return True


def execute(command: Sequence[str], environ: Mapping[str, str], program: str = "") -> None:
    """Replace this process by the command, found on the PATH that it will have; raises only if that fails.

    `program` is the file to execute when it is not the command's first word. Raises NotFoundError, NotExecutableError.
    """
    signals.restore_defaults()
    refusal: OSError | None = None
    for candidate in [program] if program else _candidates(command[0], environ):
        try:
            _execute(candidate, command, environ)
        except (FileNotFoundError, NotADirectoryError) as error:
            refusal = error if os.path.isfile(candidate) else refusal  # its interpreter is missing
        except OSError as error:
            refusal = error
    if refusal:
        reason = (refusal.strerror or "refused").lower()
        raise NotExecutableError(f"{command[0]} cannot be executed ({reason}): check its mode and its first line")
    raise NotFoundError(f"{command[0]} was not found: check the command and its PATH")


def _candidates(name: str, environ: Mapping[str, str]) -> list[str]:
    if "/" in name or not name:
        return [name] if name else []
    return [f"{directory or '.'}/{name}" for directory in environ.get("PATH", DEFAULT_PATH).split(":")]


def _execute(path: str, command: Sequence[str], environ: Mapping[str, str]) -> None:
    """Execute a file, a script without a first line `#!` by /bin/sh, as shells and execvp(3) do."""
    try:
        os.execve(path, list(command), environ)  # noqa: S606 - it is the application
    except OSError as error:
        if error.errno != ENOEXEC or b"\0" in reading.head(path):
            raise
    os.execve("/bin/sh", ["/bin/sh", path, *command[1:]], environ)  # noqa: S606 - as above
