"""The plain tar of a layer as a file: entries are read without their data, and data from any offset on."""

from __future__ import annotations

import io
import os
import stat
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import TYPE_CHECKING, BinaryIO, Final

from ocidiff.layer.applier import verify
from ocidiff.layer.engine import Engine
from ocidiff.layer.limits import Limits
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.pure.foreign import compression_of
from ocidiff.oci.digest import DiffID, Digest
from ocidiff.workspace import filling, nameless_file

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from ocidiff.layer.layer import LayerMeasure, TarSummary

_HEAD_BYTES: Final = 16


@contextmanager
def plain_tar(
    blob: BinaryIO,
    digest: Digest,
    diff_id: DiffID,
    spool: str | None,
    *,
    engine: Engine,
    limits: Limits,
    monitor: Monitor,
) -> Iterator[tuple[int, TarSummary | LayerMeasure]]:
    """Yield the descriptor of a regular file with the tar of a layer, verified, and what the layer is.

    A layer that is not compressed is read where it is. Any other is decompressed once, into a nameless file.

    Args:
        blob: The layer, at its beginning.
        digest: Digest of the blob.
        diff_id: Digest of the tar.
        spool: Directory for the nameless file; None for that of `nameless_file`.
        engine: What decompresses.
        limits: What the layer may not pass.
        monitor: Sees progress, and stops the call.

    Raises:
        DigestMismatchError: It is another layer.
    """
    source = blob.fileno()
    if is_plain_file(source):
        measure = engine.measure_layer(source, limits, monitor)
        verify(measure, digest, diff_id)
        yield source, measure
        return
    with nameless_file(spool) as file:
        with filling(spool):
            summary = engine.write_tar(source, file.fileno(), limits, monitor)
        verify(summary, digest, diff_id)
        yield file.fileno(), summary


def is_plain_file(source: int) -> bool:
    """True for a regular file that is read from its beginning and is not compressed."""
    if not stat.S_ISREG(os.fstat(source).st_mode) or os.lseek(source, 0, os.SEEK_CUR):
        return False
    return compression_of(os.pread(source, _HEAD_BYTES, 0)) is None


class FileBytes:
    """The bytes of a regular file, read and skipped from its beginning."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._size = os.fstat(file).st_size
        self.offset = 0

    def read(self, size: int) -> bytes:
        """See `TarBytes.read`."""
        data = os.pread(self._file, size, self.offset)
        self.offset += len(data)
        return data

    def skip(self, size: int) -> bool:
        """See `TarBytes.skip`."""
        end = self.offset + size
        self.offset = min(end, self._size)
        return end <= self._size


class Part(io.RawIOBase):
    """A part of a regular file, as a file of its own that shares no position with others.

    Args:
        file: Descriptor of the file, which stays open for as long as this is used.
        start: Where the part begins.
        segments: What it is made of, in turns: zeros that the file leaves out, and bytes.
    """

    def __init__(self, file: int, start: int, segments: Sequence[tuple[int, int]]) -> None:
        self._file = file
        lengths = [length for segment in segments for length in segment]
        # Ends of the segments in this file, and begins of their bytes in the other.
        self._ends = list(accumulate(lengths))
        self._starts = list(accumulate((stored for _, stored in segments), initial=start))
        self._size = self._ends[-1] if self._ends else 0
        self._at = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to an offset, which may lie behind the end."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        """Return the offset."""
        return self._at

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read as much as one segment has, and fits."""
        if self._at >= self._size:
            return 0
        number = bisect_right(self._ends, self._at)
        begin = self._ends[number - 1] if number else 0
        with memoryview(buffer).cast("B") as view:
            left = min(len(view), self._ends[number] - self._at)
            if number % 2:
                left = os.preadv(self._file, [view[:left]], self._starts[number // 2] + self._at - begin)
            else:
                view[:left] = bytes(left)
        self._at += left
        return left
