"""Law: a diff within a scope is the diff of both trees with all removed that git would ignore."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import strategies
from hypothesis import given
from hypothesis import strategies as st

from ocidiff.layer.engine import Engine
from ocidiff.layer.options import Profile
from ocidiff.layer.scope import Scope
from support import probes, trees, verbs

# What patterns are made of: names of the trees, wildcards, and what has to be escaped.
PARTS = (
    *("a", "a", "b", "b", "c", "*", "*", "?", "**", "a*", "*b", "?*", "a?", "[ab]", "[!a]", "[^ab]", "[a-c]*", "[a-]"),
    *("\\a", "\\*", "a\\ b", "'\"\\\\", "{a,b}", "a+", "a.", "...", "=", "\udcff", "\u00e9", "\\#", "x" * 99),
)


@st.composite
def patterns(draw: st.DrawFn) -> str:
    names = draw(st.lists(st.sampled_from(PARTS), min_size=1, max_size=3))
    before, after = draw(st.sampled_from(["", "", "!"])), draw(st.sampled_from(["", "", "/"]))
    return before + draw(st.sampled_from(["", "", "/", "**/"])) + "/".join(names) + after


@given(
    pair=strategies.pairs(sockets=True),
    patterns=st.lists(patterns(), min_size=1, max_size=4),
    profile=st.sampled_from(Profile),
)
def test_excludes_cut_both_trees(
    rust: Engine, pure: Engine, *, pair: strategies.Pair, patterns: list[str], profile: Profile
) -> None:
    strategies.RAN["excludes: the diff of the trees without what git ignores"] += 1
    scope = Scope.of(patterns)
    with strategies.build(pair) as (lower, upper, _):
        one, tar = verbs.diff(rust, lower, upper, scope=scope, profile=profile)
        assert (one, tar) == verbs.diff(pure, lower, upper, scope=scope, profile=profile)
        with verbs.saved_index(verbs.index(rust, lower)) as index:
            for engine in (rust, pure):
                assert (one, tar) == verbs.diff(engine, index, upper, scope=scope, profile=profile)
        told = verbs.explained(rust, lower, upper, scope=scope, profile=profile)
        seen = [(change.kind, change.path, change.reason) for change in told]
        assert seen == [
            (change.kind, change.path, change.reason)
            for change in verbs.explained(pure, lower, upper, scope=scope, profile=profile)
        ]
        for tree in (lower, upper):
            remove(tree, ignored(tree, patterns))
        same, same_tar = verbs.diff(pure, lower, upper, profile=profile)
        assert trees.read_layer(tar) == trees.read_layer(same_tar)
        assert tar == same_tar
        assert replace(one, skipped={}) == replace(same, skipped={})
        assert seen == [
            (change.kind, change.path, change.reason) for change in verbs.explained(pure, lower, upper, profile=profile)
        ]


def ignored(tree: bytes, patterns: list[str]) -> list[bytes]:
    """The paths in a tree that git would not look at."""
    names = [name for name in trees.scan_tree(tree) if name != b"."]
    if not names:
        return []
    with tempfile.TemporaryDirectory() as directory:
        git = ["git", "-c", "core.excludesFile=", "-c", "core.ignoreCase=false", f"--git-dir={directory}/git"]
        try:
            subprocess.run([*git, "init", "-q", "--bare"], check=True, capture_output=True)
        except FileNotFoundError:
            probes.missing("needs git")
        exclude = Path(directory, "git/info/exclude")
        exclude.parent.mkdir(exist_ok=True)
        exclude.write_bytes(b"".join(os.fsencode(pattern) + b"\n" for pattern in patterns))
        words = [*git, "-c", "core.bare=false", "--work-tree=.", "check-ignore", "--no-index", "-z", "--stdin"]
        found = subprocess.run(words, cwd=tree, input=b"\0".join(names) + b"\0", capture_output=True, check=False)
        assert found.returncode in (0, 1), found.stderr
    return [name for name in found.stdout.split(b"\0") if name]


def remove(tree: bytes, names: list[bytes]) -> None:
    for name in sorted(names):
        path = os.path.join(tree, name)
        if not os.path.lexists(path):
            continue
        with kept_times(os.path.dirname(path)):
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)


@contextlib.contextmanager
def kept_times(directory: bytes) -> Iterator[None]:
    times = os.stat(directory)
    yield
    os.utime(directory, ns=(times.st_atime_ns, times.st_mtime_ns))
