"""Files with holes: the layer has the zeros, and nobody has read them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import ocidiff

_MIB = 1 << 20
# Where data begins and how long it is, and the size of the file.
_SHAPES = {
    "empty": ([], 64 * _MIB),
    "ends": ([(0, 5), (64 * _MIB - 5, 5)], 64 * _MIB),
    "middle": ([(32 * _MIB + 77, 2 * _MIB)], 64 * _MIB + 3),
    "front": ([(0, _MIB)], 64 * _MIB + 511),
    "small": ([(100, 5)], 4096),
}


@pytest.fixture(params=_SHAPES)
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    stretches, size = _SHAPES[request.param]
    root = tmp_path / "tree"
    root.mkdir()
    with (root / "file").open("wb") as file:
        for start, length in stretches:
            file.seek(start)
            file.write(os.urandom(length))
        file.truncate(size)
    return root


def _read_bytes() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("rchar:"))


@pytest.mark.usefixtures("rust")
def test_the_layer_is_that_of_the_pure_engine(tree: Path, tmp_path: Path) -> None:
    before = _read_bytes()
    own = ocidiff.diff(None, tree, tmp_path / "own", compression="none", on_change="fail", engine="rust")
    assert _read_bytes() - before < 4 * _MIB
    assert own.diff_id == ocidiff.diff(None, tree, tmp_path / "pure", compression="none", engine="pure").diff_id
