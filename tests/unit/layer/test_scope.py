"""Excludes: which patterns are taken, where they come from, and what becomes of what they leave out."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any

import pytest

import ocidiff
from ocidiff.errors import UsageError
from ocidiff.layer.engine import Engine
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.options import EngineName, LayerOptions, Profile
from ocidiff.layer.patterns import MAX_BYTES, MAX_PATTERNS, compile_rules
from ocidiff.layer.pure.pace import Pace
from ocidiff.layer.pure.scope import Narrowing
from ocidiff.layer.pure.tree import Node, Tree
from ocidiff.layer.scope import IGNORE_FILE, Scope
from ocidiff.mounts.layers import OverlayLayers
from support import probes, trees, verbs


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A lower and an upper tree that differ in all files."""
    for tree in ("lower", "upper"):
        for name in ("app/data", "app/keep", "cache/a", "cache/b", f"only-{tree}/x", "run/app/x", "run/lock"):
            path = tmp_path / tree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(tree + name)
            os.utime(path, (1, 1))
    return tmp_path / "lower", tmp_path / "upper"


def listed(engine: Engine, pair: tuple[Path, Path], *patterns: str, **options: Any) -> list[str]:
    scope = Scope.of(patterns, **options)
    changes = verbs.explained(engine, *pair, scope=scope)
    return [f"{change.kind[0]} {change.path}" for change in changes]


ALL = ["m /app/data", "m /app/keep", "m /cache/a", "m /cache/b", "d /only-lower", "a /only-upper", "a /only-upper/x"]
RUN = ["m /run/app/x", "m /run/lock"]


@pytest.mark.parametrize(
    ("patterns", "gone"),
    [
        ((), []),
        (("/cache",), ["m /cache/a", "m /cache/b"]),
        (("/cache/*", "!/cache/b"), ["m /cache/a"]),
        (("/cache/", "!/cache/b"), ["m /cache/a", "m /cache/b"]),
        (("data", "only-*"), ["m /app/data", "d /only-lower", "a /only-upper", "a /only-upper/x"]),
        (("only-upper/x",), ["a /only-upper/x"]),
        (("*", "!/app", "!/app/keep"), [change for change in ALL if change != "m /app/keep"] + RUN),
        (("@runtime",), RUN),
        (("@runtime", "!/run/app"), ["m /run/lock"]),
        (("**/[ab]",), ["m /cache/a", "m /cache/b"]),
    ],
)
def test_what_is_excluded_is_no_change(
    engine: Engine, pair: tuple[Path, Path], patterns: tuple[str, ...], gone: list[str]
) -> None:
    assert listed(engine, pair, *patterns) == [change for change in ALL + RUN if change not in gone]


def test_an_excluded_path_of_lower_never_becomes_a_deletion(engine: Engine, pair: tuple[Path, Path]) -> None:
    for profile in Profile:
        made, tar = verbs.diff(engine, *pair, scope=Scope.of(["/only-lower", "cache/"]), profile=profile)
        names = [trees.name_of(entry, "name") for entry in trees.read_layer(tar)]
        assert not [name for name in names if b".wh." in name]
        assert made.deleted == 0
        assert made.skipped == {"excluded": 1}  # cache itself is the same in both trees


def test_the_preset_leaves_out_what_engines_mount_and_sockets(engine: Engine, tmp_path: Path) -> None:
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    for name in ("etc/hosts", "etc/hostname", "etc/resolv.conf", ".dockerenv", "proc/1/mem", "sys/x", "dev/x", "run/x"):
        (upper / name).parent.mkdir(parents=True, exist_ok=True)
        (upper / name).touch()
    (lower / "srv").mkdir(parents=True)
    (lower / "srv/file").touch()
    (upper / "srv").mkdir()
    os.mknod(upper / "srv/file", 0o140600)
    os.mknod(upper / "srv/socket", 0o140600)
    (upper / "etc/hosts.allow").touch()
    added = ["dev", "etc", "etc/hosts.allow", "proc", "run", "sys"]
    assert listed(engine, (lower, upper), "@runtime") == [f"a /{name}" for name in added]
    assert "a /srv/socket" in listed(engine, (lower, upper))


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "  ",
        "#a",
        "!",
        "/",
        "!/",
        "a//b",
        "a\\",
        "a\\/b",
        "[",
        "[a",
        "[]",
        "[]a]",
        "[\\]]",
        "[[:alpha:]]",
        "[z-a]",
        "a\0b",
    ],
)
def test_a_pattern_that_says_nothing_or_is_read_in_two_ways_is_refused(pattern: str, pair: tuple[Path, Path]) -> None:
    with pytest.raises(UsageError, match=r"^pattern .*: ") as error:
        ocidiff.changes(*pair, exclude=[pattern])
    assert str(error.value).count("\n") == 0


