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
WRAPPER = b"#!/opt/ca-shim/bin/python3 -I\nwrapper\n"
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


def test_the_program_moves_and_the_wrapper_takes_its_place(image: Machine) -> None:
    assert run(image, ENTRY) == [f"{ENTRY}: wrapped"]
    assert (image.read(ENTRY), moved(image, ENTRY).read_bytes()) == (WRAPPER, PROGRAM)


def test_twice_is_once(image: Machine) -> None:
    run(image, ENTRY)
    before = image.tree()

    assert run(image, ENTRY) == [f"{ENTRY}: wrapped already"]
    assert image.tree() == before


@pytest.mark.parametrize("mode", [0o755, 0o700, 0o4755, 0o555], ids=oct)
def test_mode_owner_and_times_of_the_program_stay(image: Machine, mode: int) -> None:
    path = image.write(ENTRY, PROGRAM, mode, owner=ANCHORE)
    path.chmod(mode)
    os.utime(path, (1, 2))
    run(image, ENTRY)
    status = moved(image, ENTRY).stat()

    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid, status.st_mtime) == (mode, ANCHORE, ANCHORE, 2)


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


@pytest.mark.parametrize("name", ["node", "/usr/local/bin/node"])
def test_node_is_never_wrapped(image: Machine, name: str) -> None:
    with pytest.raises(ShimError, match="never wrapped"):
        run(image, name)


def test_a_wrapper_whose_program_is_gone_is_an_error(image: Machine) -> None:
    run(image, ENTRY)
    moved(image, ENTRY).unlink()

    with pytest.raises(ShimError, match="build from the original image"):
        run(image, ENTRY)


def test_a_relative_entry_of_path_is_passed_over(image: Machine) -> None:
    assert wrap.wrap(str(image.root), [ENTRY, "absent"], "bin::.")[1:] == ["absent: not in this image, skipped"]


def test_an_image_without_the_shim_is_an_error_that_says_so(rhel: Machine) -> None:
    rhel.write(ENTRY, PROGRAM, 0o755)

    with pytest.raises(ShimError):
        run(rhel, ENTRY)
    assert rhel.read(ENTRY) == PROGRAM
