"""Diffs of a tree that a program changes all the time: every file of a layer is one that existed, and nothing fails."""

from __future__ import annotations

import io
import os
import random
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from faults import writer
from ocidiff.layer.engine import Engine
from ocidiff.layer.options import OnChange
from ocidiff.mounts.layers import OverlayLayers
from support import overlays, probes, trees, verbs

# Of each kind; `make soak-live` asks for more.
DIFFS = int(os.environ.get("OCIDIFF_LIVE_DIFFS", "6"))


@contextmanager
def _writing(root: Path, seed: str) -> Iterator[None]:
    words = [sys.executable, writer.__file__, str(root), seed]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        try:
            yield
            assert process.poll() is None
        finally:
            process.communicate()
    assert process.returncode == 0


def _torn(tar: bytes) -> list[str]:
    """The names of files whose content no file had."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        members = archive.getmembers()
        assert len({member.name for member in members}) == len(members)
        contents = {member.name: archive.extractfile(member) for member in members if member.isreg()}
        return [name for name, content in contents.items() if content and not writer.is_of_one_moment(content.read())]


def _check(engine: Engine, lower: Path, upper: Path | OverlayLayers, root: Path, place: Path) -> None:
    count = retried = vanished = entries = 0
    below = None if isinstance(upper, OverlayLayers) else lower
    with _writing(root, f"{type(engine).__name__} {type(upper).__name__}"):
        while count < DIFFS or not retried:
            summary, tar = verbs.diff(engine, below, upper)
            assert _torn(tar) == []
            retried, vanished, entries = retried + summary.retried, vanished + summary.vanished, entries + summary.entries
            target = place / f"target{count}"
            shutil.copytree(lower, target, symlinks=True)
            assert verbs.apply(engine, tar, target).entries == summary.entries
            shutil.rmtree(target)
            count += 1
    print(f"{count} diffs, {entries} entries: {retried} names read again, {vanished} gone")
    summary, tar = verbs.diff(engine, below, upper)
    assert (summary.retried, summary.vanished) == (0, 0)
    assert verbs.diff(engine, below, upper, on_change=OnChange.FAIL)[1] == tar
    shutil.copytree(lower, place / "target", symlinks=True)
    verbs.apply(engine, tar, place / "target")
    trees.assert_same_tree(place / "target", root)


@pytest.mark.timeout(3600)
def test_a_plain_tree(engine: Engine, tmp_path: Path) -> None:
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    lower.mkdir()
    writer.Writer(lower, random.Random(0)).make()
    shutil.copytree(lower, upper)
    _check(engine, lower, upper, upper, tmp_path)


@pytest.mark.root
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("read_layers", [True, False], ids=["layers", "walk"])
def test_an_overlay(engine: Engine, tmp_path: Path, read_layers: bool) -> None:
    if not overlays.can_mount():
        probes.missing("needs overlay mounts")
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    lower.mkdir()
    upper.mkdir()
    writer.Writer(lower, random.Random(0)).make()
    with overlays.mounted(tmp_path / "merged", [lower], upper) as root:
        layers = OverlayLayers(os.fsencode(upper), (os.fsencode(lower),))
        _check(engine, lower, layers if read_layers else root, root, tmp_path)
