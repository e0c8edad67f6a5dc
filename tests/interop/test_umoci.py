"""umoci unpacks what ocidiff committed, and ocidiff reads, unpacks and builds on what umoci made."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ocidiff
from interop import samples
from interop.tools import Tool
from ocidiff.oci import media_type
from ocidiff.store import Store
from support import trees
from support.layouts import Handmade

pytestmark = [pytest.mark.interop, pytest.mark.root]


@pytest.fixture
def umoci(tool: Callable[[str], Tool]) -> Tool:
    return tool("umoci")


def test_umoci_unpacks_the_tree_of_every_layer(store: Store, sample: Path, umoci: Tool, tmp_path: Path) -> None:
    store.commit(sample / "lower", "app:v1")
    second = store.commit(sample / "upper", "app:v2", base="app:v1", lower=sample / "lower")
    assert second.layer is not None
    assert second.layer.deleted > 0
    for name, tree in (("v1", "lower"), ("v2", "upper")):
        umoci.run("unpack", "--image", f"{tmp_path}/store:app:{name}", tmp_path / name)
        trees.assert_same_tree(tmp_path / name / "rootfs", sample / tree, directory_times=True)


def test_a_layer_over_an_unpacked_base_is_what_umoci_unpacks(
    store: Store, sample: Path, umoci: Tool, tmp_path: Path
) -> None:
    store.commit(sample / "lower", "app:v1")
    store.commit(sample / "upper", "app:v2", base="app:v1")
    umoci.run("unpack", "--image", f"{tmp_path}/store:app:v2", tmp_path / "bundle")
    trees.assert_same_tree(tmp_path / "bundle" / "rootfs", sample / "upper", directory_times=True)


@pytest.mark.parametrize(("arguments", "count"), [({"squash": True}, 1), ({"squash_last": 2}, 3), ({"squash_last": 3}, 2)])
def test_umoci_unpacks_the_tree_of_squashed_layers(
    store: Store, sample: Path, umoci: Tool, tmp_path: Path, arguments: dict[str, Any], count: int
) -> None:
    """Each way of a change is undone, and made again: what one layer deletes or replaces, the next one brings back."""
    store.commit(sample / "lower", "app:v1")
    store.commit(sample / "upper", "app:v2", base="app:v1", lower=sample / "lower")
    store.commit(sample / "lower", "app:v3", base="app:v2", lower=sample / "upper")
    image = store.commit(sample / "upper", "app:v4", base="app:v3", lower=sample / "lower", **arguments)
    assert len(image.manifest.layers) == count
    umoci.run("unpack", "--image", f"{tmp_path}/store:app:v4", tmp_path / "bundle")
    trees.assert_same_tree(tmp_path / "bundle" / "rootfs", sample / "upper", directory_times=True)
    store.unpack("app:v4", tmp_path / "out")
    trees.assert_same_tree(tmp_path / "out", sample / "upper", directory_times=True)


@pytest.mark.parametrize("layers", [2, 5, 16])
def test_umoci_unpacks_the_tree_of_a_split_change(
    store: Store, sample: Path, umoci: Tool, tmp_path: Path, layers: int
) -> None:
    store.commit(sample / "lower", "app:v1", layers=layers)
    image = store.commit(sample / "upper", "app:v2", base="app:v1", lower=sample / "lower", layers=layers)
    assert len(image.layers) > 1
    umoci.run("unpack", "--image", f"{tmp_path}/store:app:v2", tmp_path / "bundle")
    trees.assert_same_tree(tmp_path / "bundle" / "rootfs", sample / "upper", directory_times=True)
    store.unpack("app:v2", tmp_path / "out")
    trees.assert_same_tree(tmp_path / "out", sample / "upper", directory_times=True)


def test_what_umoci_repacked_is_read_unpacked_and_built_on(store: Store, sample: Path, umoci: Tool, tmp_path: Path) -> None:
    base = store.commit(sample / "lower", "app:v1")
    image, rootfs = f"{tmp_path}/store:app:v1", tmp_path / "bundle" / "rootfs"
    umoci.run("unpack", "--image", image, tmp_path / "bundle")
    change(rootfs)
    umoci.run("repack", "--image", f"{tmp_path}/store:app:v2", tmp_path / "bundle")
    umoci.run(
        *("config", "--image", f"{tmp_path}/store:app:v2", "--author", "umoci", "--config.cmd", "run", "--config.cmd", "-x"),
        *("--config.env", "A=b=c", "--config.label", "org.example.key=<v>", "--config.user", "1000:1000"),
        *("--config.exposedports", "80/tcp", "--config.volume", "/data", "--config.workingdir", "/home"),
        *("--config.stopsignal", "SIGUSR1", "--manifest.annotation", "org.example.note=\u00e9", "--architecture", "arm64"),
    )

    repacked = store.inspect("app:v2")
    unpacked = store.unpack("app:v2", tmp_path / "out")
    trees.assert_same_tree(tmp_path / "out", rootfs)
    assert unpacked.manifest.layers[0] == base.manifest.layers[0]

    (rootfs / "etc" / "third").write_text("3")
    (rootfs / "usr" / "first").unlink()
    built = store.commit(rootfs, "app:v3", base="app:v2", message="third")
    assert built.layer is not None
    assert (built.layer.added, built.layer.deleted) == (1, 1)
    assert built.manifest.layers[:-1] == unpacked.manifest.layers
    assert built.manifest.document()["annotations"] == {"org.example.note": "\u00e9"}
    assert settings(built.config.document()) == settings(repacked["config"])
    assert settings(repacked["config"])["config"]["Cmd"] == ["run", "-x"]

    umoci.run("unpack", "--image", f"{tmp_path}/store:app:v3", tmp_path / "again")
    trees.assert_same_tree(tmp_path / "again" / "rootfs", rootfs)
    listed = json.loads(umoci.run("stat", "--image", f"{tmp_path}/store:app:v3", "--json"))["history"]
    assert listed[-1]["comment"] == "third"
    assert listed[-1]["layer"]["digest"] == built.layer.descriptor.digest
    assert [entry["layer"]["digest"] for entry in listed if entry["layer"]] == [
        layer.digest for layer in built.manifest.layers
    ]


def test_a_directory_that_became_a_file_for_umoci_is_that_file(store: Store, umoci: Tool, tmp_path: Path) -> None:
    rootfs = tmp_path / "rootfs"
    for name in ("became/sub", "became/link"):
        (rootfs / name).mkdir(parents=True)
        (rootfs / name / "f").write_text("old")
    store.commit(rootfs, "app:v1")
    bundle = tmp_path / "bundle"
    umoci.run("unpack", "--image", f"{tmp_path}/store:app:v1", bundle)
    shutil.rmtree(bundle / "rootfs" / "became" / "link")
    (bundle / "rootfs" / "became" / "link").symlink_to("sub")
    umoci.run("repack", "--image", f"{tmp_path}/store:app:v2", "--refresh-bundle", bundle)
    shutil.rmtree(bundle / "rootfs" / "became")
    (bundle / "rootfs" / "became").write_text("new")
    umoci.run("repack", "--image", f"{tmp_path}/store:app:v3", bundle)

    image = store.unpack("app:v3", tmp_path / "out")
    blobs = [tmp_path / "store" / "blobs" / layer.digest.replace(":", "/") for layer in image.manifest.layers]
    with gzip.open(blobs[-1]) as layer, tarfile.open(fileobj=layer) as archive:
        names = archive.getnames()
    assert any(name.startswith("became/.wh.") for name in names), f"umoci writes whiteouts below the file no more: {names}"
    assert (tmp_path / "out" / "became").read_text() == "new"
    store.unpack("app:v2", tmp_path / "between")
    assert os.readlink(tmp_path / "between" / "became" / "link") == "sub"
    for engine in ("rust", "pure"):
        target = tmp_path / engine
        target.mkdir()
        for blob in blobs:
            ocidiff.apply(blob, target, engine=engine)
        assert (target / "became").read_text() == "new"


def change(rootfs: Path) -> None:
    """Some of every kind of change, as a user would make them."""
    shutil.rmtree(rootfs / "var" / "cache")
    (rootfs / "etc" / "passwd").write_text("root:x:0:2\n")
    (rootfs / "etc" / "hostname").unlink()
    (rootfs / "etc" / "hostname").mkdir()
    (rootfs / "etc" / "hostname" / "one").symlink_to("../passwd")
    os.mknod(rootfs / "dev" / "zero", 0o20666, os.makedev(1, 5))
    os.setxattr(rootfs / "usr" / "sudo", "security.capability", bytes.fromhex(samples.CAPABILITY["security.capability"]))
    os.chown(rootfs / "home", 1001, 1001)
    os.unlink(os.fsencode(rootfs) + b"/odd/\xff\xfe")
    # umoci rounds to the nearest second, where others cut.
    for name in ("dev/zero", "etc/passwd", "etc/hostname/one"):
        os.utime(rootfs / name, (1_700_000_000, 1_700_000_000), follow_symlinks=False)


def settings(config: Any) -> dict[str, Any]:
    """What a step keeps of a configuration."""
    return {name: value for name, value in config.items() if name not in {"created", "history", "rootfs"}}


def test_members_that_nobody_knows_survive_and_umoci_reads_the_image(tmp_path: Path, sample: Path, umoci: Tool) -> None:
    handmade = Handmade(tmp_path / "handmade")
    layer, diff_id = handmade.layer({"f": "x"})
    unknown: dict[str, Any] = {"org.example.future": {"a": [1, 2.5, None]}, "config": {"Cmd": ["x"], "Future": True}}
    config = handmade.config([diff_id], **unknown)
    handmade.name("base", handmade.manifest(config, [layer], annotations={"k": "v"}))
    with Store.open(handmade.path) as store:
        document = store.commit(sample / "lower", "app:v1", base="base").config.document()
    assert {name: document[name] for name in unknown} == unknown
    umoci.run("unpack", "--image", f"{handmade.path}:app:v1", tmp_path / "bundle")
    trees.assert_same_tree(tmp_path / "bundle" / "rootfs", sample / "lower")


def test_an_image_that_umoci_began_is_built_on(sample: Path, umoci: Tool, tmp_path: Path) -> None:
    umoci.run("init", "--layout", tmp_path / "layout")
    umoci.run("new", "--image", f"{tmp_path}/layout:empty")
    with Store.open(tmp_path / "layout", create=False) as store:
        built = store.commit(sample / "lower", "app:v1", base="empty")
        assert [record.name for record in store.images()] == ["empty", "app:v1"]
    assert built.manifest.layers[0].media_type == media_type.LAYER_GZIP
    umoci.run("unpack", "--image", f"{tmp_path}/layout:app:v1", tmp_path / "bundle")
    trees.assert_same_tree(tmp_path / "bundle" / "rootfs", sample / "lower")
    umoci.run("gc", "--layout", tmp_path / "layout")
    with Store.open(tmp_path / "layout") as store:
        store.unpack("app:v1", tmp_path / "out")
    trees.assert_same_tree(tmp_path / "out", sample / "lower")
