"""Verify finds every fault that is made here, mends what can be mended, and calls nothing else a fault."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ocidiff.embedded.database import Database
from ocidiff.embedded.drivers.select import DriverName
from ocidiff.embedded.layout import Layout
from ocidiff.embedded.names import Names
from ocidiff.embedded.schema import VERSION
from ocidiff.embedded.verified import Fault
from ocidiff.embedded.verify import _Verification
from ocidiff.errors import DocumentError, LimitExceededError
from ocidiff.layer.limits import Limits
from ocidiff.layer.options import EngineName
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import Digest
from ocidiff.store import Store
from ocidiff.store.embedded import EmbeddedStore
from support import irregular, probes, trees
from support.layouts import Handmade


@pytest.fixture
def store(tmp_path: Path, rootfs: Path) -> Iterator[EmbeddedStore]:
    with Store.open(tmp_path / "store") as opened:
        opened.commit(rootfs, "app:1")
        opened.create("app:1", "work", driver="directory")
        yield opened


def _only(faults: tuple[Fault, ...]) -> Fault:
    (fault,) = faults
    return fault


def _damage(tmp_path: Path, digest: str) -> Path:
    path = tmp_path / "store" / "blobs" / "sha256" / digest[7:]
    path.chmod(0o644)
    path.write_bytes(b"x" + path.read_bytes()[1:])
    return path


def _layer(store: EmbeddedStore) -> str:
    return str(store.inspect("app:1")["manifest"]["layers"][0]["digest"])  # type: ignore[index]


def test_a_sound_store_has_no_fault(store: EmbeddedStore, engine_name: EngineName) -> None:
    store._layout.write(b"needed by nothing", "x/y")
    verified = store.verify(engine=engine_name)
    assert verified.faults == ()
    assert (verified.blobs, verified.images, verified.snapshots, verified.containers) == (4, 1, 2, 1)
    assert verified.blob_bytes > 0


def test_a_damaged_blob_is_found_and_makes_room_for_the_right_one(
    store: EmbeddedStore, rootfs: Path, tmp_path: Path
) -> None:
    digest = _layer(store)
    path = _damage(tmp_path, digest)
    kinds = [fault.kind for fault in store.verify().faults]
    assert kinds == ["blob", "image"]
    assert path.exists()
    faults = store.verify(repair=True).faults
    assert [(fault.kind, fault.repaired) for fault in faults] == [("blob", True), ("image", False)]
    assert not path.exists()
    assert (tmp_path / "store" / "damaged" / path.name).exists()
    store.commit(rootfs, "again")
    assert store.verify().faults == ()


@pytest.mark.parametrize("kind", irregular.KINDS)
@pytest.mark.parametrize("part", ["layer", "config", "manifest", "nothing"])
def test_a_blob_that_is_no_file_is_one_fault_among_others(
    store: EmbeddedStore, rootfs: Path, tmp_path: Path, kind: str, part: str
) -> None:
    manifest = store.inspect("app:1")["manifest"]
    digests = {
        "layer": _layer(store),
        "config": manifest["config"]["digest"],  # type: ignore[index]
        "manifest": store.resolve("app:1").digest,
        "nothing": store._layout.write(b"needed by nothing", "x/y").digest,
    }
    (rootfs / "another").write_text("layer")
    other = store.commit(rootfs, "other:1").layer
    assert other is not None
    path = tmp_path / "store" / "blobs" / "sha256" / digests[part][7:]
    irregular.replace(path, kind)
    _damage(tmp_path, other.descriptor.digest)
    for repair in (False, True):
        found = {fault.where: fault for fault in store.verify(repair=repair).faults if fault.kind == "blob"}
        assert set(found) == {digests[part], other.descriptor.digest}
        assert "not a regular file" in found[digests[part]].problem
        assert [fault.repaired for fault in found.values()] == [repair, repair]
    names = {path.name, other.descriptor.digest.hex}
    assert set(os.listdir(tmp_path / "store" / "damaged")) == names
    assert not any(fault.kind == "blob" for fault in store.verify().faults)
    store.collect()
    # Again, beside what is there already.
    irregular.KINDS[kind](path)
    store.verify(repair=True)
    assert len(os.listdir(tmp_path / "store" / "damaged")) == 3


def test_a_blob_that_cannot_be_moved_stops_nothing(
    store: EmbeddedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = {_layer(store), store.resolve("app:1").digest}
    for digest in digests:
        _damage(tmp_path, digest)

    def fail(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(Layout, "move_to_damaged", fail)
    found = {fault.where: fault for fault in store.verify(repair=True).faults if fault.kind == "blob"}
    assert set(found) == digests
    assert all("cannot be moved to damaged/" in fault.problem and not fault.repaired for fault in found.values())


def test_a_lack_of_memory_damages_no_blob(store: EmbeddedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(Layout, "describe", fail)
    with pytest.raises(OSError, match="Cannot allocate memory"):
        store.verify(repair=True)
    assert not (tmp_path / "store" / "damaged").exists()


def test_a_missing_blob_is_a_fault_of_its_image_and_container(store: EmbeddedStore, tmp_path: Path) -> None:
    (tmp_path / "store" / "blobs" / "sha256" / store.resolve("app:1").digest.hex).unlink()
    faults = store.verify(repair=True).faults
    assert [(fault.kind, fault.where, fault.repaired) for fault in faults] == [
        ("image", "app:1", False),
        ("container", "work", False),
    ]


def test_a_layer_of_another_tar_is_a_fault(tmp_path: Path, engine_name: EngineName) -> None:
    handmade = Handmade(tmp_path / "store")
    layer, _ = handmade.layer({"f": "1"})
    handmade.name("app:1", handmade.manifest(handmade.config([Digest.of(b"other")]), [layer]))
    with Store.open(tmp_path / "store") as store:
        fault = _only(store.verify(engine=engine_name).faults)
    assert fault.kind == "image"
    assert f"expected {Digest.of(b'other')}" in fault.problem


def test_a_layer_that_does_not_decompress_is_a_fault(tmp_path: Path, engine_name: EngineName) -> None:
    handmade = Handmade(tmp_path / "store")
    layer = handmade.blob(b"\x1f\x8b\x08 this is no gzip", "application/vnd.oci.image.layer.v1.tar+gzip")
    handmade.name("app:1", handmade.manifest(handmade.config([Digest.of(b"x")]), [layer]))
    with Store.open(tmp_path / "store") as store:
        fault = _only(store.verify(engine=engine_name).faults)
    assert layer["digest"] in fault.problem


def test_a_damaged_index_is_made_again_from_the_database(store: EmbeddedStore, tmp_path: Path) -> None:
    index = tmp_path / "store" / "index.json"
    before = json.loads(index.read_text())
    index.write_text("{")
    fault = store.verify().faults[0]
    assert (fault.kind, fault.repaired) == ("index", False)
    assert index.read_text() == "{"
    fault = _only(store.verify(repair=True).faults)
    assert (fault.kind, fault.repaired) == ("index", True)
    assert json.loads(index.read_text()) == before
    assert [file.read_text() for file in (tmp_path / "store" / "damaged").iterdir()] == ["{"]
    index.unlink()
    store.verify(repair=True)
    assert json.loads(index.read_text()) == before


def test_names_that_another_tool_gave_or_took_are_no_fault_and_are_noted(store: EmbeddedStore, tmp_path: Path) -> None:
    index = tmp_path / "store" / "index.json"
    document = json.loads(index.read_text())
    document["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"] = "theirs"
    index.write_text(json.dumps(document))
    assert store.verify().faults == ()
    index.write_text("{")
    store.verify(repair=True)
    assert json.loads(index.read_text())["manifests"] == document["manifests"]


def test_a_snapshot_without_its_directory_is_a_fault_and_is_made_again(store: EmbeddedStore, tmp_path: Path) -> None:
    store.containers.remove("work")
    shutil.rmtree(tmp_path / "store" / "snapshots" / "1")
    fault = _only(store.verify().faults)
    assert (fault.kind, fault.repaired) == ("snapshot", False)
    assert _only(store.verify(repair=True).faults).repaired
    assert store.verify().faults == ()
    store.create("app:1", "again", driver="directory")


@pytest.mark.parametrize("driver", ["overlay", "directory"])
def test_a_snapshot_under_a_container_is_made_again_from_its_layer(
    store: EmbeddedStore, rootfs: Path, tmp_path: Path, driver: DriverName, engine_name: EngineName
) -> None:
    if driver == "overlay" and not probes.can_mount_overlay():
        probes.missing("needs overlay mounts")
    place = tmp_path / "store" / "snapshots"
    store.containers.remove("work")
    (rootfs / "etc" / "first").write_text("1")
    store.commit(rootfs, "base:1")
    (rootfs / "etc" / "second").write_text("2")
    store.commit(rootfs, "app:2", base="base:1")
    others = set(place.iterdir())
    store.create("app:2", "work", driver=driver)
    root = Path(store.containers.mount("work"))
    (root / "etc" / "own").write_text("kept")
    before = trees.scan_tree(root)
    store.containers.umount("work")
    store.untag("app:2")
    *lost, torn, _ = sorted(set(place.iterdir()) - others, key=lambda path: int(path.name))
    # A snapshot of the driver directory has all layers.
    assert len(lost) == (1 if driver == "overlay" else 0)
    for directory in lost:
        shutil.rmtree(directory)
    shutil.rmtree(torn / "fs")
    count = len(lost) + 1
    assert [(fault.kind, fault.repaired) for fault in store.verify().faults] == [("snapshot", False)] * count
    assert [fault.repaired for fault in store.verify(repair=True, engine=engine_name).faults] == [True] * count
    assert store.verify().faults == ()
    assert trees.comparable(trees.scan_tree(store.containers.mount("work"))) == trees.comparable(before)
    store.containers.umount("work")
    assert len(set(place.iterdir()) - others) == count + 1


def test_a_snapshot_whose_layer_is_lost_too_cannot_be_mended(store: EmbeddedStore, tmp_path: Path) -> None:
    _damage(tmp_path, _layer(store))
    shutil.rmtree(tmp_path / "store" / "snapshots" / "1")
    fault = next(fault for fault in store.verify(repair=True).faults if fault.kind == "snapshot")
    assert not fault.repaired
    assert "cannot be made again" in fault.problem
    assert _layer(store) in fault.problem
    assert os.listdir(tmp_path / "store" / "snapshots") == ["2"]


def test_what_a_container_has_lost_cannot_be_mended(store: EmbeddedStore, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "store" / "snapshots" / "2")
    fault = _only(store.verify(repair=True).faults)
    assert (fault.kind, fault.repaired) == ("snapshot", False)
    assert "is lost" in fault.problem


def test_what_dead_processes_left_is_no_fault(store: EmbeddedStore, tmp_path: Path) -> None:
    root = tmp_path / "store"
    os.makedirs(root / "snapshots" / "99" / "fs")
    (root / "ingest" / "0123").write_text("half")
    with store._layout.database().transaction() as connection:
        connection.execute("INSERT INTO content VALUES (?, 1, 1)", (Digest.of(b"never came"),))
    assert store.verify().faults == ()
    assert not (root / "snapshots" / "99").exists()


def test_a_wrong_label_is_mended(store: EmbeddedStore) -> None:
    digest = Digest(_layer(store))
    store._layout.update_labels(digest, {"containerd.io/uncompressed": Digest.of(b"wrong")})
    fault = _only(store.verify().faults)
    assert (fault.kind, fault.where) == ("database", digest)
    assert _only(store.verify(repair=True).faults).repaired
    assert store.verify().faults == ()


def test_a_broken_reference_in_the_database_is_a_fault(store: EmbeddedStore, tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "store" / "ocidiff.db")
    connection.execute("INSERT INTO snapshot_label VALUES (77, 'a', 'b')")
    connection.commit()
    connection.close()
    fault = _only(store.verify().faults)
    assert (fault.kind, fault.problem) == ("database", "snapshot_label row refers to a missing snapshot")


@pytest.mark.parametrize("damage", ["garbage", "empty", "something else", "schema", "older schema"])
def test_a_malformed_database_is_set_aside_and_made_again(store: EmbeddedStore, tmp_path: Path, damage: str) -> None:
    place = tmp_path / "store"
    database = place / "ocidiff.db"
    before = {record.name for record in store.images()}
    work = Path(store.containers.mount("work"))
    (work / "own").write_text("kept")
    store.close()
    database.unlink()
    match damage:
        case "garbage":
            database.write_bytes(b"x" * 5000)
        case "empty":
            database.touch()
        case _:
            with closing(sqlite3.connect(database)) as connection:
                connection.execute("CREATE TABLE theirs (x)")
                if damage != "something else":
                    connection.execute("PRAGMA application_id = 0x6F636964")
                    connection.execute(f"PRAGMA user_version = {VERSION if damage == 'schema' else VERSION - 1}")
                connection.commit()
    spoilt = database.read_bytes()
    with Store.open(place) as other:
        if damage != "schema":
            # Every command says what to do.
            with pytest.raises(DocumentError, match="verify --repair"):
                other.create("app:1", "again", driver="directory")
            fault = _only(other.verify().faults)
            assert (fault.kind, fault.repaired) == ("database", False)
            assert "verify --repair" in fault.problem
            assert database.read_bytes() == spoilt
    with Store.open(place) as other:
        fault = _only(other.verify(repair=True).faults)
        assert (fault.kind, fault.repaired) == ("database", True)
        aside = next((place / "damaged").glob("ocidiff.db.*"))
        assert aside.read_bytes() == spoilt
        assert str(aside) in fault.problem
        # The tree of the container is nowhere else.
        (trees_,) = (place / "damaged").glob("snapshots.*")
        assert str(trees_) in fault.problem
        assert (trees_ / "2" / "fs" / "own").read_text() == "kept"
        assert other.verify().faults == ()
        assert {record.name for record in other.images()} == before
        other.create("app:1", "again", driver="directory")
        assert other.collect().blobs == 0
        other.unpack("app:1", tmp_path / "out")


def test_a_container_outlives_the_damage_of_other_tables(store: EmbeddedStore, tmp_path: Path) -> None:
    work = Path(store.containers.mount("work"))
    (work / "own").write_text("kept")
    database = store._layout.database()
    with database.transaction(durable=True) as connection:
        page = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'content_label'").fetchone()[0]
    store.close()
    with open(tmp_path / "store" / "ocidiff.db", "r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 4096)
    with Store.open(tmp_path / "store") as other:
        assert not _only(other.verify().faults[:1]).repaired
        fault = _only(other.verify(repair=True).faults)
        assert "content_label" in fault.problem
        assert other.verify().faults == ()
        assert (Path(other.containers.mount("work")) / "own").read_text() == "kept"
        assert other.collect().snapshots == 0


def test_a_damaged_index_loses_no_label(store: EmbeddedStore, tmp_path: Path) -> None:
    query = "SELECT * FROM content_label ORDER BY digest, name"
    database = store._layout.database()
    with database.transaction(durable=True) as connection:
        name = "content_label_of_value"
        page = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (name,)).fetchone()[0]
        labels = connection.execute(query).fetchall()
    assert labels
    store.close()
    with open(tmp_path / "store" / "ocidiff.db", "r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 4096)
    with Store.open(tmp_path / "store") as other:
        assert _only(other.verify(repair=True).faults).repaired
        with other._layout.database().reading() as connection:
            assert connection.execute(query).fetchall() == labels


def test_the_trees_of_a_database_that_was_removed_are_kept(store: EmbeddedStore, tmp_path: Path) -> None:
    work = Path(store.containers.mount("work"))
    (work / "own").write_text("kept")
    store.close()
    (tmp_path / "store" / "ocidiff.db").unlink()
    with Store.open(tmp_path / "store") as other:
        assert other.verify().faults == ()
    (trees_,) = (tmp_path / "store" / "damaged").glob("snapshots.*")
    assert (trees_ / "2" / "fs" / "own").read_text() == "kept"


def _bomb(path: Path) -> Handmade:
    """A layout with an image of two layers: 300 files, and 70 MB of zeros in few bytes."""
    handmade = Handmade(path)
    many, first = handmade.layer({f"f{number}": "" for number in range(300)})
    large, second = handmade.layer({"zeros": "\0" * (70 << 20)})
    handmade.name("bomb:1", handmade.manifest(handmade.config([first, second]), [many, large]))
    return handmade


_PASSED = {
    "max_ratio": Limits(max_ratio=100),
    "max_bytes": Limits(max_bytes=60 << 20),
    "max_entries": Limits(max_entries=299),
    "max_entries of all": Limits(max_entries=300),
    "max_depth": Limits(max_depth=1),
}


@pytest.mark.parametrize("limit", _PASSED)
def test_all_who_read_layers_keep_the_limits_of_unpack(tmp_path: Path, engine_name: EngineName, limit: str) -> None:
    handmade = _bomb(tmp_path / "store")
    deep, diff_id = handmade.layer({"a/b": ""})
    handmade.name("deep:1", handmade.manifest(handmade.config([diff_id]), [deep]))
    name = "deep:1" if limit == "max_depth" else "bomb:1"
    with Store.open(tmp_path / "store") as store:
        (tmp_path / "tree").mkdir()
        limits = _PASSED[limit]
        readers: list[Callable[[], object]] = [
            lambda: store.unpack(name, tmp_path / "out", limits=limits, engine=engine_name),
            lambda: store.create(name, "work", driver="directory", limits=limits, engine=engine_name),
            lambda: store.commit(tmp_path / "tree", "new:1", base=name, limits=limits, engine=engine_name),
            lambda: store.index(name, tmp_path / "index", limits=limits, engine=engine_name),
        ]
        for read in readers:
            with pytest.raises(LimitExceededError, match=limit.partition(" ")[0]):
                read()
        (fault,) = store.verify(limits=limits, engine=engine_name).faults
        assert (fault.kind, fault.where) == ("image", name)
        assert f"limit {limit.partition(' ')[0]} exceeded" in fault.problem
        assert store.verify(engine=engine_name).faults == ()


def test_a_bomb_of_many_images_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handmade = Handmade(tmp_path / "store")
    large, diff_id = handmade.layer({"zeros": "\0" * (70 << 20)})
    for number in range(5):
        config = handmade.config([diff_id], author=str(number))
        handmade.name(f"bomb:{number}", handmade.manifest(config, [large]))
    read: list[object] = []
    real = _Verification._read_layer

    def counting(self: _Verification, descriptor: Descriptor) -> object:
        read.append(descriptor)
        return real(self, descriptor)

    monkeypatch.setattr(_Verification, "_read_layer", counting)
    with Store.open(tmp_path / "store") as store:
        assert len(store.verify(limits=Limits(max_ratio=100)).faults) == 5
    assert len(read) == 1


def test_the_steps_of_verify_do_not_grow_with_the_names_of_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def steps(names: int) -> dict[str, int]:
        handmade = Handmade(tmp_path / f"store{names}")
        image = handmade.image({"f": "1"})
        handmade.entries = [
            {**image, "annotations": {"org.opencontainers.image.ref.name": f"app:{number}"}} for number in range(names)
        ]
        handmade.finish()
        counted = {"index": 0, "transaction": 0, "reading": 0, "read": 0}

        def count(kind: type, step: str) -> None:
            real = getattr(kind, step)

            def counting(*words: object, **options: object) -> object:
                counted[step] += 1
                return real(*words, **options)

            monkeypatch.setattr(kind, step, counting)

        with Store.open(tmp_path / f"store{names}") as store:
            for kind, step in ((Names, "index"), (Database, "transaction"), (Database, "reading"), (Layout, "read")):
                count(kind, step)
            assert store.verify().faults == ()
        monkeypatch.undo()
        return counted

    assert steps(200) == steps(20)
