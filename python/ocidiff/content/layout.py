"""Layout: the store that is an OCI image layout, which other tools read and write too.

    oci-layout      version of the layout
    index.json      descriptors of the images, named by an annotation; replaced whole, under the lock of `index.lock`
    blobs/sha256/   the blobs
    ingest/         blobs and trees on their way, swept when their process is dead

Spec: image-spec image-layout.md.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import TracebackType
from typing import BinaryIO, Final, Self

from ocidiff.content import workspace
from ocidiff.content.ingest import FileIngest
from ocidiff.errors import DigestMismatchError, DocumentError, NotFoundError
from ocidiff.oci import media_type
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import Digest
from ocidiff.oci.encoding import MAX_DOCUMENT_BYTES, Members, compact, parse_object
from ocidiff.oci.manifest import Index

REF_NAME: Final = "org.opencontainers.image.ref.name"

_VERSION: Final = "1.0.0"
_MARKER, _INDEX, _LOCK, _INGEST, _BLOBS = "oci-layout", "index.json", "index.lock", "ingest", "blobs"
_OWN: Final = frozenset({_INDEX, _LOCK, _INGEST, _BLOBS})
_ALGORITHM: Final = "sha256"
# Other tools and users read the layout.
_DIRECTORY_MODE: Final = 0o755
_FILE_MODE: Final = 0o644
_OPEN_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# O_NONBLOCK: a FIFO in place of a file is an error, not a wait.
_OPEN_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Layout:
    """A `ContentStore` in a directory, and the names of its images. Made by `Layout.open`; safe from several threads."""

    def __init__(self, path: str, root: int) -> None:
        self._path = path
        self._root = root

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
            os.makedirs(text, _DIRECTORY_MODE, exist_ok=True)
        layout = cls(text, os.open(text, _OPEN_DIRECTORY))
        try:
            layout._begin(create)
        except BaseException:
            layout.close()
            raise
        return layout

    def close(self) -> None:
        """Let go of the directory."""
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def path(self) -> str:
        """The directory as it was given."""
        return self._path

    # Blobs.

    def ingest(self) -> FileIngest:
        """See `ContentStore.ingest`."""
        waiting = self._directory(_INGEST, create=True)
        try:
            blobs = self._directory(_BLOBS, _ALGORITHM, create=True)
        except BaseException:
            os.close(waiting)
            raise
        return FileIngest(waiting, blobs)

    def write(self, data: bytes, media_type: str) -> Descriptor:
        """See `ContentStore.write`."""
        descriptor = Descriptor(media_type, Digest.of(data), len(data))
        with self.ingest() as ingest:
            ingest.write(data)
            ingest.commit(descriptor.size, descriptor.digest)
        return descriptor

    def contains(self, digest: Digest) -> bool:
        """See `ContentStore.contains`."""
        try:
            self._open_blob(digest).close()
        except NotFoundError:
            return False
        return True

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

    def describe(self, digest: Digest, media_type: str) -> Descriptor:
        """The descriptor of a blob that nothing describes, by its length on disk."""
        with self._open_blob(digest) as blob:
            return Descriptor(media_type, digest, os.fstat(blob.fileno()).st_size)

    # Names.

    def index(self) -> Index:
        """What `index.json` holds now."""
        return Index.parse(self._read(_INDEX), media_type.INDEX, f"{self._path}/{_INDEX}")

    def named(self, name: str) -> Descriptor:
        """The descriptor of that name.

        Raises:
            NotFoundError: There is none.
            DocumentError: There are several.
        """
        found = [entry for entry in self.index().manifests if entry.annotations.get(REF_NAME) == name]
        if not found:
            raise NotFoundError(f"{self._path}: no image {name!r}")
        if len(found) > 1:
            raise DocumentError(f"{self._path}: {len(found)} images are named {name!r}")
        return found[0]

    def set_name(self, name: str, descriptor: Descriptor) -> None:
        """Let `name` mean this descriptor and no other. On disk when this returns."""
        named = replace(descriptor, annotations={**descriptor.annotations, REF_NAME: name})

        def change(index: Index) -> Index:
            others = [entry for entry in index.manifests if entry.annotations.get(REF_NAME) != name]
            return replace(index, manifests=(*others, named))

        self._update_index(change)

    @contextlib.contextmanager
    def temporary_directory(self) -> Iterator[str]:
        """The path of a private directory beside the blobs; removed at the end, whatever happens."""
        waiting = self._directory(_INGEST, create=True)
        try:
            with workspace.directory(waiting) as name:
                yield os.path.join(self._path, _INGEST, name)
        finally:
            os.close(waiting)

    # Files of the layout.

    def _begin(self, create: bool) -> None:
        """Check that this is a layout, making it one when it is empty or half made."""
        try:
            self._check_marker()
        except FileNotFoundError:
            if not create or not _OWN.issuperset(os.listdir(self._root)):
                raise DocumentError(f"{self._path}: no OCI image layout: it has no {_MARKER} file") from None
            self._initialise()
        try:
            waiting = self._directory(_INGEST, create=False)
        except FileNotFoundError:
            return
        try:
            workspace.sweep(waiting)
        finally:
            os.close(waiting)

    def _initialise(self) -> None:
        with self._locked():
            for names in ((_INGEST,), (_BLOBS, _ALGORITHM)):
                os.close(self._directory(*names, create=True))
            try:
                self.index()
            except FileNotFoundError:
                self._replace(_INDEX, Index().encode())
            # The marker comes last: a directory without it is no layout yet.
            self._replace(_MARKER, compact({"imageLayoutVersion": _VERSION}))

    def _check_marker(self) -> None:
        where = f"{self._path}/{_MARKER}"
        members = Members(parse_object(self._read(_MARKER), where), where)
        version = members.text("imageLayoutVersion")
        if version != _VERSION:
            members.fail("imageLayoutVersion", f"is {version[:100]!r}, expected {_VERSION!r}")

    def _update_index(self, change: Callable[[Index], Index]) -> None:
        with self._locked():
            before = self.index()
            after = change(before)
            if after != before:
                self._replace(_INDEX, after.encode())

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        lock = os.open(_LOCK, flags, _FILE_MODE, dir_fd=self._root)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _replace(self, name: str, data: bytes) -> None:
        """Replace a file of the layout whole: readers see the old or the new one, also after a power failure."""
        waiting = self._directory(_INGEST, create=True)
        try:
            temporary, file = workspace.create_file(waiting)
            try:
                with os.fdopen(file, "wb", closefd=False) as stream:
                    stream.write(data)
                os.fsync(file)
                os.fchmod(file, _FILE_MODE)
                os.rename(temporary, name, src_dir_fd=waiting, dst_dir_fd=self._root)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=waiting)
                raise
            finally:
                os.close(file)
        finally:
            os.close(waiting)
        os.fsync(self._root)

    def _read(self, name: str) -> bytes:
        with self._open_regular(name, self._root, f"{self._path}/{name}") as file:
            # One byte more than allowed, for the parser to refuse.
            return file.read(MAX_DOCUMENT_BYTES + 1)

    def _open_blob(self, digest: Digest) -> BinaryIO:
        try:
            blobs = self._directory(_BLOBS, _ALGORITHM, create=False)
            try:
                return self._open_regular(digest.hex, blobs, f"{self._path}/{_BLOBS}/{_ALGORITHM}/{digest.hex}")
            finally:
                os.close(blobs)
        except FileNotFoundError:
            raise NotFoundError(f"{self._path}: no blob {digest}") from None

    def _open_regular(self, name: str, parent: int, path: str) -> BinaryIO:
        try:
            file = os.open(name, _OPEN_FILE, dir_fd=parent)
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from None
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise OSError(errno.EINVAL, "not a regular file", path)
        return os.fdopen(file, "rb")

    def _directory(self, *names: str, create: bool) -> int:
        """A directory of the layout, as a descriptor; a symlink in its place is an error."""
        current = os.dup(self._root)
        for name in names:
            parent = current
            try:
                if create:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(name, _DIRECTORY_MODE, dir_fd=parent)
                current = os.open(name, _OPEN_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
            except OSError as error:
                raise OSError(error.errno, error.strerror, "/".join((self._path, *names))) from None
            finally:
                os.close(parent)
        return current
