"""Law: a layer whose segments are copied from older layers has the bytes of one that is compressed as a whole."""

from __future__ import annotations

import os
import random
import tempfile
from pathlib import Path
from typing import Final

import pytest
import strategies
from hypothesis import given, settings
from hypothesis import strategies as st

from ocidiff.layer.arguments import CompressionName
from ocidiff.layer.engine import Engine
from ocidiff.store import Store

# Each makes eight layers, so there are fewer than of other laws.
EXAMPLES: Final = max(10, int(os.environ.get("OCIDIFF_EXAMPLES", "100")) // 4)
COMMITS = 4
KIB = 1 << 10
MIB = 1 << 20


class History:
    """Trees of which each is like the one before.

    Attributes:
        names: How many files there may be.
        sizes: Bytes of a file: small, as large as a segment of its own, or of several segments.
        levels: Levels of the compression.
    """

    def __init__(self, names: int, sizes: tuple[int, ...], levels: tuple[int, ...]) -> None:
        self.names, self.sizes, self.levels = names, sizes, levels


HISTORIES: Final[dict[CompressionName, History]] = {
    "gzip": History(40, (0, 1, 500, 5 * KIB, 128 * KIB - 1, 128 * KIB, 128 * KIB + 1, 700 * KIB), tuple(range(1, 10))),
    # The form of frames changes with level 9.
    "zstd": History(12, (0, 1, 500, 700 * KIB, 4 * MIB - 1, 4 * MIB, 4 * MIB + 1, 8 * MIB, 9 * MIB), (1, 3, 8, 9)),
}


def _contents(numbers: random.Random, sizes: tuple[int, ...]) -> bytes:
    """Return what a file holds, more or less compressible."""
    size = numbers.choice(sizes)
    word = numbers.randbytes(numbers.choice((3, 40, 5000)))
    return (word * (size // len(word) + 1))[:size]


def _edit(tree: Path, numbers: random.Random, history: History) -> None:
    for _ in range(numbers.randint(1, 6)):
        path = tree / f"{numbers.randrange(history.names):02}"
        if path.exists() and numbers.random() < 0.3:
            path.unlink()
        elif path.exists() and numbers.random() < 0.5:
            data = bytearray(path.read_bytes())
            at = numbers.randint(0, len(data))
            data[at : at + numbers.randint(0, 3)] = numbers.randbytes(numbers.randint(0, 3))
            path.write_bytes(data)
        else:
            path.write_bytes(_contents(numbers, history.sizes))


@pytest.mark.parametrize("compression", HISTORIES)
@settings(max_examples=EXAMPLES)
@given(seed=st.integers(0, 1 << 32), threads=st.sampled_from((1, 2, 8)))
def test_copied_segments_are_the_bytes_that_compression_gives(
    rust: Engine, compression: CompressionName, seed: int, threads: int
) -> None:
    numbers, history = random.Random(seed), HISTORIES[compression]
    level = numbers.choice(history.levels)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        tree = root / "tree"
        tree.mkdir()
        for number in range(history.names):
            (tree / f"{number:02}").write_bytes(_contents(numbers, history.sizes))
        with Store.open(root / "warm") as warm, Store.open(root / "cold") as cold:
            for turn in range(COMMITS):
                found = warm.commit(
                    tree, f"app:{turn}", compression=compression, level=level, threads=threads, verify=turn % 2 == 1
                ).layer
                whole = cold.commit(tree, f"app:{turn}", compression=compression, level=level, reuse="never").layer
                assert found is not None
                assert whole is not None
                assert (found.descriptor, found.diff_id) == (whole.descriptor, whole.diff_id)
                strategies.RAN[f"segments of {compression}: copied = compressed"] += 1
                strategies.RAN[f"segments of {compression}: KiB copied"] += found.reused_bytes >> 10
                _edit(tree, numbers, history)
