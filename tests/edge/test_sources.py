"""Reading what is mounted: every shape of a volume, and everything that is no certificate file."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from shim import reading, sources
from shim.sources import Intake, Source
from tests.edge.machine import ANCHORE, SOMEBODY, acting, needs_root

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MOUNT = "/custom-certs"


@pytest.fixture
def mount(place: Path) -> Path:
    """An empty `/custom-certs`."""
    path = place / "custom-certs"
    path.mkdir()
    return path


def read(place: Path, *paths: str, named: bool = False) -> Intake:
    return sources.read(str(place), tuple(Source(path, named=named) for path in paths or (MOUNT,)))


def names(intake: Intake) -> list[str]:
    return [path.removeprefix(MOUNT + "/") for path, _ in intake.files]


def events(intake: Intake) -> list[tuple[str, int]]:
    return [(note.event, note.code) for note in intake.notes]


def test_a_missing_default_is_silent(place: Path) -> None:
    assert read(place, "/absent") == Intake((), (), complete=True)


def test_a_missing_named_source_is_a_problem_and_leaves_the_intake_incomplete(place: Path) -> None:
    intake = read(place, "/absent", named=True)

    assert (events(intake), intake.complete) == ([("source.missing", 66)], False)


def test_a_file_is_a_source_too(place: Path) -> None:
    (place / "ca.pem").write_bytes(b"x")

    assert read(place, "/ca.pem", named=True).files == (("/ca.pem", b"x"),)


def test_files_are_read_from_all_directories_in_a_stable_order(place: Path, mount: Path) -> None:
    for name in ("z.pem", "b/c.pem", "a.pem", ".hidden", "b/a"):
        (mount / name).parent.mkdir(exist_ok=True)
        (mount / name).write_bytes(name.encode())

    assert names(read(place)) == [".hidden", "a.pem", "b/a", "b/c.pem", "z.pem"]


def test_sources_are_read_in_their_order(place: Path) -> None:
    for name in ("2", "1"):
        (place / name).mkdir()
        (place / name / "ca.pem").write_bytes(b"")

    assert [path for path, _ in read(place, "/2", "/1").files] == ["/2/ca.pem", "/1/ca.pem"]


# Kubernetes


@pytest.fixture
def volume(mount: Path) -> Path:
    """A volume as the kubelet makes it: revisions behind `..data`, and links to it."""
    revision = mount / "..2026_01_01_00_00_00.1"
    (revision / "team").mkdir(parents=True)
    (revision / "ca.pem").write_bytes(b"ca")
    (revision / "team" / "own.pem").write_bytes(b"own")
    (mount / "..data").symlink_to(revision.name)
    (mount / "ca.pem").symlink_to("..data/ca.pem")
    (mount / "team").symlink_to("..data/team")
    return mount


@pytest.mark.usefixtures("volume")
def test_a_kubernetes_volume_gives_every_file_once(place: Path) -> None:
    assert names(read(place)) == ["ca.pem", "team/own.pem"]


def test_a_swapped_revision_gives_the_new_files_alone(place: Path, volume: Path) -> None:
    new = volume / "..2026_02_02_00_00_00.2"
    new.mkdir()
    (new / "ca.pem").write_bytes(b"new")
    (volume / "..data").unlink()
    (volume / "..data").symlink_to(new.name)
    (volume / "team").unlink()

    assert read(place).files == (("/custom-certs/ca.pem", b"new"),)


def test_a_file_mounted_by_subpath_is_read(place: Path, volume: Path) -> None:
    (volume / "sub.pem").write_bytes(b"sub")

    assert "sub.pem" in names(read(place))


def test_a_source_that_is_a_link_to_a_directory_is_read(place: Path, mount: Path) -> None:
    (mount / "ca.pem").write_bytes(b"x")
    (place / "link").symlink_to("custom-certs")

    assert [path for path, _ in read(place, "/link").files] == ["/link/ca.pem"]


def test_a_link_to_a_file_outside_of_the_source_is_followed(place: Path, mount: Path) -> None:
    (place / "elsewhere.pem").write_bytes(b"x")
    (mount / "ca.pem").symlink_to("../elsewhere.pem")

    assert read(place).files == ((f"{MOUNT}/ca.pem", b"x"),)


def test_a_link_to_a_directory_outside_of_the_source_is_refused(place: Path, mount: Path) -> None:
    (place / "outside").mkdir()
    (mount / "link").symlink_to("../outside")

    assert events(read(place)) == [("file.refused", 0)]


def test_a_sibling_with_the_same_beginning_is_outside(place: Path, mount: Path) -> None:
    (place / "custom-certs-2").mkdir()
    (mount / "link").symlink_to("../custom-certs-2")

    assert events(read(place)) == [("file.refused", 0)]


@pytest.mark.parametrize("target", [".", "..", "sub", "../custom-certs", "sub/../sub"])
def test_a_loop_of_directory_links_ends(place: Path, mount: Path, target: str) -> None:
    (mount / "sub").mkdir()
    (mount / "sub" / "ca.pem").write_bytes(b"x")
    (mount / "sub" / "loop").symlink_to(target)
    (mount / "self").symlink_to(".")

    assert names(read(place)).count("sub/ca.pem") <= 1
    assert len(read(place).files) == 1


@pytest.mark.parametrize("target", ["loop.pem", "absent.pem"], ids=["to itself", "to nothing"])
def test_a_link_that_leads_nowhere_costs_no_other_file(place: Path, mount: Path, target: str) -> None:
    (mount / "loop.pem").symlink_to(target)
    (mount / "z.pem").write_bytes(b"x")
    intake = read(place)

    assert (names(intake), events(intake), intake.complete) == (["z.pem"], [("source.unreadable", 66)], False)


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("plant", [_fifo, _socket, _device], ids=["FIFO", "socket", "device"])
def test_what_is_no_regular_file_is_refused_without_waiting(place: Path, mount: Path, plant: object) -> None:
    plant(mount / "a.pem")  # type: ignore[operator]
    (mount / "z.pem").write_bytes(b"x")
    intake = read(place)

    assert (names(intake), events(intake), intake.complete) == (["z.pem"], [("file.refused", 0)], True)


@needs_root
@pytest.mark.parametrize("kind", ["file", "directory", "source"])
def test_what_cannot_be_read_is_a_problem_and_leaves_the_intake_incomplete(place: Path, mount: Path, kind: str) -> None:
    (mount / "sub").mkdir()
    for name in ("secret.pem", "z.pem", "sub/ca.pem"):
        (mount / name).write_bytes(b"x")
    {"file": mount / "secret.pem", "directory": mount / "sub", "source": mount}[kind].chmod(0)
    with acting(SOMEBODY):
        intake = read(place)

    assert (events(intake), intake.complete) == ([("source.unreadable", 66)], False)
    assert ("z.pem" in names(intake)) is (kind != "source")


@needs_root
def test_a_source_below_a_directory_that_cannot_be_entered_is_unreadable(place: Path, mount: Path) -> None:
    (mount / "sub").mkdir()
    mount.chmod(0)
    with acting(SOMEBODY):
        intake = read(place, f"{MOUNT}/sub")

    assert (events(intake), intake.complete) == ([("source.unreadable", 0)], False)  # nobody has named it


# Root's eyes

CERTS = "/home/anchore/certs"
SECRET = "secret-name.pem"


def _owned(path: Path, uid: int, mode: int) -> Path:
    os.chown(path, uid, uid, follow_symlinks=False)
    if not path.is_symlink():
        path.chmod(mode)
    return path


@pytest.fixture
def home(place: Path) -> Path:
    """A home of the application's user, beside a directory and a file that root alone can read."""
    for name in ("root", "home", "home/anchore"):
        (place / name).mkdir()
    (place / "root" / SECRET).write_bytes(b"secret")
    (place / "root.pem").write_bytes(b"secret")
    _owned(place / "root", 0, 0o700)
    _owned(place / "root.pem", 0, 0o600)
    return _owned(place / "home" / "anchore", ANCHORE, 0o755)


