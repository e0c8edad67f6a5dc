"""The blob of a layer on its way to and from a file descriptor: compression, both digests and all counts in one pass."""

from __future__ import annotations

import hashlib
import importlib
import os
import zlib
from collections.abc import Iterator
from typing import Any, Final, Protocol

from ocidiff.errors import UnsupportedError
from ocidiff.layer.limits import Limits
from ocidiff.layer.options import DEFAULT_LEVELS, Compression
from ocidiff.layer.pure import sentences
from ocidiff.layer.pure.faults import broken_compression, limit_exceeded
from ocidiff.layer.pure.pace import Pace
from ocidiff.oci.digest import DiffID, Digest
from ocidiff.output import write_all

_PIECE_BYTES: Final = 1 << 16  # of a blob, read at a time
_BUFFER_BYTES: Final = 1 << 18  # of a blob, collected before it is written
_BLOCK_BYTES: Final = 1 << 18  # of a tar, decompressed at a time
_ZSTD_MAX_WINDOW_LOG: Final = 27  # 128 MiB: what a blob may make a reader hold
_ZSTD_FEED_BYTES: Final = 1 << 10  # at most 2^27 bytes come out of so few at once
_RATIO_FREE_BYTES: Final = 1 << 26  # a few files of zeros are no attack
_GZIP_MEMBER: Final = 31  # zlib's window bits: 32 KiB and a gzip wrapper
_GZIP_MAGIC: Final = b"\x1f\x8b\x08"
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE: Final = b"\x2a\x4d\x18"  # after a byte 0x50 to 0x5f


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class _Decompressor(Protocol):
    @property
    def unconsumed_tail(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = 0, /) -> bytes: ...
    def copy(self) -> _Decompressor: ...


class BlobWriter:
    """Takes a tar and writes its blob, hashing both.

    Attributes:
        plain_size: Bytes of tar so far.
        size: Bytes of blob so far.
    """

    def __init__(
        self, descriptor: int, compression: Compression, level: int | None, pace: Pace, copy: int | None = None
    ) -> None:
        self._descriptor = descriptor
        self._copy = copy
        self._compressor = _compressor(compression, level)
        self._pace = pace
        self._plain_hash = hashlib.sha256()
        # A plain blob is the tar itself, and is hashed once.
        self._blob_hash = self._plain_hash if compression is Compression.NONE else hashlib.sha256()
        self._buffer = bytearray()
        self.plain_size = 0
        self.size = 0

    @property
    def diff_id(self) -> DiffID:
        """sha256 of the tar."""
        return DiffID("sha256:" + self._plain_hash.hexdigest())

    @property
    def digest(self) -> Digest:
        """sha256 of the blob."""
        return Digest("sha256:" + self._blob_hash.hexdigest())

    def write(self, data: bytes) -> None:
        """Take the next bytes of the tar."""
        self._plain_hash.update(data)
        if self._copy is not None:
            try:
                write_all(self._copy, data)
            except OSError:
                self._copy = None
        self.plain_size += len(data)
        self._pace.bytes_plain = self.plain_size
        self._buffer += self._compressor.compress(data)
        if len(self._buffer) >= _BUFFER_BYTES:
            self._flush()

    def finish(self) -> None:
        """Write what is left; the tar is complete."""
        self._buffer += self._compressor.flush()
        self._flush()

    def _flush(self) -> None:
        if self._blob_hash is not self._plain_hash:
            self._blob_hash.update(self._buffer)
        write_all(self._descriptor, self._buffer)
        self.size += len(self._buffer)
        self._pace.bytes_blob = self.size
        self._buffer.clear()
        self._pace.check()


