"""What a container was committed as becomes a snapshot without its layer, when it is first needed and is proved the same."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from ocidiff.embedded import reuse
from ocidiff.embedded.drivers.clone import can_share_blocks
from ocidiff.errors import Cancelled
from ocidiff.layer.monitor import Cancellation
from ocidiff.layer.pure.partition import Partition
from ocidiff.store import Store
from ocidiff.store.embedded import EmbeddedStore
from support import probes, trees

pytestmark = pytest.mark.root


@pytest.fixture
def store(tmp_path: Path, rootfs: Path) -> Iterator[EmbeddedStore]:
    """A store with the image `base:1` of one layer."""
    if not probes.can_mount_overlay():
        probes.missing("needs overlay mounts")
    (rootfs / "etc" / "second").write_text("2")
    with Store.open(tmp_path / "store") as opened:
        opened.commit(rootfs, "base:1")
        yield opened
        for container in opened.containers.list():
            opened.containers.remove(container.name, force=True)


@pytest.fixture
def changed(store: EmbeddedStore) -> dict[str, int]:
    """Times of files of the unmounted container `work`, after many kinds of changes."""
    store.create("base:1", "work", driver="overlay")
    root = Path(store.containers.mount("work"))
    (root / "etc" / "passwd").write_text("changed")
    (root / "etc" / "second").unlink()
    (root / "new").mkdir(0o750)
    (root / "new" / "file").write_text("n")
    (root / "new" / "file").chmod(0o4755)
    os.setxattr(root / "new" / "file", "user.note", b"1")
    os.link(root / "new" / "file", root / "new" / "linked")
    (root / "new" / "symlink").symlink_to("file")
    os.mknod(root / "new" / "socket", 0o140600)
    times = {name: (root / name).stat().st_mtime_ns for name in ("etc/passwd", "new/file")}
    store.containers.umount("work")
    return times


def _scan(store: EmbeddedStore, name: str, place: str | None = None) -> dict[bytes, trees.Facts]:
    container = store.create(name, place, driver="overlay")
    facts = trees.scan_tree(store.containers.mount(container.name))
    store.containers.umount(container.name)
    return facts


def _commit(store: EmbeddedStore, name: str = "base:2") -> None:
    assert store.commit(store.containers.get("work"), name).layer is not None


def _snapshots(tmp_path: Path) -> list[str]:
    return sorted(os.listdir(tmp_path / "store" / "snapshots"), key=int)


def _applied(store: EmbeddedStore, tmp_path: Path) -> dict[bytes, trees.Facts]:
    store.unpack("base:2", tmp_path / "out")
    return trees.scan_tree(tmp_path / "out")


@pytest.fixture
def unpacks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One item more for every layer that is unpacked from here on."""
    from ocidiff.image.layers import LocalDiffer

    seen, apply = list[str](), LocalDiffer.apply

    def watched(*arguments: Any) -> Any:
        seen.append("a layer")
        return apply(*arguments)

    monkeypatch.setattr(LocalDiffer, "apply", watched)
    return seen


def test_what_was_committed_is_a_snapshot_and_the_same_as_its_layer_unpacked(
    store: EmbeddedStore, changed: dict[str, int], unpacks: list[str], tmp_path: Path
) -> None:
    before = _snapshots(tmp_path)
    _commit(store)
    assert _snapshots(tmp_path) == before
    adopted = _scan(store, "base:2", "adopted")
    assert unpacks == []
    assert store.verify().faults == ()
    applied = _applied(store, tmp_path)
    assert trees.comparable(adopted) == trees.comparable(applied)
    assert adopted[b"etc/passwd"]["mtime_ns"] == applied[b"etc/passwd"]["mtime_ns"]
    assert b"new/socket" not in adopted


def _fill_layers(store: EmbeddedStore) -> None:
    """Give the container files that a split puts into different layers."""
    root = Path(store.containers.mount("work"))
    for name in "abcdefgh":
        (root / "usr" / name).mkdir(parents=True)
        (root / "usr" / name / "file").write_text(name)
    store.containers.umount("work")


