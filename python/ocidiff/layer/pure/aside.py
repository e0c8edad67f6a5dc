"""The content of a file that may change, kept apart from it: in memory, or a large one in a file without a name."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
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
        with self._told():
            is_small = size <= _IN_MEMORY_BYTES
            self._file: IO[bytes] = io.BytesIO() if is_small else tempfile.TemporaryFile(dir=spool)  # noqa: SIM115

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._told():
            self._file.close()

    def add(self, block: bytes) -> None:
        """Keep one more block; zeros take no room, as a file may be mostly holes."""
        with self._told():
            if block.count(0) == len(block):
                self._file.seek(len(block), os.SEEK_CUR)
            else:
                self._file.write(block)

    def blocks(self) -> Iterator[bytes]:
        """All that was added, in full blocks of `BLOCK_BYTES` but the last."""
        with self._told():
            self._file.seek(0)
        left = self._size
        while left:
            size = min(left, BLOCK_BYTES)
            with self._told():
                block = self._file.read(size)
            yield block.ljust(size, b"\0")  # zeros at the end are not in the file
            left -= size

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise AsideError(error.errno, error.strerror, self._spool or tempfile.tempdir or "temporary file") from error
