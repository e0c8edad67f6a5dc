"""A blob on its way into a layout: a locked file in `ingest/`, renamed into `blobs/` once it is whole and on disk.

One with a ref has a directory of its own, `ingest/<sha256 of the ref>/{ref,data}` as in containerd, which outlives its
writer and is resumed by the next one.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from ocidiff import opening, workspace
from ocidiff.errors import BusyError, DigestMismatchError, NotFoundError, UsageError
from ocidiff.oci.digest import Digest
from ocidiff.output import write_all
from ocidiff.services.content import BLOCK_BYTES, Status

Record = Callable[[Digest, int, Mapping[str, str] | None], None]
Defer = Callable[[str, int, int, Digest, Mapping[str, str] | None], None]
"""Takes name, descriptor, length, digest and labels of a whole file in `ingest/`."""

BLOB_MODE: Final = 0o444
_REF, _NEW_REF, _DATA = "ref", "ref+", "data"
_DIRECTORY_OF_REF: Final = r"[0-9a-f]{64}"
_MAX_REF_BYTES: Final = 4096


class FileIngest:
    """See `services.content.Ingest`.

    Args:
        ingest_dir: Descriptor of the directory that holds the file; closed with this.
        name: Name of the file in it.
        file: Its descriptor; closed with this.
        blobs: Descriptor of the directory `blobs/sha256/`; closed with this.
        record: Called before the blob becomes visible.
        on_close: What becomes of the file when it is left without `commit` (false), or was committed (true).
        defer: Takes the whole file in place of making it visible; None to make it visible.
    """

    def __init__(
        self,
        ingest_dir: int,
        name: str,
        file: int,
        blobs: int,
        record: Record,
        on_close: Callable[[bool], None],
        defer: Defer | None = None,
    ) -> None:
        self._ingest_dir = ingest_dir
        self._name: str | None = name
        self._file = file
        self._blobs = blobs
        self._record = record
        self._on_close = on_close
        self._defer = defer
        import hashlib

        self._sha256 = hashlib.sha256()
        self._written = 0

    @property
    def offset(self) -> int:
        """See `Ingest.offset`."""
        return os.fstat(self._file).st_size

    def fileno(self) -> int:
        """See `Ingest.fileno`."""
        return self._file

    def write(self, data: bytes) -> None:
        """See `Ingest.write`."""
        self._sha256.update(data)
        self._written += len(data)
        write_all(self._file, data)

    def commit(
        self,
        size: int,
        digest: Digest,
        labels: Mapping[str, str] | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """See `Ingest.commit`."""
        if self._name is None:
            raise ValueError("the blob is committed already")
        actual = self.offset
        if actual != size:
            raise DigestMismatchError(f"blob {digest}: {actual} bytes written, expected {size}")
        # A writer that used the file descriptor has hashed in passing; the bytes are not read again.
        if self._written == size and self._sha256.hexdigest() != digest.hex:
            raise DigestMismatchError(f"blob {digest}: sha256:{self._sha256.hexdigest()} written")
        if self._defer is not None:
            self._defer(self._name, self._file, size, digest, labels)
            self._name = None
            return
        # Imported by writers alone.
        from ocidiff.embedded.stored import holds_bytes, make_visible

        # The record first: from here on the blob is protected, so that one which is there already stays there.
        self._record(digest, size, labels)
        if holds_bytes(self._blobs, digest, self._file, size, check):
            os.unlink(self._name, dir_fd=self._ingest_dir)
        else:
            os.fsync(self._file)
            os.fchmod(self._file, BLOB_MODE)
            make_visible(self._ingest_dir, self._name, self._blobs, digest)
            os.fsync(self._blobs)
        self._name = None

    def restart(self) -> None:
        """See `Ingest.restart`."""
        import hashlib

        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)
        self._sha256 = hashlib.sha256()
        self._written = 0

    def resume(self) -> None:
        """Hash what the file has already, so that what is written now continues it."""
        os.lseek(self._file, 0, os.SEEK_SET)
        while block := os.read(self._file, BLOCK_BYTES):
            self._sha256.update(block)
            self._written += len(block)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._on_close(self._name is None)
        finally:
            for descriptor in (self._file, self._ingest_dir, self._blobs):
                os.close(descriptor)


def new_ingest(ingest_dir: int, blobs: int, record: Record, defer: Defer | None = None) -> FileIngest:
    """A blob without a ref, which vanishes with its writer. Takes over both descriptors."""
    try:
        name, file = workspace.create_file(ingest_dir)
    except BaseException:
        os.close(ingest_dir)
        os.close(blobs)
        raise

    def on_close(committed: bool) -> None:
        if not committed:
            os.unlink(name, dir_fd=ingest_dir)

    return FileIngest(ingest_dir, name, file, blobs, record, on_close, defer)


def resumable_ingest(ingest_dir: int, blobs: int, record: Record, ref: str) -> FileIngest:
    """The blob of a ref, begun or resumed. Takes over both descriptors.

    Raises:
        BusyError: Somebody is writing to it.
    """
    try:
        name = _directory_name(ref)
        directory = _lock_directory(ingest_dir, name, ref)
        try:
            _write_ref(directory, ref)
            file = os.open(_DATA, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
        except BaseException:
            os.close(directory)
            raise
    except BaseException:
        os.close(ingest_dir)
        os.close(blobs)
        raise

    def on_close(committed: bool) -> None:
        try:
            if committed:
                _remove(ingest_dir, name, directory)
        finally:
            os.close(ingest_dir)

    ingest = FileIngest(directory, _DATA, file, blobs, record, on_close)
    try:
        ingest.resume()
    except BaseException:
        ingest.__exit__(None, None, None)
        raise
    return ingest


def is_resumable(name: str) -> bool:
    """Return True if what has this name in `ingest/` belongs to a ref, so that it outlives its writer."""
    return re.fullmatch(_DIRECTORY_OF_REF, name) is not None


def statuses(ingest_dir: int) -> list[Status]:
    """Return the resumable ingests in the directory `ingest/`, by ref."""
    found = []
    for name in filter(is_resumable, os.listdir(ingest_dir)):
        # Committed, dropped or not yet begun.
        with suppress(FileNotFoundError, NotADirectoryError):
            directory = os.open(name, opening.DIRECTORY, dir_fd=ingest_dir)
            try:
                found.append(_status(directory))
            finally:
                os.close(directory)
    return sorted(found, key=lambda status: status.ref)


def abort(ingest_dir: int, ref: str) -> None:
    """Drop what was begun under a ref.

    Raises:
        NotFoundError: Nothing was begun.
        BusyError: Somebody is writing to it.
    """
    name = _directory_name(ref)
    try:
        os.stat(name, dir_fd=ingest_dir, follow_symlinks=False)
    except FileNotFoundError:
        raise NotFoundError(f"no ingest {ref[:100]!r}") from None
    directory = _lock_directory(ingest_dir, name, ref)
    try:
        _remove(ingest_dir, name, directory)
    finally:
        os.close(directory)


def drop_stale(ingest_dir: int, older_than_ns: int, *, dry_run: bool) -> tuple[int, int]:
    """Drop what nobody has written to for long; how many there were, and their bytes.

    Args:
        ingest_dir: Descriptor of the directory `ingest/`.
        older_than_ns: Last writing, nanoseconds since 1970.
        dry_run: Only count.
    """
    count = size = 0
    for name in filter(is_resumable, os.listdir(ingest_dir)):
        with suppress(FileNotFoundError, NotADirectoryError, BusyError):
            directory = _lock_directory(ingest_dir, name, name)
            try:
                info = os.fstat(directory)
                # An interrupted removal leaves an empty directory.
                with suppress(FileNotFoundError):
                    info = os.stat(_DATA, dir_fd=directory, follow_symlinks=False)
                if info.st_mtime_ns >= older_than_ns:
                    continue
                count += 1
                size += info.st_size if stat.S_ISREG(info.st_mode) else 0
                if not dry_run:
                    _remove(ingest_dir, name, directory)
            finally:
                os.close(directory)
    return count, size


def _directory_name(ref: str) -> str:
    if not 0 < len(ref.encode()) <= _MAX_REF_BYTES or not ref.isprintable():
        raise UsageError(f"ingest {ref[:100]!r}: must be 1 to {_MAX_REF_BYTES} printable bytes")
    import hashlib

    return hashlib.sha256(ref.encode()).hexdigest()


def _lock_directory(ingest_dir: int, name: str, ref: str) -> int:
    """The directory of a ref, made when it is missing; locked, since there is one writer."""
    while True:
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=ingest_dir)
        try:
            directory = os.open(name, opening.DIRECTORY, dir_fd=ingest_dir)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its last writer may have committed in between, and removed it.
            if os.fstat(directory).st_nlink > 0:
                return directory
        except BlockingIOError:
            os.close(directory)
            raise BusyError(f"ingest {ref[:100]!r}: another process is writing to it") from None
        except BaseException:
            os.close(directory)
            raise
        os.close(directory)


def _write_ref(directory: int, ref: str) -> None:
    """Note the ref, whole or not at all. It is not written again, so that its time says when the ingest was begun."""
    with suppress(FileNotFoundError):
        if _read_ref(directory) == ref.encode():
            return
    file = os.open(_NEW_REF, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
    with os.fdopen(file, "wb") as stream:
        stream.write(ref.encode())
    os.rename(_NEW_REF, _REF, src_dir_fd=directory, dst_dir_fd=directory)


def _read_ref(directory: int) -> bytes:
    file = os.open(_REF, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    with os.fdopen(file, "rb") as stream:
        return stream.read(_MAX_REF_BYTES)


def _status(directory: int) -> Status:
    ref = _read_ref(directory).decode(errors="backslashreplace")
    started = os.stat(_REF, dir_fd=directory, follow_symlinks=False).st_mtime_ns
    data = os.stat(_DATA, dir_fd=directory, follow_symlinks=False)
    return Status(ref, data.st_size, started, data.st_mtime_ns)


def _remove(ingest_dir: int, name: str, directory: int) -> None:
    workspace.clear(directory)
    os.rmdir(name, dir_fd=ingest_dir)
