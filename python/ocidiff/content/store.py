"""What a content store promises: blobs are named by their digest, whole and on disk once visible, and invisible before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import BinaryIO, Final, Protocol, Self

from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import AnyDigest, Digest
from ocidiff.values import dataclass

# What labels say, as containerd has it: of a layer, what it is uncompressed; of any blob, what it needs.
LABEL_UNCOMPRESSED: Final = "containerd.io/uncompressed"
LABEL_REFERS_CONTENT: Final = "containerd.io/gc.ref.content"
LABEL_REFERS_SNAPSHOT: Final = "containerd.io/gc.ref.snapshot"
LABEL_ROOT: Final = "containerd.io/gc.root"
# Of the snapshot of a container: as which committed snapshot it may serve, and the bound in seconds of that one's times.
LABEL_OFFERS: Final = "ocidiff/offers"
LABEL_OFFERS_UNTIL: Final = "ocidiff/offers.until"
# Of the snapshot of a container whose removal failed: what could not be removed, and why. Files of it may be missing.
LABEL_PARTLY_REMOVED: Final = "ocidiff/partly-removed"


@dataclass(frozen=True, slots=True)
class Info:
    """What a store knows of a blob without reading it.

    Attributes:
        digest: Its name.
        size: Its length in bytes.
        created_ns: When it became visible, nanoseconds since 1970.
        labels: What was said of it.
    """

    digest: Digest
    size: int
    created_ns: int
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Status:
    """An ingest that can be resumed.

    Attributes:
        ref: What its writer calls it.
        offset: Bytes it has.
        started_ns, updated_ns: When it was begun and last written to, nanoseconds since 1970.
    """

    ref: str
    offset: int
    started_ns: int
    updated_ns: int


class Ingest(Protocol):
    """A blob that is being written.

    Leaving its `with` block without `commit` drops it. One with a ref is kept instead, also when its writer dies, for
    whoever asks for that ref next.
    """

    @property
    def offset(self) -> int:
        """Bytes it has: what comes next belongs there."""
        ...

    def fileno(self) -> int:
        """File descriptor that takes the bytes, for writers which hash and count themselves."""
        ...

    def write(self, data: bytes) -> None:
        """Append all of `data`."""
        ...

    def commit(self, size: int, digest: Digest, labels: Mapping[str, str] | None = None) -> None:
        """Make the blob visible, once it is on disk. A blob that is there already is a success, and gets the labels too.

        Args:
            size: Its length in bytes.
            digest: Its digest.
            labels: What is said of it, in addition to what was said before.

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

    def ingest(self, ref: str | None = None) -> Ingest:
        """A new blob to be written, or the one that was begun under `ref`.

        Raises:
            BusyError: Somebody is writing to that ref.
        """
        ...

    @property
    def spool(self) -> str | None:
        """Directory for large temporary files of who writes a blob; None for that of the system."""
        ...

    def statuses(self) -> list[Status]:
        """The ingests with a ref."""
        ...

    def abort(self, ref: str) -> None:
        """Drop what was begun under `ref`.

        Raises:
            NotFoundError: Nothing was.
            BusyError: Somebody is writing to it.
        """
        ...

    def write(self, data: bytes, media_type: str, labels: Mapping[str, str] | None = None) -> Descriptor:
        """Store a small blob, and describe it."""
        ...

    def contains(self, digest: AnyDigest) -> bool:
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

    def info(self, digest: Digest) -> Info:
        """What is known of a blob.

        Raises:
            NotFoundError: There is no such blob.
        """
        ...

    def update_labels(self, digest: Digest, labels: Mapping[str, str]) -> None:
        """Say more of a blob; an empty value takes a label away.

        Raises:
            NotFoundError: There is no such blob.
            UsageError: A label is longer than 4096 bytes.
        """
        ...

    def walk(self) -> Iterator[Digest]:
        """The digests of all blobs, in no order."""
        ...

    def delete(self, digest: Digest) -> None:
        """Remove a blob, whatever may need it: collecting garbage is the safe way.

        Raises:
            NotFoundError: There is no such blob.
        """
        ...
