"""Squash of images: which layers become one, what documents say of it, and what is left in the store."""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import ocidiff
from ocidiff.errors import Cancelled, NotFoundError, UsageError
from ocidiff.image.merge import Merge
from ocidiff.layer.monitor import Cancellation, Progress
from ocidiff.layer.options import EngineName
from ocidiff.oci import media_type
from ocidiff.store import Store
from ocidiff.store.embedded import EmbeddedStore
from support import trees
from support.layouts import Handmade


@pytest.mark.parametrize(
    ("merge", "sizes", "count"),
    [
        (Merge(), [], 0),
        (Merge(), [1], 0),
        (Merge(), [1, 2, 3], 3),
        (Merge(last=2), [1], 0),
        (Merge(last=2), [1, 2, 3], 2),
        (Merge(last=9), [1, 2, 3], 3),
        (Merge(max_layers=3), [1, 2, 3], 0),
        (Merge(max_layers=2), [100, 50, 3], 2),
        (Merge(max_layers=1), [100, 50, 3], 3),
        # The sum of those that have to be merged is no less than the next one.
        (Merge(max_layers=3), [100, 3, 2, 1], 3),
        (Merge(max_layers=3), [6, 3, 2, 1], 4),
    ],
)
def test_how_many_layers_become_one(merge: Merge, sizes: list[int], count: int) -> None:
    assert merge.count(sizes) == count


def test_a_limit_of_layers_keeps_the_base_and_costs_little() -> None:
    base, commits, most = [2000, 400, 200], 500, 10
    sizes, merged = list(base), 0
    for _ in range(commits):
        sizes.append(1)
        if count := Merge(max_layers=most).count(sizes):
            merged += sum(sizes[-count:])
            sizes[-count:] = [sum(sizes[-count:])]
        assert len(sizes) <= most
        # A layer that is larger than all later ones is left alone.
        assert sizes[0] == base[0]
    # Merging the two newest each time would write 125,000.
    assert merged < 10_000, merged


def test_new_layers_are_kept_aside_only_if_they_are_merged() -> None:
    merges = [Merge(), Merge(last=2), Merge(last=3), Merge(max_layers=1), Merge(max_layers=3)]
    for merge, base, new in itertools.product(merges, range(5), range(1, 4)):
        if merge.takes_all(base, new):
            for there in range(1, new + 1):
                assert merge.count([5] * base + [1] * there) >= max(2, there), (merge, base, new, there)


@pytest.mark.parametrize(
    "arguments",
    [
        {"squash_last": 1},
        {"max_layers": 0},
        {"squash": True, "squash_last": 2},
        {"squash": True, "max_layers": 2},
        {"squash_last": 2, "max_layers": 2},
    ],
)
def test_wrong_numbers_are_refused(store: Store, rootfs: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"squash|max_layers"):
        store.commit(rootfs, "app:v1", **arguments)
    assert store.images() == []


def history(store: Store, name: str) -> list[tuple[str, bool]]:
    return [(step.comment, step.empty_layer) for step, _ in store.history(name)]


def stack(store: Store, rootfs: Path) -> None:
    """Commit three layers as v1, v2 and v3, the first one large."""
    (rootfs / "noise").write_bytes(os.urandom(100_000))
    store.commit(rootfs, "app:v1", message="1")
    (rootfs / "second").write_text("2")
    store.commit(rootfs, "app:v2", base="app:v1", message="2")
    (rootfs / "second").unlink()
    (rootfs / "third").write_text("3")
    store.commit(rootfs, "app:v3", base="app:v2", message="3")
    (rootfs / "fourth").write_text("4")


@pytest.mark.root
def test_a_squashed_image_is_that_of_the_tree(store: Store, rootfs: Path, tmp_path: Path, engine_name: EngineName) -> None:
    stack(store, rootfs)
    before = blobs(tmp_path)
    image = store.commit(rootfs, "app:v4", base="app:v3", message="4", squash=True, engine=engine_name)
    assert image.layer is not None
    assert image.manifest.layers == (image.layer.descriptor,)
    assert image.config.rootfs.diff_ids == (image.layer.diff_id,)
    assert history(store, "app:v4") == [("1", True), ("2", True), ("3", True), ("4", False)]
    assert image.layer.added == 1
    new = {image.descriptor.digest.hex, image.config_digest.hex, image.layer.descriptor.digest.hex}
    assert blobs(tmp_path) - before == new, "the layer of the change alone is in no image"
    assert os.listdir(tmp_path / "store" / "ingest") == []
    scratch = store.commit(rootfs, "app:v5", engine=engine_name)
    assert scratch.manifest.layers == image.manifest.layers
    store.unpack("app:v4", tmp_path / "out")
    trees.assert_same_tree(tmp_path / "out", rootfs)


