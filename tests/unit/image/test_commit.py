"""Commit: a tree becomes an image, and a failure leaves the store as it was."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ocidiff.embedded.layout import Layout
from ocidiff.embedded.names import Names
from ocidiff.errors import (
    Cancelled,
    DigestMismatchError,
    DocumentError,
    MalformedLayerError,
    NotFoundError,
    OcidiffError,
    UnsupportedError,
    UsageError,
)
from ocidiff.layer.arguments import CompressionName
from ocidiff.layer.input import UpperTar
from ocidiff.layer.monitor import Cancellation, Progress
from ocidiff.layer.options import EngineName
from ocidiff.oci import media_type
from ocidiff.oci.platform import Platform
from ocidiff.store import Store
from support import archives, probes, trees
from support.layouts import Handmade


def _files(path: Path) -> list[str]:
    """All that is there, but for the database and the place of leases, which are made when a call first needs them."""
    made = ("ocidiff.db", "leases")
    return sorted(str(file.relative_to(path)) for file in path.rglob("*") if not file.name.startswith(made))


def _blobs(tmp_path: Path, name: str = "store") -> set[str]:
    return set(os.listdir(tmp_path / name / "blobs" / "sha256"))


def test_a_tree_from_scratch_is_an_image_of_one_layer(
    store: Store, rootfs: Path, tmp_path: Path, engine_name: EngineName
) -> None:
    image = store.commit(
        rootfs, "app:v1", author="me", message="<first>", source_date_epoch=1_700_000_000, engine=engine_name
    )
    assert image.layer is not None
    assert image.manifest.layers == (image.layer.descriptor,)
    assert image.config.rootfs.diff_ids == (image.layer.diff_id,)
    assert image.config.platform == Platform.of_machine()
    assert json.loads(image.config.encode())["history"] == [
        {"created": "2023-11-14T22:13:20Z", "created_by": "ocidiff commit", "author": "me", "comment": "<first>"}
    ]
    assert image.config.created == "2023-11-14T22:13:20Z"
    assert image.config_digest == image.manifest.config.digest
    blobs = {image.descriptor.digest.hex, image.config_digest.hex, image.layer.descriptor.digest.hex}
    assert _blobs(tmp_path) == blobs
    assert os.listdir(tmp_path / "store" / "ingest") == []


def test_the_same_tree_at_the_same_epoch_is_the_same_image(store: Store, rootfs: Path, engine_name: EngineName) -> None:
    first, second = (store.commit(rootfs, name, source_date_epoch=1, engine=engine_name) for name in ("a", "b"))
    assert first.descriptor == second.descriptor


def test_a_change_on_a_base_is_one_small_layer_more(
    store: Store, rootfs: Path, tmp_path: Path, engine_name: EngineName
) -> None:
    base = store.commit(rootfs, "app:v1", author="me", engine=engine_name)
    (rootfs / "new").write_text("n")
    (rootfs / "empty").unlink()
    image = store.commit(rootfs, "app:v2", base="app:v1", message="second", engine=engine_name)
    assert image.layer is not None
    assert (image.layer.added, image.layer.modified, image.layer.deleted) == (1, 0, 1)
    assert image.manifest.layers == (*base.manifest.layers, image.layer.descriptor)
    assert image.config.history[0] == base.config.history[0]
    assert [entry.author for entry in image.config.history] == ["me", "me"]
    assert store.resolve("app:v1").digest == base.descriptor.digest
    store.unpack("app:v2", tmp_path / "out", engine=engine_name)
    trees.assert_same_tree(tmp_path / "out", rootfs, directory_times=True)
    assert os.listdir(tmp_path / "store" / "ingest") == []


def test_a_file_changed_within_the_second_of_its_layer_is_not_missed(
    store: Store, rootfs: Path, tmp_path: Path, engine_name: EngineName
) -> None:
    file = rootfs / "etc" / "passwd"
    os.utime(file, ns=(0, 1_700_000_000_000_000_001))
    store.commit(rootfs, "app:v1", engine=engine_name)
    file.write_text("toor")
    os.utime(file, ns=(0, 1_700_000_000_000_000_002))
    image = store.commit(rootfs, "app:v2", base="app:v1", engine=engine_name)
    assert image.layer is not None
    assert image.layer.modified >= 1
    store.unpack("app:v2", tmp_path / "out", engine=engine_name)
    assert (tmp_path / "out" / "etc" / "passwd").read_text() == "toor"


def test_without_a_change_there_is_a_step_but_no_layer(
    store: Store, rootfs: Path, tmp_path: Path, engine_name: EngineName
) -> None:
    base = store.commit(rootfs, "app:v1", engine=engine_name)
    before = _blobs(tmp_path)
    image = store.commit(rootfs, "app:v1", base="app:v1", engine=engine_name)
    assert image.layer is None
    assert image.manifest.layers == base.manifest.layers
    assert [entry.empty_layer for entry in image.config.history] == [False, True]
    assert _blobs(tmp_path) - before == {image.descriptor.digest.hex, image.config_digest.hex}
    assert store.resolve("app:v1").digest == image.descriptor.digest


def test_an_empty_tree_from_scratch_has_no_layer(store: Store, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    image = store.commit(tmp_path / "nothing", "app", engine="pure")
    assert (image.layer, image.manifest.layers, image.config.rootfs.diff_ids) == (None, (), ())


@pytest.mark.parametrize("has_lower", [False, True])
def test_the_tar_of_an_upper_directory_is_a_layer_on_the_base(
    store: Store, rootfs: Path, tmp_path: Path, engine_name: EngineName, *, has_lower: bool
) -> None:
    store.commit(rootfs, "app:v1")
    upper = [archives.directory(b"./"), archives.file(b"./new", b"new"), archives.directory(b"./opt", mode=0o700)]
    (tmp_path / "upper.tar").write_bytes(archives.tar(*upper))
    tar, lower = UpperTar(tmp_path / "upper.tar"), rootfs if has_lower else None
    image = store.commit(tar, "app:v2", base="app:v1", lower=lower, engine=engine_name, compression="none")
    assert image.layer is not None
    assert image.manifest.layers[1:] == (image.layer.descriptor,)
    with tarfile.open(tmp_path / "store/blobs/sha256" / image.manifest.layers[1].digest.hex) as layer:
        assert layer.getnames() == ["new", "opt"]
    assert os.listdir(tmp_path / "store/ingest") == []
    before = _files(tmp_path / "store")
    (tmp_path / "upper.tar").write_bytes(archives.tar(*upper)[:2000])
    with pytest.raises(MalformedLayerError, match="unexpected end"):
        store.commit(tar, "app:v3", base="app:v1", lower=lower, engine=engine_name)
    assert _files(tmp_path / "store") == before


def test_a_lower_tree_saves_unpacking_the_base(store: Store, rootfs: Path, tmp_path: Path) -> None:
    store.commit(rootfs, "app:v1", engine="pure")
    shutil.copytree(rootfs, tmp_path / "lower", symlinks=True)
    (rootfs / "new").write_text("n")
    for blob in (tmp_path / "store" / "blobs" / "sha256").iterdir():
        if blob.read_bytes()[:1] != b"{":
            # Unpacking it would fail.
            blob.chmod(0o644)
            blob.write_bytes(bytes(blob.stat().st_size))
    image = store.commit(rootfs, "app:v2", base="app:v1", lower=tmp_path / "lower", engine="pure")
    assert image.layer is not None
    assert image.layer.added == 1


def test_scratch_as_lower_puts_the_whole_tree_on_the_base(store: Store, rootfs: Path) -> None:
    store.commit(rootfs, "app:v1", engine="pure")
    image = store.commit(rootfs, "app:v2", base="app:v1", lower="scratch", engine="pure")
    assert image.layer is not None
    assert (image.layer.added, len(image.manifest.layers)) == (4, 2)


def test_the_base_keeps_its_platform_settings_and_unknown_members(handmade: Handmade, rootfs: Path) -> None:
    members: dict[str, Any] = {
        "architecture": "arm",
        "variant": "v6",
        "os.version": "10",
        "os.features": ["f"],
        "config": {"Cmd": ["sh"], "Hostname": "h"},
        "docker_version": "1",
        "history": [{"created": "2020-01-01T00:00:00+05:30", "created_by": "x", "more": 1}],
    }
    handmade.name("base:1", handmade.image({"f": "x"}, **members))
    with Store.open(handmade.path) as store:
        document = store.commit(rootfs, "app:v1", base="base:1", engine="pure").config.document()
    for name in set(members) - {"history"}:
        assert document[name] == members[name]
    assert document["history"][0] == members["history"][0]  # type: ignore[index]


def test_a_docker_base_becomes_an_oci_image_with_the_blobs_it_had(handmade: Handmade, rootfs: Path) -> None:
    layer, diff_id = handmade.layer({"f": "x"}, "application/vnd.docker.image.rootfs.diff.tar.gzip")
    config = handmade.config([diff_id], kind=media_type.DOCKER_CONFIG)
    handmade.name("base", handmade.manifest(config, [layer], kind=media_type.DOCKER_MANIFEST))
    with Store.open(handmade.path) as store:
        image = store.commit(rootfs, "app", base="base", engine="pure")
    assert image.manifest.layers[0].document() == {**layer, "mediaType": media_type.LAYER_GZIP}
    assert (image.manifest.media_type, image.manifest.config.media_type) == (media_type.MANIFEST, media_type.CONFIG)
    assert image.descriptor.media_type == media_type.MANIFEST


def test_a_base_for_several_platforms_is_chosen_by_platform(handmade: Handmade, rootfs: Path) -> None:
    entries = []
    for architecture in ("amd64", "arm64", "s390x"):
        image = handmade.image({"f": architecture}, architecture=architecture)
        entries.append({**image, "platform": {"os": "linux", "architecture": architecture}})
    handmade.name("base", handmade.index(entries, media_type.DOCKER_INDEX))
    with Store.open(handmade.path) as store:
        image_ = store.commit(rootfs, "app", base="base", platform="linux/arm64", engine="pure")
        assert str(image_.config.platform) == "linux/arm64"
        with pytest.raises(
            NotFoundError, match="no image for linux/riscv64; there is linux/amd64, linux/arm64, linux/s390x"
        ):
            store.commit(rootfs, "app", base="base", platform="linux/riscv64", engine="pure")


def test_the_history_says_what_it_is_told(store: Store, rootfs: Path) -> None:
    store.commit(rootfs, "app:v1", author="them", created="2020-02-02T02:02:02.5+02:00", created_by="make", engine="pure")
    (rootfs / "new").touch()
    image = store.commit(rootfs, "app:v2", base="app:v1", author="me", engine="pure")
    assert [(entry.author, entry.created_by) for entry in image.config.history] == [
        ("them", "make"),
        ("me", "ocidiff commit"),
    ]
    assert image.config.history[0].created == "2020-02-02T02:02:02.5+02:00"
    silent = store.commit(rootfs, "app:v3", base="app:v2", omit_history=True, engine="pure")
    assert silent.config.history == ()
    assert "history" not in silent.config.document()


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_the_descriptor_says_how_the_layer_is_compressed(store: Store, rootfs: Path, compression: CompressionName) -> None:
    expected = {"gzip": media_type.LAYER_GZIP, "zstd": media_type.LAYER_ZSTD, "none": media_type.LAYER}
    try:
        image = store.commit(rootfs, "app", compression=compression)
    except UnsupportedError:
        probes.missing(f"the default engine here has no {compression}")
    assert image.manifest.layers[0].media_type == expected[compression]


def test_a_name_without_tag_is_stored_as_latest(store: Store, rootfs: Path) -> None:
    assert store.commit(rootfs, "app", engine="pure").name == "app:latest"
    assert store.resolve("app") == store.resolve("app:latest")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"name": "a b"}, "takes NAME"),
        ({"name": "a@sha256:" + "0" * 64}, "cannot be given"),
        ({"created": "now"}, "RFC 3339"),
        ({"platform": "amd64"}, "OS/ARCH"),
        ({"compression": "lz4"}, "gzip, zstd, none"),
        ({"level": 99}, "level 99"),
        ({"threads": -1}, "threads -1"),
        ({"profile": "moby"}, "oci, containerd"),
        ({"engine": "go"}, "engine 'go'"),
        ({"source_date_epoch": -1}, "epoch -1"),
        ({"lower": "/"}, "needs a base"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_written(
    store: Store, rootfs: Path, tmp_path: Path, arguments: dict[str, Any], problem: str
) -> None:
    before = _files(tmp_path)
    with pytest.raises(UsageError, match=problem):
        store.commit(rootfs, **{"name": "app", **arguments})
    assert _files(tmp_path) == before


def test_bad_trees_and_bases_are_told_before_anything_is_written(store: Store, rootfs: Path, tmp_path: Path) -> None:
    store.commit(rootfs, "app", engine="pure")
    before = _files(tmp_path)
    with pytest.raises(FileNotFoundError) as missing:
        store.commit(tmp_path / "missing", "app")
    assert missing.value.filename == str(tmp_path / "missing")
    with pytest.raises(NotADirectoryError):
        store.commit(rootfs / "empty", "app")
    with pytest.raises(FileNotFoundError):
        store.commit(rootfs, "app", base="app", lower=tmp_path / "missing")
    with pytest.raises(NotFoundError, match="no image 'other:latest'"):
        store.commit(rootfs, "app", base="other")
    assert _files(tmp_path) == before


@pytest.mark.parametrize("count", [0, 2])
def test_a_base_whose_layers_and_diff_ids_do_not_pair_is_refused(handmade: Handmade, rootfs: Path, count: int) -> None:
    layer, diff_id = handmade.layer({"f": "x"})
    handmade.name("base", handmade.manifest(handmade.config([diff_id] * count), [layer]))
    before = _files(handmade.path)
    with Store.open(handmade.path) as store, pytest.raises(DocumentError, match=f"1 layers, the configuration {count}"):
        store.commit(rootfs, "app", base="base", engine="pure")
    assert _files(handmade.path) == before


def test_a_base_whose_layer_is_another_than_its_diff_id_is_refused(handmade: Handmade, rootfs: Path) -> None:
    layer, _ = handmade.layer({"f": "x"})
    handmade.name("base", handmade.manifest(handmade.config(["sha256:" + "0" * 64]), [layer]))
    with Store.open(handmade.path) as store, pytest.raises(DigestMismatchError, match="expected sha256:000"):
        store.commit(rootfs, "app", base="base", engine="pure")
    assert os.listdir(handmade.path / "ingest") == []
    assert json.loads((handmade.path / "index.json").read_text())["manifests"] == handmade.entries


def test_a_base_that_is_no_image_is_refused(handmade: Handmade, rootfs: Path) -> None:
    config = handmade.blob(b"{}", "application/vnd.oci.empty.v1+json")
    handmade.name("artifact", handmade.manifest(config, []))
    with Store.open(handmade.path) as store, pytest.raises(UnsupportedError, match="not an image configuration"):
        store.commit(rootfs, "app", base="artifact", engine="pure")


@pytest.mark.parametrize("phase", ["unpacking the base", "writing the layer"])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, ValueError])
def test_an_interrupted_commit_leaves_the_store_as_it_was(
    store: Store, rootfs: Path, tmp_path: Path, *, phase: str, kind: type[BaseException], engine_name: EngineName
) -> None:
    store.commit(rootfs, "app:v1", engine=engine_name)
    for number in range(3000):
        (rootfs / f"file{number}").write_bytes(os.urandom(4096))
    if phase == "unpacking the base":
        store.commit(rootfs, "app:v1", engine=engine_name)
    before, index = _files(tmp_path), (tmp_path / "store" / "index.json").read_bytes()

    def interrupt(progress: Progress) -> None:
        if progress.bytes_plain > 0:
            raise kind

    with pytest.raises(kind):
        store.commit(rootfs, "app:v1", base="app:v1", engine=engine_name, progress=interrupt)
    assert _files(tmp_path) == before
    assert (tmp_path / "store" / "index.json").read_bytes() == index


def test_a_cancelled_commit_leaves_the_store_as_it_was(
    store: Store, rootfs: Path, tmp_path: Path, engine_name: EngineName
) -> None:
    store.commit(rootfs, "app:v1", engine=engine_name)
    before = _files(tmp_path)
    cancel = Cancellation()
    cancel.cancel()
    with pytest.raises(Cancelled):
        store.commit(rootfs, "app:v1", base="app:v1", engine=engine_name, cancel=cancel)
    assert _files(tmp_path) == before


@pytest.mark.parametrize("step", ["config", "manifest", "name"])
def test_children_are_stored_before_parents_and_the_name_last(
    store: Store, rootfs: Path, tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = (tmp_path / "store" / "index.json").read_bytes()
    written: list[str] = []
    write = Layout.write

    def fail() -> None:
        raise OcidiffError("stop")

    def write_until(layout: Layout, data: bytes, kind: str, labels: Mapping[str, str] | None = None) -> object:
        what = "config" if kind == media_type.CONFIG else "manifest"
        if what == step:
            fail()
        written.append(what)
        return write(layout, data, kind, labels)

    monkeypatch.setattr(Layout, "write", write_until)
    monkeypatch.setattr(Names, "put", lambda *_: fail())
    with pytest.raises(OcidiffError, match="stop"):
        store.commit(rootfs, "app", engine="pure")
    assert written == ["config", "manifest"][: ["config", "manifest", "name"].index(step)]
    assert len(_blobs(tmp_path)) == 1 + len(written)
    assert (tmp_path / "store" / "index.json").read_bytes() == index
