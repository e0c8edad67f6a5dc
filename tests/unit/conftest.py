"""What the tests of images start from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ocidiff.layer.options import ENGINES, EngineName
from ocidiff.store import Store
from support import probes
from support.layouts import Handmade


@pytest.fixture(params=ENGINES)
def engine_name(request: pytest.FixtureRequest) -> EngineName:
    """The name of each of the two engines."""
    if request.param == "rust" and not probes.has_rust():
        probes.missing("ocidiff._core is not built")
    chosen: EngineName = request.param
    return chosen


@pytest.fixture(params=["overlay", "directory"])
def driver(request: pytest.FixtureRequest) -> str:
    """The name of each snapshot driver that works here."""
    if request.param == "overlay" and not probes.can_mount_overlay():
        probes.missing("needs overlay mounts")
    return str(request.param)


@pytest.fixture
def handmade(tmp_path: Path) -> Handmade:
    return Handmade(tmp_path / "handmade")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store") as opened:
        yield opened


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    """A small tree with times that have fractions."""
    tree = tmp_path / "rootfs"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc" / "passwd").write_text("root")
    (tree / "etc" / "link").symlink_to("passwd")
    (tree / "empty").touch()
    return tree
