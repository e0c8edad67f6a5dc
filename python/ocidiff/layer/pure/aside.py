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

    Raises:
        AsideError: On every use.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        with _told():
            self._file: IO[bytes] = tempfile.TemporaryFile() if size > _IN_MEMORY_BYTES else io.BytesIO()  # noqa: SIM115

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with _told():
            self._file.close()

    def add(self, block: bytes) -> None:
        """Keep one more block; zeros take no room, as a file may be mostly holes."""
        with _told():
            if block.count(0) == len(block):
                self._file.seek(len(block), os.SEEK_CUR)
            else:
                self._file.write(block)

    def blocks(self) -> Iterator[bytes]:
        """All that was added, in full blocks of `BLOCK_BYTES` but the last."""
        with _told():
            self._file.seek(0)
        left = self._size
        while left:
            size = min(left, BLOCK_BYTES)
            with _told():
                block = self._file.read(size)
            yield block.ljust(size, b"\0")  # zeros at the end are not in the file
            left -= size


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise AsideError(error.errno, error.strerror, tempfile.tempdir or "temporary file") from error