def _linked(*links: tuple[str, str]) -> Callable[[Path], None]:
    """Plant links below the home directory, and the directories that they lie in."""

    def plant(home: Path) -> None:
        for name, target in links:
            if not (home / name).parent.exists():
                (home / name).parent.mkdir()
                _owned((home / name).parent, ANCHORE, 0o755)
            (home / name).symlink_to(target)
            _owned(home / name, ANCHORE, 0)

    return plant


PLANTED = [
    pytest.param(_linked(("certs", "../../root")), id="the source leads to a directory of root's"),
    pytest.param(_linked(("certs", f"../../root/{SECRET}")), id="the source leads to a file of root's"),
    pytest.param(_linked(("certs", "other"), ("other", "../../root")), id="by way of another link"),
    pytest.param(_linked(("certs/a.pem", "../../../root.pem")), id="a link in it leads to a file of root's"),
    pytest.param(_linked(("certs/a", "../../../root")), id="a link in it leads to a directory of root's"),
    pytest.param(_linked(("certs", "../../root.pem/")), id="a file as a directory"),
]


@needs_root
@pytest.mark.parametrize("plant", PLANTED)
def test_a_link_of_another_user_shows_root_no_more_than_that_user_could_see(
    place: Path, home: Path, plant: Callable[[Path], None]
) -> None:
    plant(home)
    intake = read(place, CERTS)

    assert (intake.files, len(intake.notes), os.geteuid()) == ((), 1, 0)
    assert "secret" not in repr(intake)


