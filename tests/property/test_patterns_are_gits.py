"""Law: what patterns exclude, in both engines, is what git ignores."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import strategies
from hypothesis import example, given
from hypothesis import strategies as st
from test_excludes_cut_both_trees import ignored

from ocidiff.errors import UsageError
from ocidiff.layer.engine import Engine
from ocidiff.layer.options import Profile
from ocidiff.layer.patterns import parse_pattern
from ocidiff.layer.scope import Scope
from support import verbs

PIECES = (
    *("a", "b", "x", "*", "*", "**", "**", "***", "?", "/", "/", "/", "[ab]", "[!a]", "[^b]", "[a-c]", "[-a]", "[a-]"),
    *("\\a", "\\*", "\\!", "\\?", "\\ ", " ", "!", "#", "\t", "\u00e9", "\udcff", ".", "{", "}", "+", "(", "|", "$", "^"),
)
NAMES = (
    *(b"a", b"b", b"ab", b"ba", b"aab", b"c", b"x", b"*", b"!a", b" ", b"a ", b"\xff", b"\xc3\xa9", b".a", b"#", b"a\t"),
    *(b"-", b"{", b"+", b"$", b"^", b"a|b", b"?"),
)


def is_understood(pattern: str) -> bool:
    try:
        parse_pattern(pattern)
    except UsageError:
        return False
    return True


patterns = st.lists(st.sampled_from(PIECES), min_size=1, max_size=7).map("".join).filter(is_understood)
paths = st.tuples(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4).map(b"/".join), st.booleans())


@given(
    patterns=st.lists(patterns, min_size=1, max_size=5),
    paths=st.lists(paths, min_size=1, max_size=20),
    as_file=st.booleans(),
)
@example(patterns=["a**/b", "!ax", "/b/x**"], paths=[(b"ab", False), (b"ax/c/b", False), (b"b/x/c", True)], as_file=False)
def test_patterns_exclude_what_git_ignores(
    rust: Engine, pure: Engine, *, patterns: list[str], paths: list[tuple[bytes, bool]], as_file: bool
) -> None:
    strategies.RAN["patterns: both engines exclude what git ignores"] += 1
    with tempfile.TemporaryDirectory() as directory:
        tree = os.fsencode(directory)
        for path, is_directory in paths:
            make(os.path.join(tree, path), is_directory=is_directory)
        scope = Scope.of(patterns)
        if as_file:
            with tempfile.TemporaryDirectory() as beside:
                Path(beside, ".ocidiffignore").write_bytes(b"".join(os.fsencode(pattern) + b"\r\n" for pattern in patterns))
                scope = Scope().within(os.fsencode(beside))
        every = {path for _, path in verbs.changes(pure, None, tree, Profile.OCI)}
        out = set(ignored(tree, patterns))
        for engine in (rust, pure):
            changes = verbs.explained(engine, None, tree, scope=scope)
            assert {os.fsencode(change.path)[1:] for change in changes} == every - out


def make(path: bytes, *, is_directory: bool) -> None:
    """A file or directory, if nothing of another kind is in its way."""
    parent = path if is_directory else os.path.dirname(path)
    if not any_file_above(parent):
        os.makedirs(parent, exist_ok=True)
        if not is_directory and not os.path.lexists(path):
            os.mknod(path, stat.S_IFREG | 0o644)


def any_file_above(path: bytes) -> bool:
    while path not in (b"", b"/"):
        if os.path.lexists(path) and not os.path.isdir(path):
            return True
        path = os.path.dirname(path)
    return False