def blobs(tmp_path: Path) -> set[str]:
    return set(os.listdir(tmp_path / "store" / "blobs" / "sha256"))


@pytest.mark.root
def test_the_newest_layers_become_one_on_those_of_the_base(
    store: Store, rootfs: Path, tmp_path: Path, engine_name: EngineName
) -> None:
    stack(store, rootfs)
    first = store.inspect("app:v1")
    for arguments in ({"squash_last": 3}, {"max_layers": 2}):
        kept = dict(arguments)
        image = store.commit(rootfs, "app:v4", base="app:v3", message="4", engine=engine_name, **kept)  # type: ignore[arg-type]
        assert len(image.manifest.layers) == 2
        assert image.manifest.layers[0].digest == first["manifest"]["layers"][0]["digest"]  # type: ignore[index]
        assert history(store, "app:v4") == [("1", False), ("2", True), ("3", True), ("4", False)]
        target = tmp_path / f"out-{'-'.join(arguments)}"
        store.unpack("app:v4", target)
        trees.assert_same_tree(target, rootfs)
    assert len(store.commit(rootfs, "app:v5", base="app:v3", max_layers=4).manifest.layers) == 4


def test_without_a_change_the_layers_of_the_base_become_one(store: Store, rootfs: Path, tmp_path: Path) -> None:
    stack(store, rootfs)
    (rootfs / "fourth").unlink()
    image = store.commit(rootfs, "app:v4", base="app:v3", message="4", squash_last=2)
    assert image.layer is not None
    assert (image.layer.added, image.layer.deleted) == (0, 0)
    assert history(store, "app:v4") == [("1", False), ("2", True), ("3", False), ("4", True)]
    store.unpack("app:v4", tmp_path / "out")
    trees.assert_same_tree(tmp_path / "out", rootfs)
    same = store.commit(rootfs, "app:v5", base="app:v4", squash_last=2)
    assert len(same.manifest.layers) == 1
    assert store.commit(rootfs, "app:v6", base="app:v5", squash=True).layer is None


def test_added_files_are_merged_too(store: Store, rootfs: Path, tmp_path: Path) -> None:
    stack(store, rootfs)
    (tmp_path / "tool").write_text("t")
    for squash_last, count in ((2, 4), (3, 3), (5, 1)):
        image = store.commit(
            rootfs, "app:v4", base="app:v3", additions=[f"{tmp_path}/tool:/usr/tool"], squash_last=squash_last
        )
        assert len(image.manifest.layers) == count
        out = tmp_path / f"out{count}"
        store.unpack("app:v4", out)
        assert (out / "usr/tool").read_text() == "t"
        assert (out / "fourth").read_text() == "4"
        assert history(store, "app:v4")[-1][1] is False


def test_documents_follow(handmade: Handmade, rootfs: Path) -> None:
    layer, diff_id = handmade.layer({"a": "1"})
    other, other_id = handmade.layer({"b": "2"})
    annotations = {"org.opencontainers.image.base.digest": "sha256:" + "0" * 64, "org.example": "kept"}
    steps = [{"created_by": "one"}, {"created_by": "empty", "empty_layer": True}]
    config = handmade.config([diff_id, other_id], history=steps, author="a")
    document = {"schemaVersion": 2, "config": config, "layers": [layer, other], "annotations": annotations}
    handmade.name("base:v1", handmade.document(document, media_type.MANIFEST))
    with Store.open(handmade.path) as store:
        image = store.commit(rootfs, "app:v1", base="base:v1", squash=True, compression="zstd")
        assert dict(image.manifest.annotations) == {"org.example": "kept"}
        assert image.manifest.layers[0].media_type == media_type.LAYER_ZSTD
        # The second layer had no step.
        told = [(step.created_by, step.empty_layer) for step in image.config.history]
        assert told == [("one", True), ("empty", True), ("", True), ("ocidiff commit", False)]
        last = store.commit(rootfs, "app:v2", base="base:v1", squash_last=2, format="docker", annotations={})
        assert last.manifest.media_type == media_type.DOCKER_MANIFEST
        silent = store.commit(rootfs, "app:v3", base="base:v1", squash=True, omit_history=True)
        assert silent.config.history == ()
        kept = store.commit(rootfs, "app:v4", base="base:v1", squash_last=2)
        assert dict(kept.manifest.annotations) == annotations


