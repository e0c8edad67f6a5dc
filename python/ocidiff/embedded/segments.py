"""Tables of segments: what a later layer can copy from the blobs of a store, in place of compressing it again.

    segments/HEX    the table of the blob `blobs/sha256/HEX`; written by the engine, and worth nothing without the blob

A table is a cache: without it, or if it is damaged, segments are compressed.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator
from typing import BinaryIO, Final

from ocidiff import workspace
from ocidiff.embedded.files import BLOBS, INGEST, Files, open_regular
from ocidiff.errors import DocumentError, NotFoundError
from ocidiff.layer.options import Segments
from ocidiff.log import Logger
from ocidiff.oci.digest import Digest
from ocidiff.services.segments import NewTable

TABLES: Final = "segments"
# The tables are read whole: this much memory, and about 30 GB of layers.
_MOST_BYTES: Final = 16 << 20
# Each takes two descriptors while a layer is written.
_MOST_TABLES: Final = 32
_MODE: Final = 0o444

_MAGIC: Final = b"ocidseg1"
_RECORD: Final = struct.Struct("<32sQQIII")
_CHECKSUM: Final = struct.Struct("<Q")

_log = Logger(__name__)


class SegmentFiles:
    """`SegmentTables` in a layout."""

    def __init__(self, files: Files) -> None:
        self._files = files

    @contextlib.contextmanager
    def begin(self, *, proves_all: bool) -> Iterator[NewTable]:
        """See `SegmentTables.begin`."""
        with contextlib.ExitStack() as stack:
            waiting = stack.enter_context(self._files.directory(INGEST))
            name, table = workspace.create_file(waiting, _MODE)
            stack.callback(os.close, table)
            kept = False

            def keep(digest: Digest) -> None:
                nonlocal kept
                if not os.fstat(table).st_size:
                    # The pure engine compresses a layer in one piece.
                    return
                try:
                    with self._files.directory(TABLES) as tables:
                        os.rename(name, digest.hex, src_dir_fd=waiting, dst_dir_fd=tables)
                    kept = True
                except OSError as error:
                    _log.debug("segments of %s: %s", digest, error)

            try:
                yield NewTable(Segments(self._sources(stack), table, proves_all), keep)
            finally:
                if not kept:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=waiting)

    def drop_orphans(self) -> None:
        """Remove the tables whose blobs are gone. What cannot be removed is in nobody's way."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.suppress(OSError))
            tables = stack.enter_context(self._files.directory(TABLES, create=False))
            blobs = stack.enter_context(self._files.directory(*BLOBS))
            for name in set(os.listdir(tables)) - set(os.listdir(blobs)):
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=tables)

    def faults(self, *, repair: bool) -> Iterator[tuple[Digest, str]]:
        """Compare every table with its blob; yield those that do not fit, and why.

        A table that a power failure cut off is no fault: it is not used, and the next commit of that layer replaces it.

        Args:
            repair: Remove them.
        """
        try:
            with self._files.directory(TABLES, create=False) as tables:
                for name in sorted(os.listdir(tables)):
                    with contextlib.suppress(DocumentError, NotFoundError, OSError):
                        digest = Digest(f"sha256:{name}")
                        with self._open(tables, name) as table, self._open_blob(name) as blob:
                            why = _misfit(table.read(_MOST_BYTES + 1), blob)
                        if why is not None:
                            if repair:
                                os.unlink(name, dir_fd=tables)
                            yield digest, why
        except OSError:
            return

    def _sources(self, stack: contextlib.ExitStack) -> tuple[tuple[int, int], ...]:
        """Open tables and their blobs, the latest first, as many as fit into memory."""
        found: list[tuple[int, int]] = []
        left = _MOST_BYTES
        try:
            tables = stack.enter_context(self._files.directory(TABLES, create=False))
            known = sorted(((_age(tables, name), name) for name in os.listdir(tables)), reverse=True)
        except OSError:
            return ()
        for _, name in known:
            if len(found) == _MOST_TABLES:
                break
            # A table is a cache: one that cannot be read, or that a collection removes at this moment, is skipped.
            with contextlib.suppress(OSError, NotFoundError), contextlib.ExitStack() as both:
                table = both.enter_context(self._open(tables, name))
                size = os.fstat(table.fileno()).st_size
                if size <= left:
                    blob = both.enter_context(self._open_blob(name))
                    found.append((table.fileno(), blob.fileno()))
                    left -= size
                    # Only those that are used stay open.
                    stack.push(both.pop_all())
        return tuple(found)

    def _open(self, tables: int, name: str) -> BinaryIO:
        return open_regular(name, tables, f"{self._files.path}/{TABLES}/{name}")

    def _open_blob(self, name: str) -> BinaryIO:
        with self._files.directory(*BLOBS, create=False) as blobs:
            try:
                return open_regular(name, blobs, "/".join((self._files.path, *BLOBS, name)))
            except FileNotFoundError:
                raise NotFoundError(f"no blob {name}") from None


def _age(tables: int, name: str) -> int:
    """Return when a table was written, nanoseconds since 1970; 0 if it is gone."""
    try:
        return os.stat(name, dir_fd=tables, follow_symlinks=False).st_mtime_ns
    except FileNotFoundError:
        return 0


def _misfit(table: bytes, blob: BinaryIO) -> str | None:
    """Return why a table does not fit its blob; None if it does, or if it is not whole and so is never used."""
    from xxhash import xxh3_64_intdigest

    body, checksum = table[: -_CHECKSUM.size], table[-_CHECKSUM.size :]
    records = body[len(_MAGIC) :]
    is_whole = body.startswith(_MAGIC) and len(records) % _RECORD.size == 0 and len(checksum) == _CHECKSUM.size
    if not is_whole or _CHECKSUM.unpack(checksum)[0] != xxh3_64_intdigest(body):
        return None
    for _, offset, check, length, _, _ in _RECORD.iter_unpack(records):
        blob.seek(offset)
        if xxh3_64_intdigest(blob.read(length)) != check:
            return f"the table of its segments says another thing than the blob at {offset}"
    return None
