"""Law: of any tar, both engines say the same, word for word, and leave the same tree; and so do their indexes."""

from __future__ import annotations

import os

import strategies
from hypothesis import given
from hypothesis import strategies as st

from ocidiff.layer.engine import Engine
from support import headers, verdicts
from support.headers import END

NUMBERS = (0, 1, 7, 8, 0o7777, 65_535, 0o7777777, 0o10000000, (1 << 31) - 1, 1 << 31, (1 << 32) - 2, (1 << 32) - 1, 1 << 32)
LARGE = (0o77777777777, 0o100000000000, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
VALUES = (*NUMBERS, *LARGE, *(-value for value in (*NUMBERS[1:], *LARGE)), -(1 << 63) - 1)
TEXTS = (
    *(b"", b" ", b"\0", b"x", b"0", b"8", b"+1", b"-", b"1 ", b" 1", b"1\0x", b"777 \0 ", b"\x80", b"\xff", b"\xc0", b"0x1"),
)
NAMES = (b"a", b"b", b"d", b"d/a", b"d/./b", b"/a", b"a/", b"d/../b", b"l/x", b"\xff", b"a'b\"\\\n", b"n" * 100)
ODD_NAMES = (
    *(b"", b".", b"./", b"../a", b"n" * 101, b"n" * 255, b"n" * 256, b"d/" * 60 + b"a", b"a\0b", b"up/a", b"x/y/z"),
    *(b".wh.a", b".wh.", b"d/.wh..", b"d/.wh..wh..opq", b".wh..wh.plnk/1"),
)
KINDS = (b"0", b"0", b"0", b"5", b"5", b"1", b"2", b"6", b"7", b"\0")
ODD_KINDS = (b"3", b"4", b"S", b"V", b"x", b"g", b"~", b"1", b"2")
KEYS = (b"path", b"linkpath", b"uname", b"size", b"uid", b"gid", b"mtime", b"atime", b"ctime", b"comment")
SPARSE_KEYS = tuple(
    b"GNU.sparse." + key
    for key in (b"major", b"minor", b"name", b"size", b"realsize", b"numblocks", b"map", b"offset", b"numbytes", b"other")
)
XATTRS = (b"SCHILY.xattr.user.a", b"SCHILY.xattr.user." + b"n" * 300, b"SCHILY.xattr.", b"LIBARCHIVE.xattr.user.a")
TIMES = (
    *(b"0", b"1", b"-1", b"1.5", b"-1.5", b"-0.5", b"1.", b".5", b"1.1234567891", b"1.x", b"1e9", b"1.5.5", b"9" * 18),
    *(b"-9223372036854775808", b"-9223372036854775808.5", b"9223372036854775807.9", b"-9223372036854775809", b"9" * 19),
)
DECIMALS = (
    *(b"%d" % value for value in VALUES),
    *(b"0" * 30 + b"7", b"-" + b"0" * 30, b"1" * 30, b"9" * 5000, b"0" * 5000 + b"1"),
)
SIZES = (b"0", b"1", b"2", b"512", b"1024", b"")
MAPS = (b"", b"0,1", b"0,0", b"1,1", b"0,1,1,0", b"0,1,0,1", b"5,1", b"0,", b",", b"0,x", b"0,9223372036854775807", b"9,0")
DATA = (b"", b"x", b"1\n0\n1\n".ljust(512, b"\0") + b"x", b"0\n".ljust(512, b"\0"), b"y" * 513, bytes(70_000))
WIDTHS = {"mode": 8, "uid": 8, "gid": 8, "mtime": 12, "size": 12}
ODDITIES = (*WIDTHS, *WIDTHS, "major", "minor", "records", "records", "records", "sparse", "sparse", "special")
ODDITIES = (*ODDITIES, "name", "name", "kind", "link", "magic", "rest", "rest", "byte")


def field(width: int) -> st.SearchStrategy[bytes]:
    """A number field of a header with anything in it."""
    octal = st.sampled_from(VALUES).map(lambda value: b"%0*o" % (width - 1, abs(value)))
    binary = st.sampled_from(VALUES).map(lambda value: headers.binary(value, width))
    found = st.one_of(octal, binary, st.sampled_from(TEXTS), st.binary(max_size=width))
    return found.map(lambda data: data[:width].ljust(width, b"\0"))


@st.composite
def records(draw: st.DrawFn, keys: tuple[bytes, ...]) -> bytes:
    """A PAX record: a key that matters with a value at one of its bounds."""
    key = draw(st.sampled_from(keys))
    if key in (b"mtime", b"atime", b"ctime"):
        value = draw(st.sampled_from((*TIMES, *TEXTS)))
    elif key in (b"path", b"linkpath", b"GNU.sparse.name"):
        value = draw(st.sampled_from(NAMES + ODD_NAMES))
    elif key == b"GNU.sparse.map":
        value = draw(st.sampled_from(MAPS))
    elif key in (b"GNU.sparse.major", b"GNU.sparse.minor"):
        value = draw(st.sampled_from((b"0", b"1", b"")))
    elif key == b"size" or key in SPARSE_KEYS:
        value = draw(st.one_of(st.sampled_from(SIZES), st.sampled_from(SIZES), st.sampled_from(DECIMALS)))
    else:
        value = draw(st.sampled_from((*DECIMALS, *TEXTS)))
    whole = headers.record(key, value)
    broken = (whole[:-1], b"0" * 20 + whole, whole.replace(b" ", b"", 1), b"-" + whole, b"9" + whole, b"5 =x\n", b"\0", b"")
    found: bytes = draw(st.sampled_from((whole,) * 40 + broken))
    return found


@st.composite
def sparse_files(draw: st.DrawFn) -> bytes:
    """A sparse file, rarely with a map that lies."""
    ends = sorted(draw(st.lists(st.integers(0, 200_000), max_size=8)))
    pieces = [(start, b"p" * (end - start)) for start, end in zip(ends[::2], ends[1::2], strict=False)]
    if draw(st.integers(0, 5)) == 0:
        pieces.reverse()
    size = (ends[-1] if ends else 0) + draw(st.sampled_from((0, 0, 1, 100_000, -1)))
    return headers.sparse(draw(st.sampled_from(("0.0", "0.1", "1.0"))), max(0, size), pieces)


@st.composite
def blocks(draw: st.DrawFn) -> bytes:
    """An entry, with what describes it and its data; all of it is sane but for up to two things."""
    odd = draw(st.sets(st.sampled_from(ODDITIES), max_size=2))
    data, lead = draw(st.sampled_from(DATA)), b""
    if "sparse" in odd and draw(st.booleans()):
        return draw(sparse_files())
    for oddity, keys in (("records", KEYS + XATTRS), ("sparse", SPARSE_KEYS)):
        if oddity in odd:
            lead += headers.special(b"x", b"".join(draw(st.lists(records(keys), max_size=5))))
    if "special" in odd:
        kind = draw(st.sampled_from((b"L", b"K", b"g", b"x")))
        lead += headers.special(kind, draw(st.sampled_from((*NAMES, *ODD_NAMES, b"a\0rest"))))
    kind = draw(st.sampled_from(ODD_KINDS if "kind" in odd else KINDS))
    link = draw(st.sampled_from((b"", b"..", b"/d", b"t" * 100, b"gone", b"d/x") if "link" in odd else (b"a", b"d/old")))
    name = draw(st.sampled_from(ODD_NAMES if "name" in odd else NAMES))
    magics = (headers.GNU, headers.GNU, headers.OLD, b"ustar\0zz", b"ustar  x") if "magic" in odd else (headers.USTAR,)
    data = data if kind in b"07\0" else b""
    sane = {"mode": 0o755, "uid": os.geteuid(), "gid": os.getegid(), "mtime": 5, "size": len(data)}
    numbers = {key: draw(field(width)) if key in odd else headers.octal(sane[key], width) for key, width in WIDTHS.items()}
    rest, end = b"", b""
    if "rest" in odd:
        rest = draw(st.one_of(st.just(b"p"), field(12), st.tuples(field(12), field(12)).map(b"".join)))
        magics, end = (*magics, headers.GNU), draw(st.sampled_from((b"", headers.STAR)))
    block = headers.header(
        name,
        kind,
        numbers.pop("size"),
        link=link,
        magic=draw(st.sampled_from(magics)),
        device=(draw(field(8)) if "major" in odd else 1, draw(field(8)) if "minor" in odd else 3),
        rest=rest,
        end=end,
        **numbers,
    )
    if "byte" in odd:
        place = draw(st.integers(0, 511))
        block = block[:place] + bytes([draw(st.integers(0, 255))]) + block[place + 1 :]
    return lead + block + (headers.padded(data) if kind in b"07\0" else b"")


@given(
    parts=st.lists(blocks(), min_size=1, max_size=4),
    tail=st.sampled_from((END,) * 8 + (b"", bytes(512), bytes(512) + b"x" * 512, b"x" * 100)),
    cut=st.one_of(*[st.none()] * 8, st.integers(0, 4000)),
)
def test_both_engines_say_and_leave_the_same(
    rust: Engine, pure: Engine, *, parts: list[bytes], tail: bytes, cut: int | None
) -> None:
    layer = (b"".join(parts) + tail)[:cut]
    refused = verdicts.assert_same(rust, pure, layer)
    strategies.RAN[f"any tar: rust = pure ({'refused' if refused else 'applied'})"] += 1
