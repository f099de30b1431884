"""The command line: wiring, the order of events, and the only place that turns an error into an exit."""

from __future__ import annotations

import os
import sys
import time

from shim import become, config, families, log, signals
from shim.errors import STOP_ERRORS, ShimError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from shim.config import Config
    from shim.options import Parsed
    from shim.reconcile import Outcome
    from shim.record import Note

_NAME = "ca-shim"
_NOTHING = f"no CA was found: mount CA files on {families.DEFAULT_SOURCES[0]}"
_NAMES = (_NAME, "__main__.py")  # any other name is that of a program that `wrap` put the shim in front of


def main() -> int:
    """Run one invocation: of ca-shim itself, or of a program that `wrap` put it in front of."""
    signals.end_at_once()
    environ = become.started_environment()
    _clean_own_environment()
    started = time.monotonic()
    _tell_unknown(environ)
    try:
        if os.path.basename(sys.argv[0]) not in _NAMES:
            program = families.WRAPPED + os.path.realpath(sys.argv[0])
            _run(config.read(environ), environ, [program, *sys.argv[1:]], started)
        if sys.argv[1:3] == ["run", "--"] and sys.argv[3:]:
            _run(config.read(environ), environ, sys.argv[3:], started)
        return _command(sys.argv[1:], environ, started)
    except ShimError as error:
        log.emit("shim.failed", reason=str(error), code=error.code)
        return error.code
    except Exception as error:  # noqa: BLE001 - of a command that starts no application
        _report_bug(error)
        return ShimError.code


def _tell_unknown(environ: Mapping[str, str]) -> None:
    try:
        log.notes(config.unknown(environ))
    except Exception as error:  # noqa: BLE001 - it is a remark
        _report_bug(error)


def _clean_own_environment() -> None:
    """Drop what would steer our own libraries; the application gets its environment as it was."""
    for name in [name for name in os.environ if name.startswith(families.LIBRARY_VARIABLES)]:
        del os.environ[name]
    os.environ["OPENSSL_CONF"] = os.devnull  # without it, ours would read the image's, and map what that names


def _run(settings: Config, environ: dict[str, str], command: Sequence[str], started: float) -> None:
    """Look, plan, apply, verify, become. Does not return."""
    settings = settings._replace(alone=os.getpid() == 1)
    account = become.find_account(settings.user, settings.root)
    become.require(account)
    outcome = None if settings.off else _trust_or_log(settings, environ, command, started)
    if outcome:
        _set_variables(environ, outcome)
    if settings.off and environ.get("CA_SHIM"):  # a health check says --off, every few seconds
        log.fixed("shim.off", remedy="unset CA_SHIM to have the mounted CAs installed")
    become.become(account, environ)
    if not settings.off and (outcome is None or not outcome.remembered):
        log.emit("handover", program=command[0], uid=os.geteuid(), gid=os.getegid())
    become.execute(command, environ)


def _set_variables(environ: dict[str, str], outcome: Outcome) -> None:
    for name, value in outcome.restored.items():
        if value is None:
            environ.pop(name, None)
        else:
            environ[name] = value
    environ.update(outcome.variables)


def _trust_or_log(
    settings: Config, environ: Mapping[str, str], command: Sequence[str], started: float
) -> Outcome | None:
    """Reconcile; an error of ours is logged and never takes the application down, unless on-error is stop."""
    outcome = None
    try:
        from shim import reconcile

        outcome = reconcile.reconcile(settings, environ, command, time.time())
        _report(outcome, started)
        _stop_on_problems(settings, outcome.problems)
    except ShimError:
        raise
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a parser's panic is no Exception
        _report_bug(error)
        if settings.stop:
            raise ShimError("an error of the shim, and CA_SHIM_ON_ERROR=stop: report the line above") from error
    return outcome


def _report(outcome: Outcome, started: float) -> None:
    if outcome.remembered:
        nothing = {} if outcome.certificates else {"remedy": _NOTHING}
        some = {"remedy": f"{families.COMMAND} status names them"} if outcome.known_problems else nothing
        log.fixed("trust.ready", changes=0, certificates=outcome.certificates, problems=outcome.known_problems, **some)
        return
    log.notes(outcome.notes)
    log.emit(
        "trust.ready",
        changes=outcome.changes,
        certificates=outcome.certificates,
        problems=len(outcome.problems),
        stores=dict(outcome.stores),
        variables=sorted(outcome.variables),
        milliseconds=round((time.monotonic() - started) * 1000),
    )


