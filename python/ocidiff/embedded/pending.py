"""Pending blobs: whole files in `ingest/` that become blobs of several images at once, with one wait for the disk.

Law: as for a single blob, a row protects it before it is looked for, its bytes are on disk before it is visible, and every
blob of an image is there before its name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from io import BufferedReader
from typing import TYPE_CHECKING, Final

from ocidiff.embedded.files import BLOBS, INGEST, Files
from ocidiff.embedded.ingest import BLOB_MODE
from ocidiff.embedded.stored import holds_bytes, make_visible
from ocidiff.embedded.tables import content as records
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import AnyDigest, Digest
from ocidiff.values import dataclass

if TYPE_CHECKING:
    from ocidiff.embedded.layout import Layout

_NO_LABELS: Final[Mapping[str, str]] = {}
_SYNCING: Final = 16


@dataclass(frozen=True, slots=True)
class PendingBlob:
    """A file that becomes a blob.

    Attributes:
        name: Its name in `ingest/`.
        file: Its descriptor, which holds the lock that keeps it from being swept.
        size: Its length in bytes.
        labels: Its labels.
    """

    name: str
    file: int
    size: int
    labels: Mapping[str, str]


class PendingBlobs:
    """The new blobs of one image.

    Args:
        files: The layout.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        self.found: dict[Digest, PendingBlob] = {}

    def add(self, name: str, file: int, size: int, digest: Digest, labels: Mapping[str, str] | None) -> None:
        """Take a file; see `ingest.Defer`."""
        known = self.found.pop(digest, None)
        blob = PendingBlob(name, os.dup(file), size, {**(known.labels if known else _NO_LABELS), **(labels or _NO_LABELS)})
        if known is not None:
            self._drop(known)
        self.found[digest] = blob

    def label(self, digest: Digest, labels: Mapping[str, str]) -> bool:
        """Set labels of a file; False if it is not among these."""
        blob = self.found.get(digest)
        if blob is not None:
            self.found[digest] = replace(blob, labels={**blob.labels, **labels})
        return blob is not None

    def open(self, digest: AnyDigest) -> BufferedReader | None:
        """Open a blob at its beginning; None if it is not among these."""
        found = next((blob for known, blob in self.found.items() if known == digest), None)
        return None if found is None else open(f"/proc/self/fd/{found.file}", "rb")

    @property
    def size(self) -> int:
        """Bytes of all of them."""
        return sum(blob.size for blob in self.found.values())

    def drop(self) -> None:
        """Remove the files."""
        while self.found:
            self._drop(self.found.popitem()[1])

    def _drop(self, blob: PendingBlob) -> None:
        # One that cannot be removed is swept once it is not locked any more; one that was published has no name here.
        with suppress(OSError), self._files.directory(INGEST, create=False) as ingest_dir:
            os.unlink(blob.name, dir_fd=ingest_dir)
        os.close(blob.file)


@dataclass(frozen=True, slots=True)
class PendingImage:
    """An image whose blobs wait.

    Attributes:
        name: The name that it gets.
        descriptor: Of its manifest.
        labels: Labels of its manifest.
        blobs: Its new blobs.
    """

    name: str
    descriptor: Descriptor
    labels: Mapping[str, str]
    blobs: PendingBlobs


def publish(layout: Layout, files: Files, images: Sequence[PendingImage], check: Callable[[], None]) -> int:
    """Make the blobs of several images visible, and give the images their names: all is on disk when this returns.

    Args:
        layout: The store, under the lease that the images were written under.
        files: Its files.
        images: The images, each with another name.
        check: Called now and then while blobs that exist already are read; may raise, and then no name has changed.

    Returns:
        Bytes of the blobs that were not there before.

    Raises:
        NotFoundError: A blob of an image is missing, or the lease has ended; no name has changed.
    """
    size = _store(layout, files, images, check)
    layout.names.put_all({image.name: image.descriptor for image in images})
    return size


def _store(layout: Layout, files: Files, images: Sequence[PendingImage], check: Callable[[], None]) -> int:
    new: dict[Digest, PendingBlob] = {}
    labels: dict[Digest, dict[str, str]] = {}
    for image in images:
        for digest, blob in image.blobs.found.items():
            new.setdefault(digest, blob)
            labels.setdefault(digest, {}).update(blob.labels)
        labels.setdefault(image.descriptor.digest, {}).update(image.labels)
    with files.directory(INGEST) as ingest_dir, files.directory(*BLOBS) as blobs:
        with layout.database().transaction() as connection:
            for digest, blob in new.items():
                records.record(connection, digest, blob.size, labels.pop(digest), layout.lease_id)
            for digest, more in labels.items():
                records.merge_labels(connection, digest, more)
        # From here on the blobs are protected, so that those which are there already stay there.
        added = {digest: blob for digest, blob in new.items() if not holds_bytes(blobs, digest, blob.file, blob.size, check)}
        _sync([blob.file for blob in added.values()])
        for digest, blob in added.items():
            os.fchmod(blob.file, BLOB_MODE)
            make_visible(ingest_dir, blob.name, blobs, digest)
        os.fsync(blobs)
    return sum(blob.size for blob in added.values())


def _sync(opened: Sequence[int]) -> None:
    """Have files on disk. Several are waited for at once, so that the file system makes one transaction of them."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(_SYNCING) as pool:
        # Also raises what one of them raised.
        list(pool.map(os.fsync, opened))
