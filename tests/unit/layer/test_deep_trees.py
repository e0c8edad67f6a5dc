"""Trees of any depth are read and written with a bounded number of open files, in both engines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ocidiff
from ocidiff import workspace
from support import probes

DESCRIPTORS = 256
# Names before and after the one that leads down, in each directory: what waits there waits with an open directory.
SHAPES = {"bare": ("", ""), "file before": ("a", ""), "file after": ("", "z"), "both": ("a", "z")}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory whose contents go at the end, which would be too deep for pytest."""
    yield tmp_path
    top = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        workspace.clear(top)
    finally:
        os.close(top)


def _make(top: Path, depth: int, shape: str, *, text: str = "x", sibling: bool = False) -> None:
    before, after = SHAPES[shape]
    top.mkdir()
    here = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(depth):
        for name in filter(None, (before, after)):
            file = os.open(name, os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=here)
            os.write(file, text.encode())
            os.close(file)
        if sibling:
            os.mkdir("y", dir_fd=here)
            os.close(os.open("y/f", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=here))
        os.mkdir("m", dir_fd=here)
        below = os.open("m", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def _run(place: Path, *words: str, descriptors: int = DESCRIPTORS) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "SOURCE_DATE_EPOCH": "1700000000"}
    command = f'ulimit -n {descriptors}; exec "$@"'
    done = subprocess.run(
        ["bash", "-c", command, "bash", sys.executable, "-m", "ocidiff", *words],
        cwd=place,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"...{done.stderr[-200:]}"
    return done.stdout


@pytest.mark.parametrize("shape", SHAPES)
def test_a_deep_tree_takes_a_bounded_number_of_descriptors(place: Path, engine_name: str, shape: str) -> None:
    _make(place / "lower", 800, shape)
    _make(place / "upper", 800, shape, text="changed")
    engine = ("--engine", engine_name)
    scratch = json.loads(_run(place, "diff", "scratch", "upper", "-o", "a.tar", "--json", *engine))
    names = sum(map(bool, SHAPES[shape]))
    assert scratch["changes"]["added"] == 800 * (1 + names)
    found = json.loads(_run(place, "diff", "lower", "upper", "-o", "b.tar", "--json", *engine))
    assert found["changes"] == {"added": 0, "modified": 800 * names, "deleted": 0}
    assert _run(place, "changes", "lower", "upper", "--json", *engine).count("\n") == 800 * names
    _run(place, "index", "./lower", "-o", "lower.index", *engine)
    again = json.loads(_run(place, "diff", "index:lower.index", "upper", "-o", "c.tar", "--json", *engine))
    assert again["changes"] == found["changes"]
    (place / "applied").mkdir()
    _run(place, "apply", "a.tar", "applied", *engine)
    rest = json.loads(_run(place, "diff", "applied", "upper", "-o", "d.tar", "--json", "--on-change", "fail", *engine))
    assert rest["changes"]["added"] == rest["changes"]["deleted"] == 0


def test_five_thousand_levels_with_what_waits_in_each(place: Path, engine_name: str) -> None:
    _make(place / "upper", 5000, "both", sibling=True)
    found = json.loads(_run(place, "diff", "scratch", "upper", "-o", "/dev/null", "--json", "--engine", engine_name))
    assert found["changes"]["added"] == 5000 * 5


def test_both_engines_give_the_same_bytes_whatever_the_limit(place: Path) -> None:
    if not probes.has_rust():
        probes.missing("ocidiff._core is not built")
    _make(place / "upper", 400, "both", sibling=True)
    layers = {
        json.loads(
            _run(
                place,
                *("diff", "scratch", "upper", "-o", "x.tar", "--json", "--engine", engine, "--threads", threads),
                descriptors=descriptors,
            )
        )["digest"]
        for engine in ("rust", "pure")
        for threads in ("1", "4")
        for descriptors in (128, 256, 4096)
    }
    assert len(layers) == 1


def test_an_overlay_with_a_deep_change_is_read_too(place: Path, engine_name: str) -> None:
    if not probes.can_mount_overlay():
        probes.missing("needs overlay mounts")
    (place / "lower").mkdir()
    (place / "lower" / "kept").touch()
    _make(place / "change", 1200, "both")
    words = ("diff", "--upperdir", "change", "--lowerdir", "lower", "-o", "x.tar", "--json", "--engine", engine_name)
    assert json.loads(_run(place, *words))["changes"] == {"added": 3600, "modified": 0, "deleted": 0}


def test_what_a_commit_takes_is_read_again(place: Path) -> None:
    _make(place / "tree", 2500, "bare")
    with ocidiff.Store.open(place / "store") as store:
        store.commit(place / "tree", "deep:1")
        assert store.verify().faults == ()
        with store.rootfs("deep:1") as root:
            assert sum(1 for _ in root.walk()) == 2500
        store.unpack("deep:1", place / "out")
