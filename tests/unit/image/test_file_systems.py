"""Containers on file systems of other kinds: some share blocks between files, and show an open directory as it once was."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ocidiff.embedded.drivers.clone import can_share_blocks
from ocidiff.embedded.drivers.select import DriverName
from ocidiff.store import Store
from support import probes, trees


@pytest.mark.root
@pytest.mark.parametrize("driver", ["overlay", "directory"])
def test_a_container_is_committed_and_collected(disk: Path, driver: DriverName) -> None:
    if driver == "overlay" and not probes.can_mount_overlay():
        probes.missing("needs overlay mounts")
    assert can_share_blocks(str(disk))
    tree = disk / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc" / "passwd").write_text("root" * 5000)
    (tree / "etc" / "gone").touch()
    with Store.open(disk / "store") as store:
        store.commit(tree, "base:1")
        store.create("base:1", "work", driver=driver)
        root = Path(store.containers.mount("work"))
        (root / "etc" / "gone").unlink()
        (root / "new").mkdir()
        (root / "new" / "file").write_text("n" * 20_000)
        # While it is mounted: what is adopted shares blocks, and no file.
        store.commit(store.containers.get("work"), "new:1")
        (root / "new" / "file").write_text("later")
        store.create("new:1", "second", driver=driver)
        second = Path(store.containers.mount("second"))
        store.unpack("new:1", disk / "out")
        trees.assert_same_tree(second, disk / "out")
        assert (second / "new" / "file").read_text() == "n" * 20_000
        for name in ("work", "second"):
            store.containers.umount(name)
            store.containers.remove(name)
        store.untag("new:1")
        store.collect()
        assert store.verify().faults == ()
        assert store.verify().images == 1
    assert os.listdir(disk / "store" / "ingest") == []
