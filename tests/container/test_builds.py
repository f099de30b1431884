"""Dockerfile.example where its users build it: behind a proxy that intercepts TLS, and without network."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.lab import derived, images, index, readme
from tests.lab.docker import OWN_PREFIX
from tests.lab.places import ROOT
from tests.lab.shell import attempt
from tests.lab.subject import once
from tests.lab.wheels import fetch_runtime

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.lab.index import Index
    from tests.lab.shell import Result

_TAG = f"{OWN_PREFIX}/builds:1"
_OLDER, _NEWER = "3.11", "3.13"


@pytest.fixture(scope="module")
def proxy() -> Iterator[Index]:
    with index.running() as found:
        yield found


@pytest.fixture
def clone() -> Iterator[Path]:
    """What a fresh clone gives the build: no wheels/."""
    with derived.context(None) as directory:
        yield directory


def _build(clone: Path, *options: str, python: str = _NEWER) -> Result:
    return derived.build(clone, f"--tag={_TAG}", "--target=runtime", *options, python=python)


def _through(proxy: Index) -> tuple[str, ...]:
    return f"--network={proxy.network}", f"--build-arg=HTTPS_PROXY={proxy.proxy}"


def _last_line(result: Result) -> str:
    """The last that the failing step said; the classic builder's own words are on stderr."""
    return re.sub(r"\x1b\[\d+m", "", result.stdout).splitlines()[-1]


def test_behind_a_proxy_that_intercepts_tls_its_ca_is_all_that_is_needed(clone: Path, proxy: Index) -> None:
    (clone / "build-ca.pem").write_bytes(proxy.ca)
    built = _build(clone, *_through(proxy))

    assert built.status == 0, built.stdout[-3000:] + built.stderr[-3000:]
    assert once(_TAG, "--version").stdout.startswith("ca-shim ")
    look = ("-c", "ls -d /build /build.json /pip-ca.pem 2> /dev/null")
    assert once(_TAG, *look, options=("--entrypoint=/bin/sh",)).stdout == ""


def test_behind_such_a_proxy_a_build_that_does_not_know_its_ca_says_what_to_do(clone: Path, proxy: Index) -> None:
    built = _build(clone, *_through(proxy))

    assert built.status != 0
    assert "CERTIFICATE_VERIFY_FAILED" in built.stdout + built.stderr
    assert "put its CA beside Dockerfile.example as build-ca.pem" in _last_line(built)


def test_the_public_roots_stay_trusted_beside_that_ca(clone: Path) -> None:
    """What pip gets is its own roots and the CA: the same step, looked at instead of used."""
    (clone / "build-ca.pem").write_text("the CA\n", encoding="ascii")
    dockerfile = (clone / "Dockerfile.example").read_text(encoding="utf-8")
    (clone / "Dockerfile.example").write_text(
        re.sub(r"python3 -m pip install \$from[^|]*", "cat /pip-ca.pem; false ", dockerfile), encoding="utf-8"
    )
    said = _build(clone, "--network=none").stdout

    assert said.count("END CERTIFICATE") > 100
    assert "the CA\n" in said


def _fetch(clone: Path, proxy: Index, python: str) -> None:
    """Fill wheels/ by the README's command, in this Python's image, through the proxy."""
    (line,) = (each.line for each in readme.commands() if "pip download" in each.line)
    (clone / "proxy.pem").write_bytes(proxy.ca)
    line = proxy.adapted(line.replace("python:3.13", f"python:{python}"), "/src/proxy.pem")
    fetched = attempt("sh", "-c", f"cd '{clone}' && {line}")
    assert fetched.status == 0, fetched.stderr


def test_the_air_gapped_recipe_works_as_it_is_written(clone: Path, proxy: Index) -> None:
    _fetch(clone, proxy, _NEWER)
    built = _build(clone, "--network=none")

    assert built.status == 0, built.stdout[-3000:] + built.stderr[-3000:]
    assert once(_TAG, "--version").stdout.startswith("ca-shim ")


def test_packages_for_another_python_are_called_so(clone: Path, proxy: Index) -> None:
    _fetch(clone, proxy, _OLDER)
    built = _build(clone, "--network=none")

    assert built.status != 0
    assert "wheels/ is for cp311, this image is cp313: " in _last_line(built)
    assert "inside PYTHON_IMAGE" in _last_line(built)


def test_packages_that_are_not_complete_are_called_so(clone: Path, proxy: Index) -> None:
    _fetch(clone, proxy, _NEWER)
    next((clone / "wheels").glob("structlog-*")).unlink()
    built = _build(clone, "--network=none")

    assert built.status != 0
    assert "wheels/ lacks a package of requirements.lock" in _last_line(built)


def test_the_lab_leaves_no_wheels_behind_that_the_next_build_would_use() -> None:
    before = (ROOT / "wheels").exists()
    derived.runtime(_OLDER)

    assert (ROOT / "wheels").exists() == before
    assert not fetch_runtime(images.PYTHONS).is_relative_to(ROOT / "wheels")
