"""Forms of tar that others write: what becomes of each is the same in both engines, to the word of a refusal."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
import zlib
from pathlib import Path

import pytest

from ocidiff.errors import LimitExceededError, MalformedLayerError, UnsupportedError
from ocidiff.layer.engine import Engine
from support import archives, headers, probes, verbs
from support.headers import END, GNU, OLD, STAR
from support.verdicts import refusal

MIB = 1 << 20
FOLDER = b"app/node_modules/" + b"x" * 70 + b"/lib"
FORMS = ("0.0", "0.1", "1.0")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    root = tmp_path / "target"
    root.mkdir()
    return root


def names_in(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}


class TestNames:
    """GNU headers have times where USTAR has a prefix. Spec: Go's archive/tar, readHeader; golang.org/issue/12594."""

    @pytest.mark.parametrize(
        ("rest", "name"),
        [
            (FOLDER, FOLDER + b"/f"),
            (b"p", b"p/f"),
            (b"", b"f"),
            (bytes(12) + b"p", b"f"),  # a change time that is none, and an empty prefix
            (headers.octal(1, 12), b"f"),
            (headers.octal(1, 12) + headers.octal(2, 12), b"f"),
            (headers.binary(1 << 40, 12) + headers.binary(-1, 12), b"f"),
            (headers.octal(1, 12) + b"not a number", headers.octal(1, 12)[:11] + b"/f"),
            (b"12345670 765", b"12345670 765/f"),
            (b"12345670", b"f"),  # a prefix that reads as a time is one
            (b"\xff\xfe" + b"x" * 10 + b"y" * 12, b"f"),  # neither times nor text
            (b"\x80" + b"\xff" * 11, b"f"),
            (b"d" * 155, b"d" * 155 + b"/f"),
        ],
    )
    def test_a_prefix_in_the_headers_of_old_docker_counts(
        self, engine: Engine, target: Path, rest: bytes, name: bytes
    ) -> None:
        verbs.apply(engine, headers.header(magic=GNU, rest=rest, uid=headers.binary(7, 8)), target, same_owner=False)
        assert names_in(target) == {os.fsdecode(name)}

    def test_old_and_star_headers_have_a_prefix_of_their_own(self, engine: Engine, target: Path) -> None:
        times = headers.octal(5, 12) + headers.octal(6, 12)
        blocks = (
            headers.header(b"old", magic=OLD, rest=b"p"),
            headers.header(b"ustar", rest=b"q" * 155),
            headers.header(b"star", rest=b"r" * 131 + times, end=STAR),
        )
        verbs.apply(engine, b"".join(blocks), target)
        assert names_in(target) == {"old", "q" * 155 + "/ustar", "r" * 131 + "/star"}
        with pytest.raises(MalformedLayerError, match="field atime"):
            verbs.apply(engine, headers.header(rest=b"r" * 155, end=STAR), target)

    def test_times_of_the_block_are_kept(self, engine: Engine, target: Path) -> None:
        later = headers.octal(headers.MTIME + 5, 12)
        star = headers.header(b"star", rest=bytes(131) + later, end=STAR)
        verbs.apply(engine, headers.header(b"gnu", magic=GNU, rest=later) + star, target)
        assert [(target / name).stat().st_atime for name in ("gnu", "star")] == [headers.MTIME + 5] * 2

    def test_the_prefix_is_read_by_the_index_too(self, rust: Engine, pure: Engine, target: Path) -> None:
        layer = headers.header(magic=GNU, rest=FOLDER) + END
        verbs.apply(rust, layer, target)
        expected = verbs.index(rust, target)
        assert [verbs.index_of_layers(engine, [layer])[0] for engine in (rust, pure)] == [expected, expected]


def test_a_contiguous_file_is_a_file(engine: Engine, target: Path) -> None:
    verbs.apply(engine, headers.header(b"c", b"7", 3) + headers.padded(b"abc") + headers.file(b"f"), target)
    assert (target / "c").read_bytes() == b"abc"
    assert (target / "f").is_file()


