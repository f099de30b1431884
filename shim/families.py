"""The facts: systems, stores, places, programs and client variables. Rows only, each with where it was learned.

No other module names a distribution, a path of Anchore's or a client's variable.
"""

from __future__ import annotations

from shim.record import Record


class Family(Record):
    """How one family of operating systems keeps its trust store."""

    name: str
    ids: tuple[str, ...]  # os-release ID and ID_LIKE
    anchors: str  # directory of anchors, one certificate a file
    tool: str  # makes the bundle from the anchors; its exit status promises nothing
    after_removal: tuple[str, ...]  # the tool's arguments once an anchor is gone
    bundle: str  # what clients read, and what success is judged by
    outputs: tuple[str, ...]  # every other file that the tool writes and a failed refresh might break
    directories: tuple[str, ...]  # in which it makes and removes links and files, some of them named by a hash
    leftovers: tuple[str, ...]  # of a killed tool, which its next run would add to
    drops: frozenset[str]  # traits of certificates that the tool leaves out without a word
    blocklists: tuple[str, ...]  # directories of certificates that the administrator distrusts
    state: str  # our marker of an unfinished change, where neither tool nor clients look


# update-ca-trust(8) and the ca-certificates package of CentOS 7 and RHEL 8 to 10. Bare `update-ca-trust` is the one
# call that every generation takes: 8 and 9.2 ignore arguments, 10 refuses unknown ones. p11-kit ignores what is no CA.
RHEL = Family(
    name="rhel",
    ids=("rhel", "centos", "fedora", "rocky", "almalinux", "ol", "amzn"),
    anchors="/etc/pki/ca-trust/source/anchors",
    tool="/usr/bin/update-ca-trust",
    after_removal=(),
    bundle="/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    outputs=(
        "/etc/pki/ca-trust/extracted/pem/email-ca-bundle.pem",
        "/etc/pki/ca-trust/extracted/pem/objsign-ca-bundle.pem",
        "/etc/pki/ca-trust/extracted/openssl/ca-bundle.trust.crt",
        "/etc/pki/ca-trust/extracted/java/cacerts",
        "/etc/pki/ca-trust/extracted/edk2/cacerts.bin",
    ),
    directories=("/etc/pki/ca-trust/extracted/pem/directory-hash", "/etc/pki/tls/certs"),  # from 9.4, and from 10
    leftovers=(),  # p11-kit's temporary files have random names
    drops=frozenset({"not-ca", "no-basic-constraints", "no-server-auth"}),
    blocklists=(
        "/etc/pki/ca-trust/source/blocklist",
        "/etc/pki/ca-trust/source/blacklist",
        "/usr/share/pki/ca-trust-source/blocklist",
        "/usr/share/pki/ca-trust-source/blacklist",
    ),
    state="/etc/pki/ca-trust/ca-shim.state",
)
# update-ca-certificates(8). It reads only *.crt, copies them raw, and leaves dangling links unless --fresh; without it,
# it renews the hashed links, which are OpenSSL's default, only for links that it has just made.
DEBIAN = Family(
    name="debian",
    ids=("debian", "ubuntu"),
    anchors="/usr/local/share/ca-certificates/ca-shim",
    tool="/usr/sbin/update-ca-certificates",
    after_removal=("--fresh",),
    bundle="/etc/ssl/certs/ca-certificates.crt",
    outputs=("/etc/ssl/certs/java/cacerts",),  # by the hook of ca-certificates-java
    directories=("/etc/ssl/certs",),
    leftovers=("/etc/ssl/certs/ca-certificates.crt.new",),
    drops=frozenset(),
    blocklists=(),
    state="/usr/local/share/ca-certificates/ca-shim.state",
)
FAMILIES = (RHEL, DEBIAN)
TOOL_PATH = ("/usr/sbin", "/usr/bin", "/sbin", "/bin")  # where the tools find their helpers

OS_RELEASE = ("/etc/os-release", "/usr/lib/os-release")  # os-release(5): the first that exists

# Bundles of systems without a row, to start an override from: the search list of Go's crypto/x509/root_linux.go.
OS_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
)

# Where Go reads every file, besides the first of the above that it can read: the same file of Go's.
GO_DIRECTORIES = ("/etc/ssl/certs", "/etc/pki/tls/certs")


class Generation(Record):
    """A generation of Anchore's images, from its documentation page "Adding Custom Certificate Authority"."""

    versions: str
    base: str
    family: Family
    certifi: str  # the directory of cacert.pem
    user: str  # who the application runs as
    programs: tuple[str, ...]  # the entrypoint first, where there is one