def test_the_ignore_file_of_the_changed_tree_comes_before_the_patterns_of_the_call(pair: tuple[Path, Path]) -> None:
    (pair[1] / IGNORE_FILE).write_text("# what stays here\n\n/app\r\n/cache/*  \n@runtime\n")
    assert [change.path for change in ocidiff.changes(*pair, exclude=["!/cache/b"])] == [
        "/cache/b",
        "/only-lower",
        "/only-upper",
        "/only-upper/x",
    ]
    (pair[0] / IGNORE_FILE).write_text("!/cache/a\n")
    assert "/cache/a" not in [change.path for change in ocidiff.changes(*pair)]
    assert f"/{IGNORE_FILE}" in [change.path for change in ocidiff.changes(*pair, exclude=[f"!/{IGNORE_FILE}"])]


def test_an_ignore_file_is_found_through_the_layers_of_an_overlay(tmp_path: Path) -> None:
    upper, lower = tmp_path / "upper", tmp_path / "lower"
    for tree in (upper, lower):
        tree.mkdir()
    (upper / "a").touch()
    (lower / IGNORE_FILE).write_text("a\n")
    layers = OverlayLayers(os.fsencode(upper), (os.fsencode(lower),))
    assert list(ocidiff.changes(None, layers)) == []
    (upper / f".wh.{IGNORE_FILE}").touch()
    assert [change.path for change in ocidiff.changes(None, layers)] == [f"/{IGNORE_FILE}", "/a"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_text("a\n[b\n"), "line 2: pattern '[b'"),
        (lambda path: path.write_bytes(b"a\0"), "not a list of patterns"),
        (lambda path: path.write_bytes(b"#" * (MAX_BYTES + 1)), "too large: must be at most 65536 bytes"),
        (lambda path: path.write_bytes(b"a\n" * (MAX_PATTERNS + 1)), "too many patterns: 1001, must be at most 1000"),
        (lambda path: path.write_bytes(b"@runtime\n" * 126), "too many patterns: 1008, must be at most 1000"),
        (lambda path: path.write_bytes(b"#\n" + b"a" * 5000), "line 2: pattern 'aaaa"),
        (lambda path: path.symlink_to("a"), "not a regular file"),
        (lambda path: path.mkdir(), "not a regular file"),
        (os.mkfifo, "not a regular file"),
    ],
)
def test_an_ignore_file_that_is_none_is_refused_or_left_unread(pair: tuple[Path, Path], make: Any, message: str) -> None:
    make(pair[1] / IGNORE_FILE)
    with pytest.raises(UsageError, match=re.escape(message)) as error:
        ocidiff.changes(*pair)
    assert str(error.value).startswith(f"{pair[1] / IGNORE_FILE}: ")
    assert str(error.value).endswith("; --no-ignore-file leaves the file unread")
    assert len(str(error.value)) < 400
    assert f"/{IGNORE_FILE}" in [change.path for change in ocidiff.changes(*pair, ignore_file=False)]


