"""Unpack: the whole verified tree, or the directory as it was."""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import stat
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from ocidiff import workspace
from ocidiff.errors import (
    AlreadyExistsError,
    DigestMismatchError,
    LimitExceededError,
    MalformedLayerError,
    NotFoundError,
    UnsupportedError,
)
from ocidiff.layer import paths
from ocidiff.layer.incomplete import INCOMPLETE
from ocidiff.layer.limits import Limits
from ocidiff.layer.monitor import Progress
from ocidiff.layer.options import EngineName
from ocidiff.store import Store
from support import trees
from support.layouts import Handmade

# `make soak-kill` asks for more.
KILLS = int(os.environ.get("OCIDIFF_KILLS", "8"))


@pytest.mark.parametrize("exists", [True, False])
def test_the_tree_that_was_committed_comes_back(
    store: Store, rootfs: Path, tmp_path: Path, exists: bool, engine_name: EngineName
) -> None:
    image = store.commit(rootfs, "app", engine=engine_name)
    if exists:
        (tmp_path / "out").mkdir()
    unpacked = store.unpack("app", tmp_path / "out", engine=engine_name)
    trees.assert_same_tree(tmp_path / "out", rootfs, directory_times=True)
    assert unpacked.descriptor == image.descriptor


def test_later_layers_lie_over_earlier_ones(handmade: Handmade, tmp_path: Path, engine_name: EngineName) -> None:
    first, second = handmade.layer({"a": "1", "b": "1", "c": "1"}), handmade.layer({"b": "2", ".wh.c": ""})
    config = handmade.config([first[1], second[1]])
    handmade.name("app", handmade.manifest(config, [first[0], second[0]]))
    with Store.open(handmade.path) as store:
        store.unpack("app", tmp_path / "out", engine=engine_name)
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == {"a": "1", "b": "2"}


def test_progress_counts_over_all_layers(handmade: Handmade, tmp_path: Path) -> None:
    layers = [handmade.layer({f"{number}-{file}": "x" * 1000 for file in range(300)}) for number in range(3)]
    config = handmade.config([diff_id for _, diff_id in layers])
    handmade.name("app", handmade.manifest(config, [layer for layer, _ in layers]))
    seen: list[Progress] = []
    with Store.open(handmade.path) as store:
        store.unpack("app", tmp_path / "out", engine="pure", progress=seen.append)
    assert [p.entries for p in seen] == sorted(p.entries for p in seen)
    assert [p.bytes_plain for p in seen] == sorted(p.bytes_plain for p in seen)
    assert seen[-1].entries == 900
    assert seen[-1].bytes_blob == sum(layer["size"] for layer, _ in layers)


@pytest.mark.parametrize("made", [True, False])
def test_a_directory_that_is_not_empty_is_left_alone(handmade: Handmade, tmp_path: Path, made: bool) -> None:
    handmade.name("app", handmade.image({"f": "x"}))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with Store.open(handmade.path) as store:
        with pytest.raises(AlreadyExistsError, match="not empty"):
            store.unpack("app", tmp_path / "out", engine="pure")
        with pytest.raises(NotADirectoryError):
            store.unpack("app", tmp_path / "out" / "mine", engine="pure")
        with pytest.raises(FileNotFoundError):
            store.unpack("app", tmp_path / "missing" / "out", engine="pure")
    assert os.listdir(tmp_path / "out") == ["mine"]


def _broken(handmade: Handmade, fault: str) -> type[Exception]:
    """Name an image `app` whose second layer has a fault; the error that it gives."""
    good, good_id = handmade.layer({"dir/f": "x"})
    bad, bad_id = handmade.layer({"g": "y" * 1000})
    kind: type[Exception] = DigestMismatchError
    path = handmade.path / "blobs" / "sha256" / bad["digest"][7:]
    if fault == "diff_id":
        bad_id = "sha256:" + "0" * 64
    elif fault == "digest":
        data = bytearray(path.read_bytes())
        data[9] ^= 1  # the byte of the gzip header that names the operating system
        path.write_bytes(data)
    elif fault == "size":
        bad["size"] += 1
    elif fault == "media type":
        bad["mediaType"], kind = "application/vnd.in-toto+json", UnsupportedError
    elif fault == "missing":
        path.unlink()
        kind = NotFoundError
    else:
        bad, kind = handmade.blob(b"no layer at all", bad["mediaType"]), MalformedLayerError
    handmade.name("app", handmade.manifest(handmade.config([good_id, bad_id]), [good, bad]))
    return kind


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("fault", ["diff_id", "digest", "size", "media type", "missing", "malformed"])
def test_a_fault_in_any_layer_leaves_nothing(
    handmade: Handmade, tmp_path: Path, fault: str, exists: bool, engine_name: EngineName
) -> None:
    kind = _broken(handmade, fault)
    out = tmp_path / "out"
    if exists:
        out.mkdir(0o750)
    with Store.open(handmade.path) as store, pytest.raises(kind):
        store.unpack("app", out, engine=engine_name)
    assert out.exists() == exists
    if exists:
        assert os.listdir(out) == []
        assert stat.S_IMODE(out.stat().st_mode) == 0o750


