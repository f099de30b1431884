"""The runtime brings everything with it: it starts on an older libc, a newer one, and in an empty root."""

from __future__ import annotations

import pytest
from tests.lab import derived, images
from tests.lab.docker import docker
from tests.lab.subject import once

# Whatever is mapped as code or data of a shared object, and does not come from the runtime's own home.
_FOREIGN = """
import ssl, sys
sys.path.append("/opt/ca-shim/site")
import cryptography.hazmat.bindings._rust, cryptography.x509, structlog, certifi
ssl.create_default_context()
mapped = {line.split(None, 5)[5].strip() for line in open("/proc/self/maps") if "/" in line}
print(sorted(path for path in mapped if not path.startswith("/opt/ca-shim/")))
"""
# Every module of the trimmed standard library; what cannot be imported should not have been kept.
_EVERY_MODULE = """
import importlib, os, sys, warnings
warnings.simplefilter("ignore")
top = os.path.dirname(os.__file__)
found = {name.partition(".")[0] for name in os.listdir(top) + os.listdir(f"{top}/lib-dynload")} | {"ssl"}
names = sorted(name for name in found & sys.stdlib_module_names if name not in ("antigravity", "this", "idlelib"))
failed = {}
for name in names:
    try:
        importlib.import_module(name)
    except Exception as error:
        failed[name] = str(error)
print(len(names) > 50, failed)
"""
_BASES = {"older libc": "11", "same libc": "12", "newer libc": "13", "empty root": ""}


@pytest.fixture(scope="module", params=["3.11", "3.13"])
def runtime(request: pytest.FixtureRequest) -> str:
    """The option that mounts a runtime made by one version of Python."""
    return f"--volume={derived.home(request.param)}:/opt/ca-shim:ro"


@pytest.mark.parametrize("base", _BASES.values(), ids=_BASES)
def test_ca_shim_starts(runtime: str, base: str) -> None:
    image = images.base(base) if base else images.empty()

    result = once(image, "--version", options=(runtime, "--entrypoint=/opt/ca-shim/bin/ca-shim"))

    assert (result.status, result.stdout.split()[0]) == (0, "ca-shim"), result.stderr


@pytest.mark.parametrize("base", _BASES.values(), ids=_BASES)
def test_nothing_from_outside_its_home_is_mapped(runtime: str, base: str) -> None:
    image = images.base(base) if base else images.empty()
    entrypoint = "--entrypoint=/opt/ca-shim/bin/python3"

    result = once(image, "-I", "-c", _FOREIGN, options=(runtime, entrypoint))

    assert (result.status, result.stdout) == (0, "[]\n"), result.stderr


def test_every_module_of_its_standard_library_can_be_imported(runtime: str) -> None:
    entrypoint = "--entrypoint=/opt/ca-shim/bin/python3"

    result = once(images.empty(), "-I", "-c", _EVERY_MODULE, options=(runtime, entrypoint))

    assert (result.status, result.stdout) == (0, "True {}\n"), result.stderr


def test_the_runtime_stage_runs_as_nobody_in_particular(runtime: str) -> None:
    del runtime
    question = "{{.Config.User}}"

    assert docker("image", "inspect", "--format", question, derived.runtime("3.11")).stdout.strip() == "65532:65532"


def test_root_owns_every_file_of_the_runtime_and_nobody_else_may_write(image: str) -> None:
    search = ("/opt/ca-shim", "(", "!", "-user", "0", "-o", "-perm", "/022", "!", "-type", "l", ")")

    result = once(image, *search, options=("--entrypoint=find",))

    assert (result.status, result.stdout) == (0, "")


@pytest.mark.parametrize("paper", ["sbom.cdx.json", "licenses"])
def test_the_papers_are_in_the_image(image: str, paper: str) -> None:
    result = once(image, "/opt/ca-shim", "-iname", paper, options=("--entrypoint=find",))

    assert result.stdout != ""
