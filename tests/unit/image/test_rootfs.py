"""The files of an image are read without unpacking it, and are those that an unpacked image has."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterator
from importlib.resources.abc import Traversable
from pathlib import Path

import pytest

import ocidiff
from ocidiff.image.rootfs import ImagePath
from ocidiff.layer.engine import select_engine
from ocidiff.layer.options import Compression, EngineName
from ocidiff.layer.pure.path import Way
from support import archives, probes
from support.layouts import Handmade

RANDOM = os.urandom(300_000)
EPOCH = 1_700_000_000


def build(place: Path) -> None:
    """Two trees: `one`, and what became of it."""
    for tree in ("one", "two"):
        (place / tree / "etc/deep/er").mkdir(parents=True)
        (place / tree / "etc/hosts").write_text("localhost\n")
        (place / tree / "etc/deep/er/random").write_bytes(RANDOM)
        (place / tree / "etc/empty").touch()
        (place / tree / "etc/link").symlink_to("/etc/deep")
        (place / tree / "up").symlink_to("../../etc/hosts")
        (place / tree / "loop").symlink_to("loop")
        (place / tree / "dangling").symlink_to("nowhere")
        os.link(place / tree / "etc/hosts", place / tree / "etc/other")
        (place / tree / os.fsdecode(b"\xff\xfe")).write_text("odd")
        os.mkfifo(place / tree / "fifo")
    (place / "two/etc/hosts").unlink()
    (place / "two/new").write_text("neü\n")
    (place / "two/etc/deep/er/random").chmod(0o4711)
    # A second that ends between the two trees would make a change of every file.
    for path in place.rglob("*"):
        os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)


@pytest.fixture(params=Compression)
def root(request: pytest.FixtureRequest, tmp_path: Path, engine_name: EngineName) -> Iterator[ImagePath]:
    name, compression = engine_name, request.param
    probes.require_compression(select_engine(name), compression)
    build(tmp_path)
    with ocidiff.Store.open(tmp_path / "store") as store:
        store.commit(tmp_path / "one", "app:1", compression=compression, engine=name)
        store.commit(tmp_path / "two", "app:2", base="app:1", compression=compression, engine=name)
        store.unpack("app:2", tmp_path / "out", engine=name)
        with store.rootfs("app:2", engine=name) as root:
            yield root


def test_every_file_is_that_of_the_unpacked_image(root: ImagePath, tmp_path: Path) -> None:
    out = tmp_path / "out"
    expected = {"/" + str(path.relative_to(out)) for path in out.rglob("*")}
    assert {str(path) for path in root.walk()} == expected
    for path in root.walk():
        there = out / str(path)[1:]
        facts, wanted = path.stat(follow_symlinks=False), there.lstat()
        assert (facts.st_mode, facts.st_uid, facts.st_gid) == (wanted.st_mode, wanted.st_uid, wanted.st_gid)
        assert facts.st_mtime_ns // 10**9 == wanted.st_mtime_ns // 10**9
        assert facts.st_mtime == facts.st_mtime_ns / 10**9
        if path.is_symlink():
            assert path.readlink() == os.readlink(there)
        elif stat.S_ISREG(facts.st_mode):
            assert facts.st_size == wanted.st_size
            assert path.read_bytes() == there.read_bytes()


def test_a_root_is_a_traversable(root: ImagePath) -> None:
    assert isinstance(root, Traversable)
    assert (root.name, str(root), root.is_dir()) == ("", "/", True)
    assert [path.name for path in root.iterdir()] == sorted(
        ["etc", "up", "loop", "dangling", "fifo", "new", os.fsdecode(b"\xff\xfe")], key=os.fsencode
    )
    assert (root / "new").read_text("utf-8") == "neü\n"
    assert (root / "new").open("r", encoding="utf-8").read() == "neü\n"
    assert root.joinpath("etc", "deep/er").joinpath("random").read_bytes() == RANDOM
    assert root / "etc" / "deep" == root.joinpath("etc/deep")
    assert (root / "etc/empty").read_bytes() == b""
    assert not (root / "etc/hosts").exists()
    assert (root / "etc/other").read_text() == "localhost\n"


def test_a_listed_file_is_not_looked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing takes no more steps in a deep tree than in a flat one with as many names."""
    deepest = tmp_path / "tree" / "/".join(["d"] * 100)
    deepest.mkdir(parents=True)
    (deepest / "file").write_text("deep")
    (deepest / "link").symlink_to("file")
    steps = 0
    take = Way.next

    def counted(way: Way) -> bytes | None:
        nonlocal steps
        steps += 1
        return take(way)

    with ocidiff.Store.open(tmp_path / "store") as store:
        store.commit(tmp_path / "tree", "app:1")
        with store.rootfs("app:1") as root:
            monkeypatch.setattr(Way, "next", counted)
            listed = list(root.walk())
            for path in listed:
                path.stat(follow_symlinks=False)
                assert path.is_symlink() == (path.name == "link")
                assert path.layer == (path.name == "file")
            below = root
            while below.is_dir():
                below = next(iter(below.iterdir()))
            assert below.name == "file"
            assert len(listed) == 102
            # Only that of the root, each time that it is asked for.
            assert steps <= 10
            assert listed[-1].read_text() == "deep"
            assert steps > 100


