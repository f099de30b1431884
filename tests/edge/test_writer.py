"""Who may write at a path, and acting as somebody else."""

from __future__ import annotations

import os
from errno import ENOSYS
from typing import TYPE_CHECKING

import pytest

from shim import apply, loading, writer
from shim.writer import Owner, Place
from tests.certificates import pems, root
from tests.edge.machine import ANCHORE, SOMEBODY, Machine, acting, needs_root

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = needs_root
FILE = "/srv/app/certifi/cacert.pem"
GROUPS = {ANCHORE: ANCHORE, 0: 0}


def place_of(machine: Machine, path: str = FILE) -> Place:
    return writer.place_of(writer.resolve(str(machine.root), path), GROUPS)


@pytest.mark.parametrize(
    ("owner", "writes"), [(0, Owner(0, 0)), (ANCHORE, Owner(ANCHORE, ANCHORE)), (4321, Owner(4321, SOMEBODY))]
)
def test_the_owner_writes_with_its_primary_group(rhel: Machine, owner: int, writes: Owner) -> None:
    rhel.mkdir("/srv")
    rhel.write(FILE, b"", owner=owner)

    assert place_of(rhel) == Place(writes)


@pytest.mark.parametrize("mode", [0o664, 0o666, 0o444], ids=oct)
def test_the_mode_of_the_file_itself_does_not_matter(rhel: Machine, mode: int) -> None:
    rhel.write(FILE, b"", mode)

    assert place_of(rhel).owner == writer.ROOT


@pytest.mark.parametrize("directory", ["", "/srv", "/srv/app"])
@pytest.mark.parametrize("mode", [0o775, 0o757, 0o1777], ids=oct)
def test_a_directory_of_root_s_that_others_may_write_is_unsafe(rhel: Machine, directory: str, mode: int) -> None:
    rhel.write(FILE, b"", owner=0)
    (rhel.path(directory) if directory else rhel.root).chmod(mode)

    assert (place_of(rhel).owner, "writable by others" in place_of(rhel).reason) == (None, True)


@pytest.mark.parametrize("name", [FILE, os.path.dirname(FILE)])
@pytest.mark.parametrize("owner", [0, SOMEBODY])
def test_mixed_owners_below_the_writer_s_directory_are_unsafe(rhel: Machine, name: str, owner: int) -> None:
    rhel.mkdir("/srv")
    rhel.write(FILE, b"", owner=ANCHORE)
    os.chown(rhel.path(name), owner, owner)

    assert place_of(rhel).owner is None


@pytest.mark.parametrize(("owner", "safe"), [(0, True), (ANCHORE, True), (SOMEBODY, False)])
def test_a_link_on_the_way_must_be_root_s_or_the_writer_s(rhel: Machine, owner: int, safe: bool) -> None:  # noqa: FBT001 - a column of the table
    rhel.mkdir("/srv")
    rhel.write(FILE, b"", owner=ANCHORE)
    rhel.link("/link", "srv/app", owner=owner)

    assert bool(place_of(rhel, "/link/certifi/cacert.pem").owner) is safe


@pytest.mark.parametrize(
    ("links", "path", "real"),
    [
        pytest.param({}, FILE, FILE, id="no link"),
        pytest.param({"/l": "srv"}, "/l/app/certifi/cacert.pem", FILE, id="relative"),
        pytest.param({"/l": "/srv/app"}, "/l/certifi/cacert.pem", FILE, id="absolute, below the root directory"),
        pytest.param({"/srv/l": "../../../srv/app"}, "/srv/l/certifi/cacert.pem", FILE, id="above the root directory"),
        pytest.param({"/a": "b", "/b": "srv"}, "/a/app/certifi/cacert.pem", FILE, id="link to a link"),
        pytest.param({}, "/srv/./app//certifi/../certifi/cacert.pem", FILE, id="dots"),
    ],
)
def test_a_path_is_followed_below_the_root_directory(
    rhel: Machine, links: dict[str, str], path: str, real: str
) -> None:
    rhel.write(FILE, b"")
    for name, target in links.items():
        rhel.link(name, target)

    assert writer.resolve(str(rhel.root), path).real == real


@pytest.mark.parametrize(
    "path", ["/absent", "/loop", "/srv/app/certifi/cacert.pem/below"], ids=["absent", "loop", "below a file"]
)
def test_a_path_that_leads_nowhere_is_an_error(rhel: Machine, path: str) -> None:
    rhel.write(FILE, b"")
    rhel.link("/loop", "loop")

    with pytest.raises(OSError, match=r"No such file|too many links|Not a directory"):
        writer.resolve(str(rhel.root), path)


