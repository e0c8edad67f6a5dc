"""What is left out is told, whatever reads the tree: attributes by namespace, and mount points."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from ocidiff.layer.differ import Changes
from ocidiff.layer.engine import Engine
from ocidiff.layer.options import LayerOptions, Profile
from support import probes, verbs
from support.archives import file, member, tar

pytestmark = pytest.mark.root


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A file with two names, a directory and a file, with attributes of each namespace."""
    root = tmp_path / "tree"
    (root / "d").mkdir(parents=True)
    for name in ("f", "d/g"):
        (root / name).write_text("x")
    try:
        os.setxattr(root / "f", "trusted.t", b"1")
        os.setxattr(root / "d", "trusted.t", b"1")
        os.setxattr(root / "f", "security.ima", b"\x03\x02\x04")
        os.setxattr(root / "d/g", "security.selinux", b"a")
    except OSError as error:
        probes.missing(f"needs attributes trusted.* and security.*: {error}")
    os.setxattr(root / "d/g", "user.a", b"1")
    os.setxattr(root / "d/g", "security.capability", probes.CAPABILITY_VALUE)
    os.link(root / "f", root / "again")
    return root


def in_changes(engine: Engine, lower: Path | None, upper: Path, profile: Profile) -> Mapping[str, int]:
    found = Changes(
        engine.changes(None if lower is None else os.fsencode(lower), os.fsencode(upper), LayerOptions(profile=profile))
    )
    list(found)
    return found.skipped


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        (Profile.OCI, {"xattrs.trusted": 2, "xattrs.security": 2}),
        (Profile.CONTAINERD, {"xattrs.trusted": 2, "xattrs.security": 2, "xattrs.user": 1}),
    ],
)
def test_diff_and_changes_count_by_namespace(engine: Engine, tree: Path, profile: Profile, expected: dict[str, int]) -> None:
    assert verbs.diff(engine, None, tree, profile=profile)[0].skipped == expected
    assert in_changes(engine, None, tree, profile) == expected
    assert verbs.diff(engine, tree, tree, profile=profile)[0].skipped == {}, "what is not written loses nothing"


def test_parents_that_are_written_count_too(engine: Engine, tree: Path, tmp_path: Path) -> None:
    subprocess.run(["cp", "-a", tree, tmp_path / "changed"], check=True)
    (tmp_path / "changed/d/new").touch()
    assert verbs.diff(engine, tree, tmp_path / "changed")[0].skipped == {"xattrs.trusted": 1}


def test_an_index_counts_them(engine: Engine, tree: Path) -> None:
    # Each name is an entry of its own.
    assert verbs.index_summary(engine, tree).skipped == {"xattrs.trusted": 3, "xattrs.security": 3}
    layer = tar(
        file(b"f", pax_headers={"SCHILY.xattr.trusted.t": "1", "SCHILY.xattr.user.a": "1"}),
        member(b"p", b"6", pax_headers={"SCHILY.xattr.user.a": "1"}),
        file(b"n", pax_headers={"SCHILY.xattr.user.containers.override_stat": "0:0:04755"}),
    )
    assert verbs.summary_of_layers(engine, [layer]).skipped == {"xattrs.trusted": 1, "xattrs.user": 2}


def test_mounts_are_told_by_all(engine: Engine, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tree / "m").mkdir()
    with probes.bound(tmp_path / "other", tree / "m"):
        assert verbs.diff(engine, None, tree)[0].skipped["mounts"] == 1
        assert in_changes(engine, None, tree, Profile.OCI)["mounts"] == 1
        assert verbs.index_summary(engine, tree).skipped["mounts"] == 1


@pytest.fixture(params=["rust", "pure"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("words", [["diff", "scratch", "TREE", "-o", os.devnull], ["changes", "scratch", "TREE"]])
def test_the_command_warns_once(tree: Path, name: str, words: list[str]) -> None:
    words = [str(tree) if word == "TREE" else word for word in words]
    run = subprocess.run(
        [sys.executable, "-m", "ocidiff", *words, "--engine", name], capture_output=True, text=True, check=True
    )
    assert run.stderr.splitlines() == [
        f"ocidiff: warning: {words[0]}: 4 extended attributes left out: 2 security.*, 2 trusted.*"
    ]
