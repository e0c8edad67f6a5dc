"""skopeo reads, copies and converts what ocidiff committed, and ocidiff builds on what skopeo copied."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from interop.tools import Tool
from ocidiff.image.image import Image
from ocidiff.layer.arguments import CompressionName
from ocidiff.layer.options import Compression
from ocidiff.store import Store
from support import trees

pytestmark = [pytest.mark.interop, pytest.mark.root]


@pytest.fixture
def skopeo(tool: Callable[[str], Tool]) -> Tool:
    return tool("skopeo")


def commit_both(store: Store, sample: Path, compression: CompressionName = Compression.GZIP) -> Image:
    """An image of two layers, and its base."""
    store.commit(sample / "lower", "app:v1", compression=compression, author="me")
    return store.commit(sample / "upper", "app:v2", base="app:v1", compression=compression)


@pytest.mark.parametrize("compression", Compression)
def test_a_copy_to_another_layout_keeps_every_digest(
    store: Store, sample: Path, skopeo: Tool, tmp_path: Path, compression: Compression
) -> None:
    image = commit_both(store, sample, compression)
    source, copy = f"oci:{tmp_path}/store:app:v2", f"oci:{tmp_path}/copy:app:v2"
    skopeo.run("copy", "--insecure-policy", "--preserve-digests", source, copy)
    with Store.open(tmp_path / "copy", create=False) as other:
        copied = other.unpack("app:v2", tmp_path / "out")
    assert (copied.descriptor.digest, copied.manifest) == (image.descriptor.digest, image.manifest)
    trees.assert_same_tree(tmp_path / "out", sample / "upper", directory_times=True)


def test_a_squashed_image_is_copied_and_inspected(store: Store, sample: Path, skopeo: Tool, tmp_path: Path) -> None:
    commit_both(store, sample)
    image = store.commit(sample / "lower", "app:v3", base="app:v2", lower=sample / "upper", squash=True)
    skopeo.run("copy", f"oci:{tmp_path}/store:app:v3", f"oci:{tmp_path}/copy:v3")
    told = json.loads(skopeo.run("inspect", f"oci:{tmp_path}/copy:v3"))
    assert told["Digest"] == image.descriptor.digest
    assert told["Layers"] == [image.manifest.layers[0].digest]


def test_inspect_shows_what_commit_returned(store: Store, sample: Path, skopeo: Tool, tmp_path: Path) -> None:
    image = commit_both(store, sample)
    place = f"oci:{tmp_path}/store:app:v2"
    shown = json.loads(skopeo.run("inspect", place))
    assert shown["Digest"] == image.descriptor.digest
    assert shown["Layers"] == [layer.digest for layer in image.manifest.layers]
    assert (shown["Architecture"], shown["Os"]) == (image.config.platform.architecture, image.config.platform.os)
    raw = skopeo.run("inspect", "--raw", place)
    assert "sha256:" + hashlib.sha256(raw.encode()).hexdigest() == image.descriptor.digest
    config = json.loads(skopeo.run("inspect", "--config", place))
    assert config["rootfs"]["diff_ids"] == list(image.config.rootfs.diff_ids)
    assert [entry["created_by"] for entry in config["history"]] == ["ocidiff commit", "ocidiff commit"]


@pytest.mark.parametrize("compression", [Compression.GZIP, Compression.NONE])
def test_a_docker_archive_holds_the_layers_by_their_diff_ids(
    store: Store, sample: Path, skopeo: Tool, tmp_path: Path, compression: Compression
) -> None:
    image = commit_both(store, sample, compression)
    archive = tmp_path / "archive.tar"
    skopeo.run("copy", "--insecure-policy", f"oci:{tmp_path}/store:app:v2", f"docker-archive:{archive}:app:v2")
    with tarfile.open(archive) as opened:

        def read(name: str) -> bytes:
            member = opened.extractfile(name)
            assert member is not None
            return member.read()

        (manifest,) = json.loads(read("manifest.json"))
        found = ["sha256:" + hashlib.sha256(read(name)).hexdigest() for name in manifest["Layers"]]
    assert found == list(image.config.rootfs.diff_ids)


@pytest.mark.parametrize("form", ["oci", "v2s2"])
def test_what_skopeo_brought_back_is_unpacked_and_built_on(
    store: Store, sample: Path, skopeo: Tool, tmp_path: Path, form: str
) -> None:
    commit_both(store, sample)
    directory = f"dir:{tmp_path}/directory"
    skopeo.run("copy", "--insecure-policy", "--format", form, f"oci:{tmp_path}/store:app:v2", directory)
    skopeo.run("copy", "--insecure-policy", directory, f"oci:{tmp_path}/back:app")
    with Store.open(tmp_path / "back", create=False) as back:
        built = back.commit(sample / "lower", "app:v3", base="app")
        assert len(built.manifest.layers) == 3
        back.unpack("app:v3", tmp_path / "out")
    trees.assert_same_tree(tmp_path / "out", sample / "lower", directory_times=True)
