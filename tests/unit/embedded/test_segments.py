"""Segments of older layers are copied, never change a byte, and go with their blobs."""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import xxhash

from ocidiff.image.image import Image
from ocidiff.layer.arguments import CompressionName
from ocidiff.store.embedded import EmbeddedStore as Store
from support import irregular, probes

pytestmark = pytest.mark.skipif(not probes.has_rust(), reason="the pure engine compresses in one piece")

PROGRAM_BYTES = 5 << 20
"""More than a segment of each compression has."""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree of a large file and of many small ones, none of which compresses to nothing."""
    root = tmp_path / "tree"
    (root / "small").mkdir(parents=True)
    numbers = random.Random(1)
    for number in range(400):
        (root / "small" / f"{number:04}").write_bytes(numbers.randbytes(1500).hex().encode())
    (root / "large").write_bytes(numbers.randbytes(PROGRAM_BYTES // 2).hex().encode())
    return root


@pytest.fixture(params=["gzip", "zstd"])
def compression(request: pytest.FixtureRequest) -> CompressionName:
    """Each compression that has segments."""
    found: CompressionName = request.param
    return found


def _path(store: Store) -> Path:
    return Path(store._layout.path)


def _reused(image: Image) -> int:
    assert image.layer is not None
    return image.layer.reused_bytes


def _tables(store: Store) -> set[str]:
    return set(os.listdir(_path(store) / "segments")) - {"newest"}


def test_a_second_commit_copies_and_has_the_same_bytes(
    store: Store, tree: Path, tmp_path: Path, compression: CompressionName
) -> None:
    first = store.commit(tree, "app:1", engine="rust", compression=compression)
    again = store.commit(tree, "app:2", engine="rust", compression=compression)
    assert first.layer is not None
    assert again.layer is not None
    assert _reused(first) == 0
    assert again.layer.descriptor == first.layer.descriptor
    assert _reused(again) > PROGRAM_BYTES
    with Store.open(tmp_path / "other") as other:
        cold = other.commit(tree, "app:1", engine="rust", compression=compression)
        assert cold.layer is not None
        assert cold.layer.descriptor == first.layer.descriptor


def test_a_change_early_in_the_tree_costs_what_is_near(
    store: Store, tree: Path, tmp_path: Path, compression: CompressionName
) -> None:
    store.commit(tree, "app:1", engine="rust", compression=compression)
    (tree / "a").write_text("early")
    (tree / "small" / "0200").unlink()
    changed = store.commit(tree, "app:2", engine="rust", compression=compression)
    assert changed.layer is not None
    assert changed.layer.uncompressed_size - _reused(changed) < 2 << 20
    with Store.open(tmp_path / "other") as other:
        cold = other.commit(tree, "app:2", engine="rust", compression=compression)
        assert cold.layer is not None
        assert cold.layer.descriptor == changed.layer.descriptor


def test_nothing_is_copied_if_that_is_not_wanted(store: Store, tree: Path, compression: CompressionName) -> None:
    store.commit(tree, "app:1", engine="rust", compression=compression)
    assert _reused(store.commit(tree, "app:2", engine="rust", compression=compression, reuse="never")) == 0


def test_plain_layers_have_no_tables(store: Store, tree: Path) -> None:
    store.commit(tree, "app:1", engine="rust", compression="none")
    assert not (_path(store) / "segments").exists()


def test_layers_of_the_pure_engine_have_no_tables(store: Store, tree: Path, compression: CompressionName) -> None:
    store.commit(tree, "app:1", engine="pure", compression=compression)
    assert not (_path(store) / "segments").exists()


def test_a_compression_copies_only_what_it_has_made(store: Store, tree: Path) -> None:
    made = [store.commit(tree, "app:1", engine="rust", compression="gzip")]
    made.append(store.commit(tree, "app:2", engine="rust", compression="zstd"))
    made.append(store.commit(tree, "app:3", engine="rust", compression="zstd", level=9))
    assert [_reused(image) for image in made] == [0, 0, 0]
    assert len(_tables(store)) == 3
    assert store.verify().faults == ()
    forms: tuple[tuple[CompressionName, int], ...] = (("gzip", 6), ("zstd", 3), ("zstd", 9))
    for image, (compression, level) in zip(made, forms, strict=True):
        again = store.commit(tree, "app:again", engine="rust", compression=compression, level=level)
        assert again.layer is not None
        assert image.layer is not None
        assert again.layer.descriptor == image.layer.descriptor
        assert _reused(again) > PROGRAM_BYTES


def test_a_table_of_the_other_kind_is_not_used(store: Store, tree: Path, compression: CompressionName) -> None:
    first = store.commit(tree, "app:1", engine="rust", compression=compression)
    assert first.layer is not None
    table = _path(store) / "segments" / first.layer.descriptor.digest[7:]
    kinds: dict[CompressionName, bytes] = {"gzip": b"ocidseg1", "zstd": b"ocidzst1"}
    body = table.read_bytes()[:-8]
    assert body.startswith(kinds.pop(compression))
    ((other, magic),) = kinds.items()
    body = magic + body[8:]
    table.chmod(0o644)
    table.write_bytes(body + xxhash.xxh3_64_intdigest(body).to_bytes(8, "little"))
    assert _reused(store.commit(tree, "app:2", engine="rust", compression=other)) == 0
    (tree / "more").write_text("another layer")
    assert _reused(store.commit(tree, "app:3", engine="rust", compression=compression)) == 0


def test_tables_go_with_their_blobs(store: Store, tree: Path, compression: CompressionName) -> None:
    first = store.commit(tree, "app:1", engine="rust", compression=compression)
    assert first.layer is not None
    assert _tables(store) == {first.layer.descriptor.digest[7:]}
    store.untag("app:1")
    store.collect()
    assert _tables(store) == set()


def test_verify_finds_tables_that_do_not_fit(store: Store, tree: Path, compression: CompressionName) -> None:
    first = store.commit(tree, "app:1", engine="rust", compression=compression)
    assert first.layer is not None
    assert store.verify().faults == ()
    table = _path(store) / "segments" / first.layer.descriptor.digest[7:]
    whole = table.read_bytes()
    for damaged in (b"", whole[:-1], whole[:100] + b"!" + whole[101:], b"something else that is long enough"):
        table.chmod(0o644)
        table.write_bytes(damaged)
        again = store.commit(tree, "app:2", engine="rust", compression=compression)
        assert again.layer is not None
        assert (again.layer.descriptor, _reused(again)) == (first.layer.descriptor, 0)
        assert table.read_bytes() == whole
        # So a power failure leaves a table, which is no fault.
        table.chmod(0o644)
        table.write_bytes(damaged)
        assert store.verify().faults == ()
    store.commit(tree, "app:2", engine="rust", compression=compression)
    body = bytearray(whole[:-8])
    body[8 + 32] ^= 1
    table.chmod(0o644)
    table.write_bytes(bytes(body) + xxhash.xxh3_64_intdigest(bytes(body)).to_bytes(8, "little"))
    (fault,) = store.verify(repair=True).faults
    assert (fault.kind, fault.repaired) == ("segments", True)
    assert not table.exists()
    assert store.verify().faults == ()


@pytest.mark.parametrize(
    ("at", "value"),
    [
        pytest.param(32, (1 << 64) - 1, id="an offset that no file has"),
        pytest.param(32, 1 << 63, id="an offset that is negative for the system"),
        pytest.param(32, 1 << 40, id="an offset behind the blob"),
        pytest.param(32, 1, id="a segment over another"),
        pytest.param(48, (1 << 32) - 1, id="a length of 4 GiB"),
        pytest.param(48, 0, id="no length"),
    ],
)
def test_a_table_may_say_anything_with_a_right_checksum(
    store: Store, tree: Path, compression: CompressionName, at: int, value: int
) -> None:
    first = store.commit(tree, "app:1", engine="rust", compression=compression)
    assert first.layer is not None
    table = _path(store) / "segments" / first.layer.descriptor.digest[7:]
    body = bytearray(table.read_bytes()[:-8])
    width = 8 if at == 32 else 4
    body[8 + at : 8 + at + width] = value.to_bytes(width, "little")
    table.chmod(0o644)
    table.write_bytes(bytes(body) + xxhash.xxh3_64_intdigest(bytes(body)).to_bytes(8, "little"))
    (fault,) = store.verify().faults
    assert (fault.kind, fault.where) == ("segments", first.layer.descriptor.digest)
    (tree / "more").write_text("another layer")
    again = store.commit(tree, "app:2", engine="rust", compression=compression)
    with Store.open(tree.parent / "other") as other:
        cold = other.commit(tree, "app:2", engine="rust", compression=compression)
    assert cold.layer is not None
    assert again.layer is not None
    assert again.layer.descriptor == cold.layer.descriptor


def _endless(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


@pytest.mark.parametrize("make", [irregular.fifo, irregular.directory, irregular.symlink, _endless])
def test_odd_things_among_the_tables_disturb_nobody(
    store: Store, tree: Path, make: Callable[[Path], None], compression: CompressionName
) -> None:
    first = store.commit(tree, "app:1", engine="rust", compression=compression)
    assert first.layer is not None
    make(_path(store) / "segments" / "odd")
    table = _path(store) / "segments" / first.layer.descriptor.digest[7:]
    assert _reused(store.commit(tree, "app:2", engine="rust", compression=compression)) > 0
    table.unlink()
    make(table)
    (tree / "more").write_text("another layer")
    assert _reused(store.commit(tree, "app:3", engine="rust", compression=compression)) == 0
    store.collect()
    assert store.verify(repair=True).faults == ()


def test_tables_without_a_blob_take_no_descriptors(store: Store, tree: Path) -> None:
    store.commit(tree, "app:1", engine="rust")
    with (_path(store) / "segments/newest").open("a") as newest:
        for number in range(200):
            (_path(store) / "segments" / f"{number:064x}").write_bytes(b"x")
            newest.write(f"{number:064x}\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        assert _reused(store.commit(tree, "app:2", engine="rust")) > 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_flipped_bit_in_an_older_blob_does_not_spread(
    store: Store, tree: Path, tmp_path: Path, compression: CompressionName
) -> None:
    first = store.commit(tree, "app:1", engine="rust", compression=compression)
    assert first.layer is not None
    blob = _path(store) / "blobs" / "sha256" / first.layer.descriptor.digest[7:]
    whole = bytearray(blob.read_bytes())
    whole[len(whole) // 2] ^= 1
    blob.chmod(0o644)
    blob.write_bytes(whole)
    (tree / "a").write_text("another layer")
    changed = store.commit(tree, "app:2", engine="rust", compression=compression)
    assert _reused(changed) > 0
    with Store.open(tmp_path / "other") as other:
        cold = other.commit(tree, "app:2", engine="rust", compression=compression)
        assert cold.layer is not None
        assert changed.layer is not None
        assert cold.layer.descriptor == changed.layer.descriptor


def test_a_file_that_changed_without_a_new_time_is_read_again(
    store: Store, tree: Path, tmp_path: Path, compression: CompressionName
) -> None:
    program = tree / "large"
    with program.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        os.fsync(file.fileno())
        for turn in range(20):
            # The first write to a page sets the times, a later one does not until the page was written back.
            mapped[PROGRAM_BYTES // 2] = turn
            before = program.stat()
            first = store.commit(tree, "app:1", engine="rust", compression=compression)
            mapped[PROGRAM_BYTES // 2] = turn + 100
            if program.stat().st_ctime_ns == before.st_ctime_ns:
                break
        else:
            pytest.skip("this file system sets times at every write")
        second = store.commit(tree, "app:2", engine="rust", compression=compression)
    with Store.open(tmp_path / "other") as other:
        cold = other.commit(tree, "app:2", engine="rust", compression=compression)
    assert first.layer is not None
    assert second.layer is not None
    assert cold.layer is not None
    assert second.layer.diff_id != first.layer.diff_id
    assert (second.layer.descriptor, second.layer.diff_id) == (cold.layer.descriptor, cold.layer.diff_id)
    assert _reused(second) > 0


def test_a_store_that_can_have_no_tables_commits_all_the_same(
    store: Store, tree: Path, compression: CompressionName
) -> None:
    (_path(store) / "segments").write_text("in the way")
    assert _reused(store.commit(tree, "app:1", engine="rust", compression=compression)) == 0
    assert _reused(store.commit(tree, "app:2", engine="rust", compression=compression)) == 0
    assert store.verify(engine="rust").faults == ()
    assert os.listdir(_path(store) / "ingest") == []


def test_tables_are_found_without_looking_at_all_of_them(store: Store, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.commit(tree, "app:1", engine="rust")
    for number in range(1000):
        (_path(store) / "segments" / f"{number:064x}").write_bytes(b"x")
    opened, listed, open_ = list[str](), list[object](), os.open

    def noted(path: str, *rest: int, **more: int) -> int:
        opened.append(path)
        return open_(path, *rest, **more)

    monkeypatch.setattr(os, "open", noted)
    monkeypatch.setattr(os, "listdir", listed.append)
    with contextlib.ExitStack() as stack:
        assert len(store._layout.segments._sources(stack)) == 1
    assert len(opened) < 12
    assert listed == []


@pytest.mark.parametrize("damage", [b"", b"\0" * 1000, b"../" * 500, b"x" * 64 + b"\n", b"no line" * 100_000])
def test_a_damaged_list_of_tables_costs_only_time(store: Store, tree: Path, damage: bytes) -> None:
    first = store.commit(tree, "app:1", engine="rust")
    newest = _path(store) / "segments/newest"
    newest.write_bytes(damage)
    for name in ("app:2", "app:3"):
        again = store.commit(tree, name, engine="rust")
        assert first.layer is not None
        assert again.layer is not None
        assert again.layer.descriptor == first.layer.descriptor
    # The list goes on behind what is no line.
    assert _reused(again) > 0


def test_the_list_of_tables_stays_short(store: Store, tree: Path) -> None:
    for number in range(3):
        (tree / "more").write_text(str(number))
        store.commit(tree, f"app:{number}", engine="rust")
    newest = _path(store) / "segments/newest"
    lines = newest.read_text().splitlines()
    assert len(lines) == 3
    newest.write_text("\n".join(lines * 400) + "\n")
    store.commit(tree, "app:again", engine="rust")
    assert newest.read_text().splitlines() == lines
