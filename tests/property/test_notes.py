"""Laws of the notes on what an apply without owners could not keep: everything that reads takes them for the files' stat."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import strategies
from any_layers import entries, tar_of
from hypothesis import given
from hypothesis import strategies as st

from ocidiff.errors import OcidiffError
from ocidiff.layer.engine import Engine
from ocidiff.layer.options import Profile
from support import probes, trees, verbs

pytestmark = [pytest.mark.root, pytest.mark.timeout(3600)]

NOTE = "user.containers.override_stat"


Layer = list[tuple[str, dict[str, Any]]]


def noted_layers() -> st.SearchStrategy[Layer]:
    """Layers without capabilities: those of a user can neither be kept nor noted."""
    return entries().map(lambda made: [(name, {**facts, "xattrs": _noted_xattrs(facts["xattrs"])}) for name, facts in made])


def _noted_xattrs(xattrs: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in xattrs.items() if key != "security.capability"}


@contextmanager
def workplace() -> Iterator[Path]:
    """A directory in which a plain user may do anything."""
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o777)
        yield Path(place)


@given(pair=strategies.pairs())
def test_what_a_user_unpacked_differs_from_nothing(rust: Engine, pure: Engine, pair: strategies.Pair) -> None:
    """Whoever reads it, whichever engine wrote it, and whatever stands for the base."""
    strategies.RAN["apply as a user, diff against the base: nothing"] += 1
    with strategies.build(pair) as (lower, _, _), workplace() as place:
        _, blob = verbs.diff(rust, None, lower)
        (place / "owned").mkdir(mode=0o755)
        verbs.apply(rust, blob, place / "owned", same_owner=True)
        with probes.as_user():
            for name, engine in (("rust", rust), ("pure", pure)):
                (place / name).mkdir(mode=0o755)
                verbs.apply(engine, blob, place / name)
        before = [trees.scan_tree(place / name) for name in ("rust", "pure")]
        assert trees.comparable(before[0], xattrs=lambda _: True) == trees.comparable(before[1], xattrs=lambda _: True)
        index, _ = verbs.index_of_layers(rust, [blob])
        for engine in (rust, pure):
            with probes.as_user():
                assert verbs.changes(engine, place / "rust", place / "pure", Profile.OCI) == []
                own_index = verbs.index(engine, place / "rust")
                with verbs.saved_index(own_index) as known:
                    assert verbs.changes(engine, known, place / "pure", Profile.OCI) == []
                summary, _ = verbs.diff(engine, place / "pure", place / "rust", lower_has_layer_times=True)
                assert summary.entries == 0
            if not _has_what_is_lost(lower):
                with probes.as_user(), verbs.saved_index(index) as known:
                    assert verbs.changes(engine, known, place / "rust", Profile.OCI) == []
                assert verbs.changes(engine, place / "owned", place / "rust", Profile.OCI) == []
                assert verbs.changes(engine, place / "rust", place / "owned", Profile.OCI) == []
        # Nothing of all this has left a trace, however closed the tree is to its owner.
        assert [trees.scan_tree(place / name) for name in ("rust", "pure")] == before


def _has_what_is_lost(tree: bytes) -> bool:
    """True if the tree has what a user can neither keep nor note: capabilities, and attributes of devices."""
    return any(
        "security.capability" in facts["xattrs"] or (facts["type"] in ("char", "block") and facts["xattrs"])
        for facts in trees.scan_tree(tree).values()
    )


@given(pair=strategies.pairs())
def test_what_a_user_unpacked_is_written_as_it_was(rust: Engine, pure: Engine, pair: strategies.Pair) -> None:
    strategies.RAN["apply as a user, diff from scratch: the same layer"] += 1
    with strategies.build(pair) as (lower, _, _), workplace() as place:
        _, blob = verbs.diff(rust, None, lower)
        with probes.as_user():
            (place / "tree").mkdir(mode=0o755)
            verbs.apply(rust, blob, place / "tree")
            again = [verbs.diff(engine, None, place / "tree") for engine in (rust, pure)]
        assert again[0] == again[1]
        assert [_noted(entry) for entry in trees.read_layer(again[0][1])] == list(map(_noted, trees.read_layer(blob)))


def _noted(entry: dict[str, Any]) -> dict[str, Any]:
    """What of an entry a user can keep or note: all of files, directories and devices but capabilities."""
    xattrs = {} if entry["type"] in "134" else _noted_xattrs(entry.pop("xattrs", {}))
    kept = {**entry, "xattrs": xattrs, "pax": None}
    if entry["type"] in "126":
        # A link is to anything, and the others can have no note.
        kept.update(uid=0, gid=0, mode=int(entry["mode"], 8) & 0o1777)
    if entry["type"] == "1":
        kept.pop("rdev", None)
    return kept


@given(layers=st.lists(st.tuples(noted_layers(), st.booleans()), min_size=1, max_size=4))
def test_layers_with_and_without_owners(rust: Engine, pure: Engine, layers: list[tuple[Layer, bool]]) -> None:
    """Both engines leave the same tree; and read with its notes, it is the one that all layers with owners leave."""
    strategies.RAN["layers with and without owners: the same noted tree"] += 1
    with workplace() as place:
        for name in ("owned", "rust", "pure"):
            (place / name).mkdir(mode=0o755)
            os.chmod(place / name, 0o755)
        try:
            for layer, _ in layers:
                verbs.apply(rust, tar_of(layer), place / "owned", same_owner=True)
        except (OcidiffError, OSError):
            return
        for layer, same_owner in layers:
            blob = tar_of(layer)
            one = verbs.apply(rust, blob, place / "rust", same_owner=same_owner)
            other = verbs.apply(pure, blob, place / "pure", same_owner=same_owner)
            assert one == other
        found = [trees.comparable(trees.scan_tree(place / name), xattrs=lambda _: True) for name in ("rust", "pure")]
        trees.assert_same_facts(found[0], found[1])
        for engine in (rust, pure):
            for name in ("rust", "pure"):
                assert verbs.changes(engine, place / "owned", place / name, Profile.OCI) == []


@given(layers=st.lists(noted_layers(), min_size=1, max_size=4))
def test_layers_that_a_user_unpacks(rust: Engine, pure: Engine, layers: list[Layer]) -> None:
    strategies.RAN["layers unpacked by a user: the tree of their owners"] += 1
    with workplace() as place:
        for name in ("owned", "rust", "pure"):
            (place / name).mkdir(mode=0o755)
            os.chmod(place / name, 0o755)
        try:
            for layer in layers:
                verbs.apply(rust, tar_of(layer), place / "owned", same_owner=True)
        except (OcidiffError, OSError):
            return
        for name in ("rust", "pure"):
            os.chown(place / name, 1000, 1000)
        with probes.as_user():
            for layer in layers:
                blob = tar_of(layer)
                assert verbs.apply(rust, blob, place / "rust") == verbs.apply(pure, blob, place / "pure")
        found = [trees.comparable(trees.scan_tree(place / name), xattrs=lambda _: True) for name in ("rust", "pure")]
        trees.assert_same_facts(found[0], found[1])
        for engine in (rust, pure):
            for name in ("rust", "pure"):
                assert verbs.changes(engine, place / "owned", place / name, Profile.OCI) == []
