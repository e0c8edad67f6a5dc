"""Reading a layer's tar: USTAR, PAX, GNU long names and old tar, as Go's archive/tar does, and strict where it matters.

Law: every prefix of an archive is either whole or fails with `MalformedLayerError`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, Protocol

from ocidiff.errors import LayerError, UnsupportedError
from ocidiff.layer.limits import Limits
from ocidiff.layer.pure import foreign, sentences, tar
from ocidiff.layer.pure.directories import show
from ocidiff.layer.pure.faults import limit_exceeded, malformed, unsupported
from ocidiff.layer.pure.fields import FieldError, Fields, number, read_fields, string
from ocidiff.layer.pure.path import clean
from ocidiff.layer.pure.records import Records, read_records
from ocidiff.layer.pure.sparse import Form, MapReader, Segment, segments
from ocidiff.oci.timestamp import NS_PER_SECOND

_DATA_BYTES: Final = 1 << 18
_OLD_REGULAR: Final = b"\0"
_CONTIGUOUS: Final = b"7"  # a file that an old system would lay out in one piece
_OLD_SPARSE: Final = b"S"
_GLOBAL_HEADER: Final = b"g"
_GNU_LONG_NAME: Final = b"L"
_GNU_LONG_LINK: Final = b"K"
_SPECIAL: Final = (tar.PAX_HEADER, _GLOBAL_HEADER, _GNU_LONG_NAME, _GNU_LONG_LINK)
_KNOWN: Final = (tar.REGULAR, tar.HARD_LINK, tar.SYMLINK, tar.CHARACTER, tar.BLOCK, tar.DIRECTORY, tar.FIFO)


class TarBytes(Protocol):
    """The source of a tar's bytes."""

    @property
    def offset(self) -> int:
        """Bytes that were returned or skipped."""
        ...

    def read(self, size: int) -> bytes:
        """Return the next bytes, at least one and at most `size`; none at the end."""
        ...

    def skip(self, size: int) -> bool:
        """Skip bytes; False if the end comes before."""
        ...


@dataclass(frozen=True, slots=True)
class Hole:
    """Zeros of a file that the tar leaves out.

    Attributes:
        size: How many.
    """

    size: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry as the archive has it.

    Attributes:
        name: As it stands, not cleaned.
        type: Type flag; old spellings are told in the new ones.
        mode: Low 12 bits.
        size: Length of a regular file, holes included; 0 for all else.
        mtime_ns, atime_ns: Nanoseconds since 1970; no atime reads as the mtime.
        linkname: Target of a link.
        device: Major and minor number.
        xattrs: Values by name.
        offset: Where its header begins, in bytes of the tar.
    """

    name: bytes
    type: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    atime_ns: int
    linkname: bytes
    device: tuple[int, int]
    xattrs: Mapping[bytes, bytes]
    offset: int

    @property
    def path(self) -> bytes:
        """The name as a clean path, empty for the root."""
        return clean(self.name)


@dataclass(slots=True)
class _Overrides:
    """Facts from headers before an entry's own. The last header of each kind counts, as in Go."""

    pax: Records
    name: bytes = b""
    linkname: bytes = b""


