"""Layers that are broken, lie or exhaust: a typed error, in both engines, and nothing outside the target."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest

from ocidiff.errors import LayerError, LimitExceededError, MalformedLayerError, UnsafeLayerError
from ocidiff.layer.engine import Engine
from ocidiff.layer.options import Compression
from ocidiff.layer.pure import tar as format_
from support import probes, verbs
from support.archives import Member, directory, file, hard_link, member, symlink, tar, whiteout

SAMPLE = tar(
    directory(b"d"),
    file(b"d/f", b"x" * 600),
    symlink(b"l", b"d"),
    hard_link(b"h", b"d/f"),
    whiteout(b"gone"),
    file(b"\xc3\xa9"),
)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    root = tmp_path / "target"
    root.mkdir()
    return root


def sealed(block: bytes) -> bytes:
    """The header block with a right checksum."""
    blank = block[:148] + b" " * 8 + block[156:]
    return block[:148] + b"%06o\0 " % sum(blank) + block[156:]


def patched(offset: int, new: bytes, data: bytes = SAMPLE) -> bytes:
    """The layer with some bytes of its first header changed."""
    block = data[:512]
    return sealed(block[:offset] + new + block[offset + len(new) :]) + data[512:]


@pytest.mark.parametrize("name", [b".wh.", b".wh..", b".wh...", b"d/.wh.", b"d/.wh..", b"d/.wh..."])
def test_whiteouts_of_nothing_are_malformed(engine: Engine, target: Path, name: bytes) -> None:
    with pytest.raises(MalformedLayerError):
        verbs.apply(engine, tar(file(name)), target)


def test_every_prefix_fails_cleanly_or_is_whole(engine: Engine, tmp_path: Path) -> None:
    for length in sorted({*range(0, len(SAMPLE), 256), *range(1, len(SAMPLE), 509)}):
        target = tmp_path / str(length)
        target.mkdir()
        try:
            summary = verbs.apply(engine, SAMPLE[:length], target)
        except MalformedLayerError:
            continue
        assert summary.uncompressed_size == length


@pytest.mark.parametrize(
    "layer",
    [
        SAMPLE[:148] + b"000000\0 " + SAMPLE[156:],
        b"garbage" * 100,
        patched(100, b"x"),
        patched(100, b"00008"),
        patched(124, b"\xff" * 12, tar(file(b"f"))),
        patched(156, b"S"),
        patched(156, b"V"),
        bytes(512) + SAMPLE,
    ],
    ids=["checksum", "garbage", "mode", "octal", "negative-size", "sparse", "volume", "one-zero-block"],
)
def test_broken_headers_are_malformed(engine: Engine, target: Path, layer: bytes) -> None:
    with pytest.raises(MalformedLayerError):
        verbs.apply(engine, layer, target)
    assert list(target.iterdir()) == []


@pytest.mark.parametrize(
    "records",
    [
        *(b"5 a=b\n", b"6 a=b", b"0 a=b\n", b"x a=b\n", b"6 a.b\n", b"5 =b\n", b"99 a=b\n", b"-6 a=b\n"),
        *(format_.pax_record(b"path", b"a\0b"), format_.pax_record(b"linkpath", b"\0")),
        *(format_.pax_record(key, b"x") for key in (b"size", b"uid", b"gid", b"mtime")),
        format_.pax_record(b"size", b"-1"),
    ],
)
def test_broken_pax_records_are_malformed(engine: Engine, target: Path, records: bytes) -> None:
    header = format_.encode(format_.Header(b"PaxHeaders.0/f", b"x", size=len(records)))
    with pytest.raises(MalformedLayerError):
        verbs.apply(engine, header + records + format_.padding(len(records)) + tar(file(b"f")), target)
    assert list(target.iterdir()) == []


@pytest.mark.parametrize("kind", [b"x", b"L"])
def test_a_header_that_describes_no_entry_is_malformed(engine: Engine, target: Path, kind: bytes) -> None:
    header = format_.encode(format_.Header(b"x", kind))
    with pytest.raises(MalformedLayerError):
        verbs.apply(engine, header + bytes(1024), target)


@pytest.mark.parametrize(
    "entry",
    [
        file(b"f", uid=(1 << 32) - 1),
        file(b"f", uid=-1),
        file(b"f", gid=1 << 32),
        member(b"c", tarfile.CHRTYPE, devmajor=1 << 20, devminor=0),
        member(b"c", tarfile.BLKTYPE, devmajor=0, devminor=1 << 20),
        member(b"c", tarfile.CHRTYPE, devmajor=0, devminor=0),
        file(b"f", pax_headers={"SCHILY.xattr.user." + "x" * 300: "x"}),
        file(b".."),
    ],
    ids=["uid", "uid-minus-1", "gid", "major", "minor", "whiteout-of-overlayfs", "xattr-name", "root"],
)
def test_what_is_never_done_is_refused(engine: Engine, target: Path, entry: Member) -> None:
    with pytest.raises(UnsafeLayerError):
        verbs.apply(engine, tar(entry), target)


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_only_files_have_data(engine: Engine, target: Path, kind: bytes) -> None:
    info, _ = member(b"e", kind, linkname="f")
    first = tar(file(b"f"))[:512]
    block = tar((info, b""))[:512]
    lying = sealed(block[:124] + b"00000001000\0" + block[136:])
    verbs.apply(engine, first + lying + tar(file(b"g")), target)
    assert (target / "g").is_file()


def test_long_names_of_gnu_tar_are_read(engine: Engine, target: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for info in (directory(b"d" * 90)[0], file(b"d" * 90 + b"/" + b"f" * 200)[0], symlink(b"l", b"t" * 200)[0]):
            archive.addfile(info)
    verbs.apply(engine, buffer.getvalue(), target)
    assert (target / ("d" * 90) / ("f" * 200)).is_file()
    assert os.readlink(target / "l") == "t" * 200


def test_global_headers_make_no_file(engine: Engine, target: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "a commit"}) as archive:
        archive.addfile(file(b"f")[0])
    summary = verbs.apply(engine, buffer.getvalue(), target)
    assert [path.name for path in target.iterdir()] == ["f"]
    assert summary.entries == 1


def test_an_empty_blob_is_an_empty_layer(engine: Engine, target: Path) -> None:
    summary = verbs.apply(engine, b"", target)
    assert (summary.entries, summary.size, summary.uncompressed_size) == (0, 0, 0)


def test_what_follows_the_end_of_the_archive_is_hashed(engine: Engine, target: Path) -> None:
    layer = SAMPLE + b"trailing" * 10_000
    summary = verbs.apply(engine, layer, target)
    assert summary.diff_id == summary.digest == "sha256:" + hashlib.sha256(layer).hexdigest()


class TestCompressed:
    def test_gzip_may_have_many_members(self, engine: Engine, target: Path) -> None:
        middle = len(SAMPLE) // 2
        blob = gzip.compress(SAMPLE[:middle]) + gzip.compress(b"") * 1000 + gzip.compress(SAMPLE[middle:])
        summary = verbs.apply(engine, blob, target)
        assert (summary.size, summary.uncompressed_size) == (len(blob), len(SAMPLE))

    @pytest.mark.parametrize("cut", [1, 4, 9, 30])
    def test_truncated_gzip_is_malformed(self, engine: Engine, target: Path, cut: int) -> None:
        with pytest.raises(LayerError):
            verbs.apply(engine, gzip.compress(SAMPLE)[:-cut], target)

    def test_gzip_with_a_wrong_checksum_is_malformed(self, engine: Engine, target: Path) -> None:
        blob = bytearray(gzip.compress(SAMPLE))
        blob[-8] ^= 1
        with pytest.raises(LayerError):
            verbs.apply(engine, bytes(blob), target)

    def test_garbage_after_the_last_gzip_member_is_malformed(self, engine: Engine, target: Path) -> None:
        with pytest.raises(LayerError):
            verbs.apply(engine, gzip.compress(SAMPLE) + b"garbage", target)

    def test_zstd_may_have_skippable_and_many_frames(self, engine: Engine, tmp_path: Path, target: Path) -> None:
        probes.require_compression(engine, Compression.ZSTD)
        source = tmp_path / "source"
        source.mkdir()
        (source / "f").write_bytes(b"x" * 300_000)
        _, blob = verbs.diff(engine, None, source, compression=Compression.ZSTD)
        _, empty = verbs.diff(engine, source, source, compression=Compression.ZSTD)
        skippable = b"\x50\x2a\x4d\x18" + (100).to_bytes(4, "little") + bytes(100)
        verbs.apply(engine, skippable + blob + skippable + empty, target)
        assert (target / "f").read_bytes() == b"x" * 300_000

    @pytest.mark.parametrize("cut", [1, 5, 20])
    def test_truncated_zstd_is_malformed(self, engine: Engine, tmp_path: Path, target: Path, cut: int) -> None:
        probes.require_compression(engine, Compression.ZSTD)
        source = tmp_path / "source"
        source.mkdir()
        (source / "f").write_bytes(os.urandom(1000))
        _, blob = verbs.diff(engine, None, source, compression=Compression.ZSTD)
        with pytest.raises(LayerError):
            verbs.apply(engine, blob[:-cut], target)


class TestLimits:
    def test_more_bytes_than_allowed_are_refused(self, engine: Engine, target: Path) -> None:
        verbs.apply(engine, SAMPLE, target, max_bytes=len(SAMPLE))
        with pytest.raises(LimitExceededError, match="max_bytes"):
            verbs.apply(engine, SAMPLE, target, max_bytes=len(SAMPLE) - 1)

    def test_a_bomb_behind_the_end_is_refused(self, engine: Engine, target: Path) -> None:
        with pytest.raises(LimitExceededError, match="max_bytes"):
            verbs.apply(engine, gzip.compress(SAMPLE + bytes(50_000_000)), target, max_bytes=1_000_000)

    def test_a_header_of_more_than_a_mebibyte_is_refused(self, engine: Engine, target: Path) -> None:
        entry = file(b"f", pax_headers={"comment": "x" * (1 << 20)})
        with pytest.raises(LimitExceededError, match="max_header_bytes"):
            verbs.apply(engine, tar(entry), target)

    def test_an_entry_too_deep_is_refused(self, engine: Engine, target: Path) -> None:
        verbs.apply(engine, tar(file(b"../" * 3000 + b"f")), target)
        with pytest.raises(LimitExceededError, match="max_depth"):
            verbs.apply(engine, tar(file(b"d/" * 16_384 + b"f")), target)

    def test_more_entries_than_allowed_are_refused(self, engine: Engine, target: Path) -> None:
        verbs.apply(engine, SAMPLE, target, max_entries=6)
        with pytest.raises(LimitExceededError, match="max_entries"):
            verbs.apply(engine, SAMPLE, target, max_entries=5)
