"""The bound of memory is kept however many threads are asked for, and has no part in the bytes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import ocidiff
from ocidiff.layer.arguments import CompressionName

_MIB = 1 << 20


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More bytes than the bound allows at once, half of which do not compress."""
    root = tmp_path_factory.mktemp("memory")
    for number in range(12):
        (root / f"{number}").write_bytes(os.urandom(8 * _MIB) if number % 2 else b"text" * 2 * _MIB)
    return root


# In a process of its own, which tells its peak: what resource usage says counts the parent's memory from before the exec.
_MEASURED = """
import pathlib, sys, ocidiff
tree, output, compression, level, mib = sys.argv[1:]
bound = int(mib) << 20
number = None if level == "None" else int(level)
ocidiff.diff(None, tree, output, compression=compression, level=number, threads=64, memory_bytes=bound, engine="rust")
print(next(line.split()[1] for line in pathlib.Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line))
"""


@pytest.mark.usefixtures("rust")
@pytest.mark.parametrize(
    ("compression", "level", "bound_mib"),
    [("none", None, 48), ("gzip", 6, 48), ("gzip", 6, 64), ("zstd", 3, 64), ("zstd", 3, 128), ("zstd", 9, 128)],
)
def test_a_process_stays_within_its_bound(
    tree: Path, tmp_path: Path, compression: CompressionName, level: int | None, bound_mib: int
) -> None:
    command: list[str | Path] = [
        sys.executable,
        "-c",
        _MEASURED,
        tree,
        tmp_path / "bounded",
        str(compression),
        repr(level),
        str(bound_mib),
    ]
    peak_kib = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert peak_kib < bound_mib * 1024
    free = tmp_path / "free"
    ocidiff.diff(None, tree, free, compression=compression, level=level, threads=2, memory_bytes=1 << 30, engine="rust")
    assert (tmp_path / "bounded").read_bytes() == free.read_bytes()


@pytest.mark.usefixtures("rust")
def test_a_bound_that_cannot_be_kept_leaves_nothing(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(ocidiff.UsageError, match="takes 42 MiB or more, 16 MiB are allowed"):
        ocidiff.diff(None, tree, tmp_path / "layer", memory_bytes=16 * _MIB, engine="rust")
    assert list(tmp_path.iterdir()) == []
