"""The runtime on images it was not made on: it brings all that it needs, and says what that is."""

from __future__ import annotations

import functools
import json
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from shim.runtime import HOME, foreign_objects
from shim.sbom import normalised
from tests.lab import derived, docker, images
from tests.lab.places import ROOT
from tests.lab.subject import events, facts, named, once

if TYPE_CHECKING:
    from tests.lab.shell import Result
    from tests.lab.subject import Mount

_Row = tuple[str, int, int, int, str]

_PYTHONS = tuple(images.PYTHONS)

_BASES = {
    "an empty root": images.empty,
    "an older libc (Debian 11)": functools.partial(images.base, "11"),
    "a newer libc (Debian 13)": functools.partial(images.base, "13"),
}

_IMPORTS = """\
import sys
sys.path.append("/opt/ca-shim/site")
import asyncio, certifi, ctypes, hashlib, ssl, structlog, subprocess
import cryptography.x509, cryptography.hazmat.primitives.serialization.pkcs7
ssl.create_default_context(cafile=certifi.where())
hashlib.sha256(b"")
with open("/proc/self/maps") as maps:
    print(maps.read())
"""

# Every module of the standard library that the tree has; what cannot be imported is printed with the reason.
_EVERYTHING = """\
import contextlib, importlib, os, pkgutil, warnings
warnings.simplefilter("ignore")
import sys
for module in pkgutil.walk_packages([path for path in sys.path if os.path.isdir(path)], onerror=lambda name: None):
    if not module.name.endswith("__main__"):
        try:
            with contextlib.redirect_stdout(None):
                importlib.import_module(module.name)
        except BaseException as error:
            print(module.name, error)
"""

# Modules of the standard library that import nowhere on Linux, or whose other half stays behind on purpose.
_NEVER_IMPORTED = {
    "asyncio.windows_events",
    "asyncio.windows_utils",
    "compression.bz2",
    "compression.lzma",
    "compression.zstd",
    "concurrent.futures.process",
    "encodings.bz2_codec",
    "encodings.mbcs",
    "encodings.oem",
}

_SURVEY = """\
import json, os, stat
rows = []
for directory, names, files in os.walk("/opt/ca-shim"):
    for path in [directory, *(os.path.join(directory, name) for name in files)]:
        status = os.stat(path)
        head = open(path, "rb").read(8).hex() if stat.S_ISREG(status.st_mode) else ""
        rows.append([path, status.st_uid, status.st_gid, status.st_mode, head])
print(json.dumps(rows))
"""

_ELF = "7f454c46"


def _runtime(python: str, base: str, program: str, *options: str) -> Result:
    tree = f"--volume={derived.home(python)}:{HOME}:ro"
    return once(base, f"{HOME}/bin/python3", "-ISBXutf8", "-c", program, options=(tree, *options))


