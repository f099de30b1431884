"""Writes the smallest image there is, as an OCI layout, into the directory given."""

import gzip
import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path

MEDIA = "application/vnd.oci.image."
top = Path(sys.argv[1])
blobs = top / "blobs" / "sha256"


def blob(content: bytes, media: str) -> dict[str, object]:
    """Write one blob; its descriptor."""
    digest = hashlib.sha256(content).hexdigest()
    (blobs / digest).write_bytes(content)
    return {"mediaType": MEDIA + media, "digest": f"sha256:{digest}", "size": len(content)}


def layer() -> bytes:
    """A tar archive with one file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("hello")
        member.size = 6
        archive.addfile(member, io.BytesIO(b"hello\n"))
    return buffer.getvalue()


blobs.mkdir(parents=True)
tar = layer()
rootfs = {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(tar).hexdigest()}"]}
config = blob(json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).encode(), "config.v1+json")
layers = [blob(gzip.compress(tar), "layer.v1.tar+gzip")]
manifest = {"schemaVersion": 2, "mediaType": MEDIA + "manifest.v1+json", "config": config, "layers": layers}
named = {
    **blob(json.dumps(manifest).encode(), "manifest.v1+json"),
    "annotations": {"org.opencontainers.image.ref.name": "1"},
}
(top / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
(top / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
