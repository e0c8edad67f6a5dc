"""Sparse files in the three forms that GNU tar writes into PAX archives: a map of the data, and the data without holes.

Form 0.0 has a record for each number of the map, 0.1 one record for all, 1.0 has the map before the data. The map comes from
whoever made the layer, so its length is bounded and every number is checked before a byte is written.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from ocidiff.layer.pure import sentences
from ocidiff.layer.pure.directories import show
from ocidiff.layer.pure.fields import FieldError, decimal

PREFIX: Final = b"GNU.sparse."
_MAX_EXTENTS: Final = 1 << 20  # more pieces than tar can describe in a reasonable map; Go's archive/tar has the same bound
_KEYS: Final = frozenset({b"major", b"minor", b"name", b"size", b"realsize", b"numblocks", b"map"})

Extent = tuple[int, int]  # offset and length of data
Segment = tuple[int, int]  # length of a hole, and of the data after it


class Form(Enum):
    """The place of a sparse file's map."""

    NONE = auto()
    IN_RECORDS = auto()
    IN_DATA = auto()
    UNKNOWN = auto()


@dataclass(slots=True)
class SparseRecords:
    """The records that tell of a sparse file."""

    _texts: dict[bytes, bytes] = field(default_factory=dict)
    _numbers: list[bytes] = field(default_factory=list)  # of form 0.0

    def take(self, name: bytes, value: bytes) -> bool:
        """Take the record `GNU.sparse.NAME`; false when its value can be none."""
        if name in (b"offset", b"numbytes"):
            is_due = (name == b"offset") == (len(self._numbers) % 2 == 0)
            self._numbers.append(value)
            return is_due and b"," not in value
        if name in _KEYS:
            if value:
                self._texts[name] = value
            else:
                self._texts.pop(name, None)
        return not (name == b"name" and b"\0" in value)

    @property
    def form(self) -> Form:
        """Return the form of these records."""
        version = self._texts.get(b"major"), self._texts.get(b"minor")
        if version in ((b"0", b"0"), (b"0", b"1")):
            return Form.IN_RECORDS
        if version == (b"1", b"0"):
            return Form.IN_DATA
        if version == (None, None):
            if self._numbers or b"map" in self._texts:
                return Form.IN_RECORDS
            if not self._texts:
                return Form.NONE
        return Form.UNKNOWN

    @property
    def version(self) -> str:
        """The version as it stands."""
        return ".".join(show(self._texts.get(key, b"?")) for key in (b"major", b"minor"))

    @property
    def name(self) -> bytes | None:
        """The name of the file; that of the entry is another one then."""
        return self._texts.get(b"name")

    def size(self) -> int | None:
        """Return the length of the file, holes included; None if no record has it."""
        text = self._texts.get(b"size", self._texts.get(b"realsize"))
        size = None if text is None else _number(text)
        if text is not None and size is None:
            raise FieldError(sentences.SPARSE_SIZE_IS_NO_NUMBER)
        return size

    def map(self) -> list[Extent]:
        """The map, where it is in the records."""
        text = self._texts.get(b"map", b"")
        numbers = self._numbers or (text.split(b",") if text else [])
        if numbers == [b""]:
            numbers = []
        count = _number(self._texts.get(b"numblocks", b""))
        if count is None:
            raise FieldError(sentences.SPARSE_MAP_IS_NO_NUMBERS)
        if 2 * count != len(numbers):
            raise FieldError(sentences.SPARSE_MAP_MISCOUNTS.format(numbers=len(numbers), pieces=count))
        return _extents(count, numbers)


class MapReader:
    """A map before the data, as it is read block by block.

    Attributes:
        size: Bytes read.
    """

    def __init__(self) -> None:
        self._blocks: list[bytes] = []
        self._lines = 0
        self._count: int | None = None
        self.size = 0

    @property
    def is_whole(self) -> bool:
        """True once nothing more belongs to it."""
        return self._count is not None and self._lines > 2 * self._count

    def add(self, block: bytes) -> None:
        """Take the next block."""
        self._blocks.append(block)
        self.size += len(block)
        self._lines += block.count(b"\n")
        if self._count is None and self._lines:
            count = _number(b"".join(self._blocks).split(b"\n", 1)[0])
            if count is None:
                raise FieldError(sentences.SPARSE_MAP_IS_NO_NUMBERS)
            _check_count(count)
            self._count = count

    def map(self) -> list[Extent]:
        """The map."""
        count = self._count or 0
        return _extents(count, b"".join(self._blocks).split(b"\n", 2 * count + 1)[1 : 2 * count + 1])


def _number(text: bytes) -> int | None:
    value = decimal(text)
    return value if value is not None and value >= 0 else None


def _check_count(count: int) -> None:
    if count > _MAX_EXTENTS:
        raise FieldError(sentences.SPARSE_MAP_TOO_LONG.format(most=_MAX_EXTENTS))


def _extents(count: int, numbers: Iterable[bytes]) -> list[Extent]:
    _check_count(count)
    values = [_number(text) for text in numbers]
    if None in values:
        raise FieldError(sentences.SPARSE_MAP_IS_NO_NUMBERS)
    read = [value for value in values if value is not None]
    return list(zip(read[::2], read[1::2], strict=True))


def segments(extents: Iterable[Extent], size: int, stored: int) -> list[Segment]:
    """The file of `size` bytes as holes and data in order.

    Raises:
        FieldError: The map does not tell of exactly the `stored` bytes of data, or leads out of the file.
    """
    found, end, data = list[Segment](), 0, 0
    for offset, length in extents:
        if offset < end:
            raise FieldError(sentences.SPARSE_MAP_OVERLAPS)
        found.append((offset - end, length))
        end = offset + length
        if end > size:
            raise FieldError(sentences.SPARSE_MAP_TOO_FAR.format(end=end, size=size))
        data += length
    if data != stored:
        raise FieldError(sentences.SPARSE_MAP_LIES.format(told=data, stored=stored))
    return [*found, (size - end, 0)]
