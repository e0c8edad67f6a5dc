"""Content: blobs named by their digest, whole and on disk once visible, and invisible before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import BinaryIO, Final, Protocol, Self

from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import AnyDigest, Digest
from ocidiff.values import dataclass

BLOCK_BYTES: Final = 1 << 20
"""Bytes of a blob that are read or sent at a time."""


@dataclass(frozen=True, slots=True)
class Info:
    """Facts of a blob that a store knows without reading it.

    Attributes:
        digest: Its name.
        size: Its length in bytes.
        created_ns: When it became visible, nanoseconds since 1970.
        labels: Its labels.
    """

    digest: Digest
    size: int
    created_ns: int
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Status:
    """An ingest that can be resumed.

    Attributes:
        ref: Name that its writer gave it.
        offset: Bytes it has.
        started_ns, updated_ns: When it was begun and last written to, nanoseconds since 1970.
    """

    ref: str
    offset: int
    started_ns: int
    updated_ns: int


class Ingest(Protocol):
    """A blob that is being written.

    Leaving its `with` block without `commit` drops it. One with a ref is kept instead, also when its writer dies, for the
    next writer that asks for that ref.
    """

    @property
    def offset(self) -> int:
        """Bytes it has: the next byte belongs there."""
        ...

    def fileno(self) -> int:
        """Return the descriptor that takes the bytes, a file or a pipe, for writers that hash and count themselves."""
        ...

    def write(self, data: bytes) -> None:
        """Append all of `data`."""
        ...

    def restart(self) -> None:
        """Drop what was written, so that writing begins at offset 0 again."""
        ...

    def commit(
        self,
        size: int,
        digest: Digest,
        labels: Mapping[str, str] | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Make the blob visible, once it is on disk. A blob that exists already is a success, and gets the labels too.

        A store that reads its blobs replaces one with other bytes than its digest says.

        Args:
            size: Length in bytes.
            digest: Digest of the bytes.
            labels: Labels to set, beside those that the blob has.
            check: Called now and then while a blob that exists already is read; may raise.

        Raises:
            DigestMismatchError: Another number of bytes was written, or (through `write`) other bytes.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Provider(Protocol):
    """Reads blobs."""

    def contains(self, digest: AnyDigest) -> bool:
        """True if there is a blob of that digest."""
        ...

    def info(self, digest: Digest) -> Info:
        """Return what is known of a blob, without opening it.

        Raises:
            NotFoundError: There is no such blob.
        """
        ...

    def open_blob(self, descriptor: Descriptor) -> BinaryIO:
        """Open a blob at its beginning. The length is verified; the reader verifies the digest.

        Raises:
            NotFoundError: There is no such blob.
            DigestMismatchError: It has another length.
        """
        ...

    def read(self, descriptor: Descriptor) -> bytes:
        """Return a small blob whole, verified.

        Raises:
            NotFoundError: There is no such blob.
            DigestMismatchError: It has another length or other bytes.
            DocumentError: It is too large to be a document.
        """
        ...


class Ingester(Protocol):
    """Writes blobs."""

    @property
    def spool(self) -> str | None:
        """Directory for large temporary files of a writer; None for the system's."""
        ...

    def ingest(self, ref: str | None = None) -> Ingest:
        """Begin a blob, or go on with the one that was begun under `ref`.

        Raises:
            BusyError: Another writer has that ref.
        """
        ...

    def write(self, data: bytes, media_type: str, labels: Mapping[str, str] | None = None) -> Descriptor:
        """Store a small blob and return its descriptor."""
        ...


class Manager(Protocol):
    """Lists, checks, labels and deletes blobs, and looks after ingests."""

    @property
    def reads_blobs(self) -> bool:
        """True if `is_intact` reads the whole blob; False if the store answers for its bytes."""
        ...

    def is_intact(self, descriptor: Descriptor, check: Callable[[], None]) -> bool:
        """True if the blob is there, of this length, and with the bytes of its digest if `reads_blobs` is set.

        Args:
            descriptor: The blob.
            check: Called now and then while it is read; may raise.
        """
        ...

    def walk(self) -> Iterator[Digest]:
        """Yield the digests of all blobs, in no order."""
        ...

    def labelled(self, name: str, value: str) -> list[Digest]:
        """Return the digests of the blobs with this label, in no order. A blob may be gone by then."""
        ...

    def update_labels(self, digest: Digest, labels: Mapping[str, str]) -> None:
        """Set labels of a blob; an empty value removes a label.

        Raises:
            NotFoundError: There is no such blob.
            UsageError: A label is longer than 4096 bytes.
        """
        ...

    def label_all(self, labels: Mapping[Digest, Mapping[str, str]]) -> None:
        """Set labels of several blobs at once; errors as in `update_labels`."""
        ...

    def delete(self, digest: Digest) -> None:
        """Remove a blob, whatever may need it. Collecting garbage is the safe way.

        Raises:
            NotFoundError: There is no such blob.
        """
        ...

    def statuses(self) -> list[Status]:
        """Return the ingests that have a ref."""
        ...

    def abort(self, ref: str) -> None:
        """Drop what was begun under `ref`.

        Raises:
            NotFoundError: There is no such ingest.
            BusyError: A writer has it.
        """
        ...


class ContentStore(Provider, Ingester, Manager, Protocol):
    """Everything that can be done with blobs."""
