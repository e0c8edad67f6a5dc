"""What the pure engine does where nothing brings zstd."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import verbs
from ocidiff.errors import UnsupportedError
from ocidiff.layer.engine import Engine
from ocidiff.layer.options import Compression


def test_zstd_without_a_module_says_what_is_missing(pure: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("compression.zstd", "zstandard"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UnsupportedError, match=r"Python 3\.14 or the package zstandard"):
        verbs.diff(pure, None, tmp_path, compression=Compression.ZSTD)
    with pytest.raises(UnsupportedError, match=r"Python 3\.14 or the package zstandard"):
        verbs.apply(pure, b"\x28\xb5\x2f\xfd rest", tmp_path)
