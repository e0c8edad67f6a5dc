"""Writing an index: one pass, with one block in memory for each directory on the way to the current entry."""

from __future__ import annotations

import hashlib
import stat
from dataclasses import dataclass, field, replace
from typing import Final

import xxhash

from ocidiff.layer.layer import IndexSummary
from ocidiff.layer.pure import sentences
from ocidiff.layer.pure.directories import split
from ocidiff.layer.pure.faults import unrepresentable
from ocidiff.layer.pure.index_format import COUNT, TRAILER, Header, Record
from ocidiff.layer.pure.pace import Pace
from ocidiff.oci.digest import Digest
from ocidiff.output import write_all

_BUFFER_BYTES: Final = 1 << 18


@dataclass(slots=True)
class _Frame:
    path: bytes
    record: Record | None  # what it is in the directory above; None for the root
    data: bytearray = field(default_factory=bytearray)
    count: int = 0

    def put(self, name: bytes, record: Record) -> None:
        self.data += record.encode(name)
        self.count += 1


class IndexWriter:
    """Takes entries in walk order, a directory before its children."""

    def __init__(self, sink: int, header: Header, pace: Pace) -> None:
        self._sink = sink
        self._pace = pace
        self._checksum = xxhash.xxh3_128()
        self._digest = hashlib.sha256()
        self._buffer = bytearray()
        self._size = 0
        self._entries = 0
        self._file_bytes = 0
        self._frames = [_Frame(b"", None)]
        self._put(header.encode())

    def add(self, path: bytes, record: Record) -> None:
        """Take the next entry."""
        parent, name = split(path)
        while self._frames[-1].path != parent:
            self._leave()
        self._entries += 1
        if stat.S_ISDIR(record.mode):
            self._frames.append(_Frame(path, record))
            return
        if stat.S_ISREG(record.mode):
            self._file_bytes += record.size
        self._frames[-1].put(name, record)

    def finish(self) -> IndexSummary:
        """Write what is left."""
        while len(self._frames) > 1:
            self._leave()
        root = self._place(self._frames[0])
        self._put(TRAILER.pack(*root, self._entries, self._file_bytes))
        self._put(self._checksum.digest())
        self._flush()
        digest = Digest("sha256:" + self._digest.hexdigest())
        return IndexSummary(digest, self._size, self._entries, self._file_bytes)

    def _leave(self) -> None:
        frame = self._frames.pop()
        if frame.record is not None:
            self._frames[-1].put(split(frame.path)[1], replace(frame.record, children=self._place(frame)))

    def _place(self, frame: _Frame) -> tuple[int, int]:
        """Write the block of a directory, and tell where it is and how long."""
        if not frame.count:
            return 0, 0
        block = COUNT.pack(frame.count) + frame.data
        if len(block) >= 1 << 32:
            raise unrepresentable(b"index", sentences.DIRECTORY_TOO_LARGE)
        offset = self._size
        self._put(block)
        return offset, len(block)

    def _put(self, data: bytes) -> None:
        self._checksum.update(data)
        self._digest.update(data)
        self._size += len(data)
        self._buffer += data
        if len(self._buffer) >= _BUFFER_BYTES:
            self._flush()

    def _flush(self) -> None:
        write_all(self._sink, self._buffer)
        self._pace.bytes_blob = self._size
        self._buffer.clear()
        self._pace.check()
