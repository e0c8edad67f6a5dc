"""Layouts made by hand, as other tools would make them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

from ocidiff.oci import media_type

Document = dict[str, Any]


class Handmade:
    """A layout written without ocidiff."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[Document] = []
        (path / "blobs" / "sha256").mkdir(parents=True)
        (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        self.finish()

    def finish(self) -> None:
        (self.path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": self.entries}))

    def blob(self, data: bytes, kind: str, **members: Any) -> Document:
        digest = hashlib.sha256(data).hexdigest()
        (self.path / "blobs" / "sha256" / digest).write_bytes(data)
        return {"mediaType": kind, "digest": "sha256:" + digest, "size": len(data), **members}

    def document(self, document: Document, kind: str, **members: Any) -> Document:
        return self.blob(json.dumps(document).encode(), kind, **members)

    def layer(self, files: dict[str, str], kind: str = media_type.LAYER_GZIP) -> tuple[Document, str]:
        """Descriptor and diff ID of a layer with these files."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content.encode()))
        data = archive.getvalue()
        return self.blob(gzip.compress(data, mtime=0), kind), "sha256:" + hashlib.sha256(data).hexdigest()

    def config(self, diff_ids: list[str], *, kind: str = media_type.CONFIG, **members: Any) -> Document:
        document = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
        return self.document({**document, **members}, kind)

    def manifest(
        self, config: Document, layers: list[Document], *, kind: str = media_type.MANIFEST, **members: Any
    ) -> Document:
        return self.document({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers}, kind, **members)

    def image(self, files: dict[str, str], **members: Any) -> Document:
        """Descriptor of an image of one layer."""
        layer, diff_id = self.layer(files)
        return self.manifest(self.config([diff_id], **members), [layer])

    def index(self, manifests: list[Document], kind: str = media_type.INDEX) -> Document:
        return self.document({"schemaVersion": 2, "mediaType": kind, "manifests": manifests}, kind)

    def name(self, name: str, descriptor: Document) -> None:
        self.entries.append({**descriptor, "annotations": {"org.opencontainers.image.ref.name": name}})
        self.finish()
