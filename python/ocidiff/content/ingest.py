"""A blob on its way into a layout: a locked file in `ingest/`, renamed into `blobs/` once it is whole and on disk."""

from __future__ import annotations

import hashlib
import os
import stat
from types import TracebackType
from typing import Self

from ocidiff.content import workspace
from ocidiff.errors import DigestMismatchError
from ocidiff.oci.digest import Digest

_BLOB_MODE = 0o444


class FileIngest:
    """See `content.store.Ingest`.

    Args:
        waiting: Descriptor of the directory `ingest/`; closed with this.
        blobs: Descriptor of the directory `blobs/sha256/`; closed with this.
    """

    def __init__(self, waiting: int, blobs: int) -> None:
        self._waiting = waiting
        self._blobs = blobs
        self._name: str | None
        try:
            self._name, self._file = workspace.create_file(waiting)
        except BaseException:
            os.close(waiting)
            os.close(blobs)
            raise
        self._sha256 = hashlib.sha256()
        self._written = 0

    def fileno(self) -> int:
        """See `Ingest.fileno`."""
        return self._file

    def write(self, data: bytes) -> None:
        """See `Ingest.write`."""
        self._sha256.update(data)
        self._written += len(data)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._file, rest) :]

    def commit(self, size: int, digest: Digest) -> None:
        """See `Ingest.commit`."""
        if self._name is None:
            raise ValueError("the blob is committed already")
        actual = os.fstat(self._file).st_size
        if actual != size:
            raise DigestMismatchError(f"blob {digest}: {actual} bytes written, expected {size}")
        # A writer that used the file descriptor has hashed in passing; the bytes are not read again.
        if self._written == size and self._sha256.hexdigest() != digest.hex:
            raise DigestMismatchError(f"blob {digest}: sha256:{self._sha256.hexdigest()} written")
        if self._stored(size, digest):
            return
        os.fsync(self._file)
        os.fchmod(self._file, _BLOB_MODE)
        os.rename(self._name, digest.hex, src_dir_fd=self._waiting, dst_dir_fd=self._blobs)
        self._name = None
        os.fsync(self._blobs)

    def _stored(self, size: int, digest: Digest) -> bool:
        """Whether the blob is there. One of another length was torn by a power failure, and is replaced."""
        try:
            info = os.stat(digest.hex, dir_fd=self._blobs, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return stat.S_ISREG(info.st_mode) and info.st_size == size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if self._name is not None:
                os.unlink(self._name, dir_fd=self._waiting)
        finally:
            for descriptor in (self._file, self._waiting, self._blobs):
                os.close(descriptor)
