"""The application cannot tell that we were there."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.certificates import root
from tests.process.start import PATH, PYTHON, arguments, as_user, events, last, needs_root, start

if TYPE_CHECKING:
    from pathlib import Path

    from tests.edge.machine import Machine

pytestmark = needs_root
A = root("A")
ROOT = ("--user", "root", "--")
ANCHORE = ("--user", "anchore", "--")


@pytest.fixture(params=[False, True], ids=["nothing mounted", "a CA mounted"])
def machine(rhel: Machine, request: pytest.FixtureRequest) -> Machine:
    if request.param:
        rhel.mount(a=A.pem)
    return rhel


def status(machine: Machine, *names: str, before: tuple[str, ...] = ANCHORE, **options: Any) -> list[list[str]]:
    text = start(machine, *before, "/bin/cat", "/proc/self/status", **options).stdout.decode()
    fields = {line.partition(":")[0]: line.partition(":")[2].split() for line in text.splitlines()}
    return [fields[name] for name in names]


def test_stdout_is_the_application_s_alone(machine: Machine) -> None:
    assert start(machine, *ROOT, "echo", "x").stdout == b"x\n"


@pytest.mark.parametrize("code", [0, 1, 42, 255])
def test_the_exit_code_is_the_application_s(machine: Machine, code: int) -> None:
    assert start(machine, *ROOT, "sh", "-c", f"exit {code}").returncode == code


def test_the_process_is_the_same(machine: Machine) -> None:
    with subprocess.Popen(
        arguments(machine, *ROOT, "sh", "-c", "echo $$"), env=PATH, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        out, _ = process.communicate(timeout=60)

    assert int(out) == process.pid


def test_the_arguments_arrive_as_they_are(machine: Machine) -> None:
    words = ["", "a b", "--user", "--", "*", "$HOME", "ő", "\n"]

    assert start(machine, *ROOT, "printf", "%s|", *words).stdout == "".join(f"{w}|" for w in words).encode()


ODD = {
    **PATH,
    "a.b": "1",
    "LANG": "hu_HU.UTF-8",
    "EMPTY": "",
    "WITH=IN": "value",
    "NEWLINE": "a\nb",
    "HOME": "/somewhere",
    "OPENSSL_CONF": "/nowhere.cnf",
    "SSL_CERT_DIR": "/etc/ssl/certs",
    "PYTHONPATH": "/nowhere",
    "CA_SHIM_ON_ERROR": "warn",
}
del ODD["WITH=IN"]


@pytest.mark.parametrize(
    "environ",
    [
        pytest.param(ODD, id="odd names and values"),
        pytest.param({**PATH, "HOME": "/x"}, id="no locale"),
        pytest.param({**PATH, "HOME": "/x", "LANG": "C"}, id="C locale"),
        pytest.param({**PATH, "HOME": "/x", "LC_ALL": "POSIX"}, id="POSIX locale"),
        pytest.param({**PATH, "HOME": "/x", "LC_CTYPE": "xx_XX"}, id="missing locale"),
    ],
)
def test_the_environment_is_as_it_was_when_nothing_is_mounted(rhel: Machine, environ: dict[str, str]) -> None:
    out = start(rhel, *ROOT, "/bin/cat", "/proc/self/environ", environ=environ).stdout

    assert out == b"".join(f"{name}={value}\0".encode() for name, value in environ.items())


def test_bytes_that_are_no_utf_8_survive_in_the_environment(rhel: Machine) -> None:
    environ = {b"PATH": b"/bin", b"RAW": b"\xff\xfe", b"\xe9": b"x", b"HOME": b"/x"}
    words = arguments(rhel, *ROOT, "/bin/cat", "/proc/self/environ")
    out = subprocess.run(words, env=environ, capture_output=True, check=False).stdout

    assert out == b"".join(name + b"=" + value + b"\0" for name, value in environ.items())


def test_with_a_ca_only_the_documented_variable_is_added(rhel: Machine) -> None:
    rhel.mount(a=A.pem)
    out = start(rhel, *ROOT, "/bin/cat", "/proc/self/environ", environ=ODD).stdout

    assert dict(each.split(b"=", 1) for each in out.split(b"\0") if each) == {
        **{name.encode(): value.encode() for name, value in ODD.items()},
        b"NODE_EXTRA_CA_CERTS": b"/run/ca-shim/extra.pem",
    }


def test_without_any_environment_the_application_starts(rhel: Machine) -> None:
    assert start(rhel, *ROOT, "/bin/cat", "/proc/self/environ", environ={}).stdout == b"HOME=/root\0"


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o027, 0o077], ids=oct)
def test_the_umask_stays(machine: Machine, mask: int) -> None:
    assert int(start(machine, *ROOT, "sh", "-c", "umask", umask=mask).stdout, 8) == mask


def test_the_working_directory_stays(machine: Machine, place: Path) -> None:
    assert start(machine, *ROOT, "pwd", cwd=place).stdout == f"{place}\n".encode()


def test_a_working_directory_that_is_gone_stops_nobody(rhel: Machine, place: Path) -> None:
    (place / "gone").mkdir()
    script = f"cd {place}/gone && rmdir ../gone && exec " + " ".join(arguments(rhel, *ROOT, "echo", "x"))

    assert subprocess.run(["sh", "-c", script], env=PATH, capture_output=True, check=False).stdout == b"x\n"


def test_the_descriptors_are_those_that_were_open_before(machine: Machine) -> None:
    with open("/dev/null") as inherited:
        passed = [inherited.fileno()]
        direct = subprocess.run(["ls", "/proc/self/fd"], pass_fds=passed, capture_output=True, check=False).stdout
        seen = start(machine, *ROOT, "ls", "/proc/self/fd", pass_fds=passed).stdout

    assert seen == direct


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_a_closed_standard_descriptor_stops_nobody(machine: Machine, place: Path, closed: int) -> None:
    words = " ".join(arguments(machine, *ROOT, "touch", f"{place}/done"))
    subprocess.run(["sh", "-c", f"exec {closed}>&-; exec {words}"], env=PATH, capture_output=True, check=False)

    assert (place / "done").exists()


def test_limits_stay(machine: Machine) -> None:
    words = " ".join(arguments(machine, *ROOT, "sh", "-c", '"ulimit -n"'))
    out = subprocess.run(["sh", "-c", f"ulimit -n 77; exec {words}"], env=PATH, capture_output=True, check=False).stdout

    assert out == b"77\n"


@pytest.mark.parametrize(
    "ignored", [(), (signal.SIGTERM,), (signal.SIGINT, signal.SIGHUP)], ids=["none", "TERM", "INT HUP"]
)
def test_signals_are_ignored_and_blocked_as_without_us(machine: Machine, ignored: tuple[signal.Signals, ...]) -> None:
    def prepare() -> None:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)

    text = subprocess.run(
        ["/bin/cat", "/proc/self/status"], capture_output=True, check=False, preexec_fn=prepare
    ).stdout.decode()
    direct = [line.split()[1:] for line in text.splitlines() if line.startswith(("SigBlk", "SigIgn", "SigCgt"))]

    assert status(machine, "SigBlk", "SigIgn", "SigCgt", preexec_fn=prepare) == direct


def test_root_becomes_the_application_s_user_with_its_groups_for_good(machine: Machine) -> None:
    machine.write("/etc/group", b"anchore:x:1000:\ndocker:x:998:anchore\n")

    assert status(machine, "Uid", "Gid", "Groups") == [["1000"] * 4, ["1000"] * 4, ["998", "1000"]]


def test_no_capability_is_left(machine: Machine) -> None:
    assert status(machine, "CapPrm", "CapEff", "CapAmb") == [["0" * 16]] * 3


def test_root_said_aloud_stays_root(machine: Machine) -> None:
    assert status(machine, "Uid", before=ROOT) == [["0"] * 4]


def test_a_uid_that_nobody_has_can_be_named_with_its_group(machine: Machine) -> None:
    assert status(machine, "Uid", "Gid", "Groups", before=("--user", "54321:0", "--")) == [
        ["54321"] * 4,
        ["0"] * 4,
        ["0"],
    ]


@pytest.mark.parametrize(
    ("given", "home"),
    [
        pytest.param({}, b"/home/anchore", id="unset"),
        pytest.param({"HOME": ""}, b"/home/anchore", id="empty"),
        pytest.param({"HOME": "/"}, b"/home/anchore", id="slash"),
        pytest.param({"HOME": "/root"}, b"/home/anchore", id="root's"),
        pytest.param({"HOME": "/data"}, b"/data", id="somebody's choice"),
    ],
)
def test_home_is_the_user_s_unless_somebody_chose_another(rhel: Machine, given: dict[str, str], home: bytes) -> None:
    out = start(rhel, *ANCHORE, "/bin/cat", "/proc/self/environ", environ={**PATH, **given}).stdout

    assert b"HOME=" + home in out.split(b"\0")


# Exit codes of our own


@pytest.mark.parametrize(
    ("words", "environ", "code"),
    [
        pytest.param(["--user", "root"], {}, 64, id="no command"),
        pytest.param(["--unknown", "--", "echo"], {}, 64, id="unknown option"),
        pytest.param([*ROOT, "echo"], {"CA_SHIM": "maybe"}, 64, id="a variable that cannot be understood"),
        pytest.param(["--user", "nobody-at-all", "--", "echo"], {}, 67, id="unknown user"),
        pytest.param(["--user", "54321", "--", "echo"], {}, 67, id="unlisted uid without a group"),
        pytest.param([*ROOT, "no-such-program"], {}, 127, id="no such program"),
        pytest.param([*ROOT, "/no/such/program"], {}, 127, id="no such path"),
        pytest.param([*ROOT, "/etc/passwd/program"], {}, 127, id="below a file"),
        pytest.param([*ROOT, ""], {}, 127, id="empty name"),
        pytest.param([*ROOT, "/etc/passwd"], {}, 126, id="not executable"),
        pytest.param([*ROOT, "/etc"], {}, 126, id="a directory"),
        pytest.param(["--on-error", "stop", "--certs", "/absent", *ROOT, "echo"], {}, 66, id="named source missing"),
    ],
)
def test_what_stops_a_start_has_its_exit_code_and_starts_nothing(
    rhel: Machine, words: list[str], environ: dict[str, str], code: int
) -> None:
    done = start(rhel, *words, environ={**PATH, **environ})

    assert (done.returncode, done.stdout) == (code, b"")
    assert last(done.stderr) == ("shim.failed", code)


def test_the_default_user_that_is_missing_stops_the_start(rhel: Machine) -> None:
    rhel.write("/etc/passwd", b"root:x:0:0::/root:/bin/sh\n")
    done = start(rhel, "--", "echo", "x")

    assert (done.returncode, done.stdout) == (67, b"")


def test_a_bad_block_is_fatal_only_when_it_was_asked_for(rhel: Machine) -> None:
    rhel.mount(a=A.pem[:200])

    assert start(rhel, *ROOT, "true").returncode == 0
    assert start(rhel, "--on-error", "stop", *ROOT, "true").returncode == 65


def test_a_store_out_of_reach_is_fatal_only_when_it_was_asked_for(rhel: Machine) -> None:
    rhel.path(rhel.family.tool).unlink()
    for name in ("run", "tmp"):
        rhel.path(name).rmdir()
    rhel.mount(a=A.pem)

    assert start(rhel, *ROOT, "true").returncode == 0
    assert start(rhel, "--on-error", "stop", *ROOT, "true").returncode == 71


def test_a_secret_with_ca_leaf_and_key_is_no_problem(rhel: Machine) -> None:
    from tests.certificates import leaf

    rhel.mount(ca=root().pem, tls=leaf().pem, key=A.key_pem)

    assert start(rhel, "--on-error", "stop", *ROOT, "true").returncode == 0


@pytest.mark.parametrize(
    ("content", "code"),
    [
        pytest.param(b"echo $0 $1\n", 0, id="a script without a first line"),
        pytest.param(b"\0\1\2\3", 126, id="a binary of nobody's"),
        pytest.param(b"#!/no/such/interpreter\n", 126, id="a missing interpreter"),
        pytest.param(b"", 0, id="empty"),
    ],
)
def test_a_file_is_executed_as_shells_do_it(rhel: Machine, content: bytes, code: int) -> None:
    program = rhel.write("/program", content, 0o755)

    assert start(rhel, *ROOT, str(program), "x").returncode == code


def test_a_program_that_may_not_be_executed_is_passed_over_for_the_next_on_path(rhel: Machine) -> None:
    rhel.write("/first/program", b"#!/bin/sh\necho first\n", 0o644)
    second = rhel.write("/second/program", b"#!/bin/sh\necho second\n", 0o755).parent
    path = f"{second.parent}/first:{second}"

    assert start(rhel, *ROOT, "program", environ={"PATH": path}).stdout == b"second\n"


def test_a_wrapped_program_is_found_by_the_wrapper_s_own_path(place: Path) -> None:
    wrapper = place / "anchore-manager"
    wrapper.write_text("import sys\nfrom shim.cli import main\nsys.exit(main())\n")
    environ = {**PATH, "CA_SHIM": "off", "CA_SHIM_USER": "root"}
    done = subprocess.run([*PYTHON, wrapper, "x"], env=environ, capture_output=True, check=False)

    assert done.returncode == 127
    assert f"/opt/ca-shim/wrapped{wrapper} was not found" in events(done.stderr)[-1]["reason"]


# Planted code


@pytest.mark.parametrize("module", ["structlog", "cryptography", "ssl", "shim", "encodings", "os", "sitecustomize"])
def test_a_module_planted_in_the_working_directory_or_on_pythonpath_is_not_run(
    rhel: Machine, place: Path, module: str
) -> None:
    planted = place / "planted"
    planted.mkdir()
    (planted / f"{module}.py").write_text(f"open({str(place / 'evidence')!r}, 'w').close()\n")
    rhel.mount(a=A.pem)
    environ = {**PATH, "PYTHONPATH": str(planted), "PYTHONSTARTUP": str(planted / f"{module}.py")}
    done = start(rhel, *ROOT, "echo", "x", environ=environ, cwd=planted)

    assert (done.stdout, (place / "evidence").exists()) == (b"x\n", False)


def test_a_broken_openssl_configuration_of_the_image_stops_nobody(rhel: Machine) -> None:
    config = rhel.write("/openssl.cnf", b"openssl_conf = x\n[x]\nproviders = y\n[y]\nfips = z\n[z]\nactivate = 1\n")
    rhel.mount(a=A.pem)
    done = start(rhel, *ROOT, "echo", "x", environ={**PATH, "OPENSSL_CONF": str(config)})

    assert (done.stdout, [line["event"] for line in events(done.stderr)][-1]) == (b"x\n", "handover")


# Off


def test_switched_off_nothing_is_looked_at(rhel: Machine) -> None:
    rhel.mount(a=A.pem)
    before = rhel.tree(but=())
    done = as_user(0, 0, ["run", "--root", str(rhel.root), "--off", *ANCHORE, "id", "-u"])

    assert (done.stdout, rhel.tree(but=())) == (b"1000\n", before)
    assert done.stderr == b""


def test_a_variable_that_switches_it_off_is_told(rhel: Machine) -> None:
    done = as_user(0, 0, ["run", "--root", str(rhel.root), *ANCHORE, "id", "-u"], environ={"CA_SHIM": "off"})

    assert (done.stdout, [line["event"] for line in events(done.stderr)]) == (b"1000\n", ["shim.off"])


PRINTING = ("status", "status --json", "plan", "env", "--help", "env --help", "--version")


def _print_to(stdout: int, machine: Machine, command: str, *before: str) -> tuple[int, bytes]:
    """Run a command after a start that left variables; give its exit code and what it logs."""
    machine.mount(a=A.pem)
    machine.start()
    root = () if command.startswith("--") else ("--root", str(machine.root))
    words = [*before, *PYTHON, "-m", "shim", *command.split(), *root]
    done = subprocess.run(words, stdout=stdout, stderr=subprocess.PIPE, env=PATH, check=False, timeout=60)
    return done.returncode, done.stderr


@pytest.mark.parametrize("command", PRINTING)
def test_a_command_whose_output_nobody_takes_ends_as_otherwise(rhel: Machine, command: str) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    ends = _print_to(theirs, rhel, command)
    os.close(theirs)

    assert ends == (0, b"")
    assert _print_to(subprocess.DEVNULL, rhel, command, "sh", "-c", 'exec "$@" >&-', "sh") == (0, b"")


@pytest.mark.parametrize("command", PRINTING)
def test_output_that_cannot_be_written_is_an_error(rhel: Machine, command: str) -> None:
    with open("/dev/full", "wb") as full:
        code, stderr = _print_to(full.fileno(), rhel, command)

    assert (code, last(stderr)) == (74, ("shim.failed", 74))


def test_a_start_prints_one_summary_and_one_line_of_handover(rhel: Machine) -> None:
    rhel.mount(a=A.pem)
    names = [line["event"] for line in events(start(rhel, *ROOT, "true").stderr)]

    assert names == ["ca.installed", "trust.ready", "handover"]


def test_a_restart_prints_one_fixed_line(rhel: Machine) -> None:
    rhel.mount(a=A.pem)
    start(rhel, *ROOT, "true")
    names = [line["event"] for line in events(start(rhel, *ROOT, "true").stderr)]

    assert names == ["trust.ready"]


def test_no_environment_value_and_no_argument_is_logged(rhel: Machine) -> None:
    rhel.mount(a=A.pem)
    environ = {**PATH, "PASSWORD": "hunter2", "PIP_CERT": "/gone"}
    done = start(rhel, *ROOT, "true", "--password=hunter2", environ=environ)

    assert b"hunter2" not in done.stderr
