"""Debian root file systems and packages, from the mirror this machine's apt is set up with."""

from __future__ import annotations

import os
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from .places import CACHE, digest
from .shell import run, say

_ONE_AT_A_TIME = threading.Lock()
_INCLUDE = ("ca-certificates", "openssl", "python3", "curl", "skopeo")
_PIP = ("python3-venv", "python3-pip")

# Kept beside the root file system for images that add packages without any network.
_DOWNLOAD = (
    'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get install -qq -y --download-only --no-install-recommends'
    ' -o Dir::Cache::Archives="$LAB_DEBS" -o APT::Sandbox::User=root -o Debug::NoLocking=1 $LAB_EXTRA'
)
# Nobody here reads them, and each file costs: some storage drivers walk the whole tree for every layer of an image.
_UNREAD = ("man", "doc", "locale", "bash-completion", "lintian", "bug")
_SLIM = (
    "--dpkgopt=force-unsafe-io",
    *(f"--dpkgopt=path-exclude=/usr/share/{directory}/*" for directory in _UNREAD),
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
)
# These are needed while packages are installed, and never again.
_USED = (
    "/etc/apt/sources.list",
    "/etc/apt/sources.list.d/*",
    "/usr/share/perl",
    "/usr/share/zoneinfo",
    "/usr/lib/*/perl",
    "/usr/lib/*/perl-base/unicore/lib",
    "/usr/lib/*/gconv",
    "/usr/lib/*/xtables",
    "/usr/lib/python3*/test",
    "/usr/lib/python3*/lib2to3",
)
_TIDY = "rm -rf " + " ".join(f'"$1"{path}' for path in _USED)
_APT_SETTINGS = ("Acquire::Check-Valid-Until", "Acquire::Check-Date", "Acquire::http::Proxy", "Acquire::https::Proxy")


@dataclass(frozen=True)
class Release:
    """One Debian release."""

    number: str
    """Its name in the tags of images: the release, and what it has besides what all have."""
    suite: str
    include: tuple[str, ...]
    """What its root file system has."""
    extra: tuple[str, ...]
    """What is kept beside it."""
    options: tuple[str, ...] = ()

    @property
    def _key(self) -> str:
        return f"debian-{self.number}-{digest(self, _SLIM, _TIDY)}"

    @property
    def tarball(self) -> Path:
        """The root file system."""
        return CACHE / "rootfs" / f"{self._key}.tar"

    @property
    def extras(self) -> Path:
        """The directory of the extra packages."""
        return CACHE / "debs" / self._key


_P11 = ("p11-kit", "p11-kit-modules")
# /bin is /usr/bin on every Red Hat system, and on Debian only since 12.
_MERGED = ("--setup-hook=/usr/share/mmdebstrap/hooks/merged-usr/setup00.sh",)

RELEASES = (
    Release("12", "bookworm", (*_INCLUDE, *_PIP), (*_P11, "docker-registry", "nodejs")),
    Release("11", "bullseye", _INCLUDE, (*_P11, "python2.7-minimal", "libpython2.7-stdlib"), _MERGED),
    Release("13", "trixie", (*_INCLUDE, *_PIP), _P11),
    Release("12-clients", "bookworm", (*_INCLUDE, *_PIP, "git", "python3-requests", "rclone", "wget"), _P11),
)


def bootstrap(release: Release) -> Path:
    """The tarball of the release's root file system, made if it is missing; either whole or not there."""
    if release.tarball.exists():
        return release.tarball
    say(f"mmdebstrap {release.suite}")
    start = time.monotonic()
    partial = release.tarball.with_suffix(f".{os.getpid()}.tar")
    for directory in (release.tarball.parent, release.extras):
        directory.mkdir(parents=True, exist_ok=True)
    run(
        "mmdebstrap",
        "--quiet",
        "--mode=root",
        "--variant=minbase",
        f"--include={','.join(release.include)}",
        *(f"--aptopt={setting}" for setting in _settings()),
        *_SLIM,
        *release.options,
        f"--customize-hook={_DOWNLOAD}",
        f"--customize-hook={_TIDY}",
        release.suite,
        partial,
        *_sources(release.suite),
        environment={"LAB_DEBS": str(release.extras), "LAB_EXTRA": " ".join(release.extra)},
    )
    shutil.rmtree(release.extras / "partial", ignore_errors=True)
    partial.rename(release.tarball)
    say(f"{release.suite} is there after {time.monotonic() - start:.0f} s")
    return release.tarball


def packages(release: Release) -> Path:
    """The directory of the release's extra packages, fetched if they are missing."""
    with _ONE_AT_A_TIME:  # where the images are there and the packages are not, two may ask at once
        if not release.extras.exists():
            release.tarball.unlink(missing_ok=True)
            bootstrap(release)
    return release.extras


def _settings() -> list[str]:
    values = {name: run("apt-config", "dump", "--format", "%v", name).strip() for name in _APT_SETTINGS}
    return [f'{name} "{value}"' for name, value in values.items() if value]


def _sources(suite: str) -> list[str]:
    """The lines of sources.list; none on a machine that is no Debian: mmdebstrap knows where Debian is."""
    main, security = _mirror(""), _mirror("-security")
    lines = [f"deb {main} {suite} main"] if main else []
    return [*lines, f"deb {security} {suite}-security main"] if main and security else lines


def _mirror(suffix: str) -> str:
    here = _os_release()
    if here.get("ID") != "debian":
        return ""
    targets = run("apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages")
    wanted = [f"{here.get('VERSION_CODENAME', '')}{suffix}", "main"]
    return next((line.split()[0] for line in targets.splitlines() if line.split()[1:] == wanted), "")


def _os_release() -> dict[str, str]:
    lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    return {name: value.strip('"') for name, _, value in (line.partition("=") for line in lines)}
