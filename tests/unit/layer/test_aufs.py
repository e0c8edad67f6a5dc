"""Layers of AUFS: files with several names are hard links to a name in `.wh..wh.plnk`, which is in no tree."""

from __future__ import annotations

import os
import stat
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from ocidiff.errors import Cancelled, LimitExceededError, MalformedLayerError
from ocidiff.layer.apply_options import ApplyOptions, Destination
from ocidiff.layer.engine import Engine
from ocidiff.layer.monitor import Cancellation, Monitor, Progress
from support import probes, verbs
from support.archives import MTIME, Member, directory, file, hard_link, symlink, tar, whiteout

PLNK = b".wh..wh.plnk"


def layer(*after: Member, content: bytes = b"content") -> bytes:
    """A layer of AUFS with one pseudo link, and these entries."""
    pseudo = file(PLNK + b"/12.3", content, mode=0o640, mtime=7)
    return tar(directory(PLNK, mode=0o700), pseudo, file(b".wh..wh.aufs"), *after)


def without_end(archive: bytes) -> bytes:
    """A tar that goes on: without the blocks of zeros at its end."""
    entries = archive.rstrip(b"\0")
    return entries.ljust(-(-len(entries) // 512) * 512, b"\0")


def names_below(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    root = tmp_path / "target"
    root.mkdir()
    (root / "old").write_text("lower")
    return root


@pytest.mark.parametrize("content", [b"", b"content", b"x" * 300_000])
@pytest.mark.parametrize("destination", Destination)
def test_hard_links_to_pseudo_links_are_names_of_one_file(
    engine: Engine, target: Path, destination: Destination, content: bytes
) -> None:
    if destination is Destination.OVERLAY and not probes.is_root():
        probes.missing("needs root")
    links = (hard_link(b"a", PLNK + b"/12.3", mode=0o600, mtime=1), hard_link(b"d/b", b"/./" + PLNK + b"/12.3"))
    summary = verbs.apply(engine, layer(*links, content=content), target, destination=destination)
    assert names_below(target) == {"a", "d", "d/b", "old"}
    for name in ("a", "d/b"):
        info = (target / name).stat()
        assert (target / name).read_bytes() == content
        assert (stat.S_IMODE(info.st_mode), info.st_mtime, info.st_nlink) == (0o640, 7, 2)
    # The directory, and the file for AUFS itself; what hard links needed was kept.
    assert dict(summary.skipped) == {"aufs": 2}


def test_what_no_link_needs_leaves_nothing(engine: Engine, target: Path) -> None:
    verbs.apply(engine, layer(file(b"new")), target)
    assert names_below(target) == {"old", "new"}


def test_what_is_kept_survives_whiteouts_of_its_own_layer_and_ways_around(engine: Engine, target: Path) -> None:
    entries = (
        file(b".wh..wh..opq"),
        whiteout(PLNK),
        symlink(b"way", PLNK),
        whiteout(b"way/12.3"),
        file(b"way/made/deep", b"1"),
        hard_link(b"a", PLNK + b"/12.3"),
    )
    verbs.apply(engine, layer(*entries), target)
    assert names_below(target) == {"a", "way"}
    assert (target / "a").read_bytes() == b"content"


@pytest.mark.parametrize(
    ("broken", "error"),
    [
        (hard_link(b"a", PLNK + b"/12.4"), MalformedLayerError),
        (hard_link(b"a", PLNK), MalformedLayerError),
        (file(b"big", b"x" * 40_000), LimitExceededError),
    ],
)
def test_a_failure_leaves_nothing_of_it(engine: Engine, target: Path, broken: Member, error: type[Exception]) -> None:
    with pytest.raises(error):
        verbs.apply(engine, layer(broken), target, max_bytes=20_000)
    assert names_below(target) <= {"old", "big"}


def test_neither_does_a_call_that_is_cancelled(engine: Engine, target: Path) -> None:
    cancel = Cancellation()
    is_cancelled = threading.Event()

    def stop(_: Progress) -> None:
        if any(name.startswith(".wh.") for name in os.listdir(target)):
            cancel.cancel()
            is_cancelled.set()

    source, sink = os.pipe()

    def write() -> None:
        """Write a layer that ends only when the call has been cancelled."""
        more = without_end(tar(file(b"f", b"x" * 100_000)))
        # Also when it is closed, which writes what is left.
        with suppress(BrokenPipeError), open(sink, "wb") as pipe:
            pipe.write(without_end(layer()))
            while not is_cancelled.is_set():
                pipe.write(more)

    writer = threading.Thread(target=write)
    writer.start()
    with pytest.raises(Cancelled):
        engine.apply_layer(source, os.fsencode(target), ApplyOptions(), Monitor(stop, cancel))
    os.close(source)
    writer.join()
    assert not [name for name in os.listdir(target) if name.startswith(".wh.")]


def test_kept_files_count_towards_limits(engine: Engine, target: Path) -> None:
    blob = layer(content=b"x" * 100_000)
    with pytest.raises(LimitExceededError):
        verbs.apply(engine, blob, target, max_bytes=50_000)
    with pytest.raises(LimitExceededError):
        verbs.apply(engine, blob, target, max_entries=1)
    assert names_below(target) == {"old"}


def test_a_directory_of_that_name_in_the_target_stays(engine: Engine, target: Path) -> None:
    (target / os.fsdecode(PLNK)).mkdir()
    (target / os.fsdecode(PLNK) / "mine").touch()
    before = names_below(target)
    summary = verbs.apply(engine, layer(), target)
    assert (names_below(target), dict(summary.skipped)) == (before, {"aufs": 3})


def test_the_index_of_such_layers_is_that_of_their_tree(engine: Engine, rust: Engine, tmp_path: Path) -> None:
    blobs = [
        layer(hard_link(b"a", PLNK + b"/12.3", mode=0o600), hard_link(b"b", PLNK + b"/12.3")),
        layer(hard_link(b"c", PLNK + b"/12.3"), file(b".wh..wh..opq"), content=b"other"),
    ]
    tree = tmp_path / "tree"
    tree.mkdir()
    for blob in blobs:
        verbs.apply(engine, blob, tree)
    assert names_below(tree) == {"c"}
    assert (tree / "c").stat().st_mtime == 7 != MTIME
    assert verbs.index_of_layers(engine, blobs)[0] == verbs.index(rust, tree)


@pytest.mark.parametrize(
    ("entries", "left"),
    [
        # A directory that is there before the first kept file stays, and nothing is kept in it.
        ((symlink(b"way", PLNK), file(b"way/mine"), file(PLNK + b"/12.3")), {"way", ".wh..wh.plnk", ".wh..wh.plnk/mine"}),
        # One that was made for kept files goes, with all that the layer put into it.
        ((file(PLNK + b"/12.3"), symlink(b"way", PLNK), file(b"way/mine"), hard_link(b"a", b"way/mine")), {"way", "a"}),
    ],
)
def test_a_layer_that_reaches_into_the_directory_by_a_link_has_the_index_of_its_tree(
    engine: Engine, rust: Engine, tmp_path: Path, entries: tuple[Member, ...], left: set[str]
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    blobs = [tar(*entries), tar(file(PLNK + b"/1.2"), file(b"new"))]
    for blob in blobs:
        verbs.apply(engine, blob, tree)
    assert names_below(tree) == left | {"new"}
    assert verbs.index_of_layers(engine, blobs)[0] == verbs.index(rust, tree)
