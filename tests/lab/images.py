"""The images of the lab, each built only when it is missing or its recipe has changed.

debian:N        a Debian root file system with skopeo, curl, openssl and python3
python:3.N      the same under the name that the runtime stage of the Dockerfile asks for
rhel:N-EL       RHEL's trust layout with the real p11-kit on Debian N
ROW             a stand-in for one generation of Anchore images (or the real image, where it may be pulled)
ui              a Node image without a user anchore
servers         two TLS registries and HTTPS servers
empty           nothing at all
"""

from __future__ import annotations

import functools
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from . import debian, docker, wheels
from .places import CACHE, CONTEXT, digest
from .rows import CLIENTS, ROWS, Row
from .shell import attempt, run, say

if TYPE_CHECKING:
    from collections.abc import Callable

PYTHONS = {"3.11": "12", "3.13": "13"}
Files = dict[str, Path]
_ALL = (*ROWS, CLIENTS)
# zipfile keeps no modes. The certifi of a distribution points to the system's bundle; Red Hat's has no file besides.
_LATER = (
    "; for wheel in /mnt/anchore/older/*; do /usr/bin/python3 -m zipfile -e $wheel /opt/older; done"
    "; find /home/anchore/venv/lib -path '*/data/bin/*' -exec chmod 755 {} +"
    "; rm /usr/lib/python3/dist-packages/certifi/cacert.pem"
)
_RELEASES = {release.number: release for release in debian.RELEASES}


def name(short: str) -> str:
    """The full name of one of the lab's images."""
    return f"{docker.PREFIX}/{short}" if ":" in short else f"{docker.PREFIX}/{short}:1"


def prepare() -> None:
    """Build everything, the slow downloads two at a time."""
    with ThreadPoolExecutor(2) as two:
        list(two.map(base, _RELEASES))
        list(two.map(python, PYTHONS))
        list(two.map(rhel, *zip(*sorted({(row.debian, row.el) for row in _ALL if row.el}), strict=True)))
        list(two.map(anchore, _ALL))
        list(two.map(lambda make: make(), (servers, ui, empty)))


@functools.cache
def base(number: str) -> str:
    """Debian as it is."""
    release = _RELEASES[number]
    tag, recipe = name(f"debian:{number}"), release.tarball.stem
    if docker.recipe(tag) != recipe:
        docker.load(debian.bootstrap(release), tag, recipe)
    return tag


@functools.cache
def python(version: str) -> str:
    """What an official Python image of this version is to the Dockerfile: python3 with venv and pip."""
    tag = name(f"python:{version}")
    run("docker", "tag", base(PYTHONS[version]), tag)
    return tag


@functools.cache
def rhel(number: str, el: str) -> str:
    """RHEL's trust layout with the real p11-kit, and update-ca-trust as that generation behaves."""
    release = "ubi8" if el == "8" else f"ubi{el.partition('.')[0]}"
    script = f"sh /mnt/rhel/layout.sh {el} /mnt/os-release/{release}"
    files = {"rhel": CONTEXT / "rhel", "os-release": CONTEXT / "os-release"}
    return _build(f"rhel:{number}-{el}", base(number), script, files, lambda: _debs("rhel", number, "p11-kit"))


@functools.cache
def anchore(row: Row) -> str:
    """The image of one row: the real one where it may be pulled, else a stand-in, labelled as one."""
    return _pulled(row.upstream) or _stand_in(row)


def is_stand_in(tag: str) -> bool:
    """True when the image was made here."""
    return tag.startswith(f"{docker.PREFIX}/")


@functools.cache
def servers() -> str:
    """The TLS registries and HTTPS servers; their keys are mounted when they run."""
    files = {"servers": CONTEXT / "servers"}
    script = "cp -r /mnt/servers /servers; sh /servers/seed.sh"
    late = functools.partial(_debs, "servers", "12", "docker-registry")
    return _build("servers", base("12"), script, files, late, 'CMD ["sh", "/servers/start.sh"]')


@functools.cache
def ui() -> str:
    """Shaped as the UI image: Node, /home/node, no user anchore."""
    script = (
        "dpkg -i /mnt/debs/*.deb > /dev/null; useradd -m -u 1000 node; mkdir -p /home/node/aui/build;"
        " install -m 755 /mnt/entrypoint-0.3 /docker-entrypoint.sh"
    )
    settings = (
        "USER node",
        "WORKDIR /home/node",
        'ENTRYPOINT ["/docker-entrypoint.sh"]',
        'CMD ["node", "/home/node/aui/build/server.js"]',
    )
    late = functools.partial(
        _debs, "", "12", "nodejs", "libnode", "libuv", "libc-ares", "libicu", "libnghttp2", "node-"
    )
    files = {"entrypoint-0.3": CONTEXT / "anchore" / "entrypoint-0.3"}
    return _build("ui", base("12"), script, files, late, *settings)


