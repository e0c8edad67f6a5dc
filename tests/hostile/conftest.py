"""A target with something beside it that no layer may touch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


def facts(home: Path, target: Path) -> list[tuple[str, os.stat_result]]:
    """All that is beside the target, to the nanosecond; the target only as what it is."""
    found = [(name, os.lstat(home / name)) for name in ("outside", "outside/secret", "outside/etc")]
    return [*found, ("names", (sorted(os.listdir(home)), os.listdir(home / "outside"), os.lstat(target).st_ino))]  # type: ignore[list-item]


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    """A target as `cases.Case` describes it; fails when anything beside it changes."""
    root = tmp_path / "root"
    (root / "d" / "x").mkdir(parents=True)
    for name in ("a", "d/old", "d/x/old"):
        (root / name).write_text("lower")
    (root / "up").symlink_to("..")
    (root / "l").symlink_to("/d")
    (tmp_path / "outside" / "etc").mkdir(parents=True)
    (tmp_path / "outside" / "secret").write_text("secret")
    before = facts(tmp_path, root)
    yield root
    assert root.is_dir()
    assert not root.is_symlink()
    assert facts(tmp_path, root) == before, "something beside the target changed"
