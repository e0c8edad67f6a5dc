"""Segments: tables of what the layers in a place hold, for later layers to copy in place of compressing it again.

    segments/HEX      the table of the blob HEX; written by the engine, and worth nothing without the blob
    segments/newest   a line for each layer that was written, the latest last

A table is a cache: without it, or if it is damaged, segments are compressed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import BinaryIO, Final, Protocol

from ocidiff import workspace
from ocidiff.layer.options import Segments
from ocidiff.log import Logger
from ocidiff.oci.digest import Digest
from ocidiff.services.segments import NewTables

TABLES: Final = "segments"
NEWEST: Final = "newest"
MOST_TABLES: Final = 32
"""Tables that a layer uses: each takes two descriptors while it is written."""
MOST_BYTES: Final = 16 << 20
"""Bytes of tables that a layer uses. They are read whole: this much memory, and about 30 GB of layers."""
_MODE: Final = 0o444

_LIST_MODE: Final = 0o644
_LINE_BYTES: Final = 65
# More lines than tables, since a layer that is written again has several lines.
_READ_LINES: Final = 256
_MOST_LINES: Final = 1024
_APPEND: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_log = Logger(__name__)


class Place(Protocol):
    """A directory that holds tables and blobs."""

    @property
    def path(self) -> str:
        """Its path, for messages."""
        ...

    def directory(self, *names: str, create: bool = True) -> AbstractContextManager[int]:
        """Yield the descriptor of a directory in it.

        Args:
            names: Where the directory is.
            create: Make it if it is missing.
        """
        ...


class SegmentFiles:
    """`SegmentTables` in a directory.

    Args:
        files: The directory.
        ingest: Name of the directory in it for what is being written.
        blobs: Where the blobs are in it.
    """

    def __init__(self, files: Place, ingest: str, blobs: tuple[str, ...]) -> None:
        self._files, self._ingest, self._blobs = files, ingest, blobs

    @contextlib.contextmanager
    def begin(self, count: int, *, proves_all: bool) -> Iterator[NewTables]:
        """See `SegmentTables.begin`."""
        with contextlib.ExitStack() as stack:
            new = list[tuple[str, int]]()
            kept = set[str]()
            waiting = -1

            def remove() -> None:
                for name, _ in new:
                    if name and name not in kept:
                        with contextlib.suppress(FileNotFoundError):
                            os.unlink(name, dir_fd=waiting)

            for _ in range(count):
                try:
                    if waiting < 0:
                        waiting = stack.enter_context(self._files.directory(self._ingest))
                        stack.callback(remove)
                    name, table = workspace.create_file(waiting, _MODE)
                except OSError as error:
                    # On a full disk, older layers can be copied all the same.
                    _log.debug("segments: no new table: %s", error)
                    name, table = "", os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
                new.append((name, table))
                stack.callback(os.close, table)

            def keep(digest: Digest, number: int) -> None:
                name, table = new[number]
                if not os.fstat(table).st_size:
                    # The pure engine compresses a layer in one piece, or there was no space.
                    return
                try:
                    with self._files.directory(TABLES) as tables:
                        os.rename(name, digest.hex, src_dir_fd=waiting, dst_dir_fd=tables)
                        kept.add(name)
                        self._add(digest, tables, waiting)
                except OSError as error:
                    _log.debug("segments of %s: %s", digest, error)

            yield NewTables(Segments(self._sources(stack), tuple(table for _, table in new), proves_all), keep)

    def _add(self, digest: Digest, tables: int, waiting: int) -> None:
        """Note a layer whose table has got its name.

        Args:
            digest: Its digest.
            tables: Descriptor of the directory of the tables.
            waiting: Descriptor of the directory of what is being written.
        """
        file = os.open(NEWEST, _APPEND, _LIST_MODE, dir_fd=tables)
        try:
            if not os.fstat(file).st_size:
                # A new file has this mode whatever the umask is.
                os.fchmod(file, _LIST_MODE)
            os.write(file, f"{digest.hex}\n".encode())
            is_long = os.fstat(file).st_size > _MOST_LINES * _LINE_BYTES
        finally:
            os.close(file)
        if is_long:
            self._shorten(tables, waiting)

    def _shorten(self, tables: int, waiting: int) -> None:
        """Replace the list by its end. A line that another process adds meanwhile may be lost, as any part of a cache."""
        lines = [f"{name}\n" for name in self.newest(tables)]
        name, file = workspace.create_file(waiting, _LIST_MODE)
        try:
            os.write(file, "".join(reversed(lines)).encode())
            os.rename(name, NEWEST, src_dir_fd=waiting, dst_dir_fd=tables)
        except OSError:
            os.unlink(name, dir_fd=waiting)
            raise
        finally:
            os.close(file)

    def newest(self, tables: int) -> Iterator[str]:
        """Yield the names of the latest tables, the latest first, each once. Some may be gone.

        No clock is asked, and the tables are not listed, so this takes as long with a million of them.
        """
        try:
            with self._open(tables, NEWEST) as file:
                size = os.fstat(file.fileno()).st_size
                lines = os.pread(file.fileno(), _READ_LINES * _LINE_BYTES, max(0, size - _READ_LINES * _LINE_BYTES))
        except OSError:
            return
        for line in dict.fromkeys(reversed(lines.split(b"\n"))):
            # A full disk may have cut off the line before, so that this one stands behind its rest.
            name = line[1 - _LINE_BYTES :]
            if len(name) == _LINE_BYTES - 1 and name.isalnum():
                yield name.decode()

    def _sources(self, stack: contextlib.ExitStack) -> tuple[tuple[int, int], ...]:
        """Open tables and their blobs, the latest first, as many as fit into memory."""
        found: list[tuple[int, int]] = []
        left = MOST_BYTES
        with contextlib.ExitStack() as opened:
            try:
                tables = opened.enter_context(self._files.directory(TABLES, create=False))
                blobs = opened.enter_context(self._files.directory(*self._blobs, create=False))
            except OSError:
                return ()
            for name in self.newest(tables):
                if len(found) == MOST_TABLES:
                    break
                # A table is a cache: one that cannot be read, or that a collection removes at this moment, is skipped.
                with contextlib.suppress(OSError), contextlib.ExitStack() as both:
                    table = both.enter_context(self._open(tables, name))
                    size = os.fstat(table.fileno()).st_size
                    if size <= left:
                        blob = both.enter_context(self._open_blob(blobs, name))
                        found.append((table.fileno(), blob.fileno()))
                        left -= size
                        # Only those that are used stay open.
                        stack.push(both.pop_all())
        return tuple(found)

    def _open(self, tables: int, name: str) -> BinaryIO:
        return workspace.open_regular(name, tables, f"{self._files.path}/{TABLES}/{name}")

    def _open_blob(self, blobs: int, name: str) -> BinaryIO:
        return workspace.open_regular(name, blobs, "/".join((self._files.path, *self._blobs, name)))
