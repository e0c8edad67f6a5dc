"""What a plain user owns and its modes close is read, and has its modes again whatever happens."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocidiff.errors import UnrepresentableError
from ocidiff.layer.engine import Engine
from ocidiff.layer.monitor import Monitor, Progress
from ocidiff.layer.options import LayerOptions, OnChange, Profile
from ocidiff.mounts.layers import OverlayLayers
from support import probes, trees, verbs

pytestmark = pytest.mark.root

USER = 1000
CLOSED = (0, 0o100, 0o200, 0o300, 0o400, 0o600)


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o777)
        yield Path(directory)


@pytest.fixture
def tree(place: Path) -> Path:
    """Files and directories of a user, each with a mode that closes it, nested, with a hard link and attributes."""
    root = place / "tree"
    root.mkdir()
    made = [root]
    for mode in CLOSED:
        for above in (root, root / "d0"):
            directory, file = above / f"d{mode:o}", above / f"f{mode:o}"
            directory.mkdir(exist_ok=True)
            (directory / "inside").write_text(f"{mode}")
            file.write_text("x" * mode)
            os.setxattr(file, "user.a", b"1")
            os.setxattr(directory, "user.a", b"1")
            made += [directory, directory / "inside", file]
    os.link(root / "f0", root / "d100/linked")
    for path in made:
        os.chown(path, USER, USER)
    for path in reversed(made[1:]):
        name = path.name[1:]
        path.chmod(int(name, 8) if name.isdigit() else 0)
    return root


@pytest.mark.parametrize("profile", Profile)
@pytest.mark.parametrize("on_change", OnChange)
def test_it_is_read_as_root_reads_it(engine: Engine, tree: Path, profile: Profile, on_change: OnChange) -> None:
    before = trees.scan_tree(tree)
    expected = verbs.diff(engine, None, tree, profile=profile)
    listed = verbs.changes(engine, None, tree, profile)
    index = verbs.index(engine, tree)
    with probes.as_user(USER):
        found = verbs.diff(engine, None, tree, profile=profile, on_change=on_change)
        assert (found[0].retried, found[1]) == (0, expected[1])
        assert verbs.changes(engine, None, tree, profile) == listed
        assert verbs.changes(engine, tree, tree, profile) == []
        assert verbs.index(engine, tree) == index
        with verbs.saved_index(index) as known:
            assert verbs.changes(engine, known, tree, profile) == []
            assert verbs.diff(engine, known, tree, profile=profile)[0].entries == 0
    assert trees.scan_tree(tree) == before


def test_an_overlay_of_such_directories_is_read(engine: Engine, tree: Path, place: Path) -> None:
    (place / "lower").mkdir()
    os.chown(place / "lower", USER, USER)
    os.setxattr(tree, "user.overlay.impure", b"y")
    layers = OverlayLayers(os.fsencode(tree), (os.fsencode(place / "lower"),), userxattr=True)
    expected, before = verbs.diff(engine, None, tree)[1], trees.scan_tree(tree)
    with probes.as_user(USER):
        assert verbs.diff(engine, None, layers)[1] == expected
    assert trees.scan_tree(tree) == before


def test_an_error_gives_the_modes_back(engine: Engine, tree: Path) -> None:
    (tree / "d0/d200/.wh.x").touch()
    before = trees.scan_tree(tree)
    with probes.as_user(USER), pytest.raises(UnrepresentableError, match=r"\.wh\."):
        verbs.diff(engine, None, tree)
    assert trees.scan_tree(tree) == before


def test_an_interrupt_gives_the_modes_back(engine: Engine, tree: Path) -> None:
    (tree / "d0/zeros").touch()
    os.truncate(tree / "d0/zeros", 1 << 30)
    os.chown(tree / "d0/zeros", USER, USER)
    (tree / "d0/zeros").chmod(0)
    before = {path: os.lstat(path).st_mode for path in [tree, *tree.rglob("*")]}

    def progress(now: Progress) -> None:
        if now.bytes_plain > 1 << 20:
            raise KeyboardInterrupt

    with probes.as_user(USER), open(os.devnull, "wb") as sink, pytest.raises(KeyboardInterrupt):
        engine.write_layer(None, os.fsencode(tree), sink.fileno(), LayerOptions(), Monitor(progress))
    assert {path: os.lstat(path).st_mode for path in before} == before


def test_what_belongs_to_somebody_else_stays_closed(engine: Engine, tree: Path) -> None:
    os.chown(tree / "f0", 0, 0)
    before = trees.scan_tree(tree)
    with probes.as_user(USER), pytest.raises(PermissionError, match=r"f0|linked"):
        verbs.diff(engine, None, tree)
    assert trees.scan_tree(tree) == before
