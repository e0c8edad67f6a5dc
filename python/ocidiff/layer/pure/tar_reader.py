"""Reading a layer's tar: USTAR, PAX, GNU long names and old tar, as Go's archive/tar does, and strict where it matters.

Law: every prefix of an archive is either whole or fails with `MalformedLayerError`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from ocidiff.errors import MalformedLayerError, UnsupportedError
from ocidiff.layer.options import Limits
from ocidiff.layer.pure import tar
from ocidiff.layer.pure.directories import show
from ocidiff.layer.pure.root import clean
from ocidiff.layer.pure.stream import BlobReader, limit_exceeded

_DATA_BYTES: Final = 1 << 18
_NANOSECONDS: Final = 10**9
_OLD_REGULAR: Final = b"\0"
_GLOBAL_HEADER: Final = b"g"
_GNU_LONG_NAME: Final = b"L"
_GNU_LONG_LINK: Final = b"K"
_WITHOUT_DATA: Final = (tar.HARD_LINK, tar.SYMLINK, tar.CHARACTER, tar.BLOCK, tar.DIRECTORY, tar.FIFO)
_KNOWN: Final = (tar.REGULAR, *_WITHOUT_DATA)
_SPARSE_PREFIX: Final = b"GNU.sparse."
_TEXTS: Final = (b"path", b"linkpath", b"uname", b"gname")
_MAX_DIGITS: Final = 20  # with the sign, of what fits into 64 bits


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry as the archive has it.

    Attributes:
        name: As it stands, not cleaned.
        type: Type flag; old spellings are told in the new ones.
        mode: Low 12 bits.
        size: Bytes of data; 0 for all but regular files.
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


class TarReader:
    """Takes a tar apart, entry by entry.

    Attributes:
        count: Entries so far.
    """

    def __init__(self, blob: BlobReader, limits: Limits) -> None:
        self._blob = blob
        self._limits = limits
        self._left = 0  # of the current entry's data
        self.count = 0

    def entries(self) -> Iterator[Entry]:
        """The entries in stream order; data that was not read is skipped.

        Raises:
            MalformedLayerError: The archive is broken or ends too early.
            LimitExceededError: There are too many, their end lies too far, or a name too deep.
        """
        while (entry := self._next()) is not None:
            self.count += 1
            self._check_limits(entry)
            self._left = entry.size
            yield entry
            for _ in self.data():
                pass
            if not self._skip(-entry.size % tar.BLOCK_BYTES):
                return

    def _check_limits(self, entry: Entry) -> None:
        path = clean(entry.name)
        for limit, value, largest in (
            ("max_entries", self.count, self._limits.max_entries),
            ("max_bytes", entry.offset + entry.size, self._limits.max_bytes),
            ("max_depth", path.count(b"/") + 1 if path else 0, self._limits.max_depth),
        ):
            if largest is not None and value > largest:
                raise limit_exceeded(limit, value, largest, entry.offset, path)

    def data(self) -> Iterator[bytes]:
        """The data of the current entry, in blocks."""
        while self._left:
            block = self._blob.read(min(self._left, _DATA_BYTES))
            if not block:
                raise self._malformed("unexpected end")
            self._left -= len(block)
            yield block

    def _next(self) -> Entry | None:
        """The next entry; None at the end mark or where the stream ends between entries."""
        pax: dict[bytes, bytes] = {}
        long_name = long_link = None
        in_entry = False
        while True:
            offset = self._blob.offset
            block = self._block()
            if block is None:
                if in_entry:
                    raise self._malformed("a header that describes no entry")
                return None
            kind = block[156:157]
            if kind not in (tar.PAX_HEADER, _GLOBAL_HEADER, _GNU_LONG_NAME, _GNU_LONG_LINK):
                return self._entry(block, pax, (long_name, long_link), offset)
            content = self._special(block)
            in_entry = in_entry or kind != _GLOBAL_HEADER
            if kind == tar.PAX_HEADER:
                pax = self._pax(content)
            elif kind == _GNU_LONG_NAME:
                long_name = content.split(b"\0")[0]
            elif kind == _GNU_LONG_LINK:
                long_link = content.split(b"\0")[0]

    def _block(self) -> bytes | None:
        """The next header block; None at the end."""
        block = self._exactly(tar.BLOCK_BYTES, end_allowed=True)
        if not block:
            return None
        if not any(block):
            block = self._exactly(tar.BLOCK_BYTES, end_allowed=True)
            if any(block):
                raise self._malformed("data after a block of zeros")
            return None
        stored = self._number(block[148:156], "checksum")
        unsigned = sum(block) - sum(block[148:156]) + 8 * ord(" ")
        high = sum(1 for i, byte in enumerate(block) if byte >= 0x80 and not 148 <= i < 156)
        if stored not in (unsigned, unsigned - 256 * high):  # old tools summed signed bytes
            raise self._malformed("wrong header checksum")
        return block

    def _entry(self, block: bytes, pax: Mapping[bytes, bytes], gnu: tuple[bytes | None, bytes | None], offset: int) -> Entry:
        name, linkname = _string(block[0:100]), _string(block[157:257])
        device = (0, 0)
        is_ustar, is_gnu = block[257:263] == b"ustar\0", block[257:265] == b"ustar  \0"
        if is_ustar or is_gnu:
            device = (self._number(block[329:337], "devmajor"), self._number(block[337:345], "devminor"))
        if is_ustar and (prefix := _string(block[345:500] if block[508:512] != b"tar\0" else block[345:476])):
            name = prefix + b"/" + name
        if any(key.startswith(_SPARSE_PREFIX) for key in pax):
            raise UnsupportedError(f"{show(pax.get(b'path', name))}: sparse files in a layer are not supported")
        name = gnu[0] or pax.get(b"path") or name
        linkname = gnu[1] or pax.get(b"linkpath") or linkname
        kind = block[156:157]
        if kind == _OLD_REGULAR:
            kind = tar.DIRECTORY if name.endswith(b"/") else tar.REGULAR
        if kind not in _KNOWN:
            raise self._malformed(f"{show(name)}: unknown entry type {show(kind)}")
        size = 0 if kind in _WITHOUT_DATA else self._decimal(pax, b"size", self._number(block[124:136], "size"))
        mtime_ns = self._time(pax, b"mtime", self._number(block[136:148], "mtime") * _NANOSECONDS)
        if size < 0:
            raise self._malformed(f"{show(name)}: size {size}")
        return Entry(
            name,
            kind,
            self._number(block[100:108], "mode") & 0o7777,
            self._decimal(pax, b"uid", self._number(block[108:116], "uid")),
            self._decimal(pax, b"gid", self._number(block[116:124], "gid")),
            size,
            mtime_ns,
            max(mtime_ns, self._time(pax, b"atime", mtime_ns)),
            linkname,
            device,
            {key.removeprefix(tar.XATTR_PREFIX): value for key, value in pax.items() if key.startswith(tar.XATTR_PREFIX)},
            offset,
        )

    def _special(self, block: bytes) -> bytes:
        """The content of a header that describes another one."""
        size = self._number(block[124:136], "size")
        if size < 0:
            raise self._malformed(f"an extended header of {size} bytes")
        largest = self._limits.max_header_bytes
        if size > largest:
            raise limit_exceeded("max_header_bytes", size, largest, self._blob.offset - tar.BLOCK_BYTES)
        content = self._exactly(size)
        self._exactly(-size % tar.BLOCK_BYTES)
        return content

    def _pax(self, content: bytes) -> dict[bytes, bytes]:
        """The records of an extended header; the last of a key counts, an empty value leaves the header's own."""
        records = {}
        while content:
            digits, space, _ = content.partition(b" ")
            if not space or not digits.isdigit() or len(digits) > 7 or int(digits) > len(content):
                raise self._malformed("a PAX record of wrong length")
            record, content = content[len(digits) + 1 : int(digits)], content[int(digits) :]
            key, equals, value = record[:-1].partition(b"=")
            if record[-1:] != b"\n" or not equals or not key:
                raise self._malformed("a PAX record that is not key=value")
            if b"\0" in key or (b"\0" in value and key in _TEXTS):
                raise self._malformed(f"NUL in the PAX record {show(key)}")
            if value or key.startswith(tar.XATTR_PREFIX):
                records[key] = value
            else:
                records.pop(key, None)
        return records

    def _number(self, digits: bytes, what: str) -> int:
        """An octal field, or one in base 256 as GNU writes large and negative numbers."""
        if digits[0] & 0x80:
            value = int.from_bytes(bytes([digits[0] & 0x7F]) + digits[1:])
            if digits[0] & 0x40:
                value -= 1 << (8 * len(digits) - 1)
            return self._bounded(value, what)
        text = digits.strip(b" \0").split(b"\0")[0]
        if not all(byte in b"01234567" for byte in text):
            raise self._malformed(f"{what} is no octal number")
        return int(text or b"0", 8)

    def _decimal(self, pax: Mapping[bytes, bytes], key: bytes, default: int) -> int:
        text = pax.get(key)
        if text is None:
            return default
        if not text.removeprefix(b"-").isdigit() or len(text) > _MAX_DIGITS:
            raise self._malformed(f"{show(key)} is no decimal number")
        return self._bounded(int(text), show(key))

    def _time(self, pax: Mapping[bytes, bytes], key: bytes, default: int) -> int:
        text = pax.get(key)
        if text is None:
            return default
        seconds, _, fraction = text.partition(b".")
        whole = self._decimal({key: seconds}, key, 0)
        if not (fraction + b"0").isdigit():
            raise self._malformed(f"{show(key)} is no time")
        nanoseconds = int(fraction[:9].ljust(9, b"0"))
        return whole * _NANOSECONDS + (-nanoseconds if seconds.startswith(b"-") else nanoseconds)

    def _bounded(self, value: int, what: str) -> int:
        """A number that fits into 64 bits."""
        if not -(1 << 63) <= value < 1 << 63:
            raise self._malformed(f"the number {what} is too large")
        return value

    def _skip(self, size: int) -> bool:
        """Skip bytes; false when the stream ends before."""
        while size:
            part = self._blob.read(size)
            if not part:
                return False
            size -= len(part)
        return True

    def _exactly(self, size: int, *, end_allowed: bool = False) -> bytes:
        """The next `size` bytes; none when the stream ends here and may."""
        parts: list[bytes] = []
        while size:
            part = self._blob.read(size)
            if not part:
                if end_allowed and not parts:
                    return b""
                raise self._malformed("unexpected end")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _malformed(self, reason: str) -> MalformedLayerError:
        return MalformedLayerError(f"malformed layer at byte {self._blob.offset} of the tar: {reason}")


def _string(field: bytes) -> bytes:
    """The bytes before the first NUL."""
    return field.split(b"\0", 1)[0]
