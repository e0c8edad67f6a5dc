"""The trees of working containers: as deep as images are, never shared by mistake, never half removed without a word."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ocidiff.cli.main import main
from ocidiff.embedded.drivers.clone import can_share_blocks
from ocidiff.embedded.drivers.select import DriverName
from ocidiff.embedded.trees import disk_usage, tree_of
from ocidiff.errors import InUseError
from ocidiff.store.embedded import EmbeddedStore
from ocidiff.walk import Cursor, walk
from support import probes


def _deep(top: Path, depth: int) -> None:
    here = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    for number in range(depth):
        file = os.open("file", os.O_CREAT | os.O_WRONLY, 0o640, dir_fd=here)
        os.write(file, b"%d" % number)
        os.close(file)
        os.mkdir("n" * 120, dir_fd=here)
        below = os.open("n" * 120, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    # A hard link between ends that no path reaches.
    os.link(top / "file", "again", dst_dir_fd=here)
    os.close(here)


def _facts(top: str | Path) -> list[tuple[bytes, int, int, int, int]]:
    with Cursor(str(top)) as here:
        return sorted(
            (here.path(name), info.st_mode, info.st_size, info.st_mtime_ns // 10**9, info.st_nlink)
            for name, info, _ in walk(here)
        )


def test_a_tree_with_paths_of_any_length_is_made_committed_and_removed(
    store: EmbeddedStore, driver: DriverName, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    _deep(tree, 60)
    store.commit(tree, "deep:1")
    for name in ("one", "two"):
        container = store.create("deep:1", name, driver=driver)
    assert disk_usage(tree_of(store._layout, container.snapshot_id)).inodes == (1 if driver == "overlay" else 121)
    root = store.containers.mount("two")
    assert [facts[:4] for facts in _facts(root)] == [facts[:4] for facts in _facts(tree)]
    if driver == "directory":
        # On overlayfs, directories have a link count of one.
        assert _facts(root) == _facts(tree)
    Path(root, "new").write_text("x")
    store.containers.umount("two")
    layer = store.commit(store.containers.get("two"), "deep:2").layer
    assert layer is not None
    assert (layer.added, layer.modified, layer.deleted) == (1, 0, 0)
    # From what the container offers, where it can be had.
    store.create("deep:2", "three", driver=driver)
    for name in ("one", "two", "three"):
        store.containers.remove(name)
    for name in ("deep:1", "deep:2"):
        store.untag(name)
    would = store.collect(dry_run=True)
    assert would.snapshots >= 2
    assert store.collect().leftovers == ()
    assert os.listdir(tmp_path / "store" / "snapshots") == []
    assert os.listdir(tmp_path / "store" / "ingest") == []


def test_deep_changes_are_shared_and_unshared(store: EmbeddedStore, tmp_path: Path) -> None:
    if not probes.can_mount_overlay():
        probes.missing("needs overlay mounts")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "kept").touch()
    store.commit(tmp_path / "tree", "base")
    store.create("base", "work", driver="overlay")
    _deep(Path(store.containers.mount("work")), 50)
    store.containers.umount("work")
    own = tree_of(store._layout, store.containers.get("work").snapshot_id)
    before = _facts(own)
    store.commit(store.containers.get("work"), "full")
    other = store.create("full", "other", driver="overlay")
    assert other.snapshot_id > 2
    if not can_share_blocks(str(tmp_path)):
        assert Path(own, "..", "shared").exists()
        assert [facts[4] for facts in _facts(own) if facts[0].endswith(b"file")] == [4] + [2] * 49
    store.containers.mount("work")
    assert _facts(own) == before
    assert not Path(own, "..", "shared").exists()
    store.containers.umount("work")


@contextmanager
def _failing(patch: pytest.MonkeyPatch, call: str, number: int) -> Iterator[Callable[[], int]]:
    """Let a call of the module `os` fail, the given time that it is called."""
    real, calls = getattr(os, call), 0

    def fail(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            raise OSError(errno.EIO, os.strerror(errno.EIO), arguments[0] if arguments else None)
        return real(*arguments, **named)

    with patch.context() as context:
        context.setattr(os, call, fail)
        yield lambda: calls


@pytest.mark.parametrize(
    "call", ["open", "listdir", "lstat", "stat", "fstat", "link", "rename", "unlink", "listxattr", "utime", "chmod", "chown"]
)
def test_no_failure_leaves_a_mounted_container_with_shared_files(
    store: EmbeddedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    if not probes.can_mount_overlay():
        probes.missing("needs overlay mounts")
    if can_share_blocks(str(tmp_path)):
        pytest.skip("nothing is shared where blocks can be")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "kept").touch()
    store.commit(tmp_path / "tree", "base")
    store.create("base", "work", driver="overlay")
    root = Path(store.containers.mount("work"))
    for name in ("a", "a/b", "a/b/c"):
        (root / name).mkdir()
        (root / name / "file").write_text("committed")
    os.link(root / "a" / "file", root / "a" / "b" / "again")
    store.containers.umount("work")
    store.commit(store.containers.get("work"), "full")
    store.create("full", "other", driver="overlay")
    own = tree_of(store._layout, store.containers.get("work").snapshot_id)
    note = Path(own, "..", "shared")
    assert note.exists()
    failed = 0
    for number in range(1, 400):
        with _failing(monkeypatch, call, number) as calls:
            try:
                store.containers.mount("work")
            except OSError:
                failed += 1
                assert store.containers.get("work").mount_point is None
                continue
        made = calls()
        break
    shared = [path for path, _, _, _, links in _facts(own) if links > 1 and path.endswith((b"file", b"again"))]
    assert sorted(shared) == [b"a/b/again", b"a/file"]
    assert not note.exists()
    assert made < number or failed == 0
    store.containers.umount("work")


@pytest.mark.root
def test_a_container_that_cannot_be_removed_stays_listed(
    store: EmbeddedStore, driver: DriverName, tmp_path: Path, rootfs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.commit(rootfs, "base")
    store.create("base", "work", driver=driver)
    root = Path(store.containers.mount("work"))
    for name in ("a", "a/b"):
        (root / name).mkdir()
        (root / name / "file").write_text("x")
    store.containers.umount("work")
    tree = Path(tree_of(store._layout, store.containers.get("work").snapshot_id))
    pinned = tree / "a" / "b" / "file"
    if subprocess.run(["chattr", "+i", pinned], check=False, capture_output=True).returncode != 0:
        probes.missing("needs a file system with immutable files")
    at = ("--store", str(tmp_path / "store"))
    try:
        assert main(["rm", "work", *at]) == 1
        assert f"{pinned}: Operation not permitted" in capsys.readouterr().err
        assert store.containers.get("work").partly_removed == f"{pinned}: Operation not permitted"
        assert main(["ps", *at]) == 0
        assert "work" in capsys.readouterr().out
        # What is left of it is nobody's tree.
        with pytest.raises(InUseError, match="partly removed"):
            store.commit(store.containers.get("work"), "full")
        with pytest.raises(InUseError, match="partly removed"):
            store.containers.mount("work")
        for command in ("gc", "verify"):
            assert main([command, *at]) == 1
            output = capsys.readouterr()
            assert str(pinned) in output.out + output.err
    finally:
        subprocess.run(["chattr", "-i", pinned], check=True)
    assert main(["rm", "work", *at]) == 0
    assert main(["gc", *at]) == 0
    assert store.verify().faults == ()


@pytest.mark.root
def test_a_snapshot_that_cannot_be_removed_is_told_until_it_can(
    store: EmbeddedStore, tmp_path: Path, rootfs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.commit(rootfs, "base")
    store.create("base", "work", driver="directory")
    tree = Path(tree_of(store._layout, 1))
    pinned = tree / "etc" / "passwd"
    if subprocess.run(["chattr", "+i", pinned], check=False, capture_output=True).returncode != 0:
        probes.missing("needs a file system with immutable files")
    store.containers.remove("work")
    store.untag("base")
    at = ("--store", str(tmp_path / "store"))
    left: list[Path] = []
    try:
        for command in ("gc", "gc", "verify"):
            assert main([command, *at]) == 1
            output = capsys.readouterr()
            assert "etc/passwd" in output.out + output.err
            assert "Operation not permitted" in output.out + output.err
        assert main(["images", *at]) == 0
    finally:
        left = list((tmp_path / "store" / "ingest").glob("*/fs/etc/passwd"))
        subprocess.run(["chattr", "-i", *left], check=True)
    assert len(left) == 1
    assert store.collect().leftovers == ()
    assert store.verify().faults == ()
    assert os.listdir(tmp_path / "store" / "ingest") == []
