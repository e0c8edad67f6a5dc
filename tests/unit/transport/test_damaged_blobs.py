"""A blob with other bytes than its digest says is replaced by every command that brings the right ones."""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import ocidiff
from ocidiff import workspace
from ocidiff.cli.main import main
from ocidiff.embedded import stored
from ocidiff.embedded.stored import is_intact
from ocidiff.errors import Cancelled
from ocidiff.layer.monitor import Cancellation
from ocidiff.oci.digest import Digest
from ocidiff.transport.store import StorePlace
from support import irregular
from support.registries import Registry

EPOCH = 1_700_000_000
BATCHED = "batch"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    for number in range(3):
        (tree / f"d{number}").mkdir(parents=True)
        # More than a block of the comparison, and of the layer.
        (tree / f"d{number}" / "file").write_bytes(os.urandom(700_000))
    return tree


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ocidiff.EmbeddedStore]:
    with ocidiff.Store.open(tmp_path / "store") as store:
        yield store


@dataclass(frozen=True)
class Scene:
    """One image in every place that it can come from.

    Attributes:
        place: Has the layout `layout` and the archive `archive`.
        tree: What the image is committed from.
        image: Where it is in a registry.
    """

    place: Path
    tree: Path
    image: str

    @property
    def layout(self) -> str:
        return f"oci:{self.place}/layout:app"


@pytest.fixture
def scene(tmp_path: Path, tree: Path, registry: Registry) -> Scene:
    scene = Scene(tmp_path, tree, f"docker://{registry.address}/app:v1")
    with ocidiff.Store.open(tmp_path / "other") as other:
        other.commit(tree, "app:1", source_date_epoch=EPOCH)
        other.copy("app:1", scene.image)
        other.copy("app:1", scene.layout)
        other.save(["app:1"], str(tmp_path / "archive"))
    return scene


Way = Callable[[ocidiff.EmbeddedStore, Scene], object]


def commit(**options: Any) -> Way:
    return lambda store, scene: store.commit(scene.tree, "app:1", source_date_epoch=EPOCH, **options)


def batch(store: ocidiff.EmbeddedStore, scene: Scene) -> None:
    # Under another name each time, since a line that is committed already is skipped and reads nothing.
    line = {"source": str(scene.tree), "name": f"batch:{len(store.images())}"}
    lines = scene.place / "lines"
    lines.write_text(json.dumps(line) + "\n")
    store.batch(lines, lambda _: None, source_date_epoch=EPOCH)


def pull(store: ocidiff.EmbeddedStore, scene: Scene) -> object:
    return store.copy(scene.image, "app:1")


WAYS: dict[str, Way] = {
    "commit": commit(),
    "commit --layers": commit(layers=3),
    "commit --layers --verify": commit(layers=3, verify=True),
    "commit --verify": commit(verify=True),
    "commit --reuse never": commit(reuse="never"),
    "commit --compression none": commit(compression="none"),
    "commit --compression zstd": commit(compression="zstd"),
    "commit --engine pure": commit(engine="pure"),
    "commit --format docker": commit(format="docker"),
    "batch": batch,
    "load": lambda store, scene: store.load(scene.place / "archive"),
    "pull": pull,
    "copy oci:": lambda store, scene: store.copy(scene.layout, "app:1"),
}


def damage(blob: Path, at: int) -> None:
    """Flip a bit; the length stays."""
    data = bytearray(blob.read_bytes())
    data[at % len(data)] ^= 1
    blob.chmod(0o644)
    blob.write_bytes(data)