def test_links_lead_to_files_of_the_image(root: ImagePath) -> None:
    assert (root / "etc/link/er/random").read_bytes() == RANDOM
    assert (root / "etc/link/../other").read_text() == "localhost\n"
    assert (root / "../../etc/other").is_file()
    assert (root / "etc/link").is_dir()
    assert (root / "etc/link").is_symlink()
    assert stat.S_ISLNK((root / "etc/link").stat(follow_symlinks=False).st_mode)
    # `/etc/hosts` of the host is there.
    assert not (root / "up").exists()
    assert not (root / "dangling").exists()
    with pytest.raises(OSError, match="symbolic links") as caught:
        (root / "loop").is_file()
    assert caught.value.errno == errno.ELOOP


def test_a_file_can_seek(root: ImagePath) -> None:
    with (root / "etc/deep/er/random").open("rb") as file:
        assert file.seek(-1000, os.SEEK_END) == len(RANDOM) - 1000
        assert file.read() == RANDOM[-1000:]
        file.seek(12345)
        assert file.read(10) == RANDOM[12345:12355]
        assert file.tell() == 12355


def test_what_is_no_file_is_refused_as_a_file_system_does(root: ImagePath) -> None:
    with pytest.raises(IsADirectoryError):
        (root / "etc").read_bytes()
    with pytest.raises(FileNotFoundError):
        (root / "etc/none").read_bytes()
    with pytest.raises(NotADirectoryError):
        (root / "new/below").read_bytes()
    with pytest.raises(NotADirectoryError):
        list((root / "new").iterdir())
    with pytest.raises(OSError, match="Invalid argument"):
        (root / "fifo").read_bytes()
    with pytest.raises(OSError, match="Invalid argument"):
        (root / "new").readlink()
    with pytest.raises(io.UnsupportedOperation):
        (root / "new").open("w")


def test_the_layer_of_a_file_is_told(root: ImagePath) -> None:
    assert (root / "etc/other").layer == 1
    assert (root / "new").layer == 2
    assert (root / "etc").layer == 0


def test_sparse_files_have_their_holes(tmp_path: Path) -> None:
    layout = Handmade(tmp_path / "layout")
    records = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.name": "sparse", "GNU.sparse.numblocks": "2"}
    extent = {"GNU.sparse.map": "1000,4,5000,3", "GNU.sparse.size": "10000"}
    tar = archives.tar(archives.file(b"x", b"abcdefg", pax_headers={**records, **extent}), archives.file(b"next", b"next"))
    layer = layout.blob(tar, "application/vnd.oci.image.layer.v1.tar")
    layout.name("app:1", layout.manifest(layout.config([layer["digest"]]), [layer]))
    with ocidiff.Store.open(layout.path) as store, store.rootfs("app:1") as root:
        content = (root / "sparse").read_bytes()
        assert content == bytes(1000) + b"abcd" + bytes(3996) + b"efg" + bytes(4997)
        with (root / "sparse").open("rb") as file:
            file.seek(5001)
            assert file.read(4) == b"fg\0\0"
        assert (root / "next").read_bytes() == b"next"


def test_a_damaged_layer_is_refused_before_a_byte_is_trusted(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    with ocidiff.Store.open(tmp_path / "store") as store:
        image = store.commit(tmp_path / "tree", "app:1", additions=[f"{__file__}:/file"], compression="none")
        blob = tmp_path / "store/blobs/sha256" / image.manifest.layers[-1].digest.hex
        data = bytearray(blob.read_bytes())
        data[600] ^= 1
        blob.chmod(0o644)
        blob.write_bytes(data)
        with pytest.raises(ocidiff.DigestMismatchError), store.rootfs("app:1"):
            pass


def test_nothing_is_left_in_the_store(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_bytes(RANDOM)
    with ocidiff.Store.open(tmp_path / "store") as store:
        store.commit(tmp_path / "tree", "app:1")
        before = sorted(str(path) for path in (tmp_path / "store").rglob("*") if "ocidiff.db" not in path.name)
        with store.rootfs("app:1") as root:
            assert (root / "file").read_bytes() == RANDOM
            inside = sorted(os.listdir(tmp_path / "store/ingest"))
        assert inside == []
        assert before == sorted(str(path) for path in (tmp_path / "store").rglob("*") if "ocidiff.db" not in path.name)
