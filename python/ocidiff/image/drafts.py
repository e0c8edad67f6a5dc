"""Drafts: new layers that become part of another one, kept in files without a name until then."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import BinaryIO, Self, cast

from ocidiff.errors import UnsupportedError
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import Digest
from ocidiff.output import write_all


class Drafts:
    """An `Ingester` whose blobs go with it.

    Args:
        spool: Directory of the files; None for that of temporary files.
    """

    def __init__(self, spool: str | None) -> None:
        self._spool = spool
        self._files: dict[Digest, BinaryIO] = {}

    def close(self) -> None:
        """Drop all drafts."""
        for file in self._files.values():
            file.close()

    @property
    def spool(self) -> str | None:
        """See `Ingester.spool`."""
        return self._spool

    def contains(self, digest: Digest) -> bool:
        """Return true for a draft."""
        return digest in self._files

    def open_blob(self, descriptor: Descriptor) -> BinaryIO:
        """Open a draft at its beginning."""
        return cast("BinaryIO", open(f"/proc/self/fd/{self._files[descriptor.digest].fileno()}", "rb", buffering=0))

    def ingest(self, ref: str | None = None) -> _Draft:
        """See `Ingester.ingest`; none is kept for another writer."""
        if ref is not None:
            raise UnsupportedError(f"draft {ref}: cannot be resumed")
        return _Draft(self._files, self._spool)

    def write(self, data: bytes, media_type: str, labels: Mapping[str, str] | None = None) -> Descriptor:
        """See `Ingester.write`."""
        with self.ingest() as ingest:
            ingest.write(data)
            ingest.commit(len(data), Digest.of(data), labels)
        return Descriptor(media_type, Digest.of(data), len(data))


class _Draft:
    """See `Ingest`."""

    def __init__(self, files: dict[Digest, BinaryIO], spool: str | None) -> None:
        import tempfile

        self._files = files
        self._file = cast("BinaryIO", tempfile.TemporaryFile(dir=spool, buffering=0))  # noqa: SIM115

    @property
    def offset(self) -> int:
        """See `Ingest.offset`."""
        return os.fstat(self.fileno()).st_size

    def fileno(self) -> int:
        """See `Ingest.fileno`."""
        return self._file.fileno()

    def write(self, data: bytes) -> None:
        """See `Ingest.write`."""
        write_all(self.fileno(), data)

    def restart(self) -> None:
        """See `Ingest.restart`."""
        os.ftruncate(self.fileno(), 0)
        os.lseek(self.fileno(), 0, os.SEEK_SET)

    def commit(
        self,
        size: int,  # noqa: ARG002 - of the protocol
        digest: Digest,
        labels: Mapping[str, str] | None = None,  # noqa: ARG002 - of the protocol
        check: Callable[[], None] = lambda: None,  # noqa: ARG002 - of the protocol
    ) -> None:
        """See `Ingest.commit`; the engine has counted and hashed what it wrote."""
        self._files[digest] = self._file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._file not in self._files.values():
            self._file.close()
