"""Tables of segments in a store: they go with their blobs, and are compared with them."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator
from typing import BinaryIO, Final

from ocidiff.embedded.files import BLOBS, INGEST, Files
from ocidiff.errors import DocumentError
from ocidiff.oci.digest import Digest
from ocidiff.segments import MOST_BYTES, NEWEST, TABLES, SegmentFiles
from ocidiff.services.content import BLOCK_BYTES

# Of gzip, and of zstd.
_MAGICS: Final = (b"ocidseg1", b"ocidzst1")
_MAGIC_BYTES: Final = 8
_RECORD: Final = struct.Struct("<32sQQIII")
_CHECKSUM: Final = struct.Struct("<Q")


class StoreSegments(SegmentFiles):
    """`SegmentTables` in a layout."""

    def __init__(self, files: Files) -> None:
        super().__init__(files, INGEST, BLOBS)

    def drop_orphans(self) -> None:
        """Remove the tables whose blobs are gone. What cannot be removed is in nobody's way."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.suppress(OSError))
            tables = stack.enter_context(self._files.directory(TABLES, create=False))
            blobs = stack.enter_context(self._files.directory(*BLOBS))
            for name in set(os.listdir(tables)) - set(os.listdir(blobs)) - {NEWEST}:
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=tables)

    def faults(self, *, repair: bool) -> Iterator[tuple[Digest, str]]:
        """Compare every table with its blob; yield those that do not fit, and why.

        A table that a power failure cut off is no fault: it is not used, and the next commit of that layer replaces it.

        Args:
            repair: Remove them.
        """
        try:
            with self._files.directory(TABLES, create=False) as tables, self._files.directory(*BLOBS) as blobs:
                for name in sorted(os.listdir(tables)):
                    with contextlib.suppress(DocumentError, OSError):
                        digest = Digest(f"sha256:{name}")
                        with self._open(tables, name) as table, self._open_blob(blobs, name) as blob:
                            why = _misfit(table.read(MOST_BYTES + 1), blob)
                        if why is not None:
                            if repair:
                                os.unlink(name, dir_fd=tables)
                            yield digest, why
        except OSError:
            return


def _misfit(table: bytes, blob: BinaryIO) -> str | None:
    """Return why a table does not fit its blob; None if it does, or if it is not whole and so is never used."""
    from xxhash import xxh3_64, xxh3_64_intdigest

    body, checksum = table[: -_CHECKSUM.size], table[-_CHECKSUM.size :]
    records = body[_MAGIC_BYTES:]
    is_whole = body.startswith(_MAGICS) and len(records) % _RECORD.size == 0 and len(checksum) == _CHECKSUM.size
    if not is_whole or _CHECKSUM.unpack(checksum)[0] != xxh3_64_intdigest(body):
        return None
    size, end = os.fstat(blob.fileno()).st_size, 0
    # Segments do not overlap, so that no byte of the blob is read twice, whatever the table says.
    for offset, check, length in sorted(record[1:4] for record in _RECORD.iter_unpack(records)):
        is_sound = end <= offset and offset + length <= size
        if is_sound:
            end = offset + length
            blob.seek(offset)
            found = xxh3_64()
            for at in range(offset, end, BLOCK_BYTES):
                found.update(blob.read(min(BLOCK_BYTES, end - at)))
            is_sound = found.intdigest() == check
        if not is_sound:
            return f"the table of its segments says another thing than the blob at {offset}"
    return None
