"""Streams of other formats in place of a tar."""

from __future__ import annotations

from typing import Final

from ocidiff.errors import UnsupportedError
from ocidiff.layer.pure import sentences
from ocidiff.layer.pure.faults import unsupported

# First bytes of compressed data, compared only where there is no tar header.
_MAGICS: Final = (
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\x02\x21\x4c\x18", "lz4"),
    (b"\x1f\x9d", "compress"),
    (b"\x1f\xa0", "compress"),
    (b"LZIP", "lzip"),
    (b"\x5d\0\0", "lzma"),
    (b"\x89LZO\0\r\n\x1a\n", "lzop"),
    (b"PK\x03\x04", "zip"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"\x1f\x8b", "gzip"),  # a layer that was compressed twice
    (b"\x28\xb5\x2f\xfd", "zstd"),
)


def compression_of(head: bytes) -> str | None:
    """The name of the compression that a stream has which begins like this."""
    return next((name for magic, name in _MAGICS if head.startswith(magic)), None)


def unsupported_compression(name: str) -> UnsupportedError:
    """The error of a stream with that compression."""
    return unsupported(b"layer", sentences.COMPRESSED_DATA.format(format=name))
