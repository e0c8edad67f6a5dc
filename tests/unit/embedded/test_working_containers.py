"""Working containers: made over an image, changed, committed, removed; nothing of one is lost or left."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocidiff.embedded.containers import Container
from ocidiff.embedded.drivers.select import DriverName, snapshotter
from ocidiff.embedded.layout import Layout
from ocidiff.embedded.leases import Leases
from ocidiff.errors import AlreadyExistsError, Cancelled, DigestMismatchError, InUseError, NotFoundError, UsageError
from ocidiff.layer.monitor import Cancellation
from ocidiff.layer.options import EngineName
from ocidiff.mounts import mountinfo
from ocidiff.store import Store
from ocidiff.store.embedded import EmbeddedStore
from support import probes


@pytest.fixture
def store(tmp_path: Path, rootfs: Path) -> Iterator[EmbeddedStore]:
    """A store with the image `base:1` of two layers."""
    with Store.open(tmp_path / "store") as opened:
        opened.commit(rootfs, "zero:1")
        (rootfs / "etc" / "second").write_text("2")
        opened.commit(rootfs, "base:1", base="zero:1")
        yield opened
        for container in opened.containers.list():
            opened.containers.remove(container.name, force=True)


def _snapshots(driver: DriverName) -> int:
    """How many snapshots `base:1` has: one for `zero:1`, which it begins with, unless each is a whole tree."""
    return 2 if driver == "overlay" else 1


def _trees(tmp_path: Path) -> list[str]:
    return sorted(os.listdir(tmp_path / "store" / "snapshots"))


def test_a_container_is_the_image_and_what_was_changed_is_committed(
    store: EmbeddedStore, driver: DriverName, tmp_path: Path, engine_name: EngineName
) -> None:
    container = store.create("base:1", "work", driver=driver, engine=engine_name)
    assert (container.name, container.image, container.driver) == ("work", "base:1", driver)
    root = Path(store.containers.mount("work"))
    assert sorted(os.listdir(root / "etc")) == ["link", "passwd", "second"]
    (root / "etc" / "passwd").unlink()
    (root / "etc" / "new").write_text("n")
    image = store.commit(store.containers.get("work"), "base:2", message="m", engine=engine_name)
    assert image.layer is not None
    assert (image.layer.added, image.layer.deleted) == (1, 1)
    assert len(image.manifest.layers) == 3
    store.containers.umount("work")
    again = store.commit(store.containers.get("work"), "base:3", engine=engine_name)
    assert again.layer is not None
    assert again.layer.diff_id == image.layer.diff_id
    store.unpack("base:2", tmp_path / "out")
    assert sorted(os.listdir(tmp_path / "out" / "etc")) == ["link", "new", "second"]
    assert store.verify().faults == ()


def test_nothing_changed_is_no_layer(store: EmbeddedStore, driver: DriverName) -> None:
    container = store.create("base:1", driver=driver)
    assert store.commit(container, "same").layer is None


def test_a_container_over_an_image_without_layers(store: EmbeddedStore, driver: DriverName, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    assert store.commit(tmp_path / "nothing", "empty").layer is None
    container = store.create("empty", "work", driver=driver)
    root = Path(store.containers.mount("work"))
    assert os.listdir(root) == []
    (root / "file").write_text("x")
    layer = store.commit(container, "full").layer
    assert layer is not None
    assert layer.added == 1
    store.containers.umount("work")
    store.containers.remove("work")


def test_the_image_is_unpacked_once(store: EmbeddedStore, driver: DriverName, monkeypatch: pytest.MonkeyPatch) -> None:
    store.create("base:1", "first", driver=driver)

    def fail(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr("ocidiff.image.chain.Extraction.committed", fail)
    store.create("base:1", "second", driver=driver)
    if driver == "overlay":
        store.create("zero:1", "third", driver=driver)
    assert [found.name for found in store.containers.list()] == ["first", "second", "third"][: 1 + _snapshots(driver)]


def test_a_name_is_taken_once_and_may_be_left_out(store: EmbeddedStore, driver: DriverName, tmp_path: Path) -> None:
    store.create("base:1", "work", driver=driver)
    before = _trees(tmp_path)
    with pytest.raises(AlreadyExistsError, match="work"):
        store.create("base:1", "work", driver=driver)
    assert _trees(tmp_path) == before
    one, other = store.create("base:1", driver=driver), store.create("base:1", driver=driver)
    assert one.name.startswith("base-")
    assert one.name != other.name
    for name in ("", "a/b", "-x", "a:b", "x" * 200, ".."):
        with pytest.raises(UsageError, match="container"):
            store.create("base:1", name, driver=driver)
    with pytest.raises(UsageError, match="driver"):
        store.create("base:1", driver="zfs")  # type: ignore[arg-type]


def test_of_many_that_want_one_name_one_gets_it(store: EmbeddedStore, driver: DriverName, tmp_path: Path) -> None:
    results: list[str] = []

    def create() -> None:
        try:
            store.create("base:1", "work", driver=driver)
            results.append("made")
        except AlreadyExistsError:
            results.append("taken")

    threads = [threading.Thread(target=create) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["made"] + ["taken"] * 5
    # The image and one container: whoever came too late has left nothing.
    assert len(_trees(tmp_path)) == _snapshots(driver) + 1


def test_mounting_twice_and_unmounting_twice_are_once(store: EmbeddedStore, driver: DriverName) -> None:
    store.create("base:1", "work", driver=driver)
    place = store.containers.mount("work")
    assert store.containers.mount("work") == place == store.containers.get("work").mount_point
    store.containers.umount("work")
    store.containers.umount("work")
    assert place not in mountinfo.mount_points()
    assert (store.containers.get("work").mount_point is None) == (driver == "overlay")


def test_a_mounted_container_is_removed_only_by_force(store: EmbeddedStore, tmp_path: Path) -> None:
    if not probes.can_mount_overlay():
        probes.missing("needs overlay mounts")
    store.create("base:1", "work", driver="overlay")
    place = store.containers.mount("work")
    with pytest.raises(InUseError, match=place):
        store.containers.remove("work")
    with open(os.path.join(place, "open"), "w") as file:
        with pytest.raises(OSError, match="busy"):
            store.containers.umount("work")
        store.containers.remove("work", force=True)
        file.write("still there")
    assert place not in mountinfo.mount_points()
    assert os.listdir(tmp_path / "store" / "mounts") == []
    assert os.listdir(tmp_path / "store" / "ingest") == []
    assert len(_trees(tmp_path)) == 2


def test_a_commit_reads_the_layers_of_an_overlay_whether_it_is_mounted_or_not(store: EmbeddedStore) -> None:
    if not probes.can_mount_overlay():
        probes.missing("needs overlay mounts")
    store.create("base:1", "work", driver="overlay")
    (Path(store.containers.mount("work")) / "new").write_text("n")
    # Else all files of the image would be compared.
    mounted = store.commit(store.containers.get("work"), "base:2", overlay="require")
    store.containers.umount("work")
    assert store.commit(store.containers.get("work"), "base:2", overlay="require").config.rootfs == mounted.config.rootfs
    assert len(mounted.manifest.layers) == 3


def test_what_is_missing_is_not_found(store: EmbeddedStore) -> None:
    for call in (store.containers.get, store.containers.mount, store.containers.umount, store.containers.remove):
        with pytest.raises(NotFoundError, match="no working container 'nothing'"):
            call("nothing")
    with pytest.raises(NotFoundError, match="no image"):
        store.create("nothing")
    assert store.containers.list() == []


def test_a_container_keeps_its_image(store: EmbeddedStore, driver: DriverName) -> None:
    container = store.create("base:1", "work", driver=driver)
    for name in ("base:1", "zero:1"):
        store.untag(name)
    collected = store.collect()
    # The manifest and the configuration of zero:1, whose layer base:1 has too.
    assert (collected.blobs, collected.snapshots) == (2, 0)
    Path(store.containers.mount("work"), "new").touch()
    assert len(store.commit(container, "base:2").manifest.layers) == 3
    store.containers.umount("work")
    store.containers.remove("work")
    assert store.verify().faults == ()


def test_a_container_has_a_base_of_its_own(store: EmbeddedStore) -> None:
    container = store.create("base:1", driver="directory")
    with pytest.raises(UsageError, match="it has its own base"):
        store.commit(container, "app", base="zero:1")


def test_a_wrong_layer_leaves_no_snapshot(store: EmbeddedStore, driver: DriverName, tmp_path: Path) -> None:
    layer = store.inspect("base:1")["manifest"]["layers"][1]  # type: ignore[index]
    path = tmp_path / "store" / "blobs" / "sha256" / layer["digest"][7:]
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[8] ^= 1  # the operating system in the header of gzip, which changes nothing but the digest
    path.write_bytes(data)
    with pytest.raises(DigestMismatchError):
        store.create("base:1", "work", driver=driver)
    assert store.containers.list() == []
    assert len(_trees(tmp_path)) == _snapshots(driver) - 1
    assert os.listdir(tmp_path / "store" / "ingest") == []
    with pytest.raises(NotFoundError):
        store.containers.get("work")


def test_a_cancelled_create_leaves_no_container(store: EmbeddedStore, driver: DriverName) -> None:
    cancel = Cancellation()
    cancel.cancel()
    with pytest.raises(Cancelled):
        store.create("base:1", "work", driver=driver, cancel=cancel)
    assert store.containers.list() == []
    assert Leases(Layout.open(store._layout.path, create=False).database).leases() == []


def test_the_configuration_keeps_the_snapshot(store: EmbeddedStore, driver: DriverName) -> None:
    store.create("base:1", "work", driver=driver)
    store.containers.remove("work")
    assert store.collect().snapshots == 0
    store.untag("base:1")
    assert store.collect().snapshots == _snapshots(driver)


def test_what_is_built_on_is_on_disk(store: EmbeddedStore, driver: DriverName) -> None:
    store.create("base:1", "work", driver=driver)
    with store._layout.database().reading() as connection:
        unsynced = connection.execute("SELECT count(*) FROM snapshot WHERE unsynced_boot_id IS NOT NULL").fetchone()
    assert unsynced == (0,)


def test_somebody_who_was_faster_is_a_success(
    store: EmbeddedStore, driver: DriverName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if the other one had come between looking and committing.
    monkeypatch.setattr("ocidiff.image.chain._present", lambda *_: 0)
    store.create("base:1", "first", driver=driver)
    store.create("base:1", "second", driver=driver)
    assert len(_trees(tmp_path)) == 2 + _snapshots(driver)
    assert [found.key for found in snapshotter(store._layout, driver).walk() if found.key.startswith("extract-")] == []


def test_a_commit_holds_its_container_in_place(store: EmbeddedStore, driver: DriverName) -> None:
    store.create("base:1", "work", driver=driver)
    done: list[str] = []

    def remove() -> None:
        store.containers.remove("work", force=True)
        done.append("removed")

    with store.containers.locked("work") as container:
        assert isinstance(container, Container)
        remover = threading.Thread(target=remove)
        remover.start()
        remover.join(0.2)
        assert done == []
    remover.join()
    assert done == ["removed"]


_IN_A_NAMESPACE = """
set -e
ocidiff() { "$PYTHON" -m ocidiff "$@"; }
ocidiff create base:1 work --driver overlay
root=$(ocidiff mount work)
rm "$root/etc/passwd"
echo 1 > "$root/etc/new"
rm -r "$root/dir"
mkdir "$root/dir"
ocidiff commit work base:2 -v
ocidiff umount work
ocidiff rm work
"""


def test_overlay_works_for_root_of_a_user_namespace(store: EmbeddedStore, rootfs: Path, tmp_path: Path) -> None:
    if not probes.can_use_user_namespaces():
        probes.missing("needs user namespaces")
    (rootfs / "dir").mkdir()
    (rootfs / "dir" / "old").touch()
    store.commit(rootfs, "base:1")
    environment = {**os.environ, "PYTHON": sys.executable, "OCIDIFF_STORE": str(tmp_path / "store")}
    subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "bash", "-c", _IN_A_NAMESPACE], env=environment, check=True
    )
    store.unpack("base:2", tmp_path / "out")
    assert sorted(os.listdir(tmp_path / "out" / "etc")) == ["link", "new", "second"]
    assert os.listdir(tmp_path / "out" / "dir") == []
    assert store.verify().faults == ()


def test_a_commit_leaves_out_what_is_excluded_and_keeps_no_tree_that_has_it(
    store: EmbeddedStore, driver: DriverName
) -> None:
    store.create("base:1", "work", driver=driver)
    root = Path(store.containers.mount("work"))
    (root / "cache").mkdir()
    (root / "cache/secret").write_text("s")
    (root / "etc/new").write_text("n")
    image = store.commit(store.containers.get("work"), "base:2", exclude=["/cache/*"])
    assert image.layer is not None
    assert (image.layer.added, dict(image.layer.skipped)) == (2, {"excluded": 1})
    store.create("base:2", "again", driver=driver)
    again = Path(store.containers.mount("again"))
    assert sorted(os.listdir(again / "etc")) == ["link", "new", "passwd", "second"]
    assert os.listdir(again / "cache") == []