class TestSparse:
    PIECES = ((4096, b"head"), (3 * MIB + 5, b"x" * 70_000), (6 * MIB, b""))

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("name", [b"f", b"d/" + b"n" * 200])
    def test_every_form_is_expanded_with_its_holes(self, engine: Engine, target: Path, form: str, name: bytes) -> None:
        shown = name if form != "0.0" else b"f"  # a form without a record for it
        layer = headers.sparse(form, 6 * MIB, list(self.PIECES), shown)
        summary = verbs.apply(engine, layer + headers.file(b"after", b"y") + END, target)
        made = target / os.fsdecode(shown)
        expected = bytearray(6 * MIB)
        for offset, data in self.PIECES:
            expected[offset : offset + len(data)] = data
        assert made.read_bytes() == expected
        assert made.stat().st_blocks * 512 <= 128 << 10
        assert names_in(target) == {os.fsdecode(shown), "after"}
        assert (summary.holes, summary.entries) == (6 * MIB - 70_004, 2)

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize(
        ("size", "pieces"),
        [
            (0, []),
            (1, [(0, b"x")]),
            (100, [(50, b"x"), (100, b"")]),
            (8192, [(0, b"a" * 4096), (4096, b"b" * 4096)]),
            (9000, [(9000, b"")]),
        ],
    )
    def test_small_files_are_expanded(
        self, rust: Engine, pure: Engine, tmp_path: Path, form: str, size: int, pieces: list[tuple[int, bytes]]
    ) -> None:
        layer = headers.sparse(form, size, pieces) + END
        if form != "1.0" and not pieces:
            # Nobody writes a map without numbers into records.
            return
        expected = bytearray(size)
        for offset, data in pieces:
            expected[offset : offset + len(data)] = data
        for engine in (rust, pure):
            root = tmp_path / engine.__class__.__name__
            root.mkdir()
            verbs.apply(engine, layer, root)
            assert (root / "f").read_bytes() == expected
        found = {verbs.index_of_layers(engine, [layer], sha256=True)[0] for engine in (rust, pure)}
        assert found == {verbs.index(rust, root, sha256=True)}

    def test_empty_records_are_no_records(self, engine: Engine, target: Path) -> None:
        keys = (b"major", b"minor", b"name", b"size", b"realsize", b"numblocks", b"map")
        layer = headers.file(b"f", b"data", *((b"GNU.sparse." + key, b"") for key in keys))
        assert verbs.apply(engine, layer, target).holes == 0
        assert (target / "f").read_bytes() == b"data"

    def test_an_unknown_form_is_refused_by_name(self, engine: Engine, target: Path) -> None:
        for records in (((b"GNU.sparse.major", b"2"),), ((b"GNU.sparse.realsize", b"5"),)):
            with pytest.raises(UnsupportedError, match=r"^strange: sparse format"):
                verbs.apply(engine, headers.file(b"strange", b"", *records), target)
        with pytest.raises(MalformedLayerError, match="strange: sparse file in the old GNU form is not supported"):
            verbs.apply(engine, headers.header(b"strange", b"S", magic=GNU), target)

    def test_only_a_file_is_sparse(self, engine: Engine, target: Path) -> None:
        lying = headers.pax((b"GNU.sparse.map", b"0,0"), (b"GNU.sparse.numblocks", b"1")) + headers.header(b"d", b"5")
        with pytest.raises(MalformedLayerError, match="d: only a file can be sparse"):
            verbs.apply(engine, lying, target)

    @pytest.mark.parametrize(
        ("numblocks", "map_", "size"),
        [
            (b"1", b"0,4", b"3"),  # beyond the end
            (b"1", b"0,3", b"9"),  # data that nothing refers to
            (b"1", b"0,5", b"9"),  # more than there is
            (b"2", b"0,2,1,2", b"9"),  # overlapping
            (b"2", b"5,2,0,2", b"9"),  # out of order
            (b"2", b"0,4", b"9"),  # another count
            (b"", b"0,4", b"9"),
            (b"x", b"0,4", b"9"),
            (b"-1", b"0,4", b"9"),
            (b"1", b"0", b"9"),
            (b"1", b"0,4,", b"9"),
            (b"1", b",4", b"9"),
            (b"1", b"-1,4", b"9"),
            (b"1", b"0,+4", b"9"),
            (b"1", b"0,4", b"x"),
            (b"1", b"0,4", b"-9"),
            (b"1", b"9223372036854775807,4", b"9223372036854775807"),
            (b"1", b"0,9223372036854775808", b"9223372036854775807"),
            (b"1048577", b"0,4", b"9"),
            (b"9223372036854775807", b"0,4", b"9"),
        ],
    )
    def test_hostile_maps_are_malformed(
        self, rust: Engine, pure: Engine, target: Path, numblocks: bytes, map_: bytes, size: bytes
    ) -> None:
        facts = ((b"GNU.sparse.numblocks", numblocks), (b"GNU.sparse.map", map_), (b"GNU.sparse.size", size))
        assert_same_refusal(rust, pure, headers.file(b"f", b"data", *facts), target, MalformedLayerError)

    @pytest.mark.parametrize(
        "text",
        [
            *(b"", b"x\n", b"-1\n", b"1\n0\n", b"1\n0\nx\n", b"1\n\n4\n", b"2\n0\n4\n", b"1\n0\n4", b"\n", b"1\n4\n-1\n"),
            *(b"9223372036854775807\n", b"1048577\n", b"99999999999999999999\n", b"1\n0\n5\n", b"1\n0\n3\n"),
        ],
    )
    def test_hostile_maps_before_the_data_are_malformed(self, rust: Engine, pure: Engine, target: Path, text: bytes) -> None:
        version = ((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"9"))
        layer = headers.file(b"f", headers.padded(text) + b"data", *version)
        assert_same_refusal(rust, pure, layer, target, MalformedLayerError)
        assert_same_refusal(rust, pure, layer[:1536], target, MalformedLayerError)

    @pytest.mark.parametrize(
        "keys", [(b"numbytes",), (b"offset", b"offset"), (b"offset", b"numbytes", b"numbytes"), (b"offset",)]
    )
    def test_numbers_of_the_oldest_form_come_in_pairs(
        self, rust: Engine, pure: Engine, target: Path, keys: tuple[bytes, ...]
    ) -> None:
        pairs = tuple((b"GNU.sparse." + key, b"0") for key in keys)
        layer = headers.file(b"f", b"", *pairs, (b"GNU.sparse.numblocks", b"1"), (b"GNU.sparse.size", b"9"))
        assert_same_refusal(rust, pure, layer, target, MalformedLayerError)

    @pytest.mark.parametrize("form", FORMS)
    def test_the_limit_counts_holes_before_anything_is_written(
        self, rust: Engine, pure: Engine, target: Path, form: str
    ) -> None:
        for size in (MIB + 1, 1 << 60, (1 << 63) - 1):
            layer = headers.sparse(form, size, [(0, b"x")]) + END
            assert_same_refusal(rust, pure, layer, target, LimitExceededError, max_bytes=MIB)
        many = b"".join(headers.sparse(form, MIB // 2, [(0, b"x")], b"f%d" % number) for number in range(3))
        assert_same_refusal(rust, pure, many, target, LimitExceededError, max_bytes=MIB)
        for engine in (rust, pure):
            with pytest.raises(LimitExceededError):
                verbs.index_of_layers(engine, [headers.sparse(form, (1 << 63) - 1, [(0, b"x")])])

    def test_a_map_is_no_longer_than_a_header(self, rust: Engine, pure: Engine, target: Path) -> None:
        pieces = [(2 * number, b"") for number in range(200_000)]
        layer = headers.sparse("1.0", MIB, pieces)
        assert_same_refusal(rust, pure, layer, target, LimitExceededError)
        for engine in (rust, pure):
            verbs.apply(engine, layer, target, max_header_bytes=4 * MIB)
            assert (target / "f").stat().st_size == MIB


class TestHoles:
    @pytest.mark.parametrize("seed", range(40))
    def test_both_engines_make_the_same_holes(self, rust: Engine, pure: Engine, tmp_path: Path, seed: int) -> None:
        pattern = zlib.crc32(b"%d" % seed)
        parts = []
        for _ in range(8):
            pattern = (pattern * 1103515245 + 12345) & 0x7FFFFFFF
            length = (pattern >> 8) % 200_000 if pattern & 1 else ((pattern >> 8) % 40) * 4096
            parts.append((b"\0" if pattern & 2 else b"x") * length)
        layer = archives.tar(archives.file(b"before", b"y" * (seed * 97)), archives.file(b"f", b"".join(parts)))
        found = []
        for engine in (rust, pure):
            root = tmp_path / engine.__class__.__name__
            root.mkdir()
            verbs.apply(engine, layer, root)
            assert (root / "f").read_bytes() == b"".join(parts)
            found.append(extents(root / "f"))
        assert found[0] == found[1]

    def test_a_run_of_zeros_takes_no_space(self, engine: Engine, target: Path) -> None:
        verbs.apply(engine, archives.tar(archives.file(b"f", b"x" + bytes(8 * MIB) + b"x")), target)
        assert (target / "f").stat().st_blocks * 512 < MIB


def extents(path: Path) -> list[tuple[int, int]]:
    """Where there is data in a file."""
    found, end = [], 0
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        while end < size:
            try:
                begin = os.lseek(descriptor, end, os.SEEK_DATA)
            except OSError:
                break
            end = os.lseek(descriptor, begin, os.SEEK_HOLE)
            found.append((begin, end))
    finally:
        os.close(descriptor)
    return found


class TestOtherCompressions:
    @pytest.mark.parametrize(
        ("head", "name"),
        [
            (b"\xfd7zXZ\0", "xz"),
            (b"BZh9", "bzip2"),
            (b"\x04\x22\x4d\x18", "lz4"),
            (b"\x02\x21\x4c\x18", "lz4"),
            (b"\x1f\x9d\x90", "compress"),
            (b"LZIP\x01", "lzip"),
            (b"\x5d\0\0\x80\0", "lzma"),
            (b"\x89LZO\0\r\n\x1a\n", "lzop"),
            (b"PK\x03\x04", "zip"),
            (b"7z\xbc\xaf\x27\x1c", "7z"),
        ],
    )
    @pytest.mark.parametrize("length", [20, 512, 5000])
    def test_they_are_named(self, rust: Engine, pure: Engine, target: Path, head: bytes, name: str, length: int) -> None:
        blob = head.ljust(length, b"\x55")
        assert_same_refusal(rust, pure, blob, target, UnsupportedError, f"layer: {name} data in place of a tar")
        assert_same_refusal(rust, pure, gzip.compress(blob), target, UnsupportedError, name)

    @pytest.mark.parametrize("tool", ["xz", "bzip2", "lz4"])
    def test_what_the_real_tools_write_is_named(self, rust: Engine, pure: Engine, target: Path, tool: str) -> None:
        if shutil.which(tool) is None:
            probes.missing(f"needs {tool}")
        blob = subprocess.run([tool, "-c"], input=headers.file(b"f", b"x") + END, stdout=subprocess.PIPE, check=True).stdout
        assert_same_refusal(rust, pure, blob, target, UnsupportedError, tool)

    def test_a_layer_that_was_compressed_twice_is_named(self, rust: Engine, pure: Engine, target: Path) -> None:
        blob = gzip.compress(gzip.compress(headers.file(b"f", b"x") + END))
        assert_same_refusal(rust, pure, blob, target, UnsupportedError, "gzip data")

    @pytest.mark.parametrize("name", [b"BZh91AY&SY", b"LZIP", b"PK\x03\x04", b"7z\xbc\xaf\x27\x1c", b"\x1f\x9d"])
    def test_a_tar_whose_first_name_begins_like_one_is_a_tar(self, engine: Engine, target: Path, name: bytes) -> None:
        verbs.apply(engine, headers.file(name), target)
        assert names_in(target) == {os.fsdecode(name)}

    def test_only_the_first_block_is_taken_for_one(self, engine: Engine, target: Path) -> None:
        with pytest.raises(MalformedLayerError):
            verbs.apply(engine, headers.file(b"f") + b"\xfd7zXZ\0".ljust(512, b"x"), target)


class TestGzip:
    @pytest.mark.parametrize("flags", [0, 2, 4, 8, 16, 4 | 8 | 16 | 2])
    @pytest.mark.parametrize("length", [0, 1, 511, 512, 65_535, 65_536, 5 * MIB])
    def test_fields_of_its_header_have_any_length(self, engine: Engine, target: Path, flags: int, length: int) -> None:
        layer = headers.file(b"f", b"x") + END
        summary = verbs.apply(engine, with_fields(layer, flags, length), target)
        assert summary.diff_id == "sha256:" + hashlib.sha256(layer).hexdigest()

    @pytest.mark.parametrize("change", range(3))
    def test_broken_headers_are_malformed(self, rust: Engine, pure: Engine, target: Path, change: int) -> None:
        blob = bytearray(with_fields(headers.file(b"f", b"x") + END, 2 | 8, 100))
        if change == 0:
            blob[113] ^= 1  # the checksum of the header
        elif change == 1:
            blob[3] |= 0x20  # a reserved flag
        else:
            blob = blob[:50]
        assert_same_refusal(rust, pure, bytes(blob), target, MalformedLayerError, "malformed gzip: ")

    @pytest.mark.parametrize("place", range(12, 600, 23))
    def test_a_fault_in_the_tar_comes_before_one_in_its_gzip(
        self, rust: Engine, pure: Engine, tmp_path: Path, place: int
    ) -> None:
        layer = b"".join(headers.file(b"f%d" % number, os.urandom(300)) for number in range(3)) + headers.header(b"..", b"1")
        blob = bytearray(gzip.compress(layer, mtime=0))
        blob[place] ^= 0x44
        found = []
        for engine in (rust, pure):
            root = tmp_path / engine.__class__.__name__
            root.mkdir()
            found.append(refusal(engine, bytes(blob), root))
        assert found[0] == found[1]


def with_fields(data: bytes, flags: int, length: int) -> bytes:
    """A gzip member with long fields in its header."""
    head = b"\x1f\x8b\x08" + bytes([flags]) + bytes(5) + b"\xff"
    if flags & 4:
        extra = min(length, 65_535)
        head += extra.to_bytes(2, "little") + b"e" * extra
    for flag in (8, 16):
        if flags & flag:
            head += b"n" * length + b"\0"
    if flags & 2:
        head += (zlib.crc32(head) & 0xFFFF).to_bytes(2, "little")
    packer = zlib.compressobj(wbits=-15)
    body = packer.compress(data) + packer.flush()
    return head + body + zlib.crc32(data).to_bytes(4, "little") + (len(data) & 0xFFFFFFFF).to_bytes(4, "little")


def assert_same_refusal(
    rust: Engine, pure: Engine, blob: bytes, target: Path, kind: type[Exception], words: str = "", **options: int
) -> None:
    """Fail unless both engines refuse the layer in the same words, and have written nothing."""
    one, other = (refusal(engine, blob, target, **options) for engine in (rust, pure))
    assert one == other
    assert one is not None
    assert one[0] is kind
    assert words in one[1]