@functools.cache
def empty() -> str:
    """An image without a single file, for a runtime that has to bring everything."""
    tag, tarball = name("empty"), CACHE / "rootfs" / "empty.tar"
    if docker.recipe(tag) != "empty":
        tarball.parent.mkdir(parents=True, exist_ok=True)
        tarball.write_bytes(bytes(10240))
        docker.load(tarball, tag, "empty")
    return tag


def _stand_in(row: Row) -> str:
    parent = rhel(row.debian, row.el) if row.el else base(row.debian)
    files = {"anchore": CONTEXT / "anchore", "os-release": CONTEXT / "os-release"}
    return _build(row.name, parent, _script(row), files, lambda: _packages(row), *_settings(row))


def _packages(row: Row) -> Files:
    if row.packages:
        version = row.python.removeprefix("python")
        fetched = wheels.fetch_for(version, f"certifi=={row.certifi}", *row.packages)
        older = wheels.fetch_for(version, *row.older)
        return {
            f"anchore/{name}/{wheel.name}": wheel
            for name, directory in (("wheels", fetched), ("older", older))
            for wheel in directory.iterdir()
        }
    fetched = wheels.fetch(row.generation, row.certifi)
    python = _debs("anchore", row.debian, "python2.7") if row.generation == 2 else {}
    return {f"anchore/wheels/{wheel.name}": wheel for wheel in fetched.iterdir()} | python


def _script(row: Row) -> str:
    values = {
        "PYTHON": row.python,
        "SITE": row.site,
        "ANCHORE": "yes" if row.anchore else "no",
        "BIN": row.bin,
        "PROGRAMS": " ".join(row.programs),
        "ENTRYPOINT": row.entrypoint,
        "SECOND_VENV": row.second_venv,
    }
    shape = " ".join(f"{key}='{value}'" for key, value in values.items())
    release = f"cp /mnt/os-release/{row.release} /usr/lib/os-release; " if row.release else ""
    return f"{release}{shape} sh /mnt/anchore/layout.sh{_LATER if row.older else ''}"


def _settings(row: Row) -> tuple[str, ...]:
    lines = (
        # en_US.UTF-8 is not installed, as on the vendor's images: a program may notice, and change its environment.
        f"ENV PATH={row.path} LANG=en_US.UTF-8",
        f"LABEL ca-shim-test.stand-in={row.name} ca-shim-test.certifi={row.certifi}",
        f"LABEL ca-shim-test.packages='{' '.join((*row.packages, *row.older))}'" if row.packages else "",
        f"WORKDIR {row.workdir}",
        f"HEALTHCHECK --start-period=20s CMD {row.health}" if row.health else "",
        f"USER {row.user}" if row.user else "",
        'ENTRYPOINT ["/docker-entrypoint.sh"]' if row.entrypoint else "ENTRYPOINT []",
        f"CMD {row.command}",
    )
    return tuple(filter(None, lines))


def _pulled(upstream: str) -> str:
    """The vendor's image when CA_SHIM_TEST_UPSTREAM allows all (1) or names this one, and it can be had."""
    allowed = os.environ.get("CA_SHIM_TEST_UPSTREAM", "")
    if not upstream or not (allowed == "1" or upstream in allowed.split(",")):
        return ""
    return upstream if attempt("docker", "pull", "--quiet", upstream, timeout=900).status == 0 else ""


def _build(short: str, parent: str, script: str, files: Files, late: Callable[[], Files], *settings: str) -> str:
    """An image of the lab; the packages that come late are looked for, or fetched, only when it has to be built."""
    tag = name(short)
    recipe = digest(docker.recipe(parent), script, settings, *files, *files.values())
    if docker.recipe(tag) != recipe:
        say(f"building {tag}")
        changes = ('CMD ["bash"]', *settings, docker.label(recipe))
        docker.build(tag, parent, script, {**files, **late()}, changes)
    return tag


def _debs(under: str, number: str, *words: str) -> Files:
    """The extra packages of a release that have one of these words in their names, by place in a build context."""
    packages = sorted(debian.packages(_RELEASES[number]).glob("*.deb"))
    wanted = [path for path in packages if any(word in path.name for word in words)]
    return {(Path(under) / "debs" / path.name).as_posix(): path for path in wanted}