def test_an_interrupt_leaves_nothing(store: Store, rootfs: Path, tmp_path: Path, engine_name: EngineName) -> None:
    for number in range(3000):
        (rootfs / f"file{number}").write_bytes(os.urandom(4096))
    store.commit(rootfs, "app", engine=engine_name)

    def interrupt(progress: Progress) -> None:
        if progress.entries:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.unpack("app", tmp_path / "out", engine=engine_name, progress=interrupt)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("limits", [Limits(max_entries=3), Limits(max_bytes=10_000)])
def test_limits_are_for_all_layers_together(
    handmade: Handmade, tmp_path: Path, limits: Limits, engine_name: EngineName
) -> None:
    first, second = handmade.layer({"a": "1", "b": "1"}), handmade.layer({"c": "2", "d": "2"})
    config = handmade.config([first[1], second[1]])
    handmade.name("app", handmade.manifest(config, [first[0], second[0]]))
    with Store.open(handmade.path) as store:
        with pytest.raises(LimitExceededError):
            store.unpack("app", tmp_path / "out", engine=engine_name, limits=limits)
        assert not (tmp_path / "out").exists()
        store.unpack("app", tmp_path / "out", engine=engine_name, limits=Limits(max_entries=4, max_bytes=100_000))


def test_a_kill_leaves_a_mark_and_the_next_run_works(store: Store, rootfs: Path, tmp_path: Path) -> None:
    for number in range(2000):
        (rootfs / f"file{number}").write_bytes(b"x" * 2000)
    store.commit(rootfs, "app")
    out, program = tmp_path / "out", "import sys; from ocidiff.cli.main import main; sys.exit(main())"
    words = [sys.executable, "-c", program, "--store", str(tmp_path / "store"), "unpack", "app", str(out)]

    def begin() -> subprocess.Popen[bytes]:
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        while not out.exists():
            time.sleep(0.001)
        return process

    process, began = begin(), time.monotonic()
    assert process.wait() == 0
    seconds = time.monotonic() - began
    shutil.rmtree(out)
    found: Counter[str] = Counter()
    for number in range(KILLS):
        process = begin()
        time.sleep(random.uniform(0, seconds))
        process.kill()
        names = os.listdir(out) if process.wait() else None
        if names is None:
            found["ended before"] += 1
        elif INCOMPLETE in names or not names:
            found["marked" if names else "empty"] += 1
            # Half of the next kills find what this one left.
            if number % 2:
                continue
            store.unpack("app", out)
        else:
            found["whole"] += 1
        trees.assert_same_tree(out, rootfs, directory_times=True)
        shutil.rmtree(out)
    print(f"unpack killed at {KILLS} random moments of {seconds:.2f} s: {dict(found)}")
    assert found["marked"]


def test_what_is_removed_is_below_the_mark(
    store: Store, rootfs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.commit(rootfs, "app")
    out, clear = tmp_path / "out", workspace.clear
    (out / INCOMPLETE / "below").mkdir(parents=True)
    (out / "moved").mkdir(mode=0o555)
    seen = []

    def look(directory: int) -> None:
        seen.append((os.listdir(out), sorted(workspace.names_in(directory))))
        clear(directory)

    monkeypatch.setattr(workspace, "clear", look)
    store.unpack("app", out)
    assert seen == [([INCOMPLETE], ["below", "moved"])]
    trees.assert_same_tree(out, rootfs, directory_times=True)


def test_an_image_that_holds_the_mark_is_refused(
    store: Store, rootfs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (rootfs / INCOMPLETE).mkdir()
    with monkeypatch.context() as patch:
        # As another tool commits it.
        patch.setattr(paths, "refuse_incomplete", lambda *_: None)
        store.commit(rootfs, "app")
    with pytest.raises(UnsupportedError, match=INCOMPLETE):
        store.unpack("app", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_do_not_unpack_into_one_directory(store: Store, rootfs: Path, tmp_path: Path) -> None:
    store.commit(rootfs, "app")
    (tmp_path / "out" / INCOMPLETE).mkdir(parents=True)
    held = os.open(tmp_path / "out" / INCOMPLETE, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(AlreadyExistsError, match="another process"):
            store.unpack("app", tmp_path / "out")
    finally:
        os.close(held)
    store.unpack("app", tmp_path / "out")
    trees.assert_same_tree(tmp_path / "out", rootfs, directory_times=True)


@pytest.mark.parametrize("began", [True, False])
def test_who_comes_late_does_not_touch_what_another_finished(
    store: Store, rootfs: Path, tmp_path: Path, began: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.commit(rootfs, "app")
    out, flock = tmp_path / "out", fcntl.flock
    out.mkdir()
    if began:
        (out / INCOMPLETE).mkdir()

    def finish(descriptor: int, operation: int) -> None:
        """Another process is done between our look and our lock."""
        monkeypatch.setattr(fcntl, "flock", flock)
        (out / "whole").touch()
        if began:
            (out / INCOMPLETE).rmdir()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", finish)
    with pytest.raises(AlreadyExistsError):
        store.unpack("app", out)
    assert os.listdir(out) == ["whole"]
