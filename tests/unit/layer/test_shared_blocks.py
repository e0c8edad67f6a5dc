"""Files whose times tell nothing, on file systems where copies share their blocks: only what is not shared is read."""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path

import pytest

import ocidiff
from ocidiff.layer.options import ENGINES, EngineName

_FICLONE = 0x40049409
_SIZE_BYTES = 8 << 20


def _clone(source: Path, target: Path) -> None:
    with source.open("rb") as original, target.open("wb") as copy:
        fcntl.ioctl(copy, _FICLONE, original.fileno())


def _settle(*trees: Path) -> None:
    """Gives all files whole seconds, so that contents decide."""
    for tree in trees:
        for path in [*tree.iterdir(), tree]:
            os.utime(path, (1_700_000_000, 1_700_000_000))


def _read_bytes() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("rchar:"))


@pytest.fixture
def pair(disk: Path) -> tuple[Path, Path]:
    lower, upper = disk / "lower", disk / "upper"
    lower.mkdir()
    upper.mkdir()
    content = os.urandom(_SIZE_BYTES)
    for name in ("same", "written", "sparse"):
        (lower / name).write_bytes(content)
    with (lower / "sparse").open("r+b") as file:
        file.seek(3 * _SIZE_BYTES)
        file.write(b"end")
    os.sync()
    for name in ("same", "written", "sparse"):
        _clone(lower / name, upper / name)
    return lower, upper


@pytest.mark.root
@pytest.mark.usefixtures("rust")
def test_clones_are_the_same_without_being_read(pair: tuple[Path, Path]) -> None:
    _settle(*pair)
    before = _read_bytes()
    assert list(ocidiff.changes(*pair, engine="rust", explain=False)) == []
    assert _read_bytes() - before < 1 << 20


@pytest.mark.root
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("settled", [True, False], ids=["on-disk", "in-memory"])
def test_one_changed_byte_of_a_clone_is_found(pair: tuple[Path, Path], engine: EngineName, settled: bool) -> None:
    lower, upper = pair
    with (upper / "written").open("r+b") as file:
        file.seek(_SIZE_BYTES // 2)
        byte = file.read(1)
        file.seek(_SIZE_BYTES // 2)
        file.write(bytes([byte[0] ^ 1]))
    if settled:
        os.sync()
    _settle(*pair)
    assert [change.path for change in ocidiff.changes(lower, upper, engine=engine)] == ["/written"]


@pytest.mark.root
@pytest.mark.parametrize("disk", ["btrfs"], indirect=True)
@pytest.mark.usefixtures("rust")
def test_a_snapshot_of_a_subvolume_is_the_same_without_being_read(disk: Path) -> None:
    subprocess.run(["btrfs", "subvolume", "create", disk / "lower"], capture_output=True, check=True)
    (disk / "lower" / "file").write_bytes(os.urandom(_SIZE_BYTES))
    os.utime(disk / "lower" / "file", (1_700_000_000, 1_700_000_000))
    subprocess.run(["btrfs", "subvolume", "snapshot", disk / "lower", disk / "upper"], capture_output=True, check=True)
    before = _read_bytes()
    assert list(ocidiff.changes(disk / "lower", disk / "upper", engine="rust", explain=False)) == []
    assert _read_bytes() - before < 1 << 20
