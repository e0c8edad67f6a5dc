"""The streams of the pure engine: what is hashed how often, and what becomes of zstd where nothing brings it."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ocidiff.errors import UnsupportedError
from ocidiff.layer.engine import Engine
from ocidiff.layer.options import Compression
from ocidiff.layer.pure import stream
from support import verbs


def test_zstd_without_a_module_says_what_is_missing(pure: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("compression.zstd", "zstandard"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UnsupportedError, match=r"Python 3\.14 or the package zstandard"):
        verbs.diff(pure, None, tmp_path, compression=Compression.ZSTD)
    with pytest.raises(UnsupportedError, match=r"Python 3\.14 or the package zstandard"):
        verbs.apply(pure, b"\x28\xb5\x2f\xfd rest", tmp_path)


class _CountedHash:
    """A sha256 that adds up what is hashed by all of its kind."""

    hashed = 0

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def update(self, data: bytes) -> None:
        type(self).hashed += len(data)
        self._hash.update(data)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


@pytest.mark.parametrize("compression", [Compression.NONE, Compression.GZIP])
@pytest.mark.parametrize("size", [100_000, 3_000_000])
def test_no_byte_is_hashed_twice(
    pure: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: Compression, size: int
) -> None:
    class Counted(_CountedHash):
        hashed = 0

    monkeypatch.setattr(stream, "hashlib", SimpleNamespace(sha256=Counted))
    tree, target = tmp_path / "tree", tmp_path / "target"
    tree.mkdir()
    target.mkdir()
    (tree / "file").write_bytes(os.urandom(size))
    layer, blob = verbs.diff(pure, None, tree, compression=compression)
    wanted = layer.uncompressed_size if compression is Compression.NONE else layer.uncompressed_size + layer.size
    assert Counted.hashed == wanted
    applied = verbs.apply(pure, blob, target)
    assert Counted.hashed == 2 * wanted
    digest = "sha256:" + hashlib.sha256(blob).hexdigest()
    assert (layer.digest, applied.digest, applied.diff_id) == (digest, digest, layer.diff_id)
