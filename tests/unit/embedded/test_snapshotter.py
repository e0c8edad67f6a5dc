"""Both drivers of the local snapshotter, and what becomes of what the dead leave."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocidiff.embedded import trees
from ocidiff.embedded.drivers.select import snapshotter as select
from ocidiff.embedded.layout import Layout
from ocidiff.embedded.leases import Leases
from ocidiff.embedded.snapshotter import LocalSnapshotter
from ocidiff.embedded.trees import sweep_leftovers
from ocidiff.mounts import kernel
from ocidiff.mounts.kernel import directory_of
from ocidiff.mounts.mount import lower_directories, overlay
from ocidiff.mounts.mountinfo import mount_points
from ocidiff.services.snapshots import Kind, Snapshotter
from suites.snapshotter import SnapshotterSuite, committed, listed
from support import probes


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    # With what separates the options of overlayfs.
    with Layout.open(tmp_path / "a,b:c\\d e", create=True) as opened:
        yield opened


class _Local(SnapshotterSuite):
    def leftovers(self, snapshotter: Snapshotter) -> list[str]:
        assert isinstance(snapshotter, LocalSnapshotter)
        store = Path(snapshotter._layout.path)
        known = len(list(snapshotter.walk()))
        return [file.name for file in (store / "ingest").iterdir()] + [
            file.name for file in (store / "snapshots").glob("*")
        ][known:]


class TestOverlay(_Local):
    @pytest.fixture
    def snapshotter(self, layout: Layout) -> Snapshotter:
        if not probes.can_mount_overlay():
            probes.missing("needs overlay mounts")
        return select(layout, "overlay")

    @pytest.fixture
    def by_text(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(kernel, "_kernel", lambda: (5, 15))
        # Where nothing else is mounted for a moment.
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    @pytest.mark.usefixtures("by_text")
    def test_older_kernels_take_their_options_as_one_text(self, snapshotter: Snapshotter, tmp_path: Path) -> None:
        self.test_a_hundred_and_fifty_generations_are_one_tree(snapshotter)
        assert not any(point.startswith(str(tmp_path)) for point in mount_points())

    def test_what_was_changed_is_a_layer_and_nothing_else(self, snapshotter: LocalSnapshotter) -> None:
        committed(snapshotter, "one", None, file="1", other="1")
        committed(snapshotter, "two", "one", file="2")
        assert os.listdir(snapshotter.tree("two")) == ["file"]
        assert os.listdir(snapshotter.directory("two")) == ["fs"]

    def test_a_mount_without_a_place_is_in_no_table(self, snapshotter: Snapshotter, tmp_path: Path) -> None:
        committed(snapshotter, "one", None, file="1")
        with directory_of(snapshotter.prepare("a", "one")) as tree:
            assert (Path(tree) / "file").read_text() == "1"
            assert not any(point.startswith(str(tmp_path)) for point in mount_points())


class TestDirectory(_Local):
    @pytest.fixture
    def snapshotter(self, layout: Layout) -> Snapshotter:
        return select(layout, "directory")

    def test_a_view_takes_no_space(self, snapshotter: LocalSnapshotter) -> None:
        committed(snapshotter, "one", None, file="1")
        snapshotter.view("look", "one")
        assert os.listdir(snapshotter.directory("look")) == []


@pytest.fixture
def snapshots(layout: Layout) -> LocalSnapshotter:
    return select(layout, "directory")


def test_the_drivers_do_not_see_each_other(layout: Layout) -> None:
    for driver in ("overlay", "directory"):
        committed(select(layout, driver), "one", None)
    assert len(list(select(layout, "overlay").walk())) == 1
    assert sorted(os.listdir(Path(layout.path, "snapshots"))) == ["1", "2"]


def test_only_root_reaches_the_trees(snapshots: LocalSnapshotter) -> None:
    snapshots.prepare("a", None)
    assert os.stat(os.path.dirname(snapshots.directory("a"))).st_mode & 0o777 == 0o700


def test_lower_directories_survive_their_escapes() -> None:
    paths = ["/a:b", "/c\\d", "/e,f", "/\\:"]
    assert lower_directories(overlay(paths, None, None, ())) == paths


def test_a_directory_without_a_row_is_swept_and_one_with_a_row_is_not(layout: Layout, snapshots: LocalSnapshotter) -> None:
    snapshots.prepare("a", None)
    os.makedirs(Path(layout.path, "snapshots", "77", "fs", "deep"))
    Path(layout.path, "snapshots", "odd").touch()
    trees.sweep(layout)
    assert os.listdir(Path(layout.path, "snapshots")) == ["1"]
    assert listed(snapshots, "a") == {}


def test_a_number_is_never_used_twice_also_after_a_death(layout: Layout, snapshots: LocalSnapshotter) -> None:
    snapshots.prepare("a", None)
    snapshots.remove("a")
    # As if a process had died after moving its directory and before keeping its row.
    os.makedirs(Path(layout.path, "snapshots", "2", "fs", "old"))
    snapshots.prepare("b", None)
    assert listed(snapshots, "b") == {}
    assert os.listdir(Path(layout.path, "snapshots")) == ["2"]


def test_a_failure_while_a_tree_is_made_leaves_nothing(
    layout: Layout, snapshots: LocalSnapshotter, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed(snapshots, "one", None, file="1")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ocidiff.embedded.drivers.directory.clone_tree", fail)
    with pytest.raises(OSError, match="No space"):
        snapshots.prepare("a", "one")
    assert [found.key for found in snapshots.walk()] == ["one"]
    assert os.listdir(Path(layout.path, "ingest")) == []
    assert os.listdir(Path(layout.path, "snapshots")) == ["1"]


def test_what_may_be_torn_by_a_power_failure_is_dropped_after_it(layout: Layout, snapshots: LocalSnapshotter) -> None:
    committed(snapshots, "built on", None)
    committed(snapshots, "alone", None)
    snapshots.prepare("work", "built on")
    with layout.database().transaction() as connection:
        connection.execute("UPDATE snapshot SET unsynced_boot_id = 'another' WHERE unsynced_boot_id IS NOT NULL")
    sweep_leftovers(layout)
    assert [found.key for found in snapshots.walk()] == ["built on", "work"]


_DIE = """
import os, sys
from ocidiff.embedded.layout import Layout
from ocidiff.embedded.leases import Leases
from ocidiff.embedded.drivers.select import snapshotter
layout = Layout.open(sys.argv[1], create=False)
held = Leases(layout.database).hold()
lease = held.__enter__()
snapshots = snapshotter(layout.under(lease.id), "directory")
snapshots.prepare("extract-1 one", None)
snapshots.view("view-1", None)
snapshots.prepare("work", None)
os._exit(9)
"""


def test_the_snapshots_of_a_dead_call_are_swept_and_those_of_a_live_one_are_not(
    layout: Layout, snapshots: LocalSnapshotter
) -> None:
    subprocess.run([sys.executable, "-c", _DIE, layout.path], check=False)
    leases = Leases(layout.database)
    with leases.hold() as lease:
        select(layout.under(lease.id), "directory").prepare("extract-2 two", None)
        sweep_leftovers(layout)
        assert [found.key for found in snapshots.walk()] == ["work", "extract-2 two"]
    sweep_leftovers(layout)
    assert [(found.kind, found.key) for found in snapshots.walk()] == [(Kind.ACTIVE, "work")]
    assert len(os.listdir(Path(layout.path, "snapshots"))) == 1
    assert leases.leases() == []
