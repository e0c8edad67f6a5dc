"""Index of images: made from layers, taken in place of the base's tree."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import ocidiff
from ocidiff.errors import DigestMismatchError, NotFoundError, UsageError
from ocidiff.layer.options import EngineName
from ocidiff.store import Store
from support.layouts import Handmade

HEADER_BYTES, CHECKSUM_BYTES = 48, 16


def body(path: Path) -> bytes:
    """What says nothing of where the index is from."""
    return path.read_bytes()[HEADER_BYTES:-CHECKSUM_BYTES]


def test_the_index_of_an_image_is_that_of_its_tree(handmade: Handmade, tmp_path: Path, engine_name: EngineName) -> None:
    first, second = (
        handmade.layer({"a": "1", "d/b": "1", "d/c": "1"}),
        handmade.layer({"d/b": "2", "d/.wh.c": "", ".wh.a": ""}),
    )
    handmade.name("app", handmade.manifest(handmade.config([first[1], second[1]]), [first[0], second[0]]))
    with Store.open(handmade.path) as store:
        done = store.index("app", tmp_path / "image.idx", engine=engine_name)
        store.unpack("app", tmp_path / "tree", engine=engine_name, same_owner=True)
    ocidiff.index(tmp_path / "tree", tmp_path / "tree.idx", engine=engine_name)
    assert body(tmp_path / "image.idx") == body(tmp_path / "tree.idx")
    assert (done.entries, done.file_bytes) == (2, 1)
    assert list(ocidiff.changes(f"index:{tmp_path / 'image.idx'}", tmp_path / "tree", engine=engine_name)) == []


@pytest.mark.root
def test_an_unpacking_leaves_the_index_of_the_layers_where_it_keeps_all_they_say(
    handmade: Handmade, tmp_path: Path, engine_name: EngineName
) -> None:
    layer, diff_id = handmade.layer({"a": "1", "d/b": "1"})
    handmade.name("app", handmade.manifest(handmade.config([diff_id]), [layer]))
    with Store.open(handmade.path) as store:
        store.index("app", tmp_path / "layers.idx", engine=engine_name)
        store.unpack("app", tmp_path / "tree", index=tmp_path / "tree.idx", engine=engine_name)
        assert (tmp_path / "tree.idx").read_bytes() == (tmp_path / "layers.idx").read_bytes()
        # Without their owners it is no tree of those layers, but it is itself.
        store.unpack("app", tmp_path / "mine", index=tmp_path / "mine.idx", same_owner=False, engine=engine_name)
        ocidiff.index(tmp_path / "mine", tmp_path / "again.idx", engine=engine_name)
        assert (tmp_path / "mine.idx").read_bytes() == (tmp_path / "again.idx").read_bytes()


def test_an_unpacking_without_a_place_for_its_index_leaves_nothing(
    handmade: Handmade, tmp_path: Path, engine_name: EngineName
) -> None:
    handmade.name("app", handmade.image({"a": "1"}))
    with Store.open(handmade.path) as store:
        for index in (tmp_path / "missing" / "x.idx", "/dev/full"):
            with pytest.raises(OSError, match=r"No such file|No space"):
                store.unpack("app", tmp_path / "tree", index=index, engine=engine_name)
            assert not (tmp_path / "tree").exists()


def test_a_layer_that_is_not_the_one_that_is_named_gives_no_index(
    handmade: Handmade, tmp_path: Path, engine_name: EngineName
) -> None:
    layer, _ = handmade.layer({"a": "1"})
    handmade.name("app", handmade.manifest(handmade.config(["sha256:" + "0" * 64]), [layer]))
    with Store.open(handmade.path) as store, pytest.raises(DigestMismatchError):
        store.index("app", tmp_path / "image.idx", engine=engine_name)
    with Store.open(handmade.path) as store, pytest.raises(NotFoundError):
        store.index("other", tmp_path / "image.idx", engine=engine_name)
    assert not (tmp_path / "image.idx").exists()


def test_an_image_without_layers_has_an_empty_index(handmade: Handmade, tmp_path: Path, engine_name: EngineName) -> None:
    handmade.name("app", handmade.manifest(handmade.config([]), []))
    with Store.open(handmade.path) as store:
        assert store.index("app", tmp_path / "image.idx", engine=engine_name).entries == 0


def test_a_commit_with_the_index_of_its_base_is_the_commit_without(
    store: Store, rootfs: Path, tmp_path: Path, engine_name: EngineName
) -> None:
    store.commit(rootfs, "base", engine=engine_name)
    store.index("base", tmp_path / "base.idx", engine=engine_name)
    (rootfs / "etc" / "passwd").write_text("user")
    (rootfs / "empty").unlink()
    below = f"index:{tmp_path / 'base.idx'}"
    # The times of the tree have fractions, which the layers have not: contents decide.
    made = [
        store.commit(rootfs, "app", base="base", lower=lower, created="2026-01-01T00:00:00Z", engine=engine_name)
        for lower in (None, below)
    ]
    assert made[0].descriptor == made[1].descriptor
    assert made[1].layer is not None
    assert (made[1].layer.modified, made[1].layer.deleted) == (1, 1)


def test_an_index_of_other_layers_is_refused(store: Store, rootfs: Path, tmp_path: Path, engine_name: EngineName) -> None:
    store.commit(rootfs, "base", engine=engine_name)
    (rootfs / "more").touch()
    store.commit(rootfs, "other", engine=engine_name)
    store.index("other", tmp_path / "other.idx", engine=engine_name)
    with pytest.raises(UsageError, match="is not an index of base"):
        store.commit(rootfs, "app", base="base", lower=f"index:{tmp_path / 'other.idx'}", engine=engine_name)
    # One of a tree says nothing of layers.
    ocidiff.index(rootfs, tmp_path / "tree.idx", engine=engine_name)
    image = store.commit(rootfs, "app", base="base", lower=f"index:{tmp_path / 'tree.idx'}", engine=engine_name)
    assert image.layer is None
    os.truncate(tmp_path / "tree.idx", 100)
    with pytest.raises(ocidiff.IndexFileError):
        store.commit(rootfs, "app", base="base", lower=f"index:{tmp_path / 'tree.idx'}", engine=engine_name)