def _report_bug(error: BaseException) -> None:
    """Log an error of ours. Raises nothing."""
    try:
        import traceback

        trace, reason = "".join(traceback.format_exception(error))[-4000:], repr(error)
    except Exception:  # noqa: BLE001 - the error is in the way of its own description
        trace, reason = "", type(error).__name__
    log.emit("shim.bug", reason=reason, traceback=trace, remedy="please report this line")


def _stop_on_problems(settings: Config, problems: tuple[Note, ...]) -> None:
    if settings.stop and problems:
        code = min(note.code for note in problems)
        count = "a problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise STOP_ERRORS[code](f"{count}, and CA_SHIM_ON_ERROR=stop: see the lines above")


def _command(arguments: Sequence[str], environ: dict[str, str], started: float) -> int:
    """Run a subcommand; the parser is imported here, since the wrapped programs have no options of ours."""
    from shim import options

    parsed = options.parse(arguments)
    settings = config.read(environ, parsed.settings, parsed.root)
    if parsed.command == "run":
        if not parsed.words:
            raise UsageError("run needs a command: ca-shim run [options] -- COMMAND...")
        _run(settings, environ, parsed.words, started)
    return _COMMANDS[parsed.command](settings, environ, parsed)


def _plan(settings: Config, environ: dict[str, str], parsed: Parsed) -> int:
    from shim import preview

    decision, planned = preview.make(settings._replace(alone=False), environ, (), time.time())
    preview.show(decision, planned, as_json=parsed.as_json)
    return preview.WOULD_CHANGE if parsed.exit_code and planned.steps else 0


def _status(settings: Config, environ: dict[str, str], parsed: Parsed) -> int:
    from shim import status

    found = status.look(settings, environ, time.time(), strict=parsed.strict)
    status.show(found, as_json=parsed.as_json)
    return found.code


def _verify(settings: Config, environ: dict[str, str], parsed: Parsed) -> int:
    from shim import probe

    return probe.main(settings, environ, parsed.words, parsed.behind, as_json=parsed.as_json)


def _selftest(settings: Config, environ: dict[str, str], parsed: Parsed) -> int:
    from shim import selftest

    return selftest.main(settings, environ, as_json=parsed.as_json)


def _env(settings: Config, environ: dict[str, str], parsed: Parsed) -> int:
    del parsed
    from shim import host, preview

    lines = preview.exports(settings, environ).split("\n")[:-1]
    log.say(*lines)
    uid = host.uid_of_last_start(settings, environ)
    if not lines and uid != os.geteuid():
        log.emit("env.elsewhere", uid=uid, remedy=f"ask as that user: docker exec -u {uid}, or su")
    return 0


def _export(settings: Config, environ: dict[str, str], parsed: Parsed) -> int:
    from shim import export

    decision = export.export(settings, environ, os.path.abspath(parsed.words[0]), time.time())
    log.notes(decision.notes)
    log.emit("trust.exported", certificates=len(decision.wanted), directory=os.path.abspath(parsed.words[0]))
    _stop_on_problems(settings, tuple(note for note in decision.notes if note.code))
    return 0


def _install(settings: Config, environ: dict[str, str], parsed: Parsed) -> int:
    del parsed
    from shim import reconcile

    started = time.monotonic()
    outcome = reconcile.reconcile(settings._replace(alone=False), environ, (), time.time())
    _report(outcome, started)
    _stop_on_problems(settings, outcome.problems)
    return 0


def _wrap(settings: Config, environ: dict[str, str], parsed: Parsed) -> int:
    from shim import wrap

    become.find_account(settings.user, settings.root)
    done = wrap.wrap(settings.root, parsed.words, environ.get("PATH", ""))
    log.say(*done)
    return 0


_COMMANDS: dict[str, Callable[[Config, dict[str, str], Parsed], int]] = {
    "install": _install,
    "plan": _plan,
    "status": _status,
    "env": _env,
    "verify": _verify,
    "selftest": _selftest,
    "export": _export,
    "wrap": _wrap,
}