_ENTRY = "/docker-entrypoint.sh"
GENERATIONS = (
    Generation(
        "0.2.x and earlier",
        "CentOS 7",
        RHEL,
        "/usr/lib/python2.7/site-packages/certifi",
        "root",
        ("/usr/bin/anchore-engine",),
    ),
    Generation(
        "0.3.x",
        "Ubuntu 18.04",
        DEBIAN,
        "/usr/local/lib/python3.6/dist-packages/certifi",
        "root",
        (_ENTRY, "anchore-manager"),
    ),
    Generation(
        "0.4.x and newer",
        "UBI 7",
        RHEL,
        "/opt/rh/rh-python36/root/usr/lib/python3.6/site-packages/certifi",
        "anchore",
        (_ENTRY, "anchore-manager"),
    ),
    Generation(
        "0.7.x and newer",
        "UBI 8",
        RHEL,
        "/usr/local/lib/python3.6/site-packages/certifi",
        "anchore",
        (_ENTRY, "anchore-manager"),
    ),
    Generation(
        "Enterprise 2.3.x and newer",
        "UBI 8",
        RHEL,
        "/usr/local/lib/python3.6/site-packages/certifi",
        "anchore",
        (_ENTRY, "anchore-enterprise-manager"),
    ),
    Generation(
        "Enterprise 3.0.x and newer",
        "UBI 8",
        RHEL,
        "/usr/local/lib/python3.8/site-packages/certifi",
        "anchore",
        (_ENTRY, "anchore-enterprise-manager"),
    ),
    Generation(
        "Enterprise 4.4.x and newer",
        "UBI 8",
        RHEL,
        "/usr/local/lib/python3.9/site-packages/certifi",
        "anchore",
        (_ENTRY, "anchore-enterprise-manager"),
    ),
    Generation(
        "Enterprise 4.5.x and newer",
        "UBI 9",
        RHEL,
        "/home/anchore/venv/lib/python3.9/site-packages/certifi",
        "anchore",
        (_ENTRY, "anchore-enterprise-manager", "ng-enterprise"),
    ),
)

# Where a certifi may lie besides the command's own interpreter. `*` stands for one path component's rest.
CERTIFI = "certifi/cacert.pem"
CERTIFI_ARCHIVE = "certifi-*.egg"  # left zipped by setuptools' easy_install: importable, and not to be changed
SITE_DIRECTORIES = (
    "/home/anchore/venv/lib/python*/site-packages",
    "/home/anchore/venv/lib64/python*/site-packages",
    "/anchore-cli/lib/python*/site-packages",  # the client's own venv, from 0.7
    "/anchore-cli/lib64/python*/site-packages",
    "/usr/local/lib/python*/site-packages",
    "/usr/local/lib64/python*/site-packages",
    "/usr/local/lib/python*/dist-packages",  # Debian's and Ubuntu's pip
    "/usr/lib/python*/site-packages",
    "/usr/lib64/python*/site-packages",
    "/usr/lib/python*/dist-packages",
    "/opt/rh/*/root/usr/lib/python*/site-packages",  # software collections, 0.4
    "/opt/rh/*/root/usr/lib64/python*/site-packages",
    "/home/anchore/.local/lib/python*/site-packages",  # user site
    "/root/.local/lib/python*/site-packages",
)
# Relative to the directory of an interpreter's bin.
SITE_BELOW_PREFIX = (
    "lib/python*/site-packages",
    "lib64/python*/site-packages",
    "lib/python*/dist-packages",
)

PROGRAM_DIRECTORIES = (
    "/usr/local/bin",
    "/usr/bin",
    "/home/anchore/venv/bin",
    "/anchore-cli/bin",
    "/opt/rh/rh-python36/root/usr/bin",
    "/opt/rh/rh-python36/root/usr/local/bin",
)
SHELLS = ("sh", "bash", "dash", "ash", "ksh", "zsh")
# `wrap` refuses what other programs are started by: the shim would run at each of their starts, those of the refresh
# tools included, which are shell scripts. node: the UI starts it with its own arguments, and it reads a variable.
# Versions behind a name do not count.
NEVER_WRAPPED = (
    *SHELLS,
    *(row.tool.rpartition("/")[2] for row in FAMILIES),
    *("trust", "p11-kit"),  # update-ca-trust calls them several times
    *("busybox", "coreutils", "env", "java", "node", "nodejs", "perl", "php", "pypy", "python", "ruby"),
)

