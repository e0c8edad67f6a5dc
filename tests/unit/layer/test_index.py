"""Indexes that are broken, foreign or made to harm; and what there is to say of good ones."""

from __future__ import annotations

import os
import random
import shutil
import struct
import time
from pathlib import Path

import pytest
import xxhash

import ocidiff
from ocidiff.errors import IndexFileError, UsageError
from ocidiff.layer.engine import Engine
from ocidiff.layer.layer import IndexPath
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.options import EngineName, LayerOptions, Profile
from support import verbs

HEADER = struct.Struct("<8sHHI32s")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "etc" / "deep").mkdir(parents=True)
    (tree / "empty").mkdir()
    (tree / "etc" / "hosts").write_text("127.0.0.1 localhost\n")
    (tree / "etc" / "deep" / "file").write_text("x" * 70_000)
    (tree / "etc" / "none").touch()
    (tree / "link").symlink_to("etc/hosts")
    for path in [*tree.rglob("*")]:
        os.utime(path, (1_600_000_000, 1_600_000_000), follow_symlinks=False)
    return tree


def listed(engine: Engine, data: bytes, tree: Path, place: Path) -> list[tuple[str, bytes]]:
    place.write_bytes(data)
    return verbs.changes(engine, IndexPath(os.fsencode(place)), tree, Profile.OCI)


def sealed(body: bytes) -> bytes:
    return body + xxhash.xxh3_128(body).digest()


def test_an_index_cut_anywhere_is_refused(engine: Engine, tree: Path, tmp_path: Path) -> None:
    data = verbs.index(engine, tree)
    assert listed(engine, data, tree, tmp_path / "index") == []
    for length in range(len(data)):
        with pytest.raises(IndexFileError, match=r"index .*: it is (no index|truncated)|checksum is wrong"):
            listed(engine, data[:length], tree, tmp_path / "index")


def test_an_index_with_a_bit_flipped_anywhere_is_refused(engine: Engine, tree: Path, tmp_path: Path) -> None:
    data = verbs.index(engine, tree)
    for place in range(len(data)):
        broken = bytearray(data)
        broken[place] ^= 1 << place % 8
        with pytest.raises(IndexFileError):
            listed(engine, bytes(broken), tree, tmp_path / "index")


def test_an_index_with_anything_under_a_right_checksum_reads_alike_or_is_refused(
    rust: Engine, pure: Engine, tree: Path, tmp_path: Path
) -> None:
    body = verbs.index(rust, tree)[:-16]
    chance = random.Random(1)
    verdicts = set()
    for _ in range(600):
        broken = bytearray(body)
        for _ in range(chance.randint(1, 3)):
            broken[chance.randrange(len(broken))] = chance.choice([0, 1, 2, 16, 127, 128, 255])
        found = []
        for engine in (rust, pure):
            try:
                found.append(str(listed(engine, sealed(bytes(broken)), tree, tmp_path / "index")))
            except IndexFileError as error:
                found.append(str(error).split(": ", 1)[1])
        assert found[0] == found[1]
        verdicts.add(found[0])
    assert len(verdicts) > 5


@pytest.mark.parametrize("loops", [False, True])
def test_a_directory_that_holds_itself_is_refused(engine: Engine, tree: Path, tmp_path: Path, loops: bool) -> None:
    def directory(offset: int, length: int) -> bytes:
        return b"\x03etc" + struct.pack("<HIIB", 0o40755, 0, 0, 0) + struct.pack("<QI", offset, length)

    head = HEADER.pack(b"OCIDIFFX", 1, 0, 0, bytes(32))
    length = 4 + len(directory(0, 0))
    place = HEADER.size if loops else HEADER.size + 10**9
    block = struct.pack("<I", 1) + directory(place, length)
    data = sealed(head + block + struct.pack("<QIQQ", HEADER.size, len(block), 1, 0))
    with pytest.raises(IndexFileError, match="a directory lies outside the file"):
        listed(engine, data, tree, tmp_path / "index")


def test_directories_that_share_a_block_make_no_endless_tree(engine: Engine, tmp_path: Path) -> None:
    def directory(name: bytes, offset: int, length: int) -> bytes:
        return b"\x01" + name + struct.pack("<HIIBQI", 0o40755, 0, 0, 0, offset, length)

    data, place = HEADER.pack(b"OCIDIFFX", 1, 0, 0, bytes(32)), (0, 0)
    for _ in range(100):
        block = struct.pack("<I", 2) + directory(b"a", *place) + directory(b"b", *place)
        place = (len(data), len(block))
        data += block
    index = tmp_path / "index"
    for entries, told in ((200, "it has more names than it says"), (1 << 60, "it has fewer names than it says")):
        index.write_bytes(sealed(data + struct.pack("<QIQQ", *place, entries, 0)))
        with pytest.raises(IndexFileError, match=told):
            verbs.changes(engine, None, IndexPath(os.fsencode(index)), Profile.OCI)


def test_another_version_is_told(engine: Engine, tree: Path, tmp_path: Path) -> None:
    body = bytearray(verbs.index(engine, tree)[:-16])
    body[8] = 2
    with pytest.raises(IndexFileError, match="it has version 2 of the format, and only 1 can be read"):
        listed(engine, sealed(bytes(body)), tree, tmp_path / "index")


