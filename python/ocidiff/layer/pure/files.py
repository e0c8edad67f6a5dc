"""Writing the data of a file in order. Long runs of zeros become holes, the same ones however the data comes in pieces."""

from __future__ import annotations

import os
from typing import Final

from ocidiff.layer.pure.tar_reader import Hole

_BLOCK_BYTES: Final = 4096  # what file systems keep a hole by
_MIN_HOLE_BYTES: Final = 16 * _BLOCK_BYTES  # a file of many pieces is slower to read
_ZEROS: Final = bytes(_MIN_HOLE_BYTES)


class FileWriter:
    """Writes from the start of an empty file, whose descriptor stays the caller's."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._position = 0  # what is before is written, or is a hole
        self._zeros = 0  # after that, of which it is not known yet how many there are
        self._ends_in_hole = False

    def write(self, piece: bytes | Hole) -> None:
        """Take the next piece."""
        if isinstance(piece, Hole):
            self._end_zeros()
            self._position += piece.size
            self._ends_in_hole = True
            return
        start = 0
        while start < len(piece):
            length, zeros = _next_run(piece, start, self._position + self._zeros)
            if length:
                self._end_zeros()
                self._put(piece, start, start + length)
            self._zeros += zeros
            start += length + zeros

    def finish(self) -> None:
        """Give the file its length, if the data has not."""
        self._end_zeros(is_end_of_file=True)
        if self._ends_in_hole:
            os.ftruncate(self._file, self._position)

    def _end_zeros(self, *, is_end_of_file: bool = False) -> None:
        """Make a hole of the zeros that came last, or write them."""
        end, self._zeros = self._position + self._zeros, 0
        if _is_hole(self._position, end, is_end_of_file=is_end_of_file):
            self._position = end
            self._ends_in_hole = True
        while self._position < end:
            self._put(_ZEROS, 0, min(end - self._position, len(_ZEROS)))

    def _put(self, data: bytes, start: int, end: int) -> None:
        with memoryview(data) as view:
            while start < end:
                count = os.pwrite(self._file, view[start:end], self._position)
                self._position += count
                self._ends_in_hole = False
                start += count


def _is_hole(start: int, end: int, *, is_end_of_file: bool) -> bool:
    """True if the zeros from `start` to `end` of a file hold a long run of whole blocks."""
    whole_end = end if is_end_of_file else end // _BLOCK_BYTES * _BLOCK_BYTES
    return whole_end - -(-start // _BLOCK_BYTES) * _BLOCK_BYTES >= _MIN_HOLE_BYTES


def _next_run(data: bytes, start: int, offset: int) -> tuple[int, int]:
    """Return the number of bytes of `data` from `start` on to write, and the number of zeros after them.

    Zeros at the start are told apart, since there may be more before them.

    Args:
        data: A piece of a file.
        start: Where to begin in it.
        offset: Where that is in the file.
    """
    end = position = start
    while position < len(data):
        at = offset + position - start
        following = min(len(data), position + _BLOCK_BYTES - at % _BLOCK_BYTES)
        if data[position] or data[position:following] != _ZEROS[: following - position]:
            is_first = end == start and position > start
            if is_first or _is_hole(offset + end - start, at, is_end_of_file=False):
                break
            end = following
        position = following
    return end - start, position - end
