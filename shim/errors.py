"""Errors that end the program; each class says its exit code, each message names its remedy."""

from __future__ import annotations

from shim.record import Record


class ShimError(Exception):
    """Base of all our errors: a sentence for the operator, ending with what to do."""

    code = 70


class UsageError(ShimError):
    """The command line or a CA_SHIM_ variable cannot be understood."""

    code = 64


class RefusedError(ShimError):
    """A block of a mounted file cannot be used, and CA_SHIM_ON_ERROR=stop."""

    code = 65


class SourceMissingError(ShimError):
    """A named source is missing, unreadable or holds no certificate, and CA_SHIM_ON_ERROR=stop."""

    code = 66


class UnknownUserError(ShimError):
    """The user that the application should run as does not exist."""

    code = 67


class NotUpdatedError(ShimError):
    """A store could not be updated in place or by override, and CA_SHIM_ON_ERROR=stop."""

    code = 71


class NotPrintedError(ShimError):
    """What a command was asked for cannot be written to stdout."""

    code = 74


class PrivilegeError(ShimError):
    """Privileges could not be dropped: the application never runs as root by accident."""

    code = 77


class NotExecutableError(ShimError):
    """The command exists but cannot be executed."""

    code = 126


class NotFoundError(ShimError):
    """The command does not exist."""

    code = 127


class ExitCode(Record):
    """A row of the README's table of exit codes."""

    code: int
    meaning: str


EXIT_CODES = (
    ExitCode(0, "all well; after `run` the codes are the application's own"),
    ExitCode(
        1,
        "`status`: a mounted CA is missing or unreadable, or a withdrawn one is there; `verify`, `selftest`: refused",
    ),
    ExitCode(2, "`status`: a store does not load"),
    ExitCode(3, "`plan --exit-code`: something would change"),
    ExitCode(64, "usage: the command line or a `CA_SHIM_` variable cannot be understood"),
    ExitCode(65, "`CA_SHIM_ON_ERROR=stop`: a block of a mounted file cannot be used"),
    ExitCode(66, "`CA_SHIM_ON_ERROR=stop`: a named source is missing, unreadable or holds no certificate"),
    ExitCode(67, "the user that the application should run as does not exist"),
    ExitCode(70, "a bug of ours, in a command that starts no application"),
    ExitCode(
        71, "`CA_SHIM_ON_ERROR=stop`: a store was not updated; `export`, `selftest`: no directory, or two at once"
    ),
    ExitCode(74, "what a command prints could not be written, as on a full disk"),
    ExitCode(77, "privileges could not be dropped; the application was not started"),
    ExitCode(126, "the command cannot be executed"),
    ExitCode(127, "the command was not found"),
    ExitCode(129, "`selftest` received SIGHUP and undid its changes"),
    ExitCode(130, "interrupted by SIGINT before the application started, or in `selftest`"),
    ExitCode(143, "ended by SIGTERM before the application started, or in `selftest`"),
)

STOP_ERRORS = {error.code: error for error in (RefusedError, SourceMissingError, NotUpdatedError)}