@pytest.mark.parametrize("kind", ["directory", "fifo", "layer", "empty"])
def test_what_is_no_index_is_told(engine: Engine, tree: Path, tmp_path: Path, kind: str) -> None:
    place = tmp_path / "other"
    if kind == "directory":
        place.mkdir()
    elif kind == "fifo":
        os.mkfifo(place)
    else:
        place.write_bytes(b"\x1f\x8b" * 500 if kind == "layer" else b"")
    with pytest.raises(IndexFileError, match="it is no index"):
        verbs.changes(engine, IndexPath(os.fsencode(place)), tree, Profile.OCI)


def test_an_index_cannot_be_the_upper_tree_of_a_layer(engine: Engine, tree: Path, tmp_path: Path) -> None:
    place = tmp_path / "index"
    place.write_bytes(verbs.index(engine, tree))
    with open(tmp_path / "sink", "wb") as sink, pytest.raises(UsageError, match="no contents for a layer"):
        engine.write_layer(None, IndexPath(os.fsencode(place)), sink.fileno(), LayerOptions(), Monitor())


def test_contents_are_only_compared_where_times_say_nothing(engine: Engine, tree: Path, tmp_path: Path) -> None:
    place = tmp_path / "index"
    place.write_bytes(verbs.index(engine, tree))
    hosts = tree / "etc" / "hosts"
    hosts.write_text("127.0.0.1 LOCALHOST\n")
    os.utime(hosts, (1_600_000_000, 1_600_000_000))
    below = IndexPath(os.fsencode(place))
    # The same inode as in the index, and so the same to a comparison of trees: but the index knows what it was.
    assert verbs.changes(engine, below, tree, Profile.OCI) == [("modify", b"etc/hosts")]


@pytest.mark.parametrize("has_sha256", [False, True])
def test_a_sha256_decides_where_there_is_one(engine: Engine, tree: Path, tmp_path: Path, has_sha256: bool) -> None:
    data = bytearray(verbs.index(engine, tree, sha256=has_sha256)[:-16])
    hash_of_hosts = xxhash.xxh3_128(b"127.0.0.1 localhost\n").digest()
    data[data.index(hash_of_hosts)] ^= 1
    found = listed(engine, sealed(bytes(data)), tree, tmp_path / "index")
    assert found == ([] if has_sha256 else [("modify", b"etc/hosts")])


def test_a_stamp_tells_what_has_not_changed_since(rust: Engine, pure: Engine, tree: Path, tmp_path: Path) -> None:
    time.sleep(4.1)  # what has just changed gets none
    (tree / "new").touch()
    os.utime(tree / "new", (1_600_000_000, 1_600_000_000))
    data = verbs.index(rust, tree, stamps=True)
    assert data == verbs.index(pure, tree, stamps=True)
    # Four old files and links have one.
    assert len(data) == len(verbs.index(rust, tree)) + 4 * 28
    # An index that is wrong of a content says whether that was looked at.
    wrong = bytearray(data[:-16])
    wrong[data.index(xxhash.xxh3_128(b"127.0.0.1 localhost\n").digest())] ^= 1
    hosts = tree / "etc" / "hosts"
    for engine in (rust, pure):
        assert listed(engine, data, tree, tmp_path / "index") == []
        assert listed(engine, sealed(bytes(wrong)), tree, tmp_path / "index") == []
    shutil.copytree(tree, tmp_path / "copy", symlinks=True)
    os.utime(hosts, (1_600_000_000, 1_600_000_000))  # the same times, and a new change time
    (tree / "etc" / "deep" / "file").write_text("y" * 70_000)
    os.utime(tree / "etc" / "deep" / "file", (1_600_000_000, 1_600_000_000))
    for engine in (rust, pure):
        assert listed(engine, data, tree, tmp_path / "index") == [("modify", b"etc/deep/file")]
        changed = [("modify", b"etc/deep/file"), ("modify", b"etc/hosts")]
        assert listed(engine, sealed(bytes(wrong)), tree, tmp_path / "index") == changed
        assert listed(engine, sealed(bytes(wrong)), tmp_path / "copy", tmp_path / "index") == changed[1:]


@pytest.mark.parametrize("engine_name", ["rust", "pure"])
def test_an_index_appears_whole_or_not_at_all(engine_name: EngineName, tree: Path, tmp_path: Path) -> None:
    place = tmp_path / "index"
    place.write_text("what was there")

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ocidiff.index(tree, place, engine=engine_name, progress=interrupt)
    assert place.read_text() == "what was there"
    with pytest.raises(OSError, match="No space"):
        ocidiff.index(tree, "/dev/full", engine=engine_name)
    assert sorted(os.listdir(tmp_path)) == ["index", "tree"]


def test_the_public_verbs_take_an_index(tree: Path, tmp_path: Path) -> None:
    done = ocidiff.index(tree, tmp_path / "base.idx")
    assert (done.entries, done.file_bytes) == (7, 70_020)
    assert done.size == (tmp_path / "base.idx").stat().st_size
    (tree / "etc" / "hosts").unlink()
    lower = f"index:{tmp_path / 'base.idx'}"
    assert [(change.kind, change.path) for change in ocidiff.changes(lower, tree)] == [("delete", "/etc/hosts")]
    assert ocidiff.diff(lower, tree, tmp_path / "layer.tar.gz").deleted == 1
    with pytest.raises(FileNotFoundError):
        ocidiff.diff("index:" + str(tmp_path / "missing"), tree, tmp_path / "layer.tar.gz")
    with pytest.raises(FileNotFoundError):
        ocidiff.changes(Path(lower), tree)  # a path object is a directory
    with pytest.raises(FileNotFoundError):
        ocidiff.diff(lower, lower, tmp_path / "layer.tar.gz")  # an upper tree is one
