"""What the tree says about itself: the licences of all that lies in it, and ``sbom.cdx.json``."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import sysconfig
import time
from pathlib import Path

from shim import sbom
from shim.record import Record
from shim.sbom import Component, File, normalised

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from importlib.metadata import Distribution
    from typing import Protocol

    from shim.sbom import Json

    class Run(Protocol):
        """The output of a program."""

        def __call__(self, *command: str, check: bool = True) -> str:
            """Fail when the program does, unless told not to."""


_PACKAGE_FORMAT = "${binary:Package}\t${Version}\t${source:Package}\t${Architecture}\n"
_DOCUMENTATION = Path("/usr/share/doc")
# The texts that the copyright files of packages refer to.
_COMMON_LICENCES = Path("/usr/share/common-licenses")
_LICENCE_NAMES = ("licence", "license", "copying", "notice", "authors")


class Package(Record):
    """An installed package, as dpkg knows it."""

    key: str
    version: str
    source: str
    architecture: str

    @property
    def name(self) -> str:
        """The name without the architecture that dpkg appends to some."""
        return self.key.partition(":")[0]


def dpkg_spellings(path: str) -> tuple[str, ...]:
    """The names by which dpkg may know a file: where /lib is a link to /usr/lib, packages say one or the other."""
    plain = path.removeprefix("/usr")
    return (plain, f"/usr{plain}")


def parse_owners(text: str) -> dict[str, str]:
    """Path to package, from ``dpkg-query --search``."""
    lines = [line.rpartition(": ") for line in text.splitlines() if not line.startswith("diversion by ")]
    return {path: packages.partition(",")[0] for packages, _, path in lines}


def parse_packages(text: str) -> tuple[Package, ...]:
    """The packages that ``dpkg-query --show`` printed."""
    return tuple(Package(*line.split("\t")) for line in text.splitlines())


def wheel_hashes(report: str) -> dict[str, str]:
    """Normalised name to SHA-256 of the wheel, from ``pip install --report``."""
    rows = json.loads(report)["install"]
    return {normalised(row["metadata"]["name"]): _sha256(row["download_info"].get("archive_info", {})) for row in rows}


def _sha256(archive: Mapping[str, object]) -> str:
    # pip 23.0, which is Debian 12's, says only "hash": "sha256=..."; later ones may leave it out for "hashes".
    hashes = archive.get("hashes")
    algorithm, _, digest = str(archive.get("hash", "")).partition("=")
    known = hashes if isinstance(hashes, dict) else {algorithm: digest}
    return str(known.get("sha256", ""))


def is_licence(path: Path) -> bool:
    """Whether a file of a distribution is a licence or a notice that must travel with it."""
    in_papers = path.parts[0].endswith(".dist-info")
    return in_papers and ("licenses" in path.parts or path.name.lower().startswith(_LICENCE_NAMES))


def with_openssl(rows: Iterable[Json], version: str) -> tuple[Json, ...]:
    """The rows with exactly one OpenSSL: the wheel's own row where it says the version we saw, else ours."""
    others = [row for row in rows if row.get("name") != "openssl" or row.get("version") == version]
    return tuple(others if any(row.get("name") == "openssl" for row in others) else [*others, sbom.openssl(version)])


class Origins(Record):
    """Where the tree's content came from: the shim's own wheel is first, ``copies`` are the files of the system.

    ``report`` is pip's, ``openssl`` the version that cryptography says it carries.
    """

    wheels: Mapping[str, Distribution]
    copies: Mapping[Path, Path]
    report: str
    openssl: str


def write(home: Path, origins: Origins, run: Run) -> None:
    """Write both below ``home``."""
    hashes = wheel_hashes(origins.report)
    wheels = [_wheel(home, found, hashes.get(name, ""), origins.openssl) for name, found in origins.wheels.items()]
    subject = wheels[0]._replace(kind="application")
    bom = sbom.document(subject, [*wheels[1:], *_system(home, origins.copies, run)], _timestamp())
    (home / "sbom.cdx.json").write_text(json.dumps(bom, indent=1) + "\n", encoding="utf-8")


def _wheel(home: Path, found: Distribution, sha256: str, openssl: str) -> Component:
    for file in filter(is_licence, map(Path, found.files or ())):
        _copy(found.locate_file(str(file)), home / "licenses" / found.name / file.name)
    return Component(
        name=found.name,
        version=found.version,
        purl=sbom.pypi_purl(found.name, found.version),
        expression=_field(found, "License-Expression"),
        licence=_field(found, "License"),
        sha256=sha256,
        parts=with_openssl(_own_parts(found), openssl) if found.name == "cryptography" else _own_parts(found),
    )


