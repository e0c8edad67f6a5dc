"""Attributes of a layer that the kernel treats in a way of its own.

An empty capability it would take, and nothing could read the tree any more; those of root it refuses to a user.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from ocidiff.layer.apply_options import Destination
from ocidiff.layer.engine import Engine
from support import probes, verbs
from support.archives import directory, file, symlink, tar

EMPTY = {"SCHILY.xattr.security.capability": ""}


@pytest.mark.root
@pytest.mark.parametrize("destination", [Destination.DIRECTORY, Destination.OVERLAY])
def test_an_empty_capability_is_none(engine: Engine, tmp_path: Path, destination: Destination) -> None:
    members = [
        directory(b"d", pax_headers=EMPTY),
        file(b"d/f", b"1", pax_headers=EMPTY),
        symlink(b"s", b"d", pax_headers=EMPTY),
    ]
    target = tmp_path / "target"
    target.mkdir()
    verbs.apply(engine, tar(*members), target, destination=destination)
    assert [os.listxattr(target / name, follow_symlinks=False) for name in ("d", "d/f", "s")] == [[], [], []]
    assert verbs.diff(engine, None, target)[0].entries == 3


@pytest.mark.root
def test_an_empty_value_of_a_user_stays(engine: Engine, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    verbs.apply(engine, tar(file(b"f", pax_headers={"SCHILY.xattr.user.x": ""})), target)
    assert os.getxattr(target / "f", "user.x") == b""


@pytest.mark.root
@pytest.mark.parametrize("destination", Destination)
def test_an_attribute_of_root_is_left_out_by_a_user(engine: Engine, destination: Destination) -> None:
    layer = tar(file(b"f", pax_headers={"SCHILY.xattr.trusted.overlay.opaque": "y"}))
    # Where the user may go, unlike below the directories of pytest.
    with tempfile.TemporaryDirectory() as target:
        os.chown(target, 1000, 1000)
        with probes.as_user(1000):
            summary = verbs.apply(engine, layer, target, destination=destination)
        assert summary.skipped["xattrs"] == 1
