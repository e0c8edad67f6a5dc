"""The law: a layer in an upperdir shows through overlayfs as the tree that the same layer makes of the lower tree."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

import overlays
import probes
import trees
import verbs
from archives import MTIME, Member, directory, file, symlink, tar, whiteout
from ocidiff.layer.engine import Engine
from ocidiff.layer.options import Destination

NAMES = (b"a", b"b", b"d", b"d/x", b"d/y", b"d/x/p", b"d/x/q", b"e", b"e/r")


def _lower(path: Path) -> None:
    for parent in ("d/x", "e"):
        (path / parent).mkdir(parents=True)
    for name in ("a", "b", "d/y", "d/x/p", "d/x/q", "e/r"):
        (path / name).write_text("lower")
        os.utime(path / name, (MTIME, MTIME))
    for name in ("d/x", "d", "e"):
        (path / name).chmod(0o755)


def _layer(choose: random.Random) -> list[Member]:
    """Entries that may replace each other, in any order, below directories that the layer describes."""
    members = [directory(b"d"), directory(b"d/x"), directory(b"e")]
    for _ in range(choose.randrange(1, 9)):
        name = choose.choice(NAMES)
        kind = choose.randrange(6)
        if kind == 0:
            members.append(directory(name))
        elif kind == 1:
            members.append(symlink(name, b"target"))
        elif kind == 2 and b"/" in name:
            members.append(file(name.rpartition(b"/")[0] + b"/.wh..wh..opq"))
        elif kind <= 3:
            members.append(whiteout(name))
        else:
            members.append(file(name, b"new%d" % choose.randrange(9)))
    return members


@pytest.mark.root
@pytest.mark.parametrize(("destination", "options"), [("overlay", ()), ("overlay-userxattr", ("userxattr",))])
def test_the_upperdir_shows_what_a_plain_tree_is(
    engine: Engine, tmp_path: Path, destination: str, options: tuple[str, ...]
) -> None:
    if not overlays.can_mount(*options):
        probes.missing(f"needs overlay mounts with {options}")
    for seed in range(60):
        layer = tar(*_layer(random.Random(seed)))
        home = tmp_path / str(seed)
        for name in ("lower", "plain", "upper", "merged"):
            (home / name).mkdir(parents=True)
        _lower(home / "lower")
        _lower(home / "plain")
        verbs.apply(engine, layer, home / "plain")
        verbs.apply(engine, layer, home / "upper", destination=Destination(destination))
        with overlays.mounted(home / "merged", [home / "lower"], home / "upper", options=options):
            trees.assert_same_tree(home / "merged", home / "plain")
