"""Contents of files kept apart: of one that may change, and of many that are needed later. Files for them have no name."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Final, Self

from ocidiff.layer.pure.pace import BLOCK_BYTES

_IN_MEMORY_BYTES: Final = 4 << 20


class AsideError(OSError):
    """The temporary file could not be made or used; told with its directory."""


class Aside:
    """A copy of `size` bytes: add them all in blocks, then read them, as often as wanted.

    Args:
        size: How many bytes.
        spool: Directory of a large copy; None for that of temporary files.

    Raises:
        AsideError: On every use.
    """

    def __init__(self, size: int, spool: str | None) -> None:
        self._size = size
        self._spool = spool
        with _told(spool):
            is_small = size <= _IN_MEMORY_BYTES
            self._file: IO[bytes] = io.BytesIO() if is_small else tempfile.TemporaryFile(dir=spool)  # noqa: SIM115

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with _told(self._spool):
            self._file.close()

    def add(self, block: bytes) -> None:
        """Keep one more block; zeros take no room, as a file may be mostly holes."""
        with _told(self._spool):
            if block.count(0) == len(block):
                self._file.seek(len(block), os.SEEK_CUR)
            else:
                self._file.write(block)

    def blocks(self) -> Iterator[bytes]:
        """All that was added, in full blocks of `BLOCK_BYTES` but the last."""
        with _told(self._spool):
            self._file.seek(0)
        left = self._size
        while left:
            size = min(left, BLOCK_BYTES)
            with _told(self._spool):
                block = self._file.read(size)
            yield block.ljust(size, b"\0")  # zeros at the end are not in the file
            left -= size


class AsideFile:
    """Keeps contents until they are needed, each once. The file is made for the first of them.

    Args:
        spool: Directory of the file; None for that of temporary files.

    Raises:
        AsideError: On every use.
    """

    def __init__(self, spool: str | None) -> None:
        self._spool = spool
        self._file: IO[bytes] | None = None
        self._end = 0

    def close(self) -> None:
        """Remove what is kept."""
        if self._file is not None:
            with _told(self._spool):
                self._file.close()

    def add(self, blocks: Iterable[bytes]) -> int:
        """Keep a content, and return its position."""
        position = self._end
        for block in blocks:
            with _told(self._spool):
                if self._file is None:
                    self._file = tempfile.TemporaryFile(dir=self._spool)  # noqa: SIM115
                if block.count(0) != len(block):
                    self._file.seek(self._end)
                    self._file.write(block)
            self._end += len(block)
        return position

    def blocks(self, position: int, size: int) -> Iterator[bytes]:
        """The `size` bytes at a position, in blocks."""
        end = position + size
        while position < end and self._file is not None:
            want = min(end - position, BLOCK_BYTES)
            with _told(self._spool):
                self._file.seek(position)
                block = self._file.read(want)
            yield block.ljust(want, b"\0")  # zeros at the end are not in the file
            position += want


@contextmanager
def _told(spool: str | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise AsideError(error.errno, error.strerror, spool or tempfile.tempdir or "temporary file") from error
