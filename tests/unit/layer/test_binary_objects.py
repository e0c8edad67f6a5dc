"""File objects without a descriptor of their own are written and read as open files are."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest

import ocidiff
from ocidiff.layer.options import EngineName


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(bytes(range(256)) * 20_000)
    return tree


class Trickle(io.RawIOBase):
    """Takes and gives a few bytes at a time, as raw file objects may."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = io.BytesIO(data)

    def write(self, data: bytes) -> int:  # type: ignore[override]
        return self.data.write(bytes(data[:1000]))

    def read(self, size: int = -1) -> bytes:
        return self.data.read(min(size, 1000))


def test_a_layer_goes_to_and_comes_from_an_object(tree: Path, tmp_path: Path, engine_name: EngineName) -> None:
    path = tmp_path / "layer.tar.gz"
    layer = ocidiff.diff(None, tree, path, engine=engine_name)
    for sink in (io.BytesIO(), Trickle()):
        assert ocidiff.diff(None, tree, sink, engine=engine_name).digest == layer.digest
        data = sink.getvalue() if isinstance(sink, io.BytesIO) else sink.data.getvalue()
        assert data == path.read_bytes()
    for number, source in enumerate((io.BytesIO(path.read_bytes()), Trickle(path.read_bytes()))):
        target = tmp_path / f"target{number}"
        target.mkdir()
        assert ocidiff.apply(source, target, engine=engine_name).diff_id == layer.diff_id
        assert (target / "file").read_bytes() == (tree / "file").read_bytes()


def test_an_index_goes_to_an_object(tree: Path, tmp_path: Path, engine_name: EngineName) -> None:
    sink = io.BytesIO()
    assert ocidiff.index(tree, sink, engine=engine_name).digest == ocidiff.index(tree, tmp_path / "i").digest
    assert sink.getvalue() == (tmp_path / "i").read_bytes()


def test_nothing_is_written_to_an_object_by_a_call_that_fails(tree: Path) -> None:
    sink = io.BytesIO()
    with pytest.raises(ocidiff.ChangeTooLargeError):
        ocidiff.diff(None, tree, sink, fail_above=1000)
    assert sink.getvalue() == b""


def test_an_object_over_a_descriptor_with_other_bytes_is_used_itself(tree: Path, tmp_path: Path) -> None:
    with gzip.open(tmp_path / "wrapped.gz", "wb") as sink:
        layer = ocidiff.diff(None, tree, sink, compression="none")
    with gzip.open(tmp_path / "wrapped.gz", "rb") as source:
        target = tmp_path / "target"
        target.mkdir()
        assert ocidiff.apply(source, target).digest == layer.digest


def test_a_member_of_an_archive_is_applied(tree: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "outer.tar", "w") as outer:
        ocidiff.diff(None, tree, tmp_path / "layer.tar")
        outer.add(tmp_path / "layer.tar", "layer.tar")
    target = tmp_path / "target"
    target.mkdir()
    with tarfile.open(tmp_path / "outer.tar") as outer:
        member = outer.extractfile("layer.tar")
        assert member is not None
        ocidiff.apply(member, target)
    assert (target / "file").read_bytes() == (tree / "file").read_bytes()


def test_a_buffered_file_is_read_from_its_position_on(tree: Path, tmp_path: Path) -> None:
    layer = ocidiff.diff(None, tree, tmp_path / "layer.tar.gz")
    (tmp_path / "with header").write_bytes(b"header" + (tmp_path / "layer.tar.gz").read_bytes())
    target = tmp_path / "target"
    target.mkdir()
    with (tmp_path / "with header").open("rb") as source:
        assert source.read(6) == b"header"
        assert ocidiff.apply(source, target).digest == layer.digest


def test_what_is_no_binary_file_is_refused(tree: Path, tmp_path: Path) -> None:
    for wrong in (io.StringIO(), 7, None):
        with pytest.raises(ocidiff.UsageError, match="must be a path or a file object opened in binary mode"):
            ocidiff.diff(None, tree, wrong)  # type: ignore[arg-type]
        with pytest.raises(ocidiff.UsageError, match="must be a path or a file object opened in binary mode"):
            ocidiff.apply(wrong, tmp_path)  # type: ignore[arg-type]