def ids() -> tuple[tuple[int, ...], tuple[int, ...], list[int]]:
    return os.getresuid(), os.getresgid(), os.getgroups()


def test_acting_takes_the_user_the_group_and_every_other_group_away() -> None:
    with writer.Acting(Owner(ANCHORE, 77)):
        assert (os.geteuid(), os.getegid(), os.getgroups()) == (ANCHORE, 77, [77])


def test_afterwards_everything_is_as_before() -> None:
    before = ids()
    with writer.Acting(Owner(ANCHORE, 77)):
        pass

    assert ids() == before


def test_after_an_error_everything_is_as_before() -> None:
    before = ids()
    with pytest.raises(KeyError), writer.Acting(Owner(ANCHORE, 77)):
        raise KeyError

    assert ids() == before


@pytest.mark.parametrize("refused", ["setgroups", "setegid", "seteuid"])
def test_when_the_kernel_refuses_everything_is_as_before(monkeypatch: pytest.MonkeyPatch, refused: str) -> None:
    before, real = ids(), getattr(os, refused)

    def refuse(wanted: object) -> None:
        if wanted in (77, ANCHORE, [77]):
            raise PermissionError(1, "Operation not permitted")
        real(wanted)

    monkeypatch.setattr(os, refused, refuse)
    with pytest.raises(PermissionError), writer.Acting(Owner(ANCHORE, 77)):
        pass

    assert ids() == before


def test_who_is_not_root_cannot_act_as_another() -> None:
    with acting(ANCHORE), pytest.raises(PermissionError), writer.Acting(writer.ROOT):
        pass


def test_who_is_somebody_already_stays_so() -> None:
    with acting(ANCHORE), writer.Acting(writer.myself()):
        assert os.geteuid() == ANCHORE


# Replacing a file whole


def test_a_file_is_replaced_with_its_mode_and_group(place: Path) -> None:
    path = place / "file"
    path.write_bytes(b"old")
    path.chmod(0o640)
    os.chown(path, 0, 50)
    apply.replace(str(path), b"new", writer.ROOT)

    assert (path.read_bytes(), path.stat().st_mode & 0o7777, path.stat().st_gid) == (b"new", 0o640, 50)


def test_whoever_has_the_old_file_open_keeps_the_old_content(place: Path) -> None:
    path = place / "file"
    path.write_bytes(b"old")
    with path.open("rb") as before:
        apply.replace(str(path), b"new", writer.ROOT)

        assert before.read() == b"old"


@pytest.mark.parametrize(
    ("content", "count"),
    [
        pytest.param(b"no certificate", 1, id="nothing to load"),
        pytest.param(
            pems(root("A")) + b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", 2, id="a bad block"
        ),
        pytest.param(pems(root("A")), 2, id="fewer than expected"),
        pytest.param(pems(root("A"), root("B")), 1, id="more than expected"),
    ],
)
def test_why_a_bundle_does_not_load_as_expected_is_said(content: bytes, count: int) -> None:
    assert "OpenSSL" in loading.why_not(content, count)


@pytest.mark.parametrize("call", ["write", "fsync", "rename", "fchmod"])
def test_a_full_or_failing_disk_leaves_the_old_file_and_no_other(
    place: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = place / "file"
    path.write_bytes(b"old")

    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device", str(arguments))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="No space"):
        apply.replace(str(path), b"new", writer.ROOT)

    assert {each.name: each.read_bytes() for each in place.iterdir()} == {"file": b"old"}


def test_a_write_that_takes_only_part_is_continued(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:3]))
    apply.replace(str(place / "file"), b"0123456789", writer.ROOT)

    assert (place / "file").read_bytes() == b"0123456789"


def test_no_descriptor_is_left_open(place: Path) -> None:
    before = os.listdir("/proc/self/fd")
    apply.replace(str(place / "file"), b"x", writer.ROOT)

    assert os.listdir("/proc/self/fd") == before


def test_of_certificates_that_openssl_does_not_load_the_others_are_told_apart() -> None:
    bad = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"

    assert loading.loadable([root("A").pem, bad, root("B").pem]) == [True, False, True]


def test_on_a_kernel_without_files_in_memory_certificates_are_loaded_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(ENOSYS, "Function not implemented")

    monkeypatch.setattr(os, "memfd_create", refuse)

    assert loading.loadable([root("A").pem]) == [True]
