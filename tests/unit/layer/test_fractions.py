"""A parent tree that lost its fractions of a second, as unpacking a layer does, makes no change of them."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

import ocidiff
from ocidiff import access
from ocidiff.layer.options import EngineName
from ocidiff.store import Store

SECOND = 10**9
TIME_NS = 1_600_000_000 * SECOND


@pytest.fixture
def original(tmp_path: Path) -> Path:
    """A tree whose files have fractions of a second."""
    tree = tmp_path / "original"
    (tree / "etc/below").mkdir(parents=True)
    for number, name in enumerate(("etc/a", "etc/b", "etc/below/c"), 1):
        (tree / name).write_text(name)
        os.utime(tree / name, ns=(TIME_NS, TIME_NS + number))
    (tree / "etc/link").symlink_to("a")
    return tree


@pytest.fixture
def unpacked(store: Store, original: Path, tmp_path: Path) -> Path:
    store.commit(original, "app:v1")
    store.unpack("app:v1", tmp_path / "unpacked", index=tmp_path / "layers.idx")
    return tmp_path / "unpacked"


def paths(lower: Path | str, upper: Path, engine_name: EngineName, **options: str) -> list[str]:
    return [change.path for change in ocidiff.changes(lower, upper, engine=engine_name, **options)]  # type: ignore[arg-type]


def test_a_tree_and_its_unpacked_image_have_no_difference(
    engine_name: EngineName, original: Path, unpacked: Path, store: Store, tmp_path: Path
) -> None:
    ocidiff.index(unpacked, tmp_path / "tree.idx")
    for lower in (unpacked, f"index:{tmp_path}/tree.idx", f"index:{tmp_path}/layers.idx"):
        assert paths(lower, original, engine_name) == []
        assert ocidiff.diff(lower, original, tmp_path / "layer", engine=engine_name).empty
    image = store.commit(original, "app:v2", base="app:v1", lower=unpacked, engine=engine_name)
    assert image.layer is None


def test_contents_decide_where_the_fraction_is_lost(engine_name: EngineName, original: Path, unpacked: Path) -> None:
    (original / "etc/a").write_text("ETC/A")
    os.utime(original / "etc/a", ns=(TIME_NS, TIME_NS + 1))
    assert paths(unpacked, original, engine_name) == ["/etc/a"]


def test_one_fraction_in_the_lower_tree_makes_all_of_them_count(
    engine_name: EngineName, original: Path, unpacked: Path, tmp_path: Path
) -> None:
    (unpacked / "etc/below/new").touch()
    os.utime(unpacked / "etc/below/new", ns=(TIME_NS, TIME_NS + 5))
    ocidiff.index(unpacked, tmp_path / "tree.idx")
    everything = ["/etc/a", "/etc/b", "/etc/below/c", "/etc/below/new", "/etc/link"]
    assert paths(unpacked, original, engine_name) == everything
    assert paths(f"index:{tmp_path}/tree.idx", original, engine_name) == everything


def test_the_lower_layers_of_an_overlay_are_looked_at(
    engine_name: EngineName, original: Path, unpacked: Path, tmp_path: Path
) -> None:
    (unpacked / "etc/below/extra").touch()
    os.utime(unpacked / "etc/below/extra", ns=(TIME_NS, TIME_NS))
    layers = ocidiff.overlay_layers(original, [unpacked])
    assert [change.path for change in ocidiff.changes(None, layers, engine=engine_name)] == []


def test_profile_containerd_counts_fractions_and_says_so_once(
    engine_name: EngineName, original: Path, unpacked: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "ocidiff"):
        found = paths(unpacked, original, engine_name, profile="containerd")
    assert found == ["/etc/a", "/etc/b", "/etc/below/c", "/etc/link"]
    (record,) = caplog.records
    assert record.getMessage().startswith("4 of the first 4 files differ from the lower tree in a fraction of a second")
    caplog.clear()
    with caplog.at_level(logging.WARNING, "ocidiff"):
        assert paths(unpacked, unpacked, engine_name, profile="containerd") == []
    assert not caplog.records


@pytest.mark.parametrize("files", [2_000, 4_000])
def test_the_sample_does_not_grow_with_the_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: int) -> None:
    tree = tmp_path / "many"
    for directory in range(files // 4):
        (tree / f"{directory:04}").mkdir(parents=True)
        for name in range(3):
            place = tree / f"{directory:04}" / str(name)
            place.touch()
            os.utime(place, ns=(TIME_NS, TIME_NS))
    looked = 0

    def lstat(name: bytes, above: int) -> os.stat_result:
        nonlocal looked
        looked += 1
        return os.lstat(name, dir_fd=above)

    monkeypatch.setattr(access, "lstat", lstat)
    assert list(ocidiff.changes(tree, tree)) == []
    assert 256 <= looked <= 1_024
