"""Garbage collection removes what nothing needs, and nothing else."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocidiff.embedded.drivers.select import snapshotter
from ocidiff.embedded.gc import collect, estimate
from ocidiff.embedded.layout import Layout
from ocidiff.embedded.leases import Leases
from ocidiff.embedded.snapshotter import LocalSnapshotter
from ocidiff.errors import DigestMismatchError, DocumentError
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import Digest
from ocidiff.store import Store
from suites.snapshotter import committed
from support import irregular
from support.layouts import Handmade

KIND = "application/octet-stream"


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    with Layout.open(tmp_path / "store", create=True) as opened:
        yield opened


@pytest.fixture
def snapshots(layout: Layout) -> LocalSnapshotter:
    return snapshotter(layout, "directory")


def _left(layout: Layout) -> set[Digest]:
    return set(layout.walk())


def _keys(snapshots: LocalSnapshotter) -> list[str]:
    return [found.key for found in snapshots.walk()]


def test_what_nothing_needs_goes_and_is_counted(layout: Layout, snapshots: LocalSnapshotter) -> None:
    layout.write(b"1234", KIND)
    committed(snapshots, "one", None, file="x" * 10_000)
    snapshots.prepare("a", "one")
    snapshots.view("v", "one")
    would = estimate(layout)
    assert len(_left(layout)) == 1
    assert len(_keys(snapshots)) == 3
    done = collect(layout)
    assert would == done
    assert (done.blobs, done.blob_bytes, done.snapshots) == (1, 4, 3)
    assert done.snapshot_bytes > 10_000
    assert _left(layout) == set()
    assert _keys(snapshots) == []
    for place in ("ingest", "snapshots"):
        assert os.listdir(Path(layout.path, place)) == []
    assert collect(layout).blobs == 0


def test_a_named_image_stays_whole_and_goes_once_its_name_is_gone(tmp_path: Path) -> None:
    (tmp_path / "rootfs").mkdir()
    (tmp_path / "rootfs" / "f").write_text("1")
    with Store.open(tmp_path / "store") as store:
        store.commit(tmp_path / "rootfs", "app:1")
        (tmp_path / "rootfs" / "f").write_text("2")
        store.commit(tmp_path / "rootfs", "app:2", base="app:1")
        assert store.collect().blobs == 0
        store.untag("app:1")
        # The layer stays, which app:2 has too; config and manifest go.
        assert store.collect().blobs == 2
        assert store.verify().faults == ()
        store.untag("app:2")
        assert store.collect().blobs == 4
        assert list((tmp_path / "store" / "blobs" / "sha256").iterdir()) == []


def test_all_members_of_an_index_stay(tmp_path: Path) -> None:
    handmade = Handmade(tmp_path / "store")
    inner = handmade.index([handmade.image({"f": "1"}), handmade.image({"f": "2"})])
    handmade.name("multi", handmade.index([inner, handmade.image({"f": "3"})]))
    with Layout.open(tmp_path / "store", create=False) as layout:
        before = _left(layout)
        assert collect(layout, young_seconds=0).blobs == 0
        assert _left(layout) == before


def test_a_lease_keeps_what_is_under_it_and_what_that_needs(layout: Layout) -> None:
    child = layout.write(b"child", KIND)
    with Leases(layout.database).hold() as lease:
        layout.under(lease.id).write(f'{{"layers": [{{"digest": "{child.digest}"}}]}}'.encode(), KIND)
        labelled = layout.write(b"labelled", KIND)
        layout.under(lease.id).write(b"parent", KIND, {"containerd.io/gc.ref.content.x": labelled.digest})
        layout.write(b"alone", KIND)
        assert collect(layout).blobs == 1
        assert len(_left(layout)) == 4
    assert collect(layout).blobs == 4


def test_a_blob_that_is_there_already_is_kept_by_whoever_writes_it_again(layout: Layout) -> None:
    layout.write(b"blob", KIND)
    with Leases(layout.database).hold() as lease:
        layout.under(lease.id).write(b"blob", KIND)
        assert collect(layout).blobs == 0
    assert collect(layout).blobs == 1


def test_a_lease_that_is_over_keeps_nothing(layout: Layout) -> None:
    with Leases(layout.database).hold() as lease:
        layout.under(lease.id).write(b"blob", KIND)
        os.unlink(lease.path)
        assert estimate(layout).leases == 1
        collected = collect(layout)
        assert (collected.leases, collected.blobs) == (1, 1)


@pytest.mark.parametrize("ending", ["", ".x", "/x", ".deep.er"])
def test_labels_lead_to_content_and_snapshots(layout: Layout, snapshots: LocalSnapshotter, ending: str) -> None:
    committed(snapshots, "base", None)
    committed(snapshots, "one", "base")
    needed = layout.write(b"needed", KIND, {f"containerd.io/gc.ref.snapshot.directory{ending}": "one"})
    layout.write(b"root", KIND, {"containerd.io/gc.root": "yes", f"containerd.io/gc.ref.content{ending}": needed.digest})
    collected = collect(layout)
    assert (collected.blobs, collected.snapshots) == (0, 0)


@pytest.mark.parametrize("name", ["containerd.io/gc.ref.contents", "containerd.io/gc.ref.snapshot.directoryx", "other"])
def test_other_labels_lead_nowhere(layout: Layout, snapshots: LocalSnapshotter, name: str) -> None:
    committed(snapshots, "one", None)
    blob = layout.write(b"blob", KIND)
    value = "one" if "snapshot" in name else blob.digest
    layout.write(b"root", KIND, {"containerd.io/gc.root": "yes", name: value})
    collected = collect(layout)
    assert (collected.blobs, collected.snapshots) == (1, 1)


def test_a_snapshot_label_is_a_root(layout: Layout, snapshots: LocalSnapshotter) -> None:
    blob = layout.write(b"blob", KIND)
    snapshots.prepare("a", None, {"containerd.io/gc.root": "yes", "containerd.io/gc.ref.content": blob.digest})
    collected = collect(layout)
    assert (collected.blobs, collected.snapshots) == (0, 0)


def test_young_blobs_of_other_tools_are_left_alone(layout: Layout) -> None:
    data = b"foreign"
    path = Path(layout.path, "blobs", "sha256", Digest.of(data).hex)
    path.write_bytes(data)
    collected = collect(layout)
    assert (collected.blobs, collected.young) == (0, 1)
    os.utime(path, (time.time() - 7200,) * 2)
    assert collect(layout).blobs == 1
    assert not path.exists()


def test_what_is_no_blob_of_ours_is_left_alone(layout: Layout) -> None:
    strange = Path(layout.path, "blobs", "sha256", "oci-put-blob123")
    strange.write_bytes(b"x")
    other = Path(layout.path, "blobs", "sha512", "a" * 128)
    other.parent.mkdir()
    other.write_bytes(b"x")
    collect(layout, young_seconds=0)
    assert strange.exists()
    assert other.exists()


def test_stale_ingests_go_and_fresh_and_busy_ones_stay(layout: Layout) -> None:
    for ref in ("stale", "fresh"):
        with layout.ingest(ref) as ingest:
            ingest.write(b"12345")
    with layout.ingest("busy") as ingest:
        ingest.write(b"x")
        directories = Path(layout.path, "ingest")
        for directory in directories.iterdir():
            if (directory / "ref").read_text() != "fresh":
                os.utime(directory / "data", (1, 1))
        assert estimate(layout).ingest_bytes == 5
        collected = collect(layout)
        assert (collected.ingests, collected.ingest_bytes) == (1, 5)
        assert [status.ref for status in layout.statuses()] == ["busy", "fresh"]


def test_a_damaged_document_stops_the_collection(layout: Layout) -> None:
    needed = layout.write(b'{"layers": []}', KIND)
    layout.names.put("a:1", needed)
    other = layout.write(b"other", KIND)
    path = Path(layout.path, "blobs", "sha256", needed.digest.hex)
    path.chmod(0o644)
    path.write_bytes(b'{"layers": {}}')
    with pytest.raises(DigestMismatchError, match=needed.digest):
        collect(layout)
    assert layout.contains(other.digest)


@pytest.mark.parametrize("kind", irregular.KINDS)
def test_a_blob_that_is_no_file_goes_if_nothing_needs_it(layout: Layout, kind: str) -> None:
    blobs = Path(layout.path, "blobs", "sha256")
    written, other = layout.write(b"blob", KIND), layout.write(b"other", KIND)
    irregular.replace(blobs / written.digest.hex, kind)
    irregular.KINDS[kind](blobs / Digest.of(b"of another tool").hex)
    for young_seconds, count in ((3600, 2), (-1, 1)):
        assert estimate(layout, young_seconds=young_seconds).blobs == count
        collected = collect(layout, young_seconds=young_seconds)
        assert (collected.blobs, collected.leftovers) == (count, ())
    assert os.listdir(blobs) == os.listdir(Path(layout.path, "ingest")) == []
    assert not layout.contains(other.digest)


@pytest.mark.parametrize("kind", irregular.KINDS)
def test_a_needed_blob_that_is_no_file_stops_the_collection(layout: Layout, kind: str) -> None:
    """It may have been a document that needs others."""
    needed, other = layout.write(b'{"layers": []}', KIND), layout.write(b"other", KIND)
    layout.names.put("a:1", needed)
    irregular.replace(Path(layout.path, "blobs", "sha256", needed.digest.hex), kind)
    with pytest.raises(DigestMismatchError, match=needed.digest) as raised:
        collect(layout)
    assert "not a regular file" in str(raised.value)
    assert any("verify --repair" in note for note in raised.value.__notes__)
    assert layout.contains(other.digest)
    layout.move_to_damaged(needed.digest)
    assert collect(layout).blobs == 1


def test_a_damaged_index_stops_the_collection(layout: Layout) -> None:
    blob = layout.write(b"blob", KIND)
    Path(layout.path, "index.json").write_text("{")
    with pytest.raises(DocumentError, match="not JSON"):
        collect(layout)
    assert layout.contains(blob.digest)


def test_what_is_read_goes_on_being_read(layout: Layout) -> None:
    blob = layout.write(b"blob", KIND)
    with layout.open_blob(Descriptor(KIND, blob.digest, blob.size)) as file:
        assert collect(layout).blobs == 1
        assert file.read() == b"blob"