class BlobReader:
    """Reads a blob and hands out its tar, hashing both; its compression is detected.

    Attributes:
        plain_size: Bytes of tar so far.
        size: Bytes of blob so far.
    """

    def __init__(self, descriptor: int, limits: Limits, pace: Pace) -> None:
        self._descriptor = descriptor
        self._limits = limits
        self._pace = pace
        self._plain_hash = hashlib.sha256()
        self._blob_hash = hashlib.sha256()
        self._ready = memoryview(b"")
        self.plain_size = 0
        self.size = 0
        self._blocks = self._plain_blocks()

    @property
    def diff_id(self) -> DiffID:
        """sha256 of the tar, once it is drained."""
        return DiffID("sha256:" + self._plain_hash.hexdigest())

    @property
    def digest(self) -> Digest:
        """sha256 of the blob, once it is drained."""
        return Digest("sha256:" + self._blob_hash.hexdigest())

    @property
    def offset(self) -> int:
        """Bytes of the tar that were returned."""
        return self.plain_size - len(self._ready)

    def read(self, size: int) -> bytes:
        """The next bytes of the tar, at least one and at most `size`; none at its end."""
        while not self._ready:
            block = next(self._blocks, None)
            if block is None:
                return b""
            if self._plain_hash is not self._blob_hash:
                self._plain_hash.update(block)
            self.plain_size += len(block)
            self._check_limits()
            self._pace.bytes_plain = self.plain_size
            self._pace.check()
            self._ready = memoryview(block)
        part, self._ready = self._ready[:size], self._ready[size:]
        return bytes(part)

    def skip(self, size: int) -> bool:
        """Skip bytes of the tar; False if it ends before."""
        while size:
            part = self.read(size)
            if not part:
                return False
            size -= len(part)
        return True

    def _check_limits(self) -> None:
        max_bytes, max_ratio = self._limits.max_bytes, self._limits.max_ratio
        if max_bytes is not None and self.plain_size > max_bytes:
            raise limit_exceeded("max_bytes", max_bytes + 1, max_bytes, max_bytes)
        if max_ratio is not None and self.plain_size > max(_RATIO_FREE_BYTES, max_ratio * self.size + max_ratio - 1):
            raise limit_exceeded("max_ratio", self.plain_size // self.size, max_ratio, self.plain_size)

    def drain(self) -> None:
        """Read to the end, so that the digests cover all of it."""
        while self.read(_BLOCK_BYTES):
            pass

    def _plain_blocks(self) -> Iterator[bytes]:
        pieces = self._pieces()
        head = b""
        while len(head) < len(_ZSTD_MAGIC) and (piece := next(pieces, b"")):
            head += piece
        if head.startswith(_GZIP_MAGIC):
            return _gunzip(head, pieces)
        if head.startswith(_ZSTD_MAGIC) or (head[1:4] == _ZSTD_SKIPPABLE and head[0] & 0xF0 == 0x50):
            return _unzstd(head, pieces)
        # The blob is the tar itself, and is hashed once.
        self._plain_hash = self._blob_hash
        return _chain(head, pieces)

    def _pieces(self) -> Iterator[bytes]:
        while piece := os.read(self._descriptor, _PIECE_BYTES):
            self._blob_hash.update(piece)
            self.size += len(piece)
            self._pace.bytes_blob = self.size
            self._pace.check()
            yield piece


def _chain(head: bytes, pieces: Iterator[bytes]) -> Iterator[bytes]:
    if head:
        yield head
    yield from pieces


def _gunzip(data: bytes, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The content of gzip members one after another, and nothing else. Spec: RFC 1952."""
    while data or (data := next(pieces, b"")):
        member = zlib.decompressobj(_GZIP_MEMBER)
        while not member.eof:
            before = member.copy()
            try:
                plain = member.decompress(data, _BLOCK_BYTES)
            except zlib.error as error:
                yield _before_fault(before, data)
                raise broken_compression("gzip", sentences.BROKEN_DATA) from error
            data = member.unconsumed_tail
            if plain:
                yield plain
            elif not (member.eof or data or (data := next(pieces, b""))):
                raise broken_compression("gzip", sentences.UNEXPECTED_END)
        data = member.unused_data


def _before_fault(member: _Decompressor, data: bytes) -> bytes:
    """Return the bytes that zlib decompresses before the fault in `data`, except for the last one, which it withholds.

    A fault in there comes first.
    """
    plain, size = bytearray(), _BLOCK_BYTES
    while size:
        before = member.copy()
        try:
            part = member.decompress(data, size)
        except zlib.error:
            member, part = before, b""
        else:
            data = member.unconsumed_tail
        plain += part
        if len(part) < size:
            size //= 2
    return bytes(plain)


def _unzstd(data: bytes, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The content of zstd frames one after another; skippable ones have none. Spec: RFC 8878."""
    new_frame, failure = _zstd_decompressor()
    while data or (data := next(pieces, b"")):
        frame = new_frame()
        while not frame.eof:
            if not data and not (data := next(pieces, b"")):
                raise broken_compression("zstd", sentences.UNEXPECTED_END)
            try:
                plain = frame.decompress(data[:_ZSTD_FEED_BYTES])
            except failure as error:
                is_window = "too much memory" in str(error)
                reason = sentences.WINDOW_TOO_LARGE if is_window else sentences.BROKEN_DATA
                raise broken_compression("zstd", reason) from error
            data = frame.unused_data + data[_ZSTD_FEED_BYTES:]
            if plain:
                yield plain


class _Plain:
    """No compression."""

    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def _compressor(compression: Compression, level: int | None) -> _Compressor:
    if compression is Compression.GZIP:
        return zlib.compressobj(level or DEFAULT_LEVELS[Compression.GZIP], zlib.DEFLATED, _GZIP_MEMBER)
    if compression is Compression.ZSTD:
        return _zstd_compressor(level or DEFAULT_LEVELS[Compression.ZSTD])
    return _Plain()


def _zstd_compressor(level: int) -> _Compressor:
    name, zstd = _zstd_module()
    if name == "zstandard":
        made: _Compressor = zstd.ZstdCompressor(level=level, write_checksum=True).compressobj()
    else:
        parameter = zstd.CompressionParameter
        made = zstd.ZstdCompressor(options={parameter.compression_level: level, parameter.checksum_flag: 1})
    return made


def _zstd_decompressor() -> tuple[Any, Any]:
    """Return the factory of a decompressor of one frame, and the exception that it raises."""
    name, zstd = _zstd_module()
    if name == "zstandard":
        return zstd.ZstdDecompressor(max_window_size=1 << _ZSTD_MAX_WINDOW_LOG).decompressobj, zstd.ZstdError
    options = {zstd.DecompressionParameter.window_log_max: _ZSTD_MAX_WINDOW_LOG}
    return lambda: zstd.ZstdDecompressor(options=options), zstd.ZstdError


def _zstd_module() -> tuple[str, Any]:
    for name in ("compression.zstd", "zstandard"):
        try:
            return name, importlib.import_module(name)
        except ImportError:
            continue
    raise UnsupportedError(sentences.NO_ZSTD)
