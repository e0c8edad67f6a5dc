"""The bytes of headers, against Go's rules. Spec: layer-semantics 9."""

from __future__ import annotations

import hashlib

import pytest

from ocidiff.errors import UnrepresentableError
from ocidiff.layer.pure import tar


def test_the_block_of_a_whiteout_is_the_one_of_the_specification() -> None:
    block = tar.encode(tar.Header(b"etc/.wh.old", tar.REGULAR))
    assert block[148:156] == b"011124\0 "
    assert hashlib.sha256(block).hexdigest() == "8af19070cfd28f7c3d6c8ff37553ec9011d194e450d6292f98bed89644bb7613"


@pytest.mark.parametrize("size", [0, 1, 4, 5, 89, 90, 91, 92, 93, 990, 991, 992, 993, 9989])
def test_a_pax_record_counts_itself(size: int) -> None:
    record = tar.pax_record(b"k", b"v" * size)
    assert int(record.split(b" ")[0]) == len(record)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        (b"n" * 100, None),
        (b"n" * 101, None),
        (b"d/" + b"n" * 100, (b"d", b"n" * 100)),
        (b"d/" + b"n" * 101, None),
        (b"d" * 155 + b"/" + b"n" * 100, (b"d" * 155, b"n" * 100)),
        (b"d" * 156 + b"/" + b"n" * 100, None),
        (b"/" + b"n" * 100, None),
        (b"d" * 60 + b"/" + b"e" * 60 + b"/", (b"d" * 60, b"e" * 60 + b"/")),
        (b"d" * 155 + b"/", None),
        (b"a/" * 100, (b"a/" * 77 + b"a", b"a/" * 22)),
        (b"d\xff/" + b"n" * 100, None),
    ],
)
def test_names_are_split_as_go_splits_them(name: bytes, parts: tuple[bytes, bytes] | None) -> None:
    assert tar.split_name(name) == parts


def test_a_name_that_could_be_split_is_a_record_once_there_are_others() -> None:
    name = b"d/" + b"n" * 100
    assert len(tar.encode(tar.Header(name, tar.REGULAR))) == 512
    assert b"path=" + name in tar.encode(tar.Header(name, tar.REGULAR, uid=1 << 21))


@pytest.mark.parametrize(
    ("header", "record"),
    [
        (tar.Header(b"f", tar.REGULAR, uid=1 << 21), b"15 uid=2097152\n"),
        (tar.Header(b"f", tar.REGULAR, gid=(1 << 32) - 2), b"18 gid=4294967294\n"),
        (tar.Header(b"f", tar.REGULAR, size=1 << 33), b"19 size=8589934592\n"),
        (tar.Header(b"f", tar.REGULAR, mtime=1 << 33), b"20 mtime=8589934592\n"),
        (tar.Header(b"f", tar.REGULAR, mtime=-1), b"12 mtime=-1\n"),
        (tar.Header(b"\xff", tar.REGULAR), b"9 path=\xff\n"),
        (tar.Header(b"l", tar.SYMLINK, linkname=b"\xff"), b"14 linkpath=\xff\n"),
        (tar.Header(b"l", tar.SYMLINK, linkname=b"t" * 101), b"115 linkpath=" + b"t" * 101 + b"\n"),
    ],
)
def test_what_ustar_cannot_say_is_a_record(header: tar.Header, record: bytes) -> None:
    blocks = tar.encode(header)
    assert len(blocks) == 3 * 512
    assert blocks[156:157] == b"x"
    assert blocks[512:1024].rstrip(b"\0") == record


@pytest.mark.parametrize(
    "header",
    [
        tar.Header(b"f", tar.REGULAR, uid=(1 << 21) - 1, gid=(1 << 21) - 1, size=(1 << 33) - 1, mtime=(1 << 33) - 1),
        tar.Header(b"n" * 100, tar.SYMLINK, linkname=b"t" * 100),
        tar.Header(b"n" * 99, tar.DIRECTORY),
        tar.Header(b"c", tar.CHARACTER, device=((1 << 21) - 1, (1 << 21) - 1)),
    ],
)
def test_what_just_fits_needs_no_record(header: tar.Header) -> None:
    assert len(tar.encode(header)) == 512


def test_a_cut_name_never_ends_in_a_slash() -> None:
    blocks = tar.encode(tar.Header(b"d" * 98 + b"//" + b"f" * 200, tar.REGULAR))
    assert blocks[-512:-412] == b"d" * 98 + b"\0/"


@pytest.mark.parametrize(
    "header",
    [
        tar.Header(b"c", tar.CHARACTER, device=(1 << 21, 0)),
        tar.Header(b"c", tar.BLOCK, device=(0, 1 << 21)),
        tar.Header(b"f", tar.REGULAR, xattrs={b"user.a=b": b"x"}),
        tar.Header(b"f", tar.REGULAR, xattrs={b"user.%d" % number: bytes(1 << 16) for number in range(16)}),
    ],
    ids=["major", "minor", "xattr-name", "xattrs"],
)
def test_what_no_header_holds_is_refused(header: tar.Header) -> None:
    with pytest.raises(UnrepresentableError):
        tar.encode(header)
