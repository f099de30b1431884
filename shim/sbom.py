"""A CycloneDX 1.6 bill of materials of the assembled tree: components in, document out."""

from __future__ import annotations

import re
from urllib.parse import quote

from shim.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Json = Mapping[str, object]


class File(Record):
    """A file of the tree, named from the tree's top."""

    path: str
    sha256: str


class Component(Record):
    """Something that somebody else made: where it came from, under which licence, and its files in the tree."""

    name: str
    version: str
    purl: str = ""
    cpe: str = ""
    kind: str = "library"
    expression: str = ""
    licence: str = ""
    sha256: str = ""
    files: tuple[File, ...] = ()
    parts: tuple[Json, ...] = ()


def document(subject: Component, components: Iterable[Component], timestamp: str = "") -> Json:
    """The bill of materials of ``subject``, the same for the same input, in order of the components' names."""
    rows = [_component(component) for component in sorted(components)]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": _present({"timestamp": timestamp, "component": _component(subject)}),
        "components": rows,
        "dependencies": [{"ref": _reference(subject), "dependsOn": [row["bom-ref"] for row in rows]}],
    }


def normalised(name: str) -> str:
    """A distribution's name as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pypi_purl(name: str, version: str) -> str:
    """The package URL of a distribution on PyPI."""
    return f"pkg:pypi/{normalised(name)}@{quote(version)}"


def deb_purl(name: str, version: str, architecture: str, source: str, distribution: tuple[str, str]) -> str:
    """The package URL of a dpkg package; ``distribution`` is ``ID`` and ``VERSION_ID`` of os-release."""
    vendor, release = distribution
    return (
        f"pkg:deb/{quote(vendor)}/{quote(name)}@{quote(version, safe='~')}"
        f"?arch={quote(architecture)}&distro={quote(f'{vendor}-{release}')}&upstream={quote(source)}"
    )


def openssl(version: str) -> Json:
    """The row of an OpenSSL that is compiled into something else."""
    return {
        "type": "library",
        "name": "openssl",
        "version": version,
        "purl": f"pkg:generic/openssl@{quote(version)}",
        "cpe": f"cpe:2.3:a:openssl:openssl:{version}:*:*:*:*:*:*:*",
        "licenses": [{"expression": "Apache-2.0"}],
    }


def parts(bom: Json) -> tuple[Json, ...]:
    """The components that a wheel's own bill of materials (PEP 770) lists, free to stand inside another document."""
    rows = bom.get("components")
    return tuple(_without_reference(row) for row in rows if isinstance(row, dict)) if isinstance(rows, list) else ()


def _without_reference(row: Json) -> Json:
    return {key: value for key, value in row.items() if key not in {"bom-ref", "components"}}


def _component(component: Component) -> dict[str, object]:
    return _present(
        {
            "type": component.kind,
            "bom-ref": _reference(component),
            "name": component.name,
            "version": component.version,
            "hashes": _hashes(component.sha256),
            "licenses": _licences(component),
            "cpe": component.cpe,
            "purl": component.purl,
            "components": [*map(_file, component.files), *component.parts],
        }
    )


def _reference(component: Component) -> str:
    return component.purl or f"{component.name}@{component.version}".rstrip("@")


def _file(file: File) -> Json:
    return {"type": "file", "name": file.path, "hashes": _hashes(file.sha256)}


def _hashes(sha256: str) -> Sequence[Json]:
    return [{"alg": "SHA-256", "content": sha256}] if sha256 else []


def _licences(component: Component) -> Sequence[Json]:
    if component.expression:
        return [{"expression": component.expression}]
    return [{"license": {"name": component.licence}}] if component.licence else []


def _present(row: Json) -> dict[str, object]:
    return {key: value for key, value in row.items() if value}