HOME = "/opt/ca-shim"  # ours, in the image; owned by root
COMMAND = HOME + "/bin/ca-shim"
LINK = "/usr/local/bin/ca-shim"
WRAPPED = HOME + "/wrapped"  # programs that `ca-shim wrap` moved, under their old paths
BAKED = HOME + "/certs.d"  # CA files baked into the image
DEFAULT_SOURCES = ("/custom-certs", "/home/anchore/certs")  # the second is the chart's certStoreSecretName
DEFAULT_USER = "anchore"
VENDOR_OVERRIDES = "/home/anchore/certs_override"  # written by Anchore's entrypoint from /home/anchore/certs

# The first usable one holds the override bundles; {uid} and {tmp} are filled in. /dev/shm is writable even with
# `docker run --read-only` and no tmpfs.
BUNDLE_DIRECTORIES = (
    "/run/ca-shim",
    "/home/anchore/.ca-shim",
    "{tmp}/ca-shim-{uid}",
    "/tmp/ca-shim-{uid}",  # noqa: S108 - used only if root's or ours, and no link
    "/dev/shm/ca-shim-{uid}",  # noqa: S108 - the same
)


# The kubelet mounts it from a directory that it names after the pod and the container, and keeps when that restarts.
TERMINATION_LOG = "/dev/termination-log"


class Variable(Record):
    """An environment variable by which clients are pointed at a bundle."""

    name: str
    file: str  # the override bundle that it points to when somebody had set it
    base: str  # what its bundle starts from: "os", "python" or "nothing"
    when: str  # the situation in which it is set although it had no value: see `environ`
    clients: str
    directories: bool = False  # its clients take a directory of certificates, too
    needs: str = ""  # a program, or a package beside a certifi, without which it is set only if it had a value

    @property
    def store_file(self) -> str:
        """The override bundle that it points to when nobody had set it."""
        return {"os": "os.pem", "python": "python.pem", "nothing": "extra.pem"}[self.base]

    @property
    def exported(self) -> bool:
        """Whether a start may set it although nobody had."""
        return self.when != "never"


VARIABLES = (
    Variable("SSL_CERT_FILE", "os.pem", "os", "os overridden", "OpenSSL, Go, Python ssl"),
    Variable(
        "REQUESTS_CA_BUNDLE",
        "python.pem",
        "python",
        "python overridden",
        "requests; fallback of botocore, pip",
        directories=True,
    ),
    # curl up to 7.88 ignores SSL_CERT_FILE when SSL_CERT_DIR is set; freshclam knows no other variable. It steers
    # requests too, so REQUESTS_CA_BUNDLE is set with it.
    Variable("CURL_CA_BUNDLE", "curl.pem", "os", "curl needs it", "curl, freshclam"),
    Variable("NODE_EXTRA_CA_CERTS", "extra.pem", "nothing", "any CA wanted", "Node.js: no store reaches it"),
    # http.c of git: without it, what its libcurl was built with; libcurl itself reads no variable.
    Variable("GIT_SSL_CAINFO", "git.pem", "os", "os overridden", "git", needs="/usr/bin/git"),
    Variable("AWS_CA_BUNDLE", "aws.pem", "python", "never", "AWS command line, botocore"),
    Variable("PIP_CERT", "pip.pem", "python", "never", "pip", directories=True),
    # httplib2/certs.py: without it certifi.
    Variable("HTTPLIB2_CA_CERTS", "httplib2.pem", "python", "python overridden", "httplib2", needs="httplib2"),
    # grpcio brings roots of its own (grpc/_cython/_credentials/roots.pem), which nothing else replaces.
    Variable("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "grpc.pem", "os", "any CA wanted", "gRPC", needs="grpc"),
)
BUNDLE_FILES = frozenset({"env", *(name for row in VARIABLES for name in (row.file, row.store_file))})
FRESHCLAM = "/usr/bin/freshclam"
# Go reads every file of the system's directories besides the bundle (crypto/x509/root_unix.go). While a withdrawn CA is
# stuck in a store that cannot be changed, this variable points Go to a directory of ours that holds no certificate.
# Otherwise it and PGSSLROOTCERT are left alone: a directory and a single-purpose file, the operator's own business.
CERT_DIR = "SSL_CERT_DIR"
# Out of our own environment before OpenSSL is loaded: a FIPS OPENSSL_CONF of the image breaks a foreign OpenSSL.
LIBRARY_VARIABLES = ("OPENSSL_", "SSL_CERT_", "LD_", "GCONV_PATH", "LOCPATH", "GLIBC_TUNABLES")
