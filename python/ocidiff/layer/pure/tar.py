"""The bytes of tar entries, as Go's archive/tar writes them: USTAR, and PAX where USTAR cannot say it.

Spec: layer-semantics 9.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from ocidiff.frozen import FrozenMapping
from ocidiff.layer.pure import sentences
from ocidiff.layer.pure.directories import show
from ocidiff.layer.pure.faults import unrepresentable

REGULAR: Final = b"0"
HARD_LINK: Final = b"1"
SYMLINK: Final = b"2"
CHARACTER: Final = b"3"
BLOCK: Final = b"4"
DIRECTORY: Final = b"5"
FIFO: Final = b"6"
PAX_HEADER: Final = b"x"

BLOCK_BYTES: Final = 512
END: Final = bytes(2 * BLOCK_BYTES)
XATTR_PREFIX: Final = b"SCHILY.xattr."
MAX_PAX_BYTES: Final = 1 << 20  # Go's maxSpecialFileSize
_NAME_BYTES: Final = 100
_PREFIX_BYTES: Final = 155
_MAX_7: Final = 0o7777777
_MAX_11: Final = 0o77777777777


@dataclass(frozen=True, slots=True)
class Header:
    """One entry of a layer.

    Attributes:
        path: Name without leading or trailing slash.
        type: Type flag.
        mode: Low 12 bits.
        mtime: Whole seconds since 1970.
        linkname: Target of a symbolic link, or path of the entry that a hard link names.
        device: Major and minor number.
        xattrs: Values by name.
    """

    path: bytes
    type: bytes
    mode: int = 0
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime: int = 0
    linkname: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[bytes, bytes] = field(default_factory=lambda: FrozenMapping({}))

    @property
    def name(self) -> bytes:
        """The path as it stands in the archive: directories end in a slash."""
        return self.path + b"/" if self.type == DIRECTORY else self.path


def encode(header: Header) -> bytes:
    """The header block of an entry, with a PAX header before it if one is needed.

    Raises:
        UnrepresentableError: Neither form can hold the entry.
    """
    if max(header.device) > _MAX_7:
        raise unrepresentable(header.path, sentences.DEVICE_TOO_LARGE.format(major=header.device[0], minor=header.device[1]))
    parts = split_name(header.name)
    records = _pax_records(header, can_split=parts is not None)
    if records:
        return _pax_blocks(header.name, records) + _block(header, b"", _truncated(header.name), _truncated(header.linkname))
    prefix, name = parts or (b"", header.name)
    return _block(header, prefix, name, header.linkname)


def padding(size: int) -> bytes:
    """The NUL bytes that follow `size` bytes of data."""
    return bytes(-size % BLOCK_BYTES)


def split_name(name: bytes) -> tuple[bytes, bytes] | None:
    """Prefix and name fields for a name longer than the name field; None when it is short or cannot be split."""
    if len(name) <= _NAME_BYTES or not name.isascii():
        return None
    head = name[: _PREFIX_BYTES + 1]
    if len(name) <= _PREFIX_BYTES + 1:
        head = head.removesuffix(b"/")
    cut = head.rfind(b"/")
    if cut <= 0 or not 1 <= len(name) - cut - 1 <= _NAME_BYTES:
        return None
    return name[:cut], name[cut + 1 :]


def _pax_records(header: Header, *, can_split: bool) -> dict[bytes, bytes]:
    """Return the records of an extended header; empty if USTAR holds everything."""
    records = {}
    if not header.linkname.isascii() or len(header.linkname) > _NAME_BYTES:
        records[b"linkpath"] = header.linkname
    for key, number in ((b"uid", header.uid), (b"gid", header.gid)):
        if number > _MAX_7:
            records[key] = b"%d" % number
    if header.size > _MAX_11:
        records[b"size"] = b"%d" % header.size
    if not 0 <= header.mtime <= _MAX_11:
        records[b"mtime"] = b"%d" % header.mtime
    for name, value in header.xattrs.items():
        if b"=" in name:
            raise unrepresentable(header.path, sentences.XATTR_NAME_HAS_EQUALS.format(name=show(name)))
        records[XATTR_PREFIX + name] = value
    long_name = len(header.name) > _NAME_BYTES and (records or not can_split)
    if not header.name.isascii() or long_name:
        records[b"path"] = header.name
    return records


def _pax_blocks(name: bytes, records: Mapping[bytes, bytes]) -> bytes:
    """The extended header: its own header block and its records."""
    data = b"".join(pax_record(key, records[key]) for key in sorted(records))
    if len(data) > MAX_PAX_BYTES:
        raise unrepresentable(name.removesuffix(b"/"), sentences.TOO_MANY_XATTRS)
    directory, slash, base = name.rpartition(b"/")
    pax_name = _ascii(directory + slash + b"PaxHeaders.0" + (b"/" + base if base else b""))[:_NAME_BYTES].rstrip(b"/")
    block = bytearray(BLOCK_BYTES)
    block[0 : len(pax_name)] = pax_name
    block[100:148] = _octal(0, 8) + _octal(0, 8) + _octal(0, 8) + _octal(len(data), 12) + _octal(0, 12)
    block[156:157] = PAX_HEADER
    return _sealed(block) + data + padding(len(data))


def pax_record(key: bytes, value: bytes) -> bytes:
    """`LEN key=value` and a line feed, where LEN counts itself."""
    body = b" %s=%s\n" % (key, value)
    size = len(body)
    while len(body) + len(str(size)) != size:
        size = len(body) + len(str(size))
    return b"%d%s" % (size, body)


def _block(header: Header, prefix: bytes, name: bytes, linkname: bytes) -> bytes:
    """The header block; numbers that do not fit are written as 0, a PAX record holds them."""
    block = bytearray(BLOCK_BYTES)
    block[0 : len(name)] = name
    block[100:148] = (
        _octal(header.mode, 8)
        + _octal(header.uid, 8)
        + _octal(header.gid, 8)
        + _octal(header.size, 12)
        + _octal(header.mtime, 12)
    )
    block[156:157] = header.type
    block[157 : 157 + len(linkname)] = linkname
    block[329:345] = _octal(header.device[0], 8) + _octal(header.device[1], 8)
    block[345 : 345 + len(prefix)] = prefix
    return _sealed(block)


def _sealed(block: bytearray) -> bytes:
    """The block with magic, version and checksum."""
    block[257:265] = b"ustar\x0000"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _octal(value: int, width: int) -> bytes:
    """Octal digits and a NUL."""
    if not 0 <= value < 8 ** (width - 1):
        value = 0
    return b"%0*o\0" % (width - 1, value)


def _ascii(name: bytes) -> bytes:
    """The name without its bytes above 127."""
    return name if name.isascii() else bytes(byte for byte in name if byte < 0x80)


def _truncated(name: bytes) -> bytes:
    """A name for the short field beside a PAX record; cut so that old readers take no file for a directory."""
    name = _ascii(name)
    if len(name) > _NAME_BYTES and name[_NAME_BYTES - 1 : _NAME_BYTES] == b"/":
        cut = len(name[: _NAME_BYTES - 1].rstrip(b"/"))
        name = name[:cut] + b"\0" + name[cut + 1 :]
    return name[:_NAME_BYTES]