@pytest.mark.parametrize("layers", [2, 4, 16])
def test_a_split_change_is_a_snapshot_without_its_layers_too(
    store: EmbeddedStore, changed: dict[str, int], unpacks: list[str], tmp_path: Path, layers: int
) -> None:
    _fill_layers(store)
    first = store.commit(store.containers.get("work"), "split:1", layers=layers)
    last = max("abcdefgh", key=lambda name: Partition(layers).of(f"usr/{name}/file".encode(), 0))
    root = Path(store.containers.mount("work"))
    (root / "usr" / last / "file").write_text("changed")
    store.containers.umount("work")
    image = store.commit(store.containers.get("work"), "base:2", layers=layers)
    # The images begin with the same layers, and no snapshot is made of these.
    assert (image.layers[0].diff_id == first.layers[0].diff_id) == (layers > 2)
    before = _snapshots(tmp_path)
    adopted = _scan(store, "base:2", "adopted")
    assert unpacks == []
    assert len(set(_snapshots(tmp_path)) - set(before)) == 2
    assert store.verify().faults == ()
    assert trees.comparable(adopted) == trees.comparable(_applied(store, tmp_path))


def test_a_tree_that_changed_is_not_taken_for_split_layers(
    store: EmbeddedStore, changed: dict[str, int], unpacks: list[str], tmp_path: Path
) -> None:
    image = store.commit(store.containers.get("work"), "base:2", layers=4)
    number = _snapshots(tmp_path)[-1]
    (tmp_path / "store" / "snapshots" / number / "fs" / "new" / "file").write_text("otherwise")
    adopted = _scan(store, "base:2", "adopted")
    assert len(unpacks) == len(image.layers)
    assert trees.comparable(adopted) == trees.comparable(_applied(store, tmp_path))


@pytest.mark.parametrize("between", [False, True])
def test_a_tree_that_changed_is_compared_once(
    store: EmbeddedStore, changed: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, between: bool
) -> None:
    """With a beginning in common with another image, which gets a snapshot, and without."""
    _fill_layers(store)
    if between:
        store.commit(store.containers.get("work"), "split:1", layers=4)
        root = Path(store.containers.mount("work"))
        last = max("abcdefgh", key=lambda name: Partition(4).of(f"usr/{name}/file".encode(), 0))
        (root / "usr" / last / "file").write_text("changed")
        store.containers.umount("work")
    store.commit(store.containers.get("work"), "base:2", layers=4)
    number = _snapshots(tmp_path)[-1]
    (tmp_path / "store" / "snapshots" / number / "fs" / "new" / "file").write_text("otherwise")
    adopted, adopt = list[object](), reuse._adopt

    def counted(*arguments: Any) -> None:
        adopted.append(arguments[1:3])
        adopt(*arguments)

    monkeypatch.setattr(reuse, "_adopt", counted)
    before = _snapshots(tmp_path)
    _scan(store, "base:2", "applied")
    assert len(adopted) == 1
    # The container, the image, and the beginning.
    assert len(set(_snapshots(tmp_path)) - set(before)) == 2 + between


