"""Writing an archive, in one pass, to a file or a pipe: a tar that is an OCI layout, with the `manifest.json` of Docker.

    blobs/sha256/…   each once: configuration, layers, then the documents that lead to them
    oci-layout
    index.json       the images by name
    manifest.json    the same for Docker, which reads no index before version 25

Law: the same images in the same order give the same bytes. No entry says who wrote it, or when.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType, TracebackType
from typing import Final, Self

from ocidiff.errors import DigestMismatchError, NotFoundError
from ocidiff.image.image import manifests_of
from ocidiff.image.reference import Reference, shortest
from ocidiff.layer.pure import tar
from ocidiff.oci import media_type
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import AnyDigest, Digest
from ocidiff.oci.encoding import NO_TEXTS, compact
from ocidiff.oci.index import REF_NAME, Entry, Index
from ocidiff.oci.manifest import Manifest
from ocidiff.output import write_all
from ocidiff.services.content import Info
from ocidiff.transport.archive.read import DOCKER_NAME, INDEX, LAYOUT, LAYOUT_VERSION, MANIFEST, blob_name

_FILE_MODE: Final = 0o644
_UNKNOWN: Final = "unknown"


class ArchiveWriter:
    """An archive that is being written.

    Args:
        sink: Descriptor that takes the bytes, a file or a pipe.
        place: Its name, for messages.
    """

    def __init__(self, sink: int, place: str) -> None:
        self._sink, self._place = sink, place
        self._sizes: dict[AnyDigest, int] = {}
        self._documents: dict[AnyDigest, bytes] = {}
        self._entries: list[Entry] = []

    def contains(self, descriptor: Descriptor) -> bool:
        """True if the archive has the blob."""
        return self._sizes.get(descriptor.digest) == descriptor.size

    def begin(self, descriptor: Descriptor) -> BlobInArchive:
        """Begin a blob, which must be whole before the next one."""
        self._header(blob_name(descriptor.digest), descriptor.size)
        return BlobInArchive(self._sink, descriptor, self._add)

    def write(self, descriptor: Descriptor, data: bytes) -> None:
        """Write a small blob, or a document."""
        self._file(blob_name(descriptor.digest), data)
        self._add(descriptor)
        self._documents[descriptor.digest] = data

    def name(self, descriptor: Descriptor, name: str | None) -> None:
        """Let a name stand for an image.

        Args:
            descriptor: Its manifest or index, which is in the archive.
            name: The name; None to list the image without one.

        Raises:
            UsageError: It cannot be the name of an image.
            NotFoundError: The document is not in the archive.
        """
        if descriptor.digest not in self._documents:
            raise NotFoundError(f"{self._place}: document {descriptor.digest} is not in the archive")
        names: Mapping[str, str] = NO_TEXTS
        if name is not None:
            names = MappingProxyType({DOCKER_NAME: Reference.parse(name).full_name, REF_NAME: shortest(name)})
        self._entries.append(Entry.of(replace(descriptor, annotations=names)))

    def finish(self) -> None:
        """Write what tells of the images, and the end of the tar."""
        layout = compact({"imageLayoutVersion": LAYOUT_VERSION})
        self._file(LAYOUT, layout)
        self._file(INDEX, replace(Index(), entries=tuple(self._entries)).encode())
        self._file(MANIFEST, b"[%s]" % b",".join(compact(one) for one in self._docker_entries()))
        write_all(self._sink, tar.END)

    def _docker_entries(self) -> Iterator[dict[str, object]]:
        """Yield what `manifest.json` says of each image; if it is for several platforms, of the first one."""
        entries: dict[Digest, dict[str, object]] = {}
        tags: dict[Digest, list[str]] = {}
        for entry in self._entries:
            manifest = None if entry.descriptor is None else self._manifest(entry.descriptor)
            if manifest is None or entry.descriptor is None:
                continue
            config = manifest.config.digest
            entries[config] = {
                "Config": blob_name(config),
                "RepoTags": tags.setdefault(config, []),
                "Layers": [blob_name(layer.digest) for layer in manifest.layers],
            }
            full = entry.descriptor.annotations.get(DOCKER_NAME)
            tags[config] += [] if full is None else [shortest(full)]
        yield from entries.values()

    def _manifest(self, descriptor: Descriptor) -> Manifest | None:
        """Return the first image that a descriptor leads to; None if there is none, as of an artifact."""
        documents = _Documents(self._documents)
        for found in manifests_of(documents, self._place, descriptor):
            if documents.contains(found.digest):
                manifest = Manifest.parse(documents.read(found), found.media_type, f"manifest {found.digest}")
                # An attestation looks like an image, but for its layers.
                is_image = manifest.config.media_type in media_type.CONFIGS
                if is_image and all(one.media_type in media_type.LAYERS and self.contains(one) for one in manifest.layers):
                    return manifest
        return None

    def _add(self, descriptor: Descriptor) -> None:
        self._sizes[descriptor.digest] = descriptor.size

    def _header(self, name: str, size: int) -> None:
        header = tar.Header(name.encode(), tar.REGULAR, _FILE_MODE, size=size)
        write_all(self._sink, tar.encode(header))

    def _file(self, name: str, data: bytes) -> None:
        self._header(name, len(data))
        write_all(self._sink, data + bytes(-len(data) % tar.BLOCK_BYTES))


class BlobInArchive:
    """An `Ingest` of a blob in an archive, whose name and length stand before it.

    Args:
        sink: Descriptor that takes the bytes.
        descriptor: The blob.
        add: Called once it is whole.
    """

    def __init__(self, sink: int, descriptor: Descriptor, add: Callable[[Descriptor], None]) -> None:
        self._sink, self._descriptor, self._add = sink, descriptor, add
        self._sha256 = hashlib.sha256()
        self.offset = 0

    def fileno(self) -> int:
        """Refuse: the length of what a writer of its own writes is not known beforehand."""
        raise io.UnsupportedOperation("fileno")

    def write(self, data: bytes) -> None:
        """See `Ingest.write`."""
        self._sha256.update(data)
        self.offset += len(data)
        write_all(self._sink, data)

    def restart(self) -> None:
        """Refuse: what is written to a pipe is written."""
        raise io.UnsupportedOperation("restart")

    def commit(
        self,
        size: int,
        digest: Digest,
        labels: Mapping[str, str] | None = None,  # noqa: ARG002 - of the protocol
        check: Callable[[], None] = lambda: None,  # noqa: ARG002 - of the protocol
    ) -> None:
        """See `Ingest.commit`; an archive has no labels."""
        actual = Digest("sha256:" + self._sha256.hexdigest())
        if (self.offset, actual) != (size, digest):
            raise DigestMismatchError(f"blob {digest}: {self.offset} bytes of {actual} written, expected {size}")
        write_all(self._sink, bytes(-size % tar.BLOCK_BYTES))
        self._add(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Leave what was written; the archive is not finished."""


class _Documents:
    """A `Provider` of the documents of an archive."""

    def __init__(self, documents: Mapping[AnyDigest, bytes]) -> None:
        self._documents = documents

    def contains(self, digest: AnyDigest) -> bool:
        """See `Provider.contains`."""
        return digest in self._documents

    def info(self, digest: Digest) -> Info:
        """See `Provider.info`."""
        return Info(digest, len(self._documents[digest]), 0, NO_TEXTS)

    def open_blob(self, descriptor: Descriptor) -> io.BytesIO:
        """See `Provider.open_blob`."""
        return io.BytesIO(self.read(descriptor))

    def read(self, descriptor: Descriptor) -> bytes:
        """See `Provider.read`."""
        if descriptor.digest not in self._documents:
            raise NotFoundError(f"document {descriptor.digest} is not in the archive")
        return self._documents[descriptor.digest]