def damaged(blobs: Path, at: int) -> list[str]:
    """Flip a bit of every blob; return their names."""
    found = sorted(blobs.iterdir())
    for blob in found:
        damage(blob, at)
    return [blob.name for blob in found]


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_every_way_replaces_every_kind_of_blob(
    store: ocidiff.EmbeddedStore, scene: Scene, way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    way(store, scene)
    # The first byte, one in the middle, and the last.
    for at in (0, 200_000, -1):
        names = damaged(Path(store._layout.path, "blobs/sha256"), at)
        # A configuration, at least one layer and a manifest.
        assert len(names) >= 3
        assert len(store.verify().faults) >= len(names)
        caplog.clear()
        with caplog.at_level(logging.WARNING, "ocidiff"):
            way(store, scene)
        assert store.verify().faults == ()
        told = {record.getMessage() for record in caplog.records}
        assert told == {f"blob sha256:{name}: was damaged in the store, and is replaced" for name in names}
        assert sorted(os.listdir(Path(store._layout.path, "ingest"))) == []


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_every_way_replaces_what_is_no_regular_file(
    store: ocidiff.EmbeddedStore, scene: Scene, way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    way(store, scene)
    blobs = Path(store._layout.path, "blobs/sha256")
    for kind in irregular.KINDS:
        right = {blob: blob.read_bytes() for blob in blobs.iterdir()}
        for blob in right:
            irregular.replace(blob, kind)
        caplog.clear()
        with caplog.at_level(logging.WARNING, "ocidiff"):
            way(store, scene)
        assert {blob: blob.read_bytes() for blob in right} == right, kind
        told = {record.getMessage() for record in caplog.records}
        assert told == {f"blob sha256:{blob.name}: was damaged in the store, and is replaced" for blob in right}
        assert store.verify().faults == ()
        assert sorted(os.listdir(Path(store._layout.path, "ingest"))) == []
        if kind == "directory":
            # What it held is nobody's blob, so nobody has it elsewhere.
            kept = Path(store._layout.path, "damaged")
            assert {(kept / blob.name / "file").read_text() for blob in right} == {"kept"}


@pytest.mark.parametrize("kind", irregular.KINDS)
def test_a_batch_writes_a_committed_line_again_if_a_blob_is_no_file(
    store: ocidiff.EmbeddedStore, tree: Path, tmp_path: Path, kind: str
) -> None:
    lines = tmp_path / "lines"
    lines.write_text(json.dumps({"source": str(tree), "name": "app:1"}) + "\n")
    blobs = Path(store._layout.path, "blobs/sha256")
    for layers in (1, 3):
        store.batch(lines, lambda _: None, layers=layers, source_date_epoch=EPOCH)
        for blob in list(blobs.iterdir()):
            irregular.replace(blob, kind)
            results = list[ocidiff.BatchResult]()
            store.batch(lines, results.append, layers=layers, source_date_epoch=EPOCH)
            assert [str(result.status) for result in results] == ["made"]
            store.verify(repair=True)
            assert store.verify().faults == ()


@pytest.mark.parametrize("kind", irregular.KINDS)
def test_an_image_layout_gets_regular_blobs(store: ocidiff.EmbeddedStore, tree: Path, tmp_path: Path, kind: str) -> None:
    store.commit(tree, "app:1", source_date_epoch=EPOCH)
    store.copy("app:1", f"oci:{tmp_path}/layout:app")
    blobs = tmp_path / "layout/blobs/sha256"
    right = {blob: blob.read_bytes() for blob in blobs.iterdir()}
    for blob in right:
        irregular.replace(blob, kind)
    store.copy("app:1", f"oci:{tmp_path}/layout:app")
    assert {blob: blob.read_bytes() for blob in right} == right


def test_a_layout_of_another_tool_gets_sound_blobs(store: ocidiff.EmbeddedStore, tree: Path, tmp_path: Path) -> None:
    store.commit(tree, "app:1", source_date_epoch=EPOCH)
    for _ in range(2):
        store.copy("app:1", f"oci:{tmp_path}/layout:app")
        names = damaged(tmp_path / "layout/blobs/sha256", 5)
        store.commit(tree, f"oci:{tmp_path}/layout:app", source_date_epoch=EPOCH)
        for name in names:
            assert (tmp_path / "layout/blobs/sha256" / name).read_bytes() == Path(
                store._layout.path, "blobs/sha256", name
            ).read_bytes()
        damaged(tmp_path / "layout/blobs/sha256", 5)


def test_a_pull_of_a_damaged_base_brings_it_again(store: ocidiff.EmbeddedStore, scene: Scene, tmp_path: Path) -> None:
    pull(store, scene)
    names = damaged(tmp_path / "store/blobs/sha256", 7)
    done = store.copy(scene.layout, "app:2")
    assert (done.copied, done.skipped) == (len(names) - 1, 0)
    assert store.copy(scene.layout, "app:2").copied == 0
    store.unpack("app:1", tmp_path / "unpacked")


def test_a_reader_keeps_the_blob_that_it_has_open(store: ocidiff.EmbeddedStore, tree: Path) -> None:
    image = store.commit(tree, "app:1", source_date_epoch=EPOCH)
    blob = Path(store._layout.path, "blobs/sha256", image.digest[7:])
    damage(blob, 3)
    wrong = blob.read_bytes()
    with blob.open("rb") as reader:
        store.commit(tree, "app:1", source_date_epoch=EPOCH)
        assert reader.read() == wrong
    assert blob.read_bytes() != wrong
    assert blob.stat().st_mode & 0o777 == 0o444


def test_a_sound_blob_stays_the_file_that_it_is(store: ocidiff.EmbeddedStore, scene: Scene) -> None:
    blobs = Path(store._layout.path, "blobs/sha256")
    for way in ("commit", "load", "pull", "commit"):
        before = {blob.name: blob.stat() for blob in blobs.iterdir()}
        WAYS[way](store, scene)
        for name, was in before.items():
            now = (blobs / name).stat()
            assert (now.st_ino, now.st_ctime_ns) == (was.st_ino, was.st_ctime_ns)


@pytest.mark.parametrize("kind", ["symlink", "fifo", "torn", "unreadable disk"])
def test_what_cannot_be_read_as_a_blob_is_replaced(
    store: ocidiff.EmbeddedStore, tree: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = store.commit(tree, "app:1", source_date_epoch=EPOCH)
    assert image.layer is not None
    blob = Path(store._layout.path, "blobs/sha256", image.layer.digest[7:])
    right = blob.read_bytes()
    with monkeypatch.context() as patch:
        if kind == "unreadable disk":
            # Nothing else is read at offsets here.
            preadv = os.preadv

            def fail(file: int, buffers: list[bytearray], offset: int) -> int:
                if os.readlink(f"/proc/self/fd/{file}") == str(blob):
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                return preadv(file, buffers, offset)

            patch.setattr(os, "preadv", fail)
        else:
            blob.unlink()
            if kind == "symlink":
                blob.symlink_to(tree / "d0" / "file")
            elif kind == "fifo":
                os.mkfifo(blob)
            else:
                blob.write_bytes(right[:-1])
        store.commit(tree, "app:1", source_date_epoch=EPOCH, reuse="never")
    assert not blob.is_symlink()
    assert blob.read_bytes() == right


def test_an_interrupt_reaches_a_copy_that_reads_a_blob(
    store: ocidiff.EmbeddedStore, scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pull(store, scene)
    cancel = Cancellation()
    contains = StorePlace.contains

    def cancelled(place: StorePlace, *arguments: object) -> bool:
        cancel.cancel()
        return contains(place, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(StorePlace, "contains", cancelled)
    with pytest.raises(Cancelled):
        store.copy(scene.layout, "app:2", cancel=cancel)
    assert [record.name for record in store.images()] == ["app:1"]


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_an_interrupt_reaches_the_comparison_with_a_blob_that_is_there(
    store: ocidiff.EmbeddedStore, scene: Scene, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    way(store, scene)
    kept = {record.name for record in store.images()}
    damaged(Path(store._layout.path, "blobs/sha256"), -1)
    cancel, check, asked, compared = Cancellation(), stored._is_stored, list[Digest](), list[int]()

    def cancelled(blobs: int, digest: Digest, size: int, is_sound: Callable[[int], bool]) -> bool:
        cancel.cancel()
        asked.append(digest)
        return check(blobs, digest, size, is_sound)

    def preadv(file: int, buffers: list[bytearray], offset: int) -> int:
        # Nothing else is read at offsets here.
        compared.append(offset)
        return os.preadv(file, buffers, offset)

    monkeypatch.setattr(stored, "_is_stored", cancelled)
    monkeypatch.setattr(stored, "os", SimpleNamespace(**{**vars(os), "preadv": preadv}))
    for name in ("commit", "load", "copy", "batch"):
        monkeypatch.setattr(store, name, partial(getattr(store, name), cancel=cancel))
    with suppress(Cancelled):
        way(store, scene)
    assert asked
    assert compared == []
    assert {record.name for record in store.images()} == kept


def test_a_limit_of_open_files_is_no_damage(
    store: ocidiff.EmbeddedStore, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = store.commit(tree, "app:1")

    def fail(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(workspace, "open_regular", fail)
    with store._layout._files.directory("blobs", "sha256") as blobs, pytest.raises(OSError, match="Too many open files"):
        is_intact(blobs, image.digest, image.descriptor.size, lambda: None)


REMEDY = "; if the blob is damaged, bring the image again (in containerd, remove the image first)"
READERS = {
    "unpack": ["unpack", "app:1", "out"],
    "create": ["create", "app:1", "work"],
    "commit": ["commit", "./tree/d0", "app:2", "--base", "app:1", "--lower", "scratch", "--squash"],
    "index": ["index", "app:1", "-o", "index"],
    "report": ["inspect", "app:1", "--report", "page.html"],
    "save": ["save", "app:1", "-o", "archive"],
    "push": ["push", "app:1", "docker://{registry}/app:v2"],
    "copy": ["copy", "app:1", "oci:layout:app"],
}


@pytest.mark.parametrize("compression", ["gzip", "none"])
@pytest.mark.parametrize("kind", ["flipped", "torn"])
@pytest.mark.parametrize("reader", READERS)
def test_every_reader_of_a_store_names_the_damaged_layer_and_the_remedy(
    store: ocidiff.EmbeddedStore,
    tree: Path,
    tmp_path: Path,
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    reader: str,
    kind: str,
    compression: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    image = store.commit(tree, "app:1", compression=compression)  # type: ignore[arg-type]
    assert image.layer is not None
    blob = tmp_path / "store/blobs/sha256" / image.layer.digest[7:]
    damage(blob, 5000)
    if kind == "torn":
        blob.write_bytes(blob.read_bytes()[:-1])
    words = [word.format(registry=registry.address) for word in READERS[reader]]
    assert main(["--store", "store", *words]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(REMEDY)
    assert line.count(REMEDY) == 1
    assert image.layer.digest in line or reader == "index"


def test_a_damaged_manifest_has_the_same_remedy(
    store: ocidiff.EmbeddedStore, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = store.commit(tree, "app:1")
    damage(tmp_path / "store/blobs/sha256" / image.digest[7:], 100)
    assert main(["--store", str(tmp_path / "store"), "save", "app:1", "-o", str(tmp_path / "archive")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(REMEDY)
    assert image.digest in line


def test_a_damaged_source_outside_of_the_store_is_not_the_fault_of_the_store(
    store: ocidiff.EmbeddedStore, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = store.commit(tree, "app:1")
    assert image.layer is not None
    store.copy("app:1", f"oci:{tmp_path}/layout:app")
    damage(tmp_path / "layout/blobs/sha256" / image.layer.digest[7:], 5000)
    assert main(["--store", str(tmp_path / "new"), "copy", f"oci:{tmp_path}/layout:app", "app:1"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert image.layer.digest in line
    assert REMEDY not in line
