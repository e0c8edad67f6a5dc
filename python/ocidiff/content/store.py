"""What a content store promises: blobs are named by their digest, whole and on disk once visible, and invisible before."""

from __future__ import annotations

from types import TracebackType
from typing import BinaryIO, Protocol, Self

from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import Digest


class Ingest(Protocol):
    """A blob that is being written. Leaving its `with` block without `commit` drops it."""

    def fileno(self) -> int:
        """File descriptor that takes the bytes, for writers which hash and count themselves."""
        ...

    def write(self, data: bytes) -> None:
        """Append all of `data`."""
        ...

    def commit(self, size: int, digest: Digest) -> None:
        """Make the blob visible, once it is on disk. A blob that is there already is a success.

        Args:
            size: Its length in bytes.
            digest: Its digest.

        Raises:
            DigestMismatchError: Another number of bytes, or (where they came through `write`) other bytes were written.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class ContentStore(Protocol):
    """Where blobs live."""

    def ingest(self) -> Ingest:
        """A new blob to be written."""
        ...

    def write(self, data: bytes, media_type: str) -> Descriptor:
        """Store a small blob, and describe it."""
        ...

    def contains(self, digest: Digest) -> bool:
        """Whether there is a blob of that digest."""
        ...

    def open_blob(self, descriptor: Descriptor) -> BinaryIO:
        """The blob as a file at its beginning; its length is verified, its digest is left to who reads it.

        Raises:
            NotFoundError: There is no such blob.
            DigestMismatchError: It has another length.
        """
        ...

    def read(self, descriptor: Descriptor) -> bytes:
        """A small blob whole, verified.

        Raises:
            NotFoundError: There is no such blob.
            DigestMismatchError: It has another length or other bytes.
            DocumentError: It is too large to be a document.
        """
        ...
