"""`tests/demo`: the main job on one base image, told line by line."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from . import derived, docker, images, pki, servers
from .servers import BY_CA_A, BY_CA_B
from .subject import Mount, everyone, lasting, once, probe_options, probe_words, verdicts

if TYPE_CHECKING:
    from .rows import Row
    from .servers import Site
    from .subject import Subject


def main(names: list[str]) -> int:
    """Show one row; 0 when everything was as it should be."""
    if docker.missing():
        _tell(f"Docker is needed: {docker.missing()}")
        return 1
    row = derived.row(names[0] if names else "4.5-ubi9")
    base = images.anchore(row)
    real = "a stand-in built on this machine, no image of the vendor" if images.is_stand_in(base) else "the real image"
    _tell(f"base image: {base} ({real})")
    with servers.running() as network, tempfile.TemporaryDirectory() as directory:
        options = probe_options(network)
        words = probe_words(row, BY_CA_A)
        before = verdicts(once(base, *words[1:], options=("--entrypoint=sh", *options)).stdout)
        _table("before, a server of the private CA", before)
        Path(directory).chmod(0o755)
        mount = Mount(Path(directory) / "certs")
        mount.hold(pki.prepare() / "ca-a.pem")
        image = derived.image(row)
        _tell(f"derived image: {image}\n\n$ docker run -v {mount.directory}:/custom-certs:ro {image}")
        with lasting(image, options=(*options, mount.option)) as subject:
            subject.wait_until_ready()
            _tell(subject.logs().stderr)
            after = _ask(subject, row, BY_CA_A), _ask(subject, row, BY_CA_B)
    _table("after, a server of the private CA", after[0])
    _table("after, a server of an unknown CA", after[1])
    good = (before, *after) == (everyone("refused"), everyone("trusted"), everyone("refused"))
    _tell("All as it should be." if good else "NOT as it should be.")
    return 0 if good else 1


def _ask(subject: Subject, row: Row, site: Site) -> dict[str, str]:
    return verdicts(subject.run(*probe_words(row, site)).stdout)


def _table(title: str, answers: dict[str, str]) -> None:
    _tell(f"{title}:\n" + "".join(f"  {client:10}{verdict}\n" for client, verdict in answers.items()))


def _tell(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