@needs_root
def test_a_link_of_another_user_in_a_directory_of_root_s_is_followed_as_that_user(place: Path, home: Path) -> None:
    (home.parent / "common").mkdir()
    _owned(home.parent / "common", 0, 0o777)
    _linked(("../common/a.pem", "../../root.pem"))(home)
    (home.parent / "common" / "b.pem").write_bytes(b"b")
    intake = read(place, "/home/common")

    assert ([path for path, _ in intake.files], intake.complete) == (["/home/common/b.pem"], False)


@needs_root
@pytest.mark.parametrize("mode", [0o644, 0o600, 0o400])
def test_a_directory_of_a_user_of_the_host_is_read_with_its_files(place: Path, mount: Path, mode: int) -> None:
    (mount / "sub").mkdir()
    for name in ("ca.pem", "sub/own.pem"):
        (mount / name).write_bytes(b"x")
        _owned(mount / name, 1001, mode)
    for directory in (mount / "sub", mount):
        _owned(directory, 1001, 0o700)
    intake = read(place)

    assert (names(intake), events(intake), intake.complete) == (["ca.pem", "sub/own.pem"], [], True)


@needs_root
def test_what_the_owner_of_the_directory_cannot_read_is_noted_with_the_remedy(place: Path, mount: Path) -> None:
    (mount / "ca.pem").write_bytes(b"x")
    _owned(mount / "ca.pem", 0, 0o600)
    _owned(mount, 1001, 0o755)
    intake = read(place)

    assert (events(intake), intake.complete) == ([("source.unreadable", 66)], False)
    assert "readable for uid 1001" in str(dict(intake.notes[0].details)["remedy"])


@needs_root
def test_root_reads_with_the_primary_group_of_the_directory_s_owner(place: Path, home: Path) -> None:
    (place / "etc").mkdir()
    (place / "etc" / "passwd").write_bytes(b"anchore:x:1000:1234::/home/anchore:/bin/sh\n")
    (home / "certs").mkdir()
    (home / "certs" / "ca.pem").write_bytes(b"x")
    os.chown(home / "certs" / "ca.pem", 0, 1234)
    (home / "certs" / "ca.pem").chmod(0o640)

    assert len(read(place, CERTS).files) == 1


@needs_root
@pytest.mark.usefixtures("volume")
def test_a_kubernetes_volume_that_root_alone_can_read_is_read(place: Path, mount: Path) -> None:
    for path in mount.rglob("*.pem"):
        path.chmod(0o400)

    assert names(read(place)) == ["ca.pem", "team/own.pem"]


