"""Laws: several layers of one change make the tree of the one layer; a change elsewhere leaves a layer as it was."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st

from ocidiff.layer.apply_options import Destination
from ocidiff.layer.engine import Engine
from ocidiff.layer.options import Compression
from ocidiff.layer.pure.partition import LARGE_BYTES, Partition
from support import overlays, trees, verbs

pytestmark = [pytest.mark.root, pytest.mark.timeout(3600)]

COUNTS = st.integers(2, 6)


@given(pair=strategies.pairs(sockets=True), wanted=st.lists(st.booleans(), min_size=1, max_size=6))
def test_engines_agree(rust: Engine, pure: Engine, *, pair: strategies.Pair, wanted: list[bool]) -> None:
    strategies.RAN["split: engines agree, also on some of the layers"] += 1
    every = [True] * len(wanted)
    with strategies.build(pair) as (lower, upper, _):
        (mine, all_blobs), (theirs, expected) = (verbs.split(engine, lower, upper, every) for engine in (rust, pure))
        assert (mine.layers, all_blobs) == (theirs.layers, expected)
        found = []
        for engine, all_of_it in ((rust, mine), (pure, theirs)):
            some, blobs = verbs.split(engine, lower, upper, wanted)
            assert blobs == [blob if is_wanted else None for blob, is_wanted in zip(expected, wanted, strict=True)]
            assert some.placement == all_of_it.placement
            found.append(some.layers)
        assert found[0] == found[1]


@given(pair=strategies.pairs(sockets=True), compression=st.sampled_from(Compression))
def test_one_layer_is_an_ordinary_one(rust: Engine, pure: Engine, pair: strategies.Pair, compression: Compression) -> None:
    strategies.RAN["split into one = diff"] += 1
    with strategies.build(pair) as (lower, upper, _):
        for engine in (rust, pure):
            how = Compression.NONE if engine is pure else compression
            summary, blob = verbs.diff(engine, lower, upper, compression=how)
            done, blobs = verbs.split(engine, lower, upper, [True], compression=how)
            assert (done.layers, blobs) == ((summary,), [blob])


@given(pair=strategies.pairs(), count=COUNTS)
def test_layers_make_the_tree_of_one(engine: Engine, pair: strategies.Pair, count: int) -> None:
    strategies.RAN[f"split = single, one layer after another, {type(engine).__name__}"] += 1
    with strategies.build(pair) as (lower, upper, lower_again):
        _, single = verbs.diff(engine, lower, upper)
        done, blobs = verbs.split(engine, lower, upper, [True] * count)
        expected, found = lower_again(), lower_again()
        verbs.apply(engine, single, expected, same_owner=True)
        for blob in of(blobs):
            verbs.apply(engine, blob, found, same_owner=True)
        trees.assert_same_tree(found, expected, directory_times=True)
    entries = [trees.read_layer(blob) for blob in of(blobs)]
    names = [[trees.name_of(entry, "name") for entry in layer] for layer in entries]
    ordinary = [name for layer in names for name in layer if not name.endswith(b"/")]
    assert sorted(ordinary) == sorted(name for name in names_of(single) if not name.endswith(b"/"))
    assert names[-1] == [name for name in names_of(single) if name.endswith(b"/")]
    for layer in names:
        for name in layer:
            parent = name.rstrip(b"/").rpartition(b"/")[0]
            assert not parent or parent + b"/" in layer[: layer.index(name)], "a layer lacks a directory"
    assert sum(layer.deleted for layer in done.layers if layer) == sum(
        b"/.wh." in b"/" + name for layer in names for name in layer
    )


@given(pair=strategies.pairs(), count=COUNTS)
def test_layers_are_stacked(rust: Engine, pair: strategies.Pair, count: int) -> None:
    """Each is unpacked by itself, without a look at the others, and overlayfs merges them."""
    if not overlays.can_mount():
        pytest.skip("cannot mount overlays")
    strategies.RAN["split = single, each unpacked by itself"] += 1
    with strategies.build(pair) as (lower, upper, lower_again), tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        expected, base = lower_again(), lower_again()
        verbs.apply(rust, verbs.diff(rust, lower, upper)[1], expected, same_owner=True)
        stacked = [Path(os.fsdecode(base))]
        for number, blob in enumerate(of(verbs.split(rust, lower, upper, [True] * count)[1])):
            stacked.insert(0, place / str(number))
            stacked[0].mkdir()
            verbs.apply(rust, blob, stacked[0], same_owner=True, destination=Destination.OVERLAY)
        # The root has no entry.
        for directory_below in stacked:
            info = os.stat(expected)
            os.utime(directory_below, ns=(info.st_mtime_ns, info.st_mtime_ns))
        with overlays.mounted(place / "merged", stacked) as merged:
            trees.assert_same_tree(merged, expected, directory_times=True)


@given(pair=strategies.pairs(sockets=True), compression=st.sampled_from(Compression), count=COUNTS)
def test_threads_do_not_matter(rust: Engine, pair: strategies.Pair, compression: Compression, count: int) -> None:
    strategies.RAN["split: threads do not matter"] += 1
    with strategies.build(pair) as (lower, upper, _):
        results = [
            verbs.split(rust, lower, upper, [True] * count, compression=compression, threads=threads)
            for threads in (1, 2, 8)
        ]
    assert results[0] == results[1] == results[2]


@given(pair=strategies.pairs(), count=COUNTS, place=st.integers(0), step=st.sampled_from(("add", "edit", "remove")))
def test_a_change_touches_its_layer(rust: Engine, pair: strategies.Pair, count: int, place: int, step: str) -> None:
    with strategies.build(pair) as (lower, upper, _):
        found = trees.scan_tree(upper)
        directories = [b"", *(name for name, facts in found.items() if facts["type"] == "dir" and name != b".")]
        files = [name for name, facts in found.items() if facts["type"] == "file" and len(facts["links"]) == 1]
        _, before = verbs.split(rust, lower, upper, [True] * count)
        if step == "add":
            path = os.path.join(directories[place % len(directories)].rstrip(b"/"), b"one more")
        elif files:
            path = files[place % len(files)]
        else:
            return
        strategies.RAN[f"split: {step} touches one layer"] += 1
        if step == "remove":
            os.unlink(os.path.join(upper, path))
        else:
            # Linux lets nobody open another's file with O_CREAT in a directory with the sticky bit (fs.protected_regular).
            with open(os.path.join(upper, path), "xb" if step == "add" else "r+b") as file:
                file.write(b"changed")
        _, after = verbs.split(rust, lower, upper, [True] * count)
    partition = Partition(count)
    touched = {number for number in range(count) if before[number] != after[number]}
    assert touched <= {partition.of(path, 0), partition.of_directories}
    if step == "add":
        assert partition.of(path, 0) in touched


def test_a_file_that_becomes_large_touches_the_layers_of_both_sizes(rust: Engine, pure: Engine, tmp_path: Path) -> None:
    count, partition = 7, Partition(7)
    upper = os.fsencode(tmp_path)
    for directory in (b"a", b"b", b"c"):
        os.mkdir(os.path.join(upper, directory))
        for number in range(4):
            with open(os.path.join(upper, directory, b"%d" % number), "wb") as file:
                file.truncate(LARGE_BYTES - 1 + number % 2)
    os.link(os.path.join(upper, b"c/1"), os.path.join(upper, b"a/link"))
    sizes = [LARGE_BYTES - 1, LARGE_BYTES]
    places = {(size, path): partition.of(path, size) for size in sizes for path in (b"a/0", b"b/0", b"c/0")}
    path = next(path for path in (b"a/0", b"b/0", b"c/0") if places[sizes[0], path] != places[sizes[1], path])
    before, after = list[tuple[Any, list[bytes | None]]](), list[tuple[Any, list[bytes | None]]]()
    for engine in (rust, pure):
        for found, size in ((before, sizes[0]), (after, sizes[1])):
            os.truncate(os.path.join(upper, path), size)
            os.utime(os.path.join(upper, path), (1, 1))
            found.append(verbs.split(engine, None, upper, [True] * count))
    assert before[0][1] == before[1][1]
    assert after[0][1] == after[1][1]
    (old, old_blobs), (new, new_blobs) = before[0], after[0]
    assert old.placement != new.placement
    touched = {number for number in range(count) if old_blobs[number] != new_blobs[number]}
    assert touched == {places[size, path] for size in sizes}
    for number, blob in enumerate(of(new_blobs)):
        for name in (name for name in names_of(blob) if not name.endswith((b"/", b"a/link", b"c/1"))):
            assert partition.of(name, os.path.getsize(os.path.join(upper, name))) == number
    linked = [number for number, blob in enumerate(of(new_blobs)) for name in names_of(blob) if name in {b"a/link", b"c/1"}]
    assert linked == [partition.of(b"a/link", LARGE_BYTES)] * 2


def of(blobs: Sequence[bytes | None]) -> list[bytes]:
    """All layers, each of which was wanted."""
    assert None not in blobs
    return [blob for blob in blobs if blob is not None]


def names_of(tar: bytes) -> list[bytes]:
    return [trees.name_of(entry, "name") for entry in trees.read_layer(tar)]
