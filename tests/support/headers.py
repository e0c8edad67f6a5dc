"""Tars made byte by byte, so that every field of a header can hold anything."""

from __future__ import annotations

import os

MTIME = 1_600_000_000
USTAR = b"ustar\x0000"
GNU = b"ustar  \0"
STAR = b"tar\0"  # at the end of the block
OLD = bytes(8)
END = bytes(1024)


def octal(value: int, width: int) -> bytes:
    """Octal digits and a NUL."""
    return b"%0*o\0" % (width - 1, value)


def binary(value: int, width: int) -> bytes:
    """Base 256, as GNU tar writes what octal digits cannot say."""
    data = bytearray((value % (1 << 8 * width)).to_bytes(width, "big"))
    data[0] |= 0x80
    return bytes(data)


def numeric(value: int | bytes, width: int) -> bytes:
    """A number as GNU tar writes it; bytes stand as they are."""
    if isinstance(value, bytes):
        return value.ljust(width, b"\0")
    return octal(value, width) if 0 <= value < 8 ** (width - 1) else binary(value, width)


def sealed(block: bytes) -> bytes:
    """The block with a right checksum."""
    blank = block[:148] + b" " * 8 + block[156:]
    return block[:148] + b"%06o\0 " % sum(blank) + block[156:]


def header(
    name: bytes = b"f",
    kind: bytes = b"0",
    size: int | bytes = 0,
    *,
    mode: int | bytes = 0o644,
    uid: int | bytes | None = None,
    gid: int | bytes | None = None,
    mtime: int | bytes = MTIME,
    link: bytes = b"",
    magic: bytes = USTAR,
    device: tuple[int | bytes, int | bytes] = (0, 0),
    rest: bytes = b"",
    end: bytes = b"",
) -> bytes:
    """A header block; its owner is who runs the test.

    Args:
        rest: What begins where USTAR has the prefix.
        end: What the block ends with.
    """
    parts = (
        (0, name[:100]),
        (100, numeric(mode, 8)),
        (108, numeric(os.geteuid() if uid is None else uid, 8)),
        (116, numeric(os.getegid() if gid is None else gid, 8)),
        (124, numeric(size, 12)),
        (136, numeric(mtime, 12)),
        (156, kind),
        (157, link[:100]),
        (257, magic),
        (329, numeric(device[0], 8)),
        (337, numeric(device[1], 8)),
        (345, rest),
        (512 - len(end), end),
    )
    block = bytearray(512)
    for start, data in parts:
        block[start : start + len(data)] = data
    return sealed(bytes(block[:512]))


def padded(data: bytes) -> bytes:
    """Data filled up to whole blocks."""
    return data + bytes(-len(data) % 512)


def record(key: bytes, value: bytes) -> bytes:
    """A PAX record, which counts itself."""
    body = b" " + key + b"=" + value + b"\n"
    size = len(body)
    while len(str(size)) + len(body) != size:
        size = len(str(size)) + len(body)
    return b"%d%s" % (size, body)


def special(kind: bytes, content: bytes) -> bytes:
    """A header that describes the next entry."""
    return header(b"././@Header", kind, len(content)) + padded(content)


def pax(*records: tuple[bytes, bytes]) -> bytes:
    """A PAX header."""
    return special(b"x", b"".join(record(*pair) for pair in records))


def file(name: bytes = b"f", data: bytes = b"", *records: tuple[bytes, bytes]) -> bytes:
    """A regular file, after a PAX header if there are records."""
    return (pax(*records) if records else b"") + header(name, b"0", len(data)) + padded(data)


def sparse(form: str, size: int, pieces: list[tuple[int, bytes]], name: bytes = b"f") -> bytes:
    """A sparse file in one of the three forms of GNU tar."""
    data = b"".join(piece for _, piece in pieces)
    numbers = [b"%d" % number for offset, piece in pieces for number in (offset, len(piece))]
    count = b"%d" % len(pieces)
    shown = (b"GNU.sparse.name", name)
    other = b"GNUSparseFile.0/" + name[:50]
    if form == "1.0":
        text = b"".join(number + b"\n" for number in (count, *numbers))
        version = ((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"))
        return file(other, padded(text) + data, *version, shown, (b"GNU.sparse.realsize", b"%d" % size))
    facts = ((b"GNU.sparse.size", b"%d" % size), (b"GNU.sparse.numblocks", count))
    if form == "0.1":
        return file(other, data, *facts, shown, (b"GNU.sparse.map", b",".join(numbers)))
    keys = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
    return file(name, data, *facts, *((keys[place % 2], number) for place, number in enumerate(numbers)))
