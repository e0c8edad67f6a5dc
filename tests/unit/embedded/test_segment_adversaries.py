"""Adversaries of copied segments: chosen contents, clocks, file systems and damage never give a layer other bytes."""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import shutil
import subprocess
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import xxhash

from ocidiff.embedded.segments import StoreSegments
from ocidiff.layer.arguments import CompressionName
from ocidiff.layer.layer import Layer
from ocidiff.store.embedded import EmbeddedStore as Store
from support import probes

pytestmark = pytest.mark.skipif(not probes.has_rust(), reason="the pure engine compresses in one piece")

SIZES: dict[CompressionName, int] = {"gzip": 200 << 10, "zstd": 4 << 20}
"""Bytes of contents that are segments of their own."""
# The first words of XXH3's secret for the first lane of two stripes: data that equals them adds no product.
SECRETS = (bytes.fromhex("b8fe6c39"), bytes.fromhex("7c01812c"))


@pytest.fixture(params=SIZES)
def compression(request: pytest.FixtureRequest) -> CompressionName:
    """Each compression that has segments."""
    found: CompressionName = request.param
    return found


def committed(store: Store, tree: Path, name: str, compression: CompressionName) -> Layer:
    layer = store.commit(tree, name, engine="rust", compression=compression).layer
    assert layer is not None
    return layer


def is_cold(layer: Layer, tree: Path, place: Path, compression: CompressionName) -> bool:
    """True if a store that has nothing to copy makes the same layer of the tree."""
    with Store.open(place) as other:
        cold = committed(other, tree, "app:1", compression)
    return (cold.descriptor, cold.diff_id) == (layer.descriptor, layer.diff_id)


def with_bits(bits: int, size: int) -> bytes:
    """Return a content with 64 chosen bits, and the XXH3 of all others: the bits go into sums in pairs that cancel out."""
    data = bytearray(random.Random(1).randbytes(size))
    for block in range(2):
        free = bits >> 32 * block & 0xFFFF_FFFF
        for stripe, word in enumerate((free, free ^ 0xFFFF_FFFF)):
            at = 1024 * block + 64 * stripe
            data[at : at + 8] = SECRETS[stripe] + word.to_bytes(4, "little")
    return bytes(data)


def colliding_bits(size: int) -> int:
    """Return bits that leave the CRC-32 as it is too: it is linear, so 33 of them depend on one another."""
    plain, rows = zlib.crc32(with_bits(0, size)), dict[int, tuple[int, int]]()
    for bit in range(64):
        value, bits = zlib.crc32(with_bits(1 << bit, size)) ^ plain, 1 << bit
        while value:
            top = value.bit_length()
            if top not in rows:
                rows[top] = (value, bits)
                break
            value, bits = value ^ rows[top][0], bits ^ rows[top][1]
        else:
            return bits
    raise AssertionError("33 vectors of 32 bits are dependent")


