"""Law: a layer whose segments are copied from older layers has the bytes of one that is compressed as a whole."""

from __future__ import annotations

import os
import random
import tempfile
from pathlib import Path
from typing import Final

import strategies
from hypothesis import given, settings
from hypothesis import strategies as st

from ocidiff.layer.engine import Engine
from ocidiff.store import Store

# Each makes eight layers, so there are fewer than of other laws.
EXAMPLES: Final = max(10, int(os.environ.get("OCIDIFF_EXAMPLES", "100")) // 4)
NAMES = 40
COMMITS = 4
KIB = 1 << 10


def _contents(numbers: random.Random) -> bytes:
    """Return what a file holds: small or of several segments, and more or less compressible."""
    size = numbers.choice((0, 1, 500, 5 * KIB, 128 * KIB - 1, 128 * KIB, 128 * KIB + 1, 700 * KIB))
    word = numbers.randbytes(numbers.choice((3, 40, 5000)))
    return (word * (size // len(word) + 1))[:size]


def _edit(tree: Path, numbers: random.Random) -> None:
    for _ in range(numbers.randint(1, 6)):
        path = tree / f"{numbers.randrange(NAMES):02}"
        if path.exists() and numbers.random() < 0.3:
            path.unlink()
        elif path.exists() and numbers.random() < 0.5:
            data = bytearray(path.read_bytes())
            at = numbers.randint(0, len(data))
            data[at : at + numbers.randint(0, 3)] = numbers.randbytes(numbers.randint(0, 3))
            path.write_bytes(data)
        else:
            path.write_bytes(_contents(numbers))


@settings(max_examples=EXAMPLES)
@given(seed=st.integers(0, 1 << 32), level=st.integers(1, 9), threads=st.sampled_from((1, 2, 5)))
def test_copied_segments_are_the_bytes_that_compression_gives(rust: Engine, seed: int, level: int, threads: int) -> None:
    numbers = random.Random(seed)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        tree = root / "tree"
        tree.mkdir()
        for number in range(NAMES):
            (tree / f"{number:02}").write_bytes(_contents(numbers))
        with Store.open(root / "warm") as warm, Store.open(root / "cold") as cold:
            for turn in range(COMMITS):
                found = warm.commit(tree, f"app:{turn}", level=level, threads=threads, verify=turn % 2 == 1).layer
                whole = cold.commit(tree, f"app:{turn}", level=level, reuse="never").layer
                assert found is not None
                assert whole is not None
                assert (found.descriptor, found.diff_id) == (whole.descriptor, whole.diff_id)
                strategies.RAN["segments: copied = compressed"] += 1
                strategies.RAN["segments: KiB copied"] += found.reused_bytes >> 10
                _edit(tree, numbers)
