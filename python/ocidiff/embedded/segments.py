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
        """Remove the tables whose blobs are gone."""
        try:
            with self._files.directory(TABLES, create=False) as tables, self._files.directory(*BLOBS) as blobs:
                for name in set(os.listdir(tables)) - set(os.listdir(blobs)):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=tables)
        except (FileNotFoundError, NotADirectoryError):
            return

    def faults(self, *, repair: bool) -> Iterator[tuple[Digest, str]]:
        """Compare every table with its blob; yield those that do not fit, and why.

        Args:
            repair: Remove them.
        """
        try:
            with self._files.directory(TABLES, create=False) as tables:
                for name in sorted(os.listdir(tables)):
                    try:
                        digest = Digest(f"sha256:{name}")
                        with self._open(tables, name) as table, self._open_blob(name) as blob:
                            why = _misfit(table.read(), blob)
                    except (DocumentError, NotFoundError):
                        # Collecting garbage removes it.
                        continue
                    if why is not None:
                        if repair:
                            os.unlink(name, dir_fd=tables)
                        yield digest, why
        except (FileNotFoundError, NotADirectoryError):
            return

    def _sources(self, stack: contextlib.ExitStack) -> tuple[tuple[int, int], ...]:
        """Open tables and their blobs, the latest first, as many as fit into memory."""
        found: list[tuple[int, int]] = []
        left = _MOST_BYTES
        try:
            tables = stack.enter_context(self._files.directory(TABLES, create=False))
        except (FileNotFoundError, NotADirectoryError):
            return ()
        known = [(os.stat(name, dir_fd=tables, follow_symlinks=False), name) for name in os.listdir(tables)]
        for stat, name in sorted(known, key=_age):
            left -= stat.st_size
            if left < 0 or len(found) == _MOST_TABLES:
                break
            # Collecting garbage may remove both at any moment.
            with contextlib.suppress(FileNotFoundError, NotFoundError):
                blob = stack.enter_context(self._open_blob(name))
                found.append((stack.enter_context(self._open(tables, name)).fileno(), blob.fileno()))
        return tuple(found)

    def _open(self, tables: int, name: str) -> BinaryIO:
        return open_regular(name, tables, f"{self._files.path}/{TABLES}/{name}")

    def _open_blob(self, name: str) -> BinaryIO:
        with self._files.directory(*BLOBS, create=False) as blobs:
            try:
                return open_regular(name, blobs, "/".join((self._files.path, *BLOBS, name)))
            except FileNotFoundError:
                raise NotFoundError(f"no blob {name}") from None


def _age(one: tuple[os.stat_result, str]) -> tuple[int, str]:
    return -one[0].st_mtime_ns, one[1]


def _misfit(table: bytes, blob: BinaryIO) -> str | None:
    """Return why a table does not fit its blob; None if it does, or if it is of another version."""
    from xxhash import xxh3_64_intdigest

    if not table.startswith(_MAGIC[:-1]) or len(table) < len(_MAGIC) + _CHECKSUM.size:
        return "is no table"
    if not table.startswith(_MAGIC):
        return None
    body, checksum = table[: -_CHECKSUM.size], table[-_CHECKSUM.size :]
    records = body[len(_MAGIC) :]
    if len(records) % _RECORD.size or _CHECKSUM.unpack(checksum)[0] != xxh3_64_intdigest(body):
        return "is damaged"
    for _, offset, check, length, _, _ in _RECORD.iter_unpack(records):
        blob.seek(offset)
        if xxh3_64_intdigest(blob.read(length)) != check:
            return f"says another thing than the blob at {offset}"
    return None
