"""Many layers cost what they hold, not what is below them, and any number of them makes a container."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ocidiff.cli.main import main
from ocidiff.embedded import snapshotter as local
from ocidiff.embedded.database import Database
from ocidiff.embedded.drivers import directory, overlay
from ocidiff.embedded.drivers.select import DriverName, snapshotter
from ocidiff.image import chain as chains
from ocidiff.image.chain import TooManyLayersError
from ocidiff.layer.options import EngineName
from ocidiff.mounts import kernel
from ocidiff.oci.digest import DiffID, chain_ids
from ocidiff.store import Store
from ocidiff.store.embedded import EmbeddedStore
from support import probes, trees
from support.layouts import Handmade

STORE = "handmade"


@pytest.fixture
def overlays() -> None:
    if not probes.can_mount_overlay():
        probes.missing("needs overlay mounts")


def _image(handmade: Handmade, name: str, contents: list[dict[str, str]]) -> list[DiffID]:
    """Name an image of these layers; its diff IDs."""
    layers = [handmade.layer(files) for files in contents]
    diff_ids = [diff_id for _, diff_id in layers]
    handmade.name(name, handmade.manifest(handmade.config(diff_ids), [layer for layer, _ in layers]))
    return list(map(DiffID, diff_ids))


def _contents(count: int) -> list[dict[str, str]]:
    """Layers that each add a file, change one of the layer before, and take one away that came two layers before."""
    contents = [{f"d/{number}": f"{number}", "d/last": f"{number}"} for number in range(count)]
    for number in range(3, count, 3):
        contents[number][f"d/.wh.{number - 2}"] = ""
    return contents


def _keys(store: EmbeddedStore, driver: DriverName) -> list[str]:
    return [found.key for found in snapshotter(store._layout, driver).walk() if found.kind == "committed"]


def test_six_hundred_layers_are_a_container(
    handmade: Handmade, tmp_path: Path, driver: DriverName, engine_name: EngineName
) -> None:
    _image(handmade, "many", _contents(600 if engine_name == "rust" else 510))
    with Store.open(handmade.path) as store:
        store.unpack("many", tmp_path / "out", engine=engine_name)
        store.create("many", "work", driver=driver, engine=engine_name)
        root = store.containers.mount("work")
        assert trees.comparable(trees.scan_tree(root)) == trees.comparable(trees.scan_tree(tmp_path / "out"))
        Path(root, "new").touch()
        store.containers.umount("work")
        layer = store.commit(store.containers.get("work"), "more", engine=engine_name).layer
        assert layer is not None
        assert (layer.added, layer.modified, layer.deleted) == (1, 0, 0)
        assert store.verify().faults == ()
        store.containers.remove("work")


def _work(handmade: Handmade, driver: DriverName, patch: pytest.MonkeyPatch, count: int) -> Counter[str]:
    """What creating from an image of so many layers takes: mounts, copies of trees, transactions and snapshots."""
    _image(handmade, f"many:{count}", _contents(count))
    counts: Counter[str] = Counter()

    def counted(where: Any, name: str, kind: str) -> None:
        real = getattr(where, name)

        def count_one(*arguments: Any, **named: Any) -> Any:
            counts[kind] += 1
            return real(*arguments, **named)

        context.setattr(where, name, count_one)

    with Store.open(handmade.path) as store, patch.context() as context:
        counted(kernel, "_overlay_descriptor", "mounts")
        counted(directory, "clone_tree", "copies")
        counted(Database, "transaction", "transactions")
        counted(local.LocalSnapshotter, "_make", "snapshots")
        container = store.create(f"many:{count}", driver=driver)
        store.containers.remove(container.name)
    return counts


def test_work_does_not_grow_with_the_layers(handmade: Handmade, driver: DriverName, monkeypatch: pytest.MonkeyPatch) -> None:
    _work(handmade, driver, monkeypatch, 2)
    small, large = (_work(handmade, driver, monkeypatch, count) for count in (20, 80))
    print(f"{driver}: 20 layers {dict(small)}, 80 layers {dict(large)}")
    assert small == large
    # One for the image, one for what it begins with, one for the container.
    assert small["snapshots"] <= 3
    assert small["copies"] == (2 if driver == "directory" else 0)


@pytest.mark.usefixtures("overlays")
def test_what_images_have_in_common_is_unpacked_once(handmade: Handmade) -> None:
    base, one, other = _contents(5), {"one": "1"}, {"other": "2"}
    diff_ids = _image(handmade, "base", base)
    _image(handmade, "one", [*base, one, {"top": "1"}])
    _image(handmade, "other", [*base, other])
    _image(handmade, "apart", [{"apart": "1"}])
    with Store.open(handmade.path) as store:
        store.create("one", "first", driver="overlay")
        keys = _keys(store, "overlay")
        assert len(keys) == 2
        assert keys[0] == chain_ids(diff_ids)[-1]
        store.create("other", "second", driver="overlay")
        assert _keys(store, "overlay")[:2] == keys
        assert len(_keys(store, "overlay")) == 3
        store.create("base", "third", driver="overlay")
        assert len(_keys(store, "overlay")) == 3
        for name in ("first", "second", "third"):
            store.containers.remove(name)
        for name in ("one", "other"):
            store.untag(name)
        store.collect()
        assert _keys(store, "overlay") == keys[:1]


@pytest.mark.usefixtures("overlays")
def test_beginnings_in_common_are_a_few_at_most(handmade: Handmade) -> None:
    contents = _contents(40)
    for count in range(1, 41):
        _image(handmade, f"step:{count}", contents[:count])
    with Store.open(handmade.path) as store:
        store.create("step:40", "work", driver="overlay")
        assert len(_keys(store, "overlay")) == chains._MAX_SHARED + 1
        root = store.containers.mount("work")
        assert sorted(os.listdir(root)) == ["d"]
        store.containers.umount("work")
        store.containers.remove("work")


@pytest.mark.usefixtures("overlays")
def test_no_chain_grows_beyond_what_a_mount_takes(
    handmade: Handmade, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(overlay, "max_lower_directories", lambda: 4)
    _image(handmade, "step:0", [{"0": "0"}])
    with Store.open(handmade.path) as store:
        for number in range(8):
            store.create(f"step:{number}", "work", driver="overlay")
            root = Path(store.containers.mount("work"))
            assert sorted(os.listdir(root)) == sorted(map(str, range(number + 1)))
            (root / str(number + 1)).write_text("x")
            store.containers.umount("work")
            store.commit(store.containers.get("work"), f"step:{number + 1}")
            store.containers.remove("work")
        assert max(len(snapshotter(store._layout, "overlay").lineage(key)) for key in _keys(store, "overlay")) == 4
        # As if a kernel that takes more had made it.
        store.create("step:3", "last", driver="overlay")
        store.containers.remove("last")
        monkeypatch.setattr(overlay, "max_lower_directories", lambda: 1)
        deep = max(range(8), key=lambda number: len(_lineage(store, f"step:{number}")))
        assert len(_lineage(store, f"step:{deep}")) > 1
        with pytest.raises(TooManyLayersError, match="directory"):
            store.create(f"step:{deep}", "named", driver="overlay")
        at = ("--store", str(handmade.path))
        assert main(["create", f"step:{deep}", "chosen", *at]) == 0
        assert "directory" in capsys.readouterr().err
        assert store.containers.get("chosen").driver == "directory"
        store.containers.remove("chosen")


def _lineage(store: EmbeddedStore, name: str) -> list[str]:
    found = store.inspect(name)["config"]
    assert isinstance(found, dict)
    key = chain_ids(list(map(DiffID, found["rootfs"]["diff_ids"])))[-1]
    return snapshotter(store._layout, "overlay").lineage(key) if key in _keys(store, "overlay") else []
