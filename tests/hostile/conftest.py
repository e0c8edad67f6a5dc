"""A target with something beside it that no layer may touch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


def facts(home: Path, target: Path) -> dict[str, object]:
    """All that is beside the target, to the nanosecond but for access times; the target only as what it is."""
    found: dict[str, object] = {"target": os.lstat(target).st_ino}
    for name in ("outside", "outside/secret", "outside/etc"):
        info = os.lstat(home / name)
        owner = (info.st_mode, info.st_uid, info.st_gid)
        found[name] = (info.st_ino, info.st_nlink, owner, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
    return {**found, "names": (sorted(os.listdir(home)), sorted(os.listdir(home / "outside")))}


@pytest.fixture
def empty_target(tmp_path: Path) -> Iterator[Path]:
    """An empty target; fails when anything beside it changes."""
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "outside" / "etc").mkdir(parents=True)
    (tmp_path / "outside" / "secret").write_text("secret")
    before = facts(tmp_path, root)
    yield root
    assert root.is_dir()
    assert not root.is_symlink()
    assert facts(tmp_path, root) == before, "something beside the target changed"


@pytest.fixture
def target(empty_target: Path) -> Path:
    """A target as `cases.Case` describes it; fails when anything beside it changes."""
    (empty_target / "d" / "x").mkdir(parents=True)
    for name in ("a", "d/old", "d/x/old"):
        (empty_target / name).write_text("lower")
    (empty_target / "up").symlink_to("..")
    (empty_target / "l").symlink_to("/d")
    return empty_target