def test_an_ignore_file_that_is_left_unread_is_an_ordinary_file(
    engine: Engine, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    (pair[1] / IGNORE_FILE).write_text("*\n")
    name: EngineName = "pure" if "pure" in type(engine).__module__ else "rust"
    assert list(ocidiff.changes(*pair, engine=name)) == []
    listed = [change.path for change in ocidiff.changes(*pair, ignore_file=False, exclude=["/app"], engine=name)]
    assert listed[0] == f"/{IGNORE_FILE}"
    assert "/app/data" not in listed
    layer = ocidiff.diff(*pair, tmp_path / "layer", ignore_file=False, engine=name)
    assert (layer.added, layer.skipped) == (3, {})
    with ocidiff.Store.open(tmp_path / "store") as store:
        assert store.commit(pair[1], "all:1", ignore_file=False, engine=name).layer is not None
        assert store.commit(pair[1], "none:1", engine=name).layer is None


def test_patterns_of_a_call_have_the_same_bounds(pair: tuple[Path, Path]) -> None:
    assert ocidiff.changes(*pair, exclude=["a"] * MAX_PATTERNS)
    for patterns, message in (
        (["a"] * (MAX_PATTERNS + 1), "too many patterns: 1001, must be at most 1000"),
        (["a" * 4000] * 17, "patterns too long: 68000 bytes together, must be at most 65536"),
        (["a" * 5000], "pattern '" + "a" * 100 + "'...: too long: 5000 bytes, must be at most 4096"),
    ):
        with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
            ocidiff.changes(*pair, exclude=patterns)


def test_matching_takes_a_step_for_each_byte_of_a_name(tmp_path: Path) -> None:
    """Patterns that would backtrack, with names of two lengths: steps are counted by names, rows by patterns."""
    steps, sizes = [], []
    for times in (10, 40):
        scope = Scope.of(["a*" * 5 * times + "b", "**/a*/" * times + "b", "*" * 5 * times + "a*b"], cross_mounts=True)
        tree = Tree(os.fsencode(tmp_path), LayerOptions(scope=scope), Pace(Monitor()))
        narrowing = Narrowing(scope)
        facts = os.stat_result((stat.S_IFREG, 1, 1, 1, 0, 0, 0, 0, 0, 0))
        for number in range(20):
            name = b"d/" * times + b"a" * 6 * times + b"%d" % number
            assert narrowing.left(None, None, tree, Node(name, facts, 0, 0))[1] is not None
        steps.append(narrowing.steps)
        automaton = compile_rules(scope.rules)
        rows = [automaton.start, *automaton.moves.values(), automaton.other_moves, automaton.name_loops, automaton.accepts]
        assert max(row.bit_length() for row in rows) <= automaton.size
        sizes.append(automaton.size)
    # The digits of 20 numbers, and the directory once.
    assert steps == [20 * 6 * times + 30 + 2 * times for times in (10, 40)]
    assert sizes[1] <= 4 * sizes[0]


@pytest.mark.root
def test_mount_points_are_crossed_only_when_asked(engine: Engine, pair: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/mounted").touch()
    lower, upper = pair
    with probes.bound(tmp_path / "other", upper / "cache"), probes.bound(tmp_path / "other/mounted", upper / "app/data"):
        kept = [change for change in ALL + RUN if change not in ("m /app/data", "m /cache/a", "m /cache/b")]
        assert listed(engine, pair) == kept
        assert verbs.diff(engine, lower, upper)[0].skipped == {"mounts": 2}
        crossed = listed(engine, pair, cross_mounts=True)
        assert {"m /app/data", "d /cache/a", "d /cache/b", "a /cache/mounted"} <= set(crossed)
    assert listed(engine, pair) == ALL + RUN


@pytest.mark.root
def test_an_index_knows_of_mounts_where_they_were(
    engine: Engine, rust: Engine, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "other/below").mkdir(parents=True)
    (tmp_path / "other/mounted").write_text("from elsewhere")
    lower, upper = pair
    with probes.bound(tmp_path / "other", lower / "cache"), probes.bound(tmp_path / "other/mounted", lower / "app/data"):
        of_tree = {crossed: verbs.diff(engine, *pair, scope=Scope.of([], cross_mounts=crossed)) for crossed in (False, True)}
        indexes = {crossed: verbs.index(engine, lower, cross_mounts=crossed) for crossed in (False, True)}
        assert indexes == {crossed: verbs.index(rust, lower, cross_mounts=crossed) for crossed in (False, True)}
    assert of_tree[False][0].skipped == {"mounts": 2}
    for crossed, data in indexes.items():
        with verbs.saved_index(data) as index:
            assert verbs.diff(engine, index, upper, scope=Scope.of([], cross_mounts=crossed)) == of_tree[crossed]
    with verbs.saved_index(indexes[False]) as index:
        # The former mount is not known any more.
        assert verbs.diff(engine, index, upper, scope=Scope.of([], cross_mounts=True)) == of_tree[False]
        assert verbs.changes(engine, index, index, Profile.OCI) == []


def test_an_unknown_preset_is_refused_and_an_escaped_at_is_a_name(tmp_path: Path) -> None:
    (tmp_path / "lower").mkdir()
    (tmp_path / "upper").mkdir()
    (tmp_path / "upper/@eaDir").touch()
    with pytest.raises(ocidiff.UsageError, match=r"preset '@runtme': must be @runtime"):
        ocidiff.changes(tmp_path / "lower", tmp_path / "upper", exclude=["@runtme"])
    assert not list(ocidiff.changes(tmp_path / "lower", tmp_path / "upper", exclude=["\\@eaDir"]))
    (tmp_path / "upper/.ocidiffignore").write_text("@runtme\n")
    with pytest.raises(ocidiff.UsageError, match=r"ocidiffignore: preset '@runtme'"):
        ocidiff.changes(tmp_path / "lower", tmp_path / "upper")
