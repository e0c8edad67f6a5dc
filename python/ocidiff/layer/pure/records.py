"""The records of a PAX header, as they are read; strictly, because a reader that guesses can be led to another entry."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from ocidiff.layer.pure import sentences, sparse
from ocidiff.layer.pure.directories import show
from ocidiff.layer.pure.fields import FieldError, decimal, time
from ocidiff.layer.pure.tar import XATTR_PREFIX
from ocidiff.layer.xattrs import CAPABILITY

_TEXTS: Final = frozenset({b"path", b"linkpath", b"uname", b"gname"})
_KEYS: Final = _TEXTS | {b"size", b"uid", b"gid", b"mtime", b"atime", b"ctime"}


@dataclass(slots=True)
class Records:
    """The records that matter. The last record of a key counts; an empty value leaves the field to the entry's own header.

    Attributes:
        xattrs: Values by name; these may be empty.
        sparse: What tells of holes.
    """

    _texts: dict[bytes, bytes] = field(default_factory=dict)
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    sparse: sparse.SparseRecords = field(default_factory=sparse.SparseRecords)

    def text(self, key: bytes) -> bytes | None:
        """A text."""
        return self._texts.get(key)

    def number(self, key: bytes) -> int | None:
        """A decimal number."""
        text = self._texts.get(key)
        value = None if text is None else decimal(text)
        if text is not None and value is None:
            raise _wrong(key)
        return value

    def time(self, key: bytes) -> int | None:
        """A time in nanoseconds."""
        text = self._texts.get(key)
        value = None if text is None else time(text)
        if text is not None and value is None:
            raise _wrong(key)
        return value

    def take(self, key: bytes, value: bytes) -> bool:
        """Take one record; false when its value can be none."""
        if b"\0" in key:
            return False
        if key.startswith(XATTR_PREFIX):
            name = key.removeprefix(XATTR_PREFIX)
            self.xattrs[name] = value
            if name == CAPABILITY and not value:
                # The kernel would set an empty capability, and refuse to read it ever after.
                del self.xattrs[name]
            return True
        if key.startswith(sparse.PREFIX):
            return self.sparse.take(key.removeprefix(sparse.PREFIX), value)
        if key in _TEXTS and b"\0" in value:
            return False
        if key in _KEYS and value:
            self._texts[key] = value
        else:
            self._texts.pop(key, None)
        return True


def read_records(content: bytes) -> Records:
    """The records `LEN SP key=value LF`, one after the other.

    Raises:
        FieldError: There is something else.
    """
    records, start = Records(), 0
    while start < len(content):
        space = content.find(b" ", start)
        # A number that leads beyond the end is refused whatever its length is, and one of many digits takes no time.
        length = decimal(content[start:space]) if space >= 0 and content[start : start + 1] != b"-" else None
        if length is None or not start + length <= len(content):
            raise FieldError(sentences.NOT_PAX_RECORD)
        record = content[space + 1 : start + length]
        key, equals, value = record[:-1].partition(b"=")
        if record[-1:] != b"\n" or not equals or not key:
            raise FieldError(sentences.NOT_PAX_RECORD)
        if not records.take(key, value):
            raise _wrong(key)
        start += length
    return records


def _wrong(key: bytes) -> FieldError:
    return FieldError(sentences.WRONG_PAX_VALUE.format(key=show(key)))