def test_contents_that_collide_by_intention_are_told_apart(
    store: Store, tmp_path: Path, compression: CompressionName
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    size = SIZES[compression]
    first, second = with_bits(0, size), with_bits(colliding_bits(size), size)
    assert first != second
    assert (zlib.crc32(first), xxhash.xxh3_64_intdigest(first)) == (zlib.crc32(second), xxhash.xxh3_64_intdigest(second))
    layers = []
    for number, content in enumerate((first, second, first)):
        (tree / "program").write_bytes(content)
        os.utime(tree / "program", (1, 1))
        layers.append(committed(store, tree, f"app:{number}", compression))
        assert is_cold(layers[-1], tree, tmp_path / f"cold{number}", compression)
    assert layers[0].diff_id != layers[1].diff_id
    # The header may be copied in any case.
    assert [layer.reused_bytes // size for layer in layers] == [0, 0, 1]


@pytest.mark.parametrize("cuts", [True, False])
def test_names_that_are_chosen_to_cut_everywhere_or_nowhere(
    store: Store, tmp_path: Path, cuts: bool, compression: CompressionName
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    names = (f"{number:06}" for number in range(100_000))
    chosen = [name for name in names if (xxhash.xxh3_64_intdigest(name.encode()) % 16 == 0) is cuts][:2000]
    for name in chosen:
        (tree / name).write_bytes(name.encode() * (SIZES[compression] >> 11))
    committed(store, tree, "app:1", compression)
    (tree / chosen[1000]).unlink()
    layer = committed(store, tree, "app:2", compression)
    assert layer.reused_bytes > 0
    assert is_cold(layer, tree, tmp_path / "cold", compression)


def _collect(store: Store, _blob: Path) -> None:
    store.untag("app:1")
    store.collect()


def _cut_off(_store: Store, blob: Path) -> None:
    blob.chmod(0o644)
    os.truncate(blob, blob.stat().st_size // 2)


def _overwrite(_store: Store, blob: Path) -> None:
    blob.chmod(0o644)
    with blob.open("r+b") as file:
        file.write(os.urandom(blob.stat().st_size))


@pytest.mark.parametrize(("act", "copies"), [(_collect, True), (_cut_off, True), (_overwrite, False)])
def test_a_blob_that_goes_or_changes_in_mid_copy(
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    act: Callable[[Store, Path], None],
    copies: bool,
    compression: CompressionName,
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range((8 << 20) // SIZES[compression] + 3):
        (tree / f"{number:02}").write_bytes(random.Random(number).randbytes(SIZES[compression]))
    first = committed(store, tree, "app:1", compression)
    blob = Path(store._layout.path, "blobs", "sha256", first.descriptor.digest.hex)
    find = StoreSegments._sources

    def found(segments: StoreSegments, stack: contextlib.ExitStack) -> tuple[tuple[int, int], ...]:
        sources = find(segments, stack)
        act(store, blob)
        return sources

    monkeypatch.setattr(StoreSegments, "_sources", found)
    (tree / "more").write_text("another layer")
    layer = committed(store, tree, "app:2", compression)
    monkeypatch.undo()
    assert (layer.reused_bytes > 0) is copies
    assert is_cold(layer, tree, tmp_path / "cold", compression)
    if act is _collect:
        assert not blob.exists()
        assert store.verify().faults == ()


def test_a_clock_that_is_set_back_changes_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: CompressionName
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    program = tree / "program"
    for number in range(3):
        program.write_bytes(random.Random(number).randbytes(SIZES[compression]))
        # The file is always as old, and each table is older than the one before.
        os.utime(program, (1000, 1000))
        layer = committed(store, tree, f"app:{number}", compression)
        os.utime(Path(store._layout.path, "segments", layer.descriptor.digest.hex), (-number, -number))
        assert is_cold(layer, tree, tmp_path / f"cold{number}", compression)
    # The latest layer is found first all the same.
    monkeypatch.setattr("ocidiff.segments.MOST_TABLES", 1)
    (tree / "more").write_text("another layer")
    assert committed(store, tree, "app:more", compression).reused_bytes // SIZES[compression] == 1


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image of a file system of 32 MiB."""
    if shutil.which("mkfs.ext4") is None or not os.path.exists("/dev/loop-control"):
        probes.missing("needs mkfs.ext4 and loop devices")
    made = tmp_path / "image"
    with made.open("wb") as file:
        file.truncate(32 << 20)
    subprocess.run(["mkfs.ext4", "-q", made], check=True)
    return made


@contextlib.contextmanager
def mounted(image: Path, options: str = "") -> Iterator[Path]:
    root = image.parent / "mounted"
    root.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", f"loop{options}", image, root], check=True)
    try:
        yield root
    finally:
        subprocess.run(["umount", root], check=True)


@pytest.mark.root
def test_a_restored_image_whose_files_have_their_old_inodes_and_times(
    store: Store, tmp_path: Path, image: Path, compression: CompressionName
) -> None:
    old = b"the content of a program " * 8000
    with mounted(image) as root:
        (root / "program").write_bytes(old)
        first, stamp = committed(store, root, "app:1", compression), (root / "program").stat()
    data = image.read_bytes()
    # Aligned, since the log of the file system may have a part of it too.
    at = next(place for place in range(0, len(data), 1024) if data.startswith(old[:1024], place))
    assert data[at : at + len(old)] == old
    image.write_bytes(data[:at] + old.replace(b"content", b"CONTENT") + data[at + len(old) :])
    with mounted(image) as root:
        again = (root / "program").stat()
        assert (again.st_ino, again.st_size, again.st_ctime_ns) == (stamp.st_ino, stamp.st_size, stamp.st_ctime_ns)
        second = committed(store, root, "app:2", compression)
        assert second.diff_id != first.diff_id
        assert is_cold(second, root, tmp_path / "cold", compression)


@pytest.mark.root
@pytest.mark.parametrize("options", ["", ",lazytime,noatime", ",nodelalloc,data=journal"])
def test_a_mapped_write_whatever_the_mount_says_of_times(
    store: Store, tmp_path: Path, image: Path, options: str, compression: CompressionName
) -> None:
    with mounted(image, options) as root:
        program = root / "program"
        program.write_bytes(random.Random(1).randbytes(SIZES[compression]))
        layers = []
        with program.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
            for turn in range(6):
                mapped[SIZES[compression] // 2] = turn
                if turn % 2:
                    os.sync()
                layers.append(committed(store, root, f"app:{turn}", compression))
                assert is_cold(layers[-1], root, tmp_path / f"cold{turn}", compression)
        assert len({layer.diff_id for layer in layers}) == 6