@needs_root
def test_root_that_cannot_become_another_user_reads_as_what_it_is(
    place: Path, mount: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(groups: list[int]) -> None:
        raise PermissionError(1, f"groups {groups}")

    (mount / "ca.pem").write_bytes(b"x")
    _owned(mount / "ca.pem", 1001, 0o644)
    _owned(mount, 1001, 0o755)
    monkeypatch.setattr(os, "setgroups", refuse)

    assert names(read(place)) == ["ca.pem"]


@needs_root
@pytest.mark.parametrize("target", ["/proc", "/proc/1", "/sys"])
def test_a_source_that_leads_to_the_kernel_s_files_is_refused_at_once(place: Path, home: Path, target: str) -> None:
    _linked(("certs", target))(home)
    intake = read(place, CERTS)

    assert (intake.files, events(intake)) == ((), [("file.refused", 0)])


# Limits


@pytest.mark.parametrize("plant", [_fifo, lambda path: path.symlink_to("absent")], ids=["FIFOs", "dangling links"])
def test_hundreds_of_files_that_cannot_be_read_do_not_flood_the_log(place: Path, mount: Path, plant: object) -> None:
    for number in range(300):
        plant(mount / f"{number}.pem")  # type: ignore[operator]
    notes = read(place).notes

    assert len(notes) == 201
    assert "100 more lines" in str(dict(notes[-1].details)["reason"])
    assert {note.code for note in notes} == {notes[0].code}


def test_files_beyond_the_limit_of_all_together_are_left_out(
    place: Path, mount: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "LIMIT", 10)
    for name in "abc":
        (mount / name).write_bytes(b"12345")
    intake = read(place)

    assert (names(intake), events(intake), intake.complete) == (["a", "b"], [("source.limit", 65)], False)


def test_a_file_of_exactly_the_limit_is_read(place: Path, mount: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LIMIT", 10)
    (mount / "a").write_bytes(b"1234567890")

    assert read(place).complete


def test_entries_beyond_the_limit_are_left_out_with_one_line(
    place: Path, mount: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MAX_ENTRIES", 5)
    for number in range(20):
        (mount / f"{number:02}").write_bytes(b"x")
    intake = read(place)

    assert (len(intake.files), events(intake), intake.complete) == (4, [("source.limit", 65)], False)


@pytest.mark.parametrize(("depth", "read_"), [(15, True), (16, False)])
def test_a_file_is_read_down_to_the_depth_of_16(place: Path, mount: Path, depth: int, read_: bool) -> None:  # noqa: FBT001 - a column of the table
    directory = mount.joinpath(*"d" * depth)
    directory.mkdir(parents=True)
    (directory / "ca.pem").write_bytes(b"x")
    intake = read(place)

    assert (len(intake.files), intake.complete) == (int(read_), read_)


def test_a_name_that_is_not_utf_8_is_read(place: Path, mount: Path) -> None:
    (mount / os.fsdecode(b"\xff.pem")).write_bytes(b"x")

    assert names(read(place)) == ["\udcff.pem"]


# The one way of reading


@pytest.mark.parametrize(
    ("plant", "error"),
    [
        pytest.param(_fifo, reading.NotRegularError, id="FIFO"),
        pytest.param(lambda path: path.mkdir(), reading.NotRegularError, id="directory"),
        pytest.param(_device, reading.NotRegularError, id="device"),
        pytest.param(lambda path: path.symlink_to("absent"), FileNotFoundError, id="link to nothing"),
    ],
)
def test_reading_raises_for_what_is_no_regular_file(place: Path, plant: object, error: type[OSError]) -> None:
    plant(place / "x")  # type: ignore[operator]

    with pytest.raises(error):
        reading.read(str(place / "x"))
    assert (reading.read_or_none(str(place / "x")), reading.head(str(place / "x"))) == (None, b"")


def test_a_file_that_grows_beyond_the_limit_while_it_is_read_is_too_large(place: Path) -> None:
    (place / "x").write_bytes(b"12345")

    with pytest.raises(reading.TooLargeError):
        reading.read(str(place / "x"), 4)


def test_a_file_exchanged_for_a_fifo_after_the_look_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "regular").write_bytes(b"x")
    os.mkfifo(place / "fifo")
    before = os.stat(place / "regular")
    monkeypatch.setattr(os, "stat", lambda _: before)

    with pytest.raises(reading.NotRegularError):
        reading.read(str(place / "fifo"))


def test_the_head_of_a_file_is_its_beginning(place: Path) -> None:
    (place / "x").write_bytes(b"abcdef")

    assert reading.head(str(place / "x"), 3) == b"abc"


def test_the_head_of_what_cannot_be_read_is_empty(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "x").write_bytes(b"abcdef")

    def fail(descriptor: int, size: int) -> bytes:
        raise OSError(5, "input/output error", str((descriptor, size)))

    monkeypatch.setattr(os, "read", fail)

    assert reading.head(str(place / "x")) == b""
