"""Variables and options to settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shim import config, families, options
from shim.errors import UsageError
from shim.sources import Source

if TYPE_CHECKING:
    from pathlib import Path

BAKED = Source(families.BAKED)


def test_without_any_setting_the_defaults_are_read_after_the_baked_certificates() -> None:
    assert config.read({}).sources == (BAKED, Source("/custom-certs"), Source("/home/anchore/certs"))


def test_named_sources_take_the_place_of_the_defaults() -> None:
    settings = config.read({"CA_SHIM_CERTS": "/a:/b"})

    assert settings.sources == (BAKED, Source("/a", named=True), Source("/b", named=True))


def test_an_empty_piece_of_a_list_is_nothing() -> None:
    assert config.read({"CA_SHIM_CERTS": ":/a::"}).sources == (BAKED, Source("/a", named=True))


@pytest.mark.parametrize(
    ("environ", "field", "value"),
    [
        pytest.param({}, "user", "anchore", id="default user"),
        pytest.param({}, "user_named", False, id="default user is not named"),
        pytest.param({"CA_SHIM_USER": "root"}, "user", "root", id="user"),
        pytest.param({"CA_SHIM_USER": "root"}, "user_named", True, id="user is named"),
        pytest.param({"CA_SHIM_USER": ""}, "user", "anchore", id="an empty user is none"),
        pytest.param({"CA_SHIM_ON_ERROR": "stop"}, "stop", True, id="stop"),
        pytest.param({"CA_SHIM_ON_ERROR": "warn"}, "stop", False, id="warn"),
        pytest.param({"CA_SHIM_ON_ERROR": "Stop"}, "stop", True, id="stop in capitals"),
        pytest.param({}, "stop", False, id="default on error"),
        pytest.param({"CA_SHIM": "off"}, "off", True, id="off"),
        pytest.param({"CA_SHIM": "OFF"}, "off", True, id="off in capitals"),
        pytest.param({"CA_SHIM": "0"}, "off", True, id="0"),
        pytest.param({"CA_SHIM": "no"}, "off", True, id="no"),
        pytest.param({"CA_SHIM": "on"}, "off", False, id="on"),
        pytest.param({"CA_SHIM": ""}, "off", False, id="empty"),
        pytest.param({"CA_SHIM_CERTIFI": "/a:/b"}, "certifi", ("/a", "/b"), id="certifi"),
        pytest.param({"CA_SHIM_BUNDLE_DIR": "/run/x/"}, "bundle_dir", "/run/x", id="bundle directory"),
    ],
)
def test_a_variable_is_a_setting(environ: dict[str, str], field: str, value: object) -> None:
    assert getattr(config.read(environ), field) == value


def test_an_option_wins_over_its_variable() -> None:
    assert config.read({"CA_SHIM_USER": "a"}, {"CA_SHIM_USER": "b"}).user == "b"


def test_the_root_directory_has_no_slash_at_its_end(tmp_path: Path) -> None:
    assert config.read({}, root=f"{tmp_path}/").root == str(tmp_path)


@pytest.mark.parametrize("name", ["absent", "file"])
def test_a_root_that_is_no_directory_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(UsageError, match=rf"--root '{tmp_path}/{name}' is not a directory"):
        config.read({}, root=f"{tmp_path}/{name}")


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        pytest.param({"CA_SHIM": "maybe"}, "CA_SHIM is neither on nor off", id="switch"),
        pytest.param({"CA_SHIM_ON_ERROR": "halt"}, "CA_SHIM_ON_ERROR is neither warn nor stop", id="on error"),
        pytest.param({"CA_SHIM_CERTS": "certs"}, "CA_SHIM_CERTS has a path", id="relative source"),
        pytest.param({"CA_SHIM_CERTIFI": "/a:b"}, "CA_SHIM_CERTIFI has a path", id="relative certifi"),
        pytest.param({"CA_SHIM_BUNDLE_DIR": "run"}, "CA_SHIM_BUNDLE_DIR has a path", id="relative bundle directory"),
        pytest.param({"CA_SHIM_BUNDLE_DIR": "/a:/b"}, "CA_SHIM_BUNDLE_DIR is one", id="two bundle directories"),
        pytest.param({"CA_SHIM_BUNDLE_DIR": "/run\nX=1"}, "CA_SHIM_BUNDLE_DIR has a control", id="newline"),
        pytest.param({"CA_SHIM_CERTS": "/a\x1b"}, "CA_SHIM_CERTS has a control", id="escape"),
    ],
)
def test_a_wrong_value_is_named(environ: dict[str, str], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        config.read(environ)


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(UsageError, match=r"CA_SHIM is .*CA_SHIM_ON_ERROR is .*CA_SHIM_CERTS has .*: correct"):
        config.read({"CA_SHIM": "?", "CA_SHIM_ON_ERROR": "?", "CA_SHIM_CERTS": "?"})


@pytest.mark.parametrize("row", config.SETTINGS, ids=lambda row: row.option)
def test_every_setting_has_an_option_of_the_same_meaning(row: config.Setting) -> None:
    value = [] if row.option == "--off" else ["/value"]
    parsed = options.parse(["run", row.option, *value])

    assert parsed.settings == {row.variable: value[0] if value else "off"}