class TarReader:
    """Takes a tar apart, entry by entry.

    Attributes:
        count: Entries so far.
        holes: Bytes of holes that the tar has left out so far.
    """

    def __init__(self, blob: TarBytes, limits: Limits) -> None:
        self._blob = blob
        self._limits = limits
        self._segments: list[Segment] = []  # what is left of the current file, the next one last
        self._has_end = False
        self.count = 0
        self.holes = 0

    def entries(self) -> Iterator[Entry]:
        """The entries in stream order; data that was not read is skipped.

        Raises:
            MalformedLayerError: The archive is broken or ends too early.
            UnsupportedError: A sparse file is in an unknown form, or the stream is compressed data.
            LimitExceededError: There are too many, their end lies too far, or a name too deep.
        """
        while (found := self._next()) is not None:
            entry, stored = found
            self.count += 1
            self._check_limits(entry, stored)
            yield entry
            self._skip_data()
            if not self._blob.skip(-stored % tar.BLOCK_BYTES):
                return

    def segments(self) -> tuple[Segment, ...]:
        """Return the current file, of which nothing was read, in turns: zeros that the tar leaves out, and bytes of it."""
        return tuple(reversed(self._segments))

    def check_end(self) -> None:
        """Check that the tar ended with its end mark, without which it may have been cut off.

        Raises:
            MalformedLayerError: The stream ended without.
        """
        if not self._has_end:
            raise self._malformed(sentences.NO_END_MARK)

    def _check_limits(self, entry: Entry, stored: int) -> None:
        path = entry.path
        for limit, value, largest in (
            ("max_entries", self.count, self._limits.max_entries),
            ("max_bytes", entry.offset + self.holes + stored, self._limits.max_bytes),
            ("max_depth", path.count(b"/") + 1 if path else 0, self._limits.max_depth),
        ):
            if largest is not None and value > largest:
                raise limit_exceeded(limit, value, largest, entry.offset, path)

    def data(self) -> Iterator[bytes | Hole]:
        """The rest of the current file, in pieces."""
        while self._segments:
            hole, left = self._segments.pop()
            if hole:
                self._segments.append((0, left))
                yield Hole(hole)
                continue
            while left:
                block = self._blob.read(min(left, _DATA_BYTES))
                if not block:
                    raise self._malformed(sentences.END_IN_DATA)
                left -= len(block)
                self._segments.append((0, left))
                yield block
                self._segments.pop()

    def _skip_data(self) -> None:
        while self._segments:
            _, left = self._segments.pop()
            if not self._blob.skip(left):
                raise self._malformed(sentences.END_IN_DATA)

    def _next(self) -> tuple[Entry, int] | None:
        """The next entry, and how much data the tar holds of it; None at the end."""
        overrides, in_entry = _Overrides(Records()), False
        while True:
            offset = self._blob.offset
            block = self._block()
            if block is None:
                if in_entry:
                    raise self._malformed(sentences.HEADER_WITHOUT_ENTRY)
                return None
            kind = block[156:157]
            if kind not in _SPECIAL:
                try:
                    return self._entry(block, overrides, offset)
                except FieldError as wrong:
                    raise malformed(offset, str(wrong)) from wrong
            try:
                self._read_special(kind, self._special(block), overrides)
            except FieldError as wrong:
                raise self._malformed(str(wrong)) from wrong
            in_entry = in_entry or kind != _GLOBAL_HEADER

    def _read_special(self, kind: bytes, content: bytes, overrides: _Overrides) -> None:
        if kind == tar.PAX_HEADER:
            overrides.pax = read_records(content)
        elif kind == _GNU_LONG_NAME:
            overrides.name = string(content)
        elif kind == _GNU_LONG_LINK:
            overrides.linkname = string(content)

    def _block(self) -> bytes | None:
        """The next header block; None at the end."""
        block = self._header_block()
        if not block:
            return None
        if not any(block):
            second = self._header_block()
            if any(second):
                raise self._malformed(sentences.DATA_AFTER_ZEROS)
            self._has_end = bool(second)
            return None
        stored = number(block[148:156])
        if stored is None:
            raise self._not_a_header(block, sentences.FIELD_IS_NO_NUMBER.format(field="checksum"))
        unsigned = sum(block) - sum(block[148:156]) + 8 * ord(" ")
        high = sum(1 for i, byte in enumerate(block) if byte >= 0x80 and not 148 <= i < 156)
        if stored not in (unsigned, unsigned - 256 * high):  # old tools summed signed bytes
            raise self._not_a_header(block, sentences.WRONG_HEADER_CHECKSUM)
        return block

    def _header_block(self) -> bytes:
        """The next block; empty at the end of the stream."""
        block = self._read(tar.BLOCK_BYTES)
        if 0 < len(block) < tar.BLOCK_BYTES:
            raise self._not_a_header(block, sentences.END_IN_HEADER)
        return block

    def _not_a_header(self, block: bytes, reason: str) -> LayerError | UnsupportedError:
        """The error of a block that is no header; the first one may be compressed data."""
        name = foreign.compression_of(block) if self._blob.offset <= tar.BLOCK_BYTES else None
        return self._malformed(reason) if name is None else foreign.unsupported_compression(name)

    def _entry(self, block: bytes, overrides: _Overrides, offset: int) -> tuple[Entry, int]:
        fields, pax = read_fields(block), overrides.pax
        name = string(block[0:100])
        if fields.prefix:
            name = fields.prefix + b"/" + name
        name = overrides.name or pax.text(b"path") or name
        linkname = overrides.linkname or pax.text(b"linkpath") or string(block[157:257])
        uid, gid = _first(pax.number(b"uid"), fields.uid), _first(pax.number(b"gid"), fields.gid)
        mtime_ns = _first(pax.time(b"mtime"), fields.mtime * NS_PER_SECOND)
        atime_ns = pax.time(b"atime")
        if atime_ns is None and fields.atime is not None:
            atime_ns = fields.atime * NS_PER_SECOND
        pax.time(b"ctime")
        size = _first(pax.number(b"size"), fields.size)
        kind = _kind(block[156:157], name)
        if kind == tar.REGULAR and min(size, fields.size) < 0:
            raise FieldError(_of(name, sentences.NEGATIVE_SIZE.format(size=min(size, fields.size))))
        stored = size if kind == tar.REGULAR else 0
        entry = Entry(
            pax.sparse.name or name,
            kind,
            fields.mode & 0o7777,
            uid,
            gid,
            stored,
            mtime_ns,
            max(mtime_ns, _first(atime_ns, mtime_ns)),
            linkname,
            fields.device,
            pax.xattrs,
            offset,
        )
        self._segments = [(0, stored)]
        if pax.sparse.form is Form.NONE:
            return entry, stored
        return self._sparse(entry, pax), stored

    def _sparse(self, entry: Entry, pax: Records) -> Entry:
        """A sparse file, whose holes are found."""
        records, stored = pax.sparse, entry.size
        if records.form is Form.UNKNOWN:
            raise unsupported(entry.name, sentences.UNKNOWN_SPARSE_FORM.format(version=records.version))
        try:
            if entry.type != tar.REGULAR:
                raise FieldError(sentences.SPARSE_IS_NO_FILE)
            size = _first(records.size(), stored)
            if records.form is Form.IN_DATA:
                reader = self._map_in_data(entry, stored)
                found, stored = reader.map(), stored - reader.size
            else:
                found = records.map()
            self._segments = segments(found, size, stored)[::-1]
        except FieldError as wrong:
            raise FieldError(_of(entry.name, str(wrong))) from wrong
        self.holes += size - stored
        return replace(entry, size=size)

    def _map_in_data(self, entry: Entry, left: int) -> MapReader:
        """The map that stands before the data, in whole blocks."""
        reader, largest = MapReader(), self._limits.max_header_bytes
        while not reader.is_whole:
            size = reader.size + tar.BLOCK_BYTES
            if size > largest:
                raise limit_exceeded("max_header_bytes", size, largest, entry.offset, entry.name)
            if size > left:
                raise FieldError(sentences.SPARSE_MAP_HAS_NO_END)
            block = self._read(tar.BLOCK_BYTES)
            if len(block) < tar.BLOCK_BYTES:
                raise self._malformed(sentences.END_IN_DATA)
            reader.add(block)
        return reader

    def _special(self, block: bytes) -> bytes:
        """The content of a header that describes another one."""
        fields: Fields = read_fields(block)
        size, largest = fields.size, self._limits.max_header_bytes
        if size < 0:
            raise FieldError(sentences.NEGATIVE_HEADER_SIZE)
        if size > largest:
            raise limit_exceeded("max_header_bytes", size, largest, self._blob.offset - tar.BLOCK_BYTES)
        content = self._read(size)
        if len(content) < size or not self._blob.skip(-size % tar.BLOCK_BYTES):
            raise self._malformed(sentences.END_IN_HEADER)
        return content

    def _read(self, size: int) -> bytes:
        """The next `size` bytes, fewer only at the end of the stream."""
        parts: list[bytes] = []
        while size and (part := self._blob.read(size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _malformed(self, reason: str) -> LayerError:
        return malformed(self._blob.offset, reason)


def _of(name: bytes, cause: str) -> str:
    """The sentence with the name of the entry in front."""
    return sentences.OF_ENTRY.format(name=show(name), cause=cause)


def filled(pieces: Iterable[bytes | Hole]) -> Iterator[bytes]:
    """The pieces of a file with its holes as zeros, at most 256 KiB at a time."""
    zeros = bytes(_DATA_BYTES)
    for piece in pieces:
        if isinstance(piece, bytes):
            yield piece
            continue
        left = piece.size
        while left:
            part = zeros[:left]
            left -= len(part)
            yield part


def _kind(flag: bytes, name: bytes) -> bytes:
    """Return the type of an entry, by its type flag and, in old tar, by its name."""
    if flag == _OLD_REGULAR:
        return tar.DIRECTORY if name.endswith(b"/") else tar.REGULAR
    if flag == _CONTIGUOUS:
        return tar.REGULAR
    if flag == _OLD_SPARSE:
        raise FieldError(_of(name, sentences.OLD_SPARSE_FORM))
    if flag not in _KNOWN:
        raise FieldError(_of(name, sentences.UNKNOWN_ENTRY_TYPE.format(flag=show(flag))))
    return flag


def _first(value: int | None, otherwise: int) -> int:
    return otherwise if value is None else value