def test_absent_layers_are_named_before_anything_is_read(store: Store, rootfs: Path, tmp_path: Path) -> None:
    stack(store, rootfs)
    digests = [layer["digest"] for layer in store.inspect("app:v3")["manifest"]["layers"]]  # type: ignore[index]
    for digest in digests[:2]:
        os.unlink(tmp_path / "store" / "blobs" / "sha256" / digest.partition(":")[2])
    arguments: dict[str, Any] = {"base": "app:v3", "lower": rootfs}
    with pytest.raises(NotFoundError, match=f"not in the store: {digests[0]}, {digests[1]}: pull the base"):
        store.commit(rootfs, "app:v4", squash=True, **arguments)
    with pytest.raises(NotFoundError, match=f"not in the store: {digests[1]}: pull the base"):
        store.commit(rootfs, "app:v4", squash_last=3, **arguments)
    assert [record.name for record in store.images()] == ["app:v1", "app:v2", "app:v3"]


def test_a_damaged_layer_is_refused(store: Store, rootfs: Path, tmp_path: Path) -> None:
    stack(store, rootfs)
    digest = store.inspect("app:v3")["manifest"]["layers"][1]["digest"]  # type: ignore[index]
    path = tmp_path / "store" / "blobs" / "sha256" / digest.partition(":")[2]
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    os.chmod(path, 0o644)
    path.write_bytes(data)
    before = blobs(tmp_path)
    with pytest.raises(ocidiff.OcidiffError):
        store.commit(rootfs, "app:v4", base="app:v3", lower=rootfs, squash=True)
    assert blobs(tmp_path) == before
    assert os.listdir(tmp_path / "store" / "ingest") == []


def test_a_cancelled_squash_leaves_the_store_as_it_was(store: Store, rootfs: Path, tmp_path: Path) -> None:
    stack(store, rootfs)
    before, phases = blobs(tmp_path), set()
    for phase in ("read", "squash"):
        cancel = Cancellation()

        def stop(progress: Progress, phase: str = phase, cancel: Cancellation = cancel) -> None:
            phases.add(progress.phase)
            if progress.phase == phase:
                cancel.cancel()

        with pytest.raises(Cancelled):
            store.commit(rootfs, "app:v4", base="app:v3", squash=True, progress=stop, cancel=cancel)
        assert blobs(tmp_path) == before
        assert os.listdir(tmp_path / "store" / "ingest") == []
    assert phases == {"unpack", "diff", "read", "squash"}


@pytest.mark.root
@pytest.mark.parametrize("arguments", [{"squash": True}, {"squash_last": 2}, {"max_layers": 1}])
def test_containers_are_squashed_and_created_from(
    store: EmbeddedStore, rootfs: Path, tmp_path: Path, arguments: dict[str, Any]
) -> None:
    stack(store, rootfs)
    store.create("app:v3", "work", driver="directory")
    root = Path(store.containers.mount("work"))
    shutil.rmtree(root / "etc")
    (root / "etc").write_text("a file now")
    (root / "new").write_text("n")
    image = store.commit(store.container("work"), "app:v4", **arguments)
    store.unpack("app:v4", tmp_path / "out")
    again = store.create("app:v4", "again", driver="directory")
    trees.assert_same_tree(store.containers.mount(again.name), root)
    trees.assert_same_tree(tmp_path / "out", root)
    more = store.commit(store.container("again"), "app:v5")
    assert more.manifest.layers == image.manifest.layers
    assert store.verify().faults == ()