@pytest.mark.parametrize("bound", [10**9, 2 * 10**9])
def test_a_bound_of_times_reaches_nobody_else(
    store: EmbeddedStore, changed: dict[str, int], unpacks: list[str], tmp_path: Path, bound: int
) -> None:
    """Neither the container, nor a snapshot that its files were linked into before."""
    _commit(store)
    first = _scan(store, "base:2", "first")
    store.commit(store.containers.get("work"), "base:3", source_date_epoch=bound)
    bounded = _scan(store, "base:3", "bounded")
    assert bounded[b"etc/passwd"]["mtime_ns"] == min(bound * 10**9, changed["etc/passwd"] // 10**9 * 10**9)
    assert _scan(store, "base:2", "again") == first
    third = store.commit(store.containers.get("work"), "base:4")
    assert third.config.rootfs.diff_ids == store.commit(store.containers.get("first"), "base:5").config.rootfs.diff_ids
    root = Path(store.containers.mount("work"))
    assert {name: (root / name).stat().st_mtime_ns for name in changed} == changed
    if not can_share_blocks(str(tmp_path)):
        assert unpacks == (["a layer"] if bound == 10**9 else [])


def test_a_removed_container_leaves_what_it_offers_for_as_long_as_the_image_is_there(
    store: EmbeddedStore, changed: dict[str, int], unpacks: list[str], tmp_path: Path
) -> None:
    base = _snapshots(tmp_path)[:-1]
    _commit(store)
    store.containers.remove("work")
    store.collect()
    assert store.verify().faults == ()
    adopted = _scan(store, "base:2", "adopted")
    assert unpacks == []
    assert trees.comparable(adopted) == trees.comparable(_applied(store, tmp_path))
    store.containers.remove("adopted")
    # The offered tree is not needed any more.
    assert store.collect().snapshots == 1
    store.untag("base:2")
    store.collect()
    assert _snapshots(tmp_path) == base
    assert os.listdir(tmp_path / "store" / "ingest") == []


def test_what_a_container_offers_to_nobody_goes_with_it(
    store: EmbeddedStore, changed: dict[str, int], tmp_path: Path
) -> None:
    base = _snapshots(tmp_path)[:-1]
    _commit(store)
    store.untag("base:2")
    store.collect()
    store.containers.remove("work")
    assert _snapshots(tmp_path) == base


def test_what_was_taken_is_offered_to_no_second_image(store: EmbeddedStore, changed: dict[str, int], tmp_path: Path) -> None:
    _commit(store)
    store.commit(store.containers.get("work"), "base:3", message="the same")
    store.create("base:2", "adopted", driver="overlay")
    before = _snapshots(tmp_path)
    store.containers.remove("work")
    assert len(_snapshots(tmp_path)) == len(before) - 1
    store.create("base:3", driver="overlay")
    assert len(_snapshots(tmp_path)) == len(before)
    assert store.verify().faults == ()


def test_what_was_mounted_since_is_not_what_was_committed(
    store: EmbeddedStore, changed: dict[str, int], unpacks: list[str], tmp_path: Path
) -> None:
    _commit(store)
    root = Path(store.containers.mount("work"))
    # Nothing was lent, so nothing had to be copied.
    assert {name: (root / name).stat().st_mtime_ns for name in changed} == changed
    (root / "new" / "file").write_text("later")
    store.containers.umount("work")
    assert trees.comparable(_scan(store, "base:2", "other")) == trees.comparable(_applied(store, tmp_path))
    assert unpacks == ["a layer"]
    base = _snapshots(tmp_path)
    store.containers.remove("work")
    assert len(_snapshots(tmp_path)) == len(base) - 1


def test_what_a_container_does_later_changes_no_snapshot(store: EmbeddedStore, changed: dict[str, int]) -> None:
    store.commit(store.containers.get("work"), "base:2")
    before = _scan(store, "base:2")
    again = store.commit(store.containers.get("work"), "same")
    assert again.layer is not None
    root = Path(store.containers.mount("work"))
    assert {name: (root / name).stat().st_mtime_ns for name in changed} == changed
    assert os.path.samefile(root / "new" / "file", root / "new" / "linked")
    with (root / "new" / "file").open("r+") as file:
        file.write("in place")
    (root / "etc" / "passwd").chmod(0o600)
    store.containers.umount("work")
    assert _scan(store, "base:2") == before
    third = store.commit(store.containers.get("work"), "third")
    assert third.layer is not None
    assert third.layer.diff_id != again.layer.diff_id


def test_what_somebody_may_be_writing_to_is_not_linked(
    store: EmbeddedStore, changed: dict[str, int], unpacks: list[str], tmp_path: Path
) -> None:
    store.containers.mount("work")
    before = _snapshots(tmp_path)
    _commit(store)
    if not can_share_blocks(str(tmp_path)):
        assert _snapshots(tmp_path) == before
        store.create("base:2", driver="overlay")
        assert unpacks == ["a layer"]


def test_no_half_a_copy_is_left_where_there_is_no_space(
    store: EmbeddedStore, changed: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if can_share_blocks(str(tmp_path)):
        pytest.skip("nothing is copied here")
    number = _snapshots(tmp_path)[-1]
    _commit(store)
    before = _scan(store, "base:2")
    with monkeypatch.context() as patch:
        patch.setattr("ocidiff.embedded.share.copy_attributes", fail)
        with pytest.raises(OSError, match="space"):
            store.containers.mount("work")
    assert sorted(os.listdir(tmp_path / "store" / "snapshots" / number)) == ["fs", "shared", "work"]
    root = Path(store.containers.mount("work"))
    assert {name: (root / name).stat().st_mtime_ns for name in changed} == changed
    assert trees.scan_tree(root).keys() >= before.keys()


def test_what_was_unmounted_with_open_files_is_not_linked(
    store: EmbeddedStore, changed: dict[str, int], unpacks: list[str], tmp_path: Path
) -> None:
    root = Path(store.containers.mount("work"))
    with (root / "new" / "file").open("a") as file:
        with pytest.raises(OSError, match="busy"):
            store.containers.umount("work")
        store.containers.umount("work", lazily=True)
        _commit(store)
        before = _scan(store, "base:2", "other")
        file.write("later")
    assert unpacks == ([] if can_share_blocks(str(tmp_path)) else ["a layer"])
    store.containers.mount("other")
    assert (Path(store.containers.get("other").mount_point or "") / "new" / "file").read_text() == "n"
    store.containers.umount("other")
    # Once more in order does not tell that the file was closed.
    store.containers.mount("work")
    store.containers.umount("work")
    assert store.containers.get("work").maybe_mounted
    assert before[b"new/file"]["size"] == 1


def test_what_another_mount_namespace_has_is_not_linked(store: EmbeddedStore, changed: dict[str, int]) -> None:
    store.containers.mount("work")
    elsewhere = subprocess.Popen(["unshare", "--mount", "sh", "-c", "echo; exec sleep 60"], stdout=subprocess.PIPE)
    try:
        assert elsewhere.stdout is not None
        elsewhere.stdout.readline()
        store.containers.umount("work")
        assert store.containers.get("work").maybe_mounted
    finally:
        elsewhere.kill()
        elsewhere.communicate()


def test_a_tree_that_is_not_its_layer_is_not_adopted(
    store: EmbeddedStore, changed: dict[str, int], unpacks: list[str], tmp_path: Path
) -> None:
    before = _snapshots(tmp_path)
    _commit(store)
    # As nobody should.
    (tmp_path / "store" / "snapshots" / before[-1] / "fs" / "new" / "file").write_text("otherwise")
    tree = _scan(store, "base:2", "other")
    assert unpacks == ["a layer"]
    assert trees.comparable(tree) == trees.comparable(_applied(store, tmp_path))
    assert store.verify().faults == ()


def test_who_is_busy_with_the_container_is_not_waited_for(
    store: EmbeddedStore, changed: dict[str, int], unpacks: list[str]
) -> None:
    _commit(store)
    with store.containers.locked("work"):
        store.create("base:2", driver="overlay")
    assert unpacks == ["a layer"]


def test_where_a_container_cannot_be_adopted_the_layer_is_unpacked(
    store: EmbeddedStore, changed: dict[str, int], unpacks: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> NoReturn:
        raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))

    _commit(store)
    before = _snapshots(tmp_path)
    monkeypatch.setattr("ocidiff.embedded.reuse.share_changes", fail)
    store.create("base:2", driver="overlay")
    assert unpacks == ["a layer"]
    assert len(_snapshots(tmp_path)) == len(before) + 2
    assert store.verify().faults == ()


def test_a_cancelled_adoption_leaves_nothing(
    store: EmbeddedStore, changed: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancel = Cancellation()

    def cancelled(*_: object, check: Callable[[], None], **__: object) -> None:
        cancel.cancel()
        check()

    _commit(store)
    before = _snapshots(tmp_path)
    monkeypatch.setattr("ocidiff.embedded.reuse.share_changes", cancelled)
    with pytest.raises(Cancelled):
        store.create("base:2", driver="overlay", cancel=cancel)
    assert _snapshots(tmp_path) == before


def test_of_many_that_adopt_at_once_all_get_one_snapshot(
    store: EmbeddedStore, changed: dict[str, int], tmp_path: Path
) -> None:
    _commit(store)
    before = _snapshots(tmp_path)
    threads = [threading.Thread(target=store.create, args=("base:2",), kwargs={"driver": "overlay"}) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(_snapshots(tmp_path)) == len(before) + 5
    assert store.verify().faults == ()
