"""Layout: the store that is an OCI image layout, which other tools read and write too.

    oci-layout      version of the layout
    index.json      descriptors of the images, named by an annotation; replaced whole, under the lock of `index.lock`
    blobs/sha256/   the blobs; those of other tools may be named by other algorithms
    ingest/         blobs and trees on their way in or out, swept when their process is dead
    damaged/        what `verify` took out of the way
    leases/         a file for each running call, which it holds locked
    ocidiff.db      what the files cannot say: see `database`

Spec: image-spec image-layout.md.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BufferedReader
from typing import TYPE_CHECKING, BinaryIO, Final, Self

from ocidiff import workspace
from ocidiff.embedded import ingest as ingests
from ocidiff.embedded.directory import Shared, StoreDirectory
from ocidiff.embedded.files import BLOBS, DIRECTORY_MODE, INGEST, Files
from ocidiff.embedded.ingest import FileIngest
from ocidiff.embedded.leases import protect
from ocidiff.embedded.names import Names
from ocidiff.embedded.tables import content as records
from ocidiff.errors import DigestMismatchError, DocumentError, NotFoundError
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import AnyDigest, Digest
from ocidiff.oci.encoding import MAX_DOCUMENT_BYTES
from ocidiff.services.content import Info, Status
from ocidiff.services.leases import CONTENT

if TYPE_CHECKING:
    from ocidiff.embedded.batch_segments import SharedSegments
    from ocidiff.embedded.pending import PendingBlobs, PendingImage
    from ocidiff.embedded.segments import StoreSegments

_ALGORITHM: Final = "sha256"
# The algorithms of image-spec that Python can compute.
_VERIFIED: Final = frozenset({_ALGORITHM, "sha384", "sha512"})


class Layout(StoreDirectory):
    """A `ContentStore` in a directory. Made by `Layout.open`; safe from several threads.

    Attributes:
        names: The names of its images.
        lease_id: The lease that it works under; None for none.
    """

    def __init__(
        self, files: Files, shared: Shared, lease_id: str | None = None, pending: PendingBlobs | None = None
    ) -> None:
        super().__init__(files, shared)
        self.lease_id: Final = lease_id
        self._pending = pending
        self._added: Callable[[int], None] | None = None
        self.names: Final = Names(self, files)

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, create: bool) -> Self:
        """The layout at `path`; what dead processes left in it is removed.

        Args:
            path: Its directory.
            create: Make it when it is missing or empty.

        Raises:
            FileNotFoundError: It is missing, and not to be made.
            DocumentError: The directory holds something else.
        """
        text = os.fspath(path)
        if create:
            os.makedirs(text, DIRECTORY_MODE, exist_ok=True)
        layout = cls(Files(text), Shared())
        try:
            layout._files.begin(create=create)
            # A leftover disturbs nobody; `gc` and `verify` report it.
            layout.sweep()
        except BaseException:
            layout.close()
            raise
        return layout

    @property
    def segments(self) -> StoreSegments:
        """Return the tables of segments that later layers may copy."""
        from ocidiff.embedded.segments import StoreSegments

        return StoreSegments(self._files)

    def shared_segments(self) -> SharedSegments:
        """Return the same for many commits in a row; the caller closes it."""
        from ocidiff.embedded.batch_segments import SharedSegments

        return SharedSegments(self._files)

    # Blobs.

    def ingest(self, ref: str | None = None) -> FileIngest:
        """See `ContentStore.ingest`."""
        ingest_dir = self._directory(INGEST)
        try:
            blobs = self._directory(*BLOBS)
        except BaseException:
            os.close(ingest_dir)
            raise
        if ref is None:
            return ingests.new_ingest(ingest_dir, blobs, self._record, None if self._pending is None else self._pending.add)
        return ingests.resumable_ingest(ingest_dir, blobs, self._record, ref)

    @property
    def spool(self) -> str:
        """See `ContentStore.spool`."""
        return self.ingest_path

    def statuses(self) -> list[Status]:
        """See `ContentStore.statuses`."""
        with self.ingest_dir() as ingest_dir:
            return ingests.statuses(ingest_dir)

    def abort(self, ref: str) -> None:
        """See `ContentStore.abort`."""
        with self.ingest_dir() as ingest_dir:
            ingests.abort(ingest_dir, ref)

    def write(self, data: bytes, media_type: str, labels: Mapping[str, str] | None = None) -> Descriptor:
        """See `ContentStore.write`."""
        descriptor = Descriptor(media_type, Digest.of(data), len(data))
        with self.ingest() as ingest:
            ingest.write(data)
            ingest.commit(descriptor.size, descriptor.digest, labels)
        return descriptor

    def missing(self, digests: Sequence[AnyDigest]) -> AnyDigest | None:
        """Return the first of these blobs that is not there; None if all are."""
        with contextlib.ExitStack() as stack:
            directories: dict[str, int] = {}
            for digest in digests:
                try:
                    if digest.algorithm not in directories:
                        place = self._files.directory(BLOBS[0], digest.algorithm, create=False)
                        directories[digest.algorithm] = stack.enter_context(place)
                    found = os.stat(digest.encoded, dir_fd=directories[digest.algorithm], follow_symlinks=False)
                except FileNotFoundError:
                    return digest
                if not stat.S_ISREG(found.st_mode):
                    return digest
        return None

    def contains(self, digest: AnyDigest) -> bool:
        """See `ContentStore.contains`."""
        try:
            self._open_blob(digest).close()
        except (NotFoundError, DigestMismatchError):
            return False
        return True

    @property
    def reads_blobs(self) -> bool:
        """See `ContentStore.reads_blobs`."""
        return True

    def is_intact(self, descriptor: Descriptor, check: Callable[[], None]) -> bool:
        """See `ContentStore.is_intact`."""
        from ocidiff.embedded.stored import is_intact

        with self._files.directory(*BLOBS) as blobs:
            return is_intact(blobs, descriptor.digest, descriptor.size, check)

    def open_blob(self, descriptor: Descriptor) -> BinaryIO:
        """See `ContentStore.open_blob`."""
        blob = self._open_blob(descriptor.digest)
        actual = os.fstat(blob.fileno()).st_size
        if actual != descriptor.size:
            blob.close()
            raise DigestMismatchError(f"blob {descriptor.digest}: has {actual} bytes, expected {descriptor.size}")
        return blob

    def read(self, descriptor: Descriptor) -> bytes:
        """See `ContentStore.read`."""
        if descriptor.size > MAX_DOCUMENT_BYTES:
            raise DocumentError(f"blob {descriptor.digest}: {descriptor.size} bytes, limit {MAX_DOCUMENT_BYTES}")
        with self.open_blob(descriptor) as blob:
            data = blob.read(descriptor.size + 1)
        if Digest.of(data) != descriptor.digest:
            raise DigestMismatchError(f"blob {descriptor.digest}: holds {Digest.of(data)}")
        return data

    def document(self, digest: AnyDigest) -> bytes | None:
        """Return a blob that is a JSON object by its first bytes, verified; None for any other.

        Raises:
            NotFoundError: There is no such blob.
            DigestMismatchError: It holds other bytes.
        """
        with self._open_blob(digest) as blob:
            size = os.fstat(blob.fileno()).st_size
            # Layers are not read for this.
            if size > MAX_DOCUMENT_BYTES or blob.peek(1).lstrip(b" \t\r\n")[:1] not in {b"{", b""}:
                return None
            data = blob.read(MAX_DOCUMENT_BYTES)
        if digest.algorithm in _VERIFIED:
            import hashlib

            actual = hashlib.new(digest.algorithm, data).hexdigest()
            if actual != digest.encoded:
                raise DigestMismatchError(f"blob {digest}: holds {digest.algorithm}:{actual}")
        return data

    def describe(self, digest: Digest, media_type: str) -> Descriptor:
        """The descriptor of a blob that nothing describes, by its length on disk."""
        with self._open_blob(digest) as blob:
            return Descriptor(media_type, digest, os.fstat(blob.fileno()).st_size)

    def info(self, digest: Digest) -> Info:
        """See `ContentStore.info`."""
        with self._open_blob(digest) as blob:
            found = os.fstat(blob.fileno())
        created, labels = None, dict[str, str]()
        if self.has_database():
            with self.database().reading() as connection:
                created, labels = records.created_ns(connection, digest), records.labels_of(connection, digest)
        return Info(digest, found.st_size, found.st_mtime_ns if created is None else created, labels)

    def changed_ns(self, digest: Digest) -> int:
        """Return when what has the name of a blob was changed, in nanoseconds since 1970, also if it is no regular file.

        Raises:
            NotFoundError: There is nothing.
        """
        try:
            with self._files.directory(*BLOBS, create=False) as blobs:
                return os.stat(digest.hex, dir_fd=blobs, follow_symlinks=False).st_mtime_ns
        except FileNotFoundError:
            raise NotFoundError(f"no blob {digest} in {self._path}") from None

    def update_labels(self, digest: Digest, labels: Mapping[str, str]) -> None:
        """See `ContentStore.update_labels`."""
        with self._open_blob(digest) as blob:
            self._record(digest, os.fstat(blob.fileno()).st_size, labels)

    def label_all(self, labels: Mapping[Digest, Mapping[str, str]]) -> None:
        """See `ContentStore.label_all`."""
        pending = self._pending
        visible = {digest: added for digest, added in labels.items() if pending is None or not pending.label(digest, added)}
        if not visible:
            return
        sizes = {digest: self.info(digest).size for digest in visible}
        with self.database().transaction() as connection:
            for digest, added in visible.items():
                records.record(connection, digest, sizes[digest], added, self.lease_id)

    def walk(self) -> Iterator[Digest]:
        """See `ContentStore.walk`."""
        try:
            with self._files.directory(*BLOBS, create=False) as blobs:
                names = os.listdir(blobs)
        except FileNotFoundError:
            return
        for name in names:
            # Files with other names are not blobs of this store.
            with contextlib.suppress(DocumentError):
                yield Digest(f"{_ALGORITHM}:{name}")

    def labelled(self, name: str, value: str) -> list[Digest]:
        """See `ContentStore.labelled`."""
        with self.database().reading() as connection:
            return records.labelled(connection, name, value)

    def delete(self, digest: Digest) -> None:
        """See `ContentStore.delete`."""
        with self.set_aside() as set_aside, self.database().transaction() as connection:
            records.forget(connection, digest)
            if not set_aside(digest):
                raise NotFoundError(f"no blob {digest} in {self._path}")

    @contextlib.contextmanager
    def set_aside(self) -> Iterator[Callable[[Digest], bool]]:
        """Yield `hide(digest) -> bool`. Hidden blobs are deleted when the block ends."""
        with self._files.directory(*BLOBS) as blobs, self.ingest_dir() as ingest_dir:
            aside: list[str] = []

            def move(digest: Digest) -> bool:
                name = workspace.adopt(ingest_dir, blobs, digest.hex)
                if name is not None:
                    aside.append(name)
                return name is not None

            try:
                yield move
            finally:
                for name in aside:
                    workspace.discard(ingest_dir, name, os.path.join(self.ingest_path, name))

    def move_to_damaged(self, digest: Digest) -> None:
        """Take a blob that is not what its name says out of the way, into `damaged/`."""
        from ocidiff.embedded.stored import set_damaged_aside

        with self._files.directory(*BLOBS, create=False) as blobs:
            set_damaged_aside(blobs, digest)
            os.fsync(blobs)

    def forget_missing(self) -> None:
        """Drop the records of blobs that never came, or that another tool removed."""
        with self.database().transaction() as connection:
            for digest in records.unprotected(connection):
                if not self.contains(digest):
                    records.forget(connection, digest)

    # Views for other work.

    def under(self, lease_id: str) -> Self:
        """The same layout, for work under a lease: what is written through it stays until the lease ends."""
        return type(self)(self._files, self._shared, lease_id)

    def holding(self) -> tuple[Self, PendingBlobs]:
        """Return the same layout under the same lease, whose new blobs wait for `publish`, and these blobs."""
        from ocidiff.embedded.pending import PendingBlobs

        pending = PendingBlobs(self._files)
        return type(self)(self._files, self._shared, self.lease_id, pending), pending

    def counting(self, added: Callable[[int], None]) -> Self:
        """Return the same layout under the same lease; `added` gets the length of each new blob."""
        layout = type(self)(self._files, self._shared, self.lease_id)
        layout._added = added  # noqa: SLF001 - of its own class
        return layout

    def publish(self, images: Sequence[PendingImage], check: Callable[[], None]) -> int:
        """Make blobs that wait visible, and name their images; see `pending.publish`."""
        from ocidiff.embedded.pending import publish

        return publish(self, self._files, images, check)

    def protect(self, *digests: Digest) -> None:
        """Keep blobs, and what they refer to, for as long as the lease of this layout lasts."""
        if self.lease_id is not None:
            with self.database().transaction() as connection:
                for digest in digests:
                    protect(connection, self.lease_id, CONTENT, digest)

    def _open_blob(self, digest: AnyDigest) -> BufferedReader:
        waiting = self._pending.open(digest) if self._pending is not None else None
        if waiting is not None:
            return waiting
        place = (BLOBS[0], digest.algorithm)
        try:
            with self._files.directory(*place, create=False) as blobs:
                return workspace.open_regular(digest.encoded, blobs, "/".join((self._path, *place, digest.encoded)))
        except FileNotFoundError:
            raise NotFoundError(f"no blob {digest} in {self._path}") from None
        except workspace.IrregularError as error:
            raise DigestMismatchError(f"blob {digest}: {error.filename}: not a regular file") from None

    def _record(self, digest: Digest, size: int, labels: Mapping[str, str] | None) -> None:
        with self.database().transaction() as connection:
            records.record(connection, digest, size, labels, self.lease_id)
        if self._added is not None and self.missing([digest]) is not None:
            self._added(size)
