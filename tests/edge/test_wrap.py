"""Putting the shim in front of the application's programs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from shim import families, wrap
from shim.errors import ShimError
from tests.edge.machine import ANCHORE, Machine, needs_root

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = needs_root
WRAPPER = b"#!/opt/ca-shim/bin/python3 -I\n'exec' '/opt/ca-shim/bin/ca-shim'\nwrapper\n"
PATH = "/usr/local/bin:/usr/bin"
ENTRY = "/docker-entrypoint.sh"
PROGRAM = b"#!/bin/sh\necho the program\n"


@pytest.fixture
def image(rhel: Machine) -> Machine:
    rhel.write(f"{families.HOME}/bin/ca-shim", WRAPPER, 0o755)
    rhel.write(ENTRY, PROGRAM, 0o755)
    return rhel


def run(machine: Machine, *names: str) -> list[str]:
    return wrap.wrap(str(machine.root), names, PATH)


def moved(machine: Machine, name: str) -> Path:
    return machine.path(families.WRAPPED + name)


def wrapper_of(program: str) -> bytes:
    return WRAPPER.replace(families.COMMAND.encode(), program.encode())


def test_the_program_moves_and_the_wrapper_takes_its_place(image: Machine) -> None:
    assert run(image, ENTRY) == [f"{ENTRY}: wrapped"]
    assert (image.read(ENTRY), moved(image, ENTRY).read_bytes()) == (wrapper_of(ENTRY), PROGRAM)


def test_twice_is_once(image: Machine) -> None:
    run(image, ENTRY)
    before = image.tree()

    assert run(image, ENTRY) == [f"{ENTRY}: wrapped already"]
    assert image.tree() == before


@pytest.mark.parametrize(
    ("owner", "mode", "now"),
    [
        pytest.param(0, 0o755, (0, 0o755), id="root's"),
        pytest.param(0, 0o555, (0, 0o555), id="read-only"),
        pytest.param(0, 0o700, (0, 0o700), id="root's alone"),
        pytest.param(0, 0o4755, (0, 0o4755), id="root's with set-uid"),
        pytest.param(0, 0o777, (0, 0o755), id="writable by everybody"),
        pytest.param(ANCHORE, 0o755, (0, 0o755), id="another's"),
        pytest.param(ANCHORE, 0o775, (0, 0o755), id="another's, writable by its group"),
        pytest.param(ANCHORE, 0o6755, (0, 0o755), id="another's with set-id"),
        pytest.param(ANCHORE, 0o750, (ANCHORE, 0o750), id="not everybody's"),
        pytest.param(ANCHORE, 0o4711, (ANCHORE, 0o4711), id="not readable by everybody, with set-uid"),
    ],
)
def test_a_program_that_everybody_may_run_becomes_root_s(
    image: Machine, owner: int, mode: int, now: tuple[int, int]
) -> None:
    path = image.write(ENTRY, PROGRAM, mode, owner=owner)
    path.chmod(mode)
    os.utime(path, (1, 2))
    run(image, ENTRY)
    status = moved(image, ENTRY).stat()

    assert (status.st_uid, status.st_mode & 0o7777) == now
    assert (status.st_gid, status.st_mtime) == (now[0], 2)


# Revision 2, permitted: CAP_NET_BIND_SERVICE, as `setcap cap_net_bind_service=ep` writes it.
_CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")


@pytest.mark.parametrize(("owner", "mode"), [(0, 0o755), (ANCHORE, 0o755), (ANCHORE, 0o750)])
def test_file_capabilities_of_the_program_stay(image: Machine, owner: int, mode: int) -> None:
    path = image.write(ENTRY, PROGRAM, mode, owner=owner)
    try:
        os.setxattr(path, "security.capability", _CAPABILITY)
    except OSError as error:
        pytest.skip(f"file capabilities cannot be set here: {error}")
    run(image, ENTRY)

    assert os.getxattr(moved(image, ENTRY), "security.capability") == _CAPABILITY


@pytest.mark.parametrize(
    ("directory", "mode", "owner", "named"),
    [
        pytest.param("/opt/x", 0o755, 0, False, id="root's"),
        pytest.param("/opt/x", 0o755, ANCHORE, True, id="another user's"),
        pytest.param("/opt/x", 0o775, 0, True, id="its group may write"),
    ],
)
def test_a_wrapper_that_others_can_replace_is_named(
    image: Machine, directory: str, mode: int, owner: int, *, named: bool
) -> None:
    image.mkdir(directory, owner=owner)
    image.path(directory).chmod(mode)
    image.write(f"{directory}/server", PROGRAM, 0o755)

    for done in ("wrapped", "wrapped already"):
        (line, *_) = run(image, f"{directory}/server")
        assert line.startswith(f"{directory}/server: {done}")
        assert ("others than root can replace it" in line) == named


def test_the_wrapper_can_be_executed_by_everybody_whatever_the_umask(image: Machine) -> None:
    old = os.umask(0o077)
    try:
        run(image, ENTRY)
    finally:
        os.umask(old)

    assert image.path(ENTRY).stat().st_mode & 0o7777 == 0o755
    assert image.path(families.WRAPPED).stat().st_mode & 0o7777 == 0o755


def test_every_program_of_a_name_is_wrapped(image: Machine) -> None:
    places = ["/usr/bin/anchore-manager", "/opt/rh/rh-python36/root/usr/bin/anchore-manager"]
    for name in places:
        image.write(name, name.encode(), 0o755)
    run(image, "anchore-manager")

    assert [moved(image, name).read_bytes() for name in places] == [name.encode() for name in places]


def test_a_link_is_followed_and_the_file_behind_it_wrapped_once(image: Machine) -> None:
    image.write("/usr/bin/anchore-1", PROGRAM, 0o755)
    image.link("/usr/bin/anchore-manager", "anchore-1")

    assert run(image, "anchore-manager", "anchore-1") == [
        "/usr/bin/anchore-1: wrapped",
        "/usr/bin/anchore-1: wrapped already",
    ]
    assert image.path("/usr/bin/anchore-manager").is_symlink()


def test_ca_shim_is_on_path_where_nothing_else_of_that_name_is(image: Machine) -> None:
    image.mkdir("/usr/local/bin")
    run(image, ENTRY)
    link = image.path(families.LINK)

    assert str(link.readlink()) == families.COMMAND
    link.unlink()
    image.write(families.LINK, b"somebody's own")
    run(image, ENTRY)
    assert link.read_bytes() == b"somebody's own"


def test_a_missing_program_is_named_and_skipped(image: Machine) -> None:
    assert run(image, "ng-enterprise", ENTRY)[0] == "ng-enterprise: not in this image, skipped"


def test_a_file_that_cannot_be_executed_is_no_program(image: Machine) -> None:
    image.write("/usr/bin/anchore-manager", PROGRAM, 0o644)
    image.mkdir("/usr/bin/anchore-engine")

    assert run(image, "anchore-manager", "anchore-engine", ENTRY)[:2] == [
        "anchore-manager: not in this image, skipped",
        "anchore-engine: not in this image, skipped",
    ]


def test_no_program_at_all_is_an_error_that_says_what_to_do(image: Machine) -> None:
    with pytest.raises(ShimError, match="none of the programs is in this image"):
        run(image, "absent")


@pytest.mark.parametrize(
    "name",
    [
        "node",
        "/usr/local/bin/node",
        "/bin/sh",
        "bash",
        "env",
        "python",
        "python3.11",
        "/usr/bin/perl5.36.0",
        "anchore-x",
        "/usr/bin/trust",
        "p11-kit",
    ],
)
def test_what_starts_other_programs_is_never_wrapped(image: Machine, name: str) -> None:
    image.write("/usr/bin/python3.9", b"\x7fELF", 0o755)
    image.link("/usr/bin/anchore-x", "python3.9")
    before = image.tree()

    with pytest.raises(ShimError, match="never wrapped"):
        run(image, ENTRY, name)
    assert image.tree() == before


@pytest.mark.parametrize("row", families.FAMILIES, ids=lambda row: row.name)
def test_a_refresh_tool_is_never_wrapped(image: Machine, row: families.Family) -> None:
    with pytest.raises(ShimError, match="never wrapped"):
        run(image, row.tool)


@pytest.mark.parametrize("name", ["ca-shim", families.COMMAND, f"{families.HOME}/bin/python-config", "/linked"])
def test_our_own_files_are_never_wrapped(image: Machine, name: str) -> None:
    image.write(f"{families.HOME}/bin/python-config", WRAPPER, 0o755)
    image.link("/linked", f"{families.HOME}/bin/ca-shim")
    image.mkdir("/usr/local/bin")
    image.link(families.LINK, families.COMMAND)

    with pytest.raises(ShimError, match="a part of the shim"):
        run(image, name)


@pytest.mark.parametrize("name", ["it's", "back\\slash", "new\nline", "\udcff"])
def test_a_path_that_cannot_stand_in_a_wrapper_is_an_error(image: Machine, name: str) -> None:
    path = f"/usr/bin/{name}"
    image.write(path, PROGRAM, 0o755)

    with pytest.raises(ShimError, match="rename it"):
        run(image, path)
    assert image.read(path) == PROGRAM


def test_the_wrapper_names_its_program_for_shells(image: Machine) -> None:
    image.write("/usr/bin/server", PROGRAM, 0o755)
    run(image, ENTRY, "server")

    assert image.read(ENTRY) == wrapper_of(ENTRY)
    assert image.read("/usr/bin/server") == wrapper_of("/usr/bin/server") != wrapper_of(ENTRY)


# An absolute link in an image leads to a place in that image


@pytest.mark.parametrize(
    ("link", "name"),
    [
        pytest.param("/usr/bin/server", "/usr/bin/server", id="of the program"),
        pytest.param("/usr/bin/server", "server", id="of the program, by name"),
        pytest.param("/opt/x", "/opt/x/server", id="of its directory"),
    ],
)
def test_an_absolute_link_leads_to_a_program_of_the_image(image: Machine, tmp_path: Path, link: str, name: str) -> None:
    elsewhere = tmp_path / "server"
    elsewhere.write_bytes(b"the builder's own")
    elsewhere.chmod(0o755)
    image.write(str(elsewhere), PROGRAM, 0o755)
    image.mkdir(os.path.dirname(link))
    image.link(link, str(elsewhere if link.endswith("server") else tmp_path))

    assert run(image, name)[0].startswith(f"{elsewhere}: wrapped")
    assert moved(image, str(elsewhere)).read_bytes() == PROGRAM
    assert elsewhere.read_bytes() == b"the builder's own"


@pytest.mark.parametrize("directory", [families.HOME, os.path.dirname(families.LINK)])
def test_an_absolute_link_leads_to_a_directory_of_the_image(image: Machine, tmp_path: Path, directory: str) -> None:
    (tmp_path / "bin").mkdir()
    image.mkdir(directory)
    image.mkdir(os.path.dirname(f"{tmp_path}"))
    image.path(directory).rename(image.path(str(tmp_path)))
    image.link(directory, str(tmp_path))
    run(image, ENTRY)

    assert [path.name for path in tmp_path.rglob("*")] == ["bin"]
    expected = "wrapped" + ENTRY if directory == families.HOME else "ca-shim"
    assert os.path.lexists(image.path(f"{tmp_path}/{expected}"))


def test_a_wrapper_whose_program_is_gone_is_an_error(image: Machine) -> None:
    run(image, ENTRY)
    moved(image, ENTRY).unlink()

    with pytest.raises(ShimError, match="build from the original image"):
        run(image, ENTRY)


def test_a_relative_entry_of_path_is_passed_over(image: Machine) -> None:
    assert wrap.wrap(str(image.root), [ENTRY, "absent"], "bin::.")[1:] == ["absent: not in this image, skipped"]


def test_an_image_without_the_shim_is_an_error_that_says_so(rhel: Machine) -> None:
    rhel.write(ENTRY, PROGRAM, 0o755)

    with pytest.raises(ShimError, match="copy /opt/ca-shim of the runtime stage"):
        run(rhel, ENTRY)
    assert rhel.read(ENTRY) == PROGRAM