def _field(found: Distribution, name: str) -> str:
    values = found.metadata.get_all(name) or [""]
    return str(values[0]).partition("\n")[0]


def _own_parts(found: Distribution) -> tuple[Json, ...]:
    """What the wheel's own bills of materials (PEP 770) list."""
    boms = [Path(str(found.locate_file(file))) for file in found.files or () if "sboms" in file.parts]
    return tuple(part for bom in boms if bom.suffix == ".json" for part in sbom.parts(json.loads(bom.read_bytes())))


def _system(home: Path, originals: Mapping[Path, Path], run: Run) -> list[Component]:
    """A component for each package of the system that something was copied from."""
    owned = _by_owner(originals, run)
    unknown = owned.pop("", {})
    packages = parse_packages(run("dpkg-query", "--show", f"--showformat={_PACKAGE_FORMAT}", *owned)) if owned else ()
    known = [_package(home, package, owned[package.key]) for package in packages]
    if packages:
        _copy_common_licences(home)
    return [*known, *_unpackaged(home, unknown)]


def _by_owner(originals: Mapping[Path, Path], run: Run) -> dict[str, dict[Path, Path]]:
    names = [name for original in originals.values() for name in dpkg_spellings(str(original))]
    has_dpkg = shutil.which("dpkg-query") is not None
    # It fails when one of the names is unknown, and still answers for the others.
    owners = parse_owners(run("dpkg-query", "--search", *names, check=False)) if has_dpkg else {}
    found: dict[str, dict[Path, Path]] = {}
    for copy, original in originals.items():
        owner = next((owners[name] for name in dpkg_spellings(str(original)) if name in owners), "")
        found.setdefault(owner, {})[copy] = original
    return found


def _package(home: Path, package: Package, copies: Iterable[Path]) -> Component:
    copied = Path("licenses", package.name, "copyright")
    _copy(_DOCUMENTATION / package.name / "copyright", home / copied)
    system = platform.freedesktop_os_release()
    distribution = (system["ID"], system.get("VERSION_ID", ""))
    return Component(
        name=package.name,
        version=package.version,
        purl=sbom.deb_purl(package.name, package.version, package.architecture, package.source, distribution),
        licence=f"see {copied}",
        files=tuple(_objects(home, copies)),
    )


def _unpackaged(home: Path, copies: Mapping[Path, Path]) -> Iterator[Component]:
    """Python, where it was built from source; whatever else no package knows, by its file's name."""
    pythons = {copy for copy, original in copies.items() if _is_pythons(original)}
    if pythons:
        yield _python(home, pythons)
    for copy in copies.keys() - pythons:
        yield Component(name=copy.name, version="", files=tuple(_objects(home, [copy])))


def _is_pythons(original: Path) -> bool:
    return _standard_library() in original.parents or original.name.startswith(("python", "libpython"))


def _python(home: Path, copies: Iterable[Path]) -> Component:
    version = platform.python_version()
    _copy(_standard_library() / "LICENSE.txt", home / "licenses" / "python" / "LICENSE.txt")
    return Component(
        name="python",
        version=version,
        purl=f"pkg:generic/python@{version}",
        cpe=f"cpe:2.3:a:python:python:{version}:*:*:*:*:*:*:*",
        kind="application",
        expression="PSF-2.0",
        files=tuple(_objects(home, copies)),
    )


def _standard_library() -> Path:
    return Path(sysconfig.get_path("stdlib")).resolve()


def _objects(home: Path, copies: Iterable[Path]) -> Iterator[File]:
    for copy in sorted(copies):
        if copy.parent.name == "bin" or ".so" in copy.suffixes:
            yield File(str(copy.relative_to(home)), hashlib.sha256(copy.read_bytes()).hexdigest())


def _copy_common_licences(home: Path) -> None:
    for text in _COMMON_LICENCES.iterdir():
        _copy(text, home / "licenses" / _COMMON_LICENCES.name / text.name)


def _copy(source: object, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(str(source), target, follow_symlinks=False)


def _timestamp() -> str:
    """The moment the build says it is; nothing else, so that the same input gives the same tree."""
    moment = os.environ.get("SOURCE_DATE_EPOCH")
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(moment))) if moment else ""