@pytest.fixture(scope="module", params=_PYTHONS)
def python(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def files(python: str) -> list[_Row]:
    """Path, owner, group, mode and first bytes of everything in the tree."""
    return [tuple(row) for row in json.loads(_runtime(python, images.empty(), _SURVEY).stdout)]


@pytest.fixture(scope="module")
def bill(python: str) -> dict[str, Any]:
    return dict(json.loads((derived.home(python) / "sbom.cdx.json").read_text("utf-8")))


@pytest.mark.parametrize("base", _BASES.values(), ids=_BASES.keys())
def test_it_imports_what_it_needs_and_maps_nothing_of_the_image(python: str, base: functools.partial[str]) -> None:
    result = _runtime(python, base(), _IMPORTS)
    assert (result.status, result.stderr) == (0, "")
    assert f"{HOME}/lib/libc.so.6" in result.stdout
    assert foreign_objects(result.stdout, HOME) == ()


@pytest.mark.parametrize("number", ["11", "13"])
def test_libraries_that_the_environment_offers_are_not_taken(python: str, number: str) -> None:
    directories = f"/usr/lib/{platform.machine()}-linux-gnu:/lib/{platform.machine()}-linux-gnu"
    result = _runtime(python, images.base(number), _IMPORTS, f"--env=LD_LIBRARY_PATH={directories}")
    assert (result.status, foreign_objects(result.stdout, HOME)) == (0, ())


def test_every_module_that_is_left_imports(python: str) -> None:
    result = _runtime(python, images.empty(), _EVERYTHING)
    failed = {line.split()[0] for line in result.stdout.splitlines()}
    assert failed - _NEVER_IMPORTED == set(), result.stdout


def test_only_root_can_change_it(files: list[_Row]) -> None:
    assert [path for path, uid, gid, mode, _ in files if (uid, gid) != (0, 0) or mode & 0o022] == []


def test_all_bytecode_is_used_without_a_look_at_its_source(files: list[_Row]) -> None:
    # The second word of a .pyc: 1 is "by hash, unchecked".
    compiled = {path: head[8:] for path, _, _, _, head in files if path.endswith(".pyc")}
    sources = [path for path, *_ in files if path.endswith(".py")]
    assert set(compiled.values()) == {"01000000"}
    assert len(compiled) == len(sources)


def test_only_what_the_shim_requires_is_brought(python: str) -> None:
    brought = {path.name.partition("-")[0] for path in (derived.home(python) / "site").glob("*.dist-info")}
    assert brought == {"anchore_ca_shim", "certifi", "cffi", "cryptography", "pycparser", "structlog"}


def test_the_bill_names_every_object_of_the_tree(files: list[_Row], bill: dict[str, Any]) -> None:
    listed = {
        part["name"] for row in bill["components"] for part in row.get("components", ()) if part["type"] == "file"
    }
    objects = {str(Path(path).relative_to(HOME)) for path, *_, head in files if head.startswith(_ELF)}
    assert listed == {path for path in objects if not path.startswith("site/")}


def test_the_bill_names_every_wheel_by_the_hash_that_is_locked(bill: dict[str, Any]) -> None:
    locked = (ROOT / "requirements.lock").read_text("utf-8")
    wheels = [row for row in bill["components"] if row["purl"].startswith("pkg:pypi/")]
    assert {row["name"] for row in wheels} == {"certifi", "cffi", "cryptography", "pycparser", "structlog"}
    for row in wheels:
        section = re.search(rf"^{normalised(row['name'])}=={row['version']}(.*\n( .*\n)*)", locked, re.MULTILINE)
        assert section
        assert f"--hash=sha256:{row['hashes'][0]['content']}" in section[1]


def test_the_bill_names_the_openssl_inside_cryptography(python: str, bill: dict[str, Any]) -> None:
    asked = "from cryptography.hazmat.backends.openssl import backend; print(backend.openssl_version_text())"
    program = f"import sys; sys.path.append('{HOME}/site'); {asked}"
    (wheel,) = [row for row in bill["components"] if row["name"] == "cryptography"]
    versions = [part["version"] for part in wheel["components"] if part["name"] == "openssl"]
    assert versions == [_runtime(python, images.empty(), program).stdout.split()[1]]


def test_the_licence_of_every_component_is_there(python: str, bill: dict[str, Any]) -> None:
    licences = derived.home(python) / "licenses"
    components = [bill["metadata"]["component"], *bill["components"]]
    assert [row["name"] for row in components if not list((licences / row["name"]).iterdir())] == []


@pytest.fixture(scope="module")
def twice(ca: Path) -> str:
    """An image derived by one Python from one that was derived by another, and has a CA baked in."""
    baked = f"{docker.OWN_PREFIX}/baked:1"
    script = f"cp /mnt/ca-b.pem {HOME}/certs.d/"
    settings = ('ENTRYPOINT ["/docker-entrypoint.sh"]',)
    docker.build(baked, derived.image(derived.row("4.5-ubi9")), script, {"ca-b.pem": ca / "ca-b.pem"}, settings)
    return derived.again(baked, _PYTHONS[-1])


def test_of_two_derivations_the_last_one_s_files_are_there(twice: str) -> None:
    listing = once(twice, HOME.as_posix(), "-mindepth", "1", options=("--entrypoint=find",)).stdout.splitlines()
    mine = {path.removeprefix(f"{HOME}/") for path in listing}
    home = derived.home(_PYTHONS[-1])
    kept = {path for path in mine if path.partition("/")[0] in {"wrapped", "certs.d"}}

    assert mine - kept == {path.relative_to(home).as_posix() for path in home.rglob("*")} - {"certs.d"}
    assert {"certs.d/ca-b.pem", "wrapped/docker-entrypoint.sh"} < kept


def test_of_two_derivations_the_programs_and_baked_cas_are_those_of_the_base(twice: str, mount: Mount) -> None:
    result = once(twice, "anchore-enterprise-manager", "--exit", "7", options=(mount.option,))

    assert (result.status, facts(result.stdout)["uid"]) == (7, [1000, 1000])
    assert [event["certificates"] for event in named(events(result.stderr), "trust.ready")] == [2, 2]


def test_the_runtime_stage_is_an_image_for_an_init_container(python: str) -> None:
    form = "{{.Config.User}} {{json .Config.Entrypoint}} {{json .Config.Cmd}}"
    shown = docker.docker("image", "inspect", "--format", form, derived.runtime(python)).stdout
    assert shown.strip() == '65532:65532 ["/opt/ca-shim/bin/ca-shim"] ["--help"]'
    assert once(derived.runtime(python)).status == 0
