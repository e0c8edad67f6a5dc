"""Laws: a squashed layer does what its layers do one after another; and from nothing it is the layer of the tree."""

from __future__ import annotations

import os
import random
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import any_layers
import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st

from ocidiff.errors import OcidiffError, UnrepresentableError
from ocidiff.layer.engine import Engine
from ocidiff.layer.options import Compression
from support import trees, verbs

pytestmark = [pytest.mark.root, pytest.mark.timeout(3600)]


@given(layers=st.lists(any_layers.entries(), min_size=1, max_size=4))
def test_layers_of_anything_onto_nothing(rust: Engine, pure: Engine, layers: list[any_layers.Entries]) -> None:
    strategies.RAN["squash of any layers = their tree"] += 1
    blobs = [any_layers.tar_of(layer) for layer in layers]
    with tempfile.TemporaryDirectory() as place:
        try:
            expected = applied(rust, blobs, f"{place}/one-after-another")
        except (OcidiffError, OSError) as error:
            for engine in (rust, pure):
                with pytest.raises(OcidiffError if isinstance(error, OcidiffError) else OSError):
                    verbs.squash(engine, blobs)
            return
        try:
            squashed = assert_same_layer(rust, pure, blobs, onto_base=False)
        except UnrepresentableError:
            # Links lead into names that no layer can hold, nor one of the tree.
            with pytest.raises(UnrepresentableError):
                verbs.diff(rust, None, expected)
            return
        found = applied(rust, [squashed], f"{place}/at-once")
        assert_same_tree(found, expected)


@given(layers=st.lists(any_layers.entries(closed=True), min_size=1, max_size=4), base=any_layers.entries(closed=True))
def test_layers_onto_any_base(
    rust: Engine, pure: Engine, layers: list[any_layers.Entries], base: any_layers.Entries
) -> None:
    strategies.RAN["squash onto a base = its layers onto it"] += 1
    blobs, below = [any_layers.tar_of(layer) for layer in layers], any_layers.tar_of(base)
    with tempfile.TemporaryDirectory() as place:
        try:
            squashed = assert_same_layer(rust, pure, blobs, onto_base=True)
            expected = applied(rust, [below, *blobs], f"{place}/one-after-another")
        except (OcidiffError, OSError):
            return
        strategies.RAN["squash onto a base: not refused"] += 1
        found = applied(rust, [below, squashed], f"{place}/at-once")
        assert_same_tree(found, expected, directory_times=True)
        assert assert_same_layer(rust, pure, [squashed], onto_base=True) == squashed


@given(pair=strategies.pairs())
def test_the_layer_of_the_tree(rust: Engine, pure: Engine, *, pair: strategies.Pair) -> None:
    strategies.RAN["squash = diff from scratch of the unpacked tree"] += 1
    with strategies.build(pair) as (lower, upper, _), tempfile.TemporaryDirectory() as place:
        blobs = [verbs.diff(rust, None, lower)[1], verbs.diff(rust, lower, upper)[1]]
        tree = applied(rust, blobs, f"{place}/tree")
        squashed = assert_same_layer(rust, pure, blobs, onto_base=False)
        assert squashed == verbs.diff(rust, None, tree)[1]
        again = assert_same_layer(rust, pure, blobs[1:], onto_base=True)
        assert sorted(names_of(again)) == sorted(names_of(blobs[1]))
        if not any(entry["type"] == "1" for entry in trees.read_layer(blobs[1])):
            # The first name of a file has its content, which in a diff is the first changed one.
            assert again == blobs[1]


def test_the_blob_of_the_tree(rust: Engine, tmp_path: Path) -> None:
    numbers, tree = random.Random(7), tmp_path / "tree"
    tree.mkdir()
    for number in range(300):
        size = numbers.choice((0, 300, 9_000, 70_000, 700_000) if number % 20 == 0 else (0, 300, 9_000))
        (tree / f"{number:03}").write_bytes(numbers.randbytes(size // 2).hex().encode())
    summary, blob = verbs.diff(rust, None, tree, compression=Compression.GZIP)
    assert verbs.squash(rust, [blob], compression=Compression.GZIP)[1] == blob
    assert summary.uncompressed_size > 1 << 20


def applied(engine: Engine, blobs: Sequence[bytes], tree: str) -> str:
    os.mkdir(tree, 0o755)
    for blob in blobs:
        verbs.apply(engine, blob, tree, same_owner=True)
    return tree


def assert_same_layer(rust: Engine, pure: Engine, blobs: Sequence[bytes], *, onto_base: bool) -> bytes:
    """Squash with both engines, and return the tar."""
    try:
        expected = verbs.squash(pure, blobs, onto_base=onto_base)
    except (OcidiffError, OSError) as error:
        with pytest.raises(type(error), match=f"^{re.escape(str(error))}$"):
            verbs.squash(rust, blobs, onto_base=onto_base)
        raise
    assert verbs.squash(rust, blobs, onto_base=onto_base) == expected
    return expected[1]


def names_of(tar: bytes) -> list[bytes]:
    return [trees.name_of(entry, "name") for entry in trees.read_layer(tar)]


def assert_same_tree(found: str, expected: str, *, directory_times: bool = False) -> None:
    def facts(tree: str) -> dict[bytes, Any]:
        scanned = trees.scan_tree(tree)
        scanned[b"./"] = scanned.pop(b".")  # the root counts
        for one in scanned.values():
            # Empty attributes are kept apart from those that are not there.
            one["empty"] = sorted(key for key, value in one["xattrs"].items() if not value)
        kept = trees.comparable(scanned, directory_times=directory_times)
        kept[b"./"].pop("mtime", None)
        return kept

    trees.assert_same_facts(facts(found), facts(expected))
