"""gVisor keeps the changes of a container where no host sees them: such a tree is refused, and never committed empty."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

import ocidiff
from ocidiff.embedded.drivers.select import DriverName
from ocidiff.errors import UnsupportedError, UsageError
from ocidiff.layer.options import EngineName
from ocidiff.store import Store
from support import overlays, probes
from support.archives import directory, file, member, tar

WORDS = "gVisor keeps the changes in .gvisor.filestore.1, .* give the file to --upper-tar"


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    """A tree as the default of runsc (`--overlay2=root:self`) leaves it."""
    for name in ("lower", "upper"):
        (tmp_path / name).mkdir()
    (tmp_path / "upper/.gvisor.filestore.1").write_bytes(bytes(8192))
    return tmp_path / "upper"


def test_a_changed_tree_is_refused(upper: Path, tmp_path: Path) -> None:
    for tree in (upper, ocidiff.overlay_layers(upper, [tmp_path / "lower"])):
        lower = tmp_path / "lower" if tree is upper else None
        with pytest.raises(UnsupportedError, match=WORDS):
            ocidiff.diff(lower, tree, tmp_path / "layer")
        with pytest.raises(UnsupportedError, match=WORDS):
            ocidiff.changes(lower, tree)
    assert sorted(os.listdir(tmp_path)) == ["lower", "upper"]
    with Store.open(tmp_path / "store") as store:
        store.commit(tmp_path / "lower", "base:1")
        with pytest.raises(UnsupportedError, match=WORDS):
            list(store.changes("base:1", upper))


@pytest.mark.root
def test_a_mounted_overlay_is_refused(upper: Path, tmp_path: Path) -> None:
    if not overlays.can_mount():
        probes.missing("needs overlay mounts")
    with overlays.mounted(tmp_path / "merged", [tmp_path / "lower"], upper) as merged:
        for mode in ("auto", "never"):
            with pytest.raises(UnsupportedError, match=WORDS):
                ocidiff.diff(tmp_path / "lower", merged, tmp_path / "layer", overlay=mode)


@pytest.mark.parametrize("driver", ["overlay", "directory"])
def test_no_image_is_made(upper: Path, tmp_path: Path, driver: DriverName) -> None:
    if driver == "overlay" and not overlays.can_mount():
        probes.missing("needs overlay mounts")
    with Store.open(tmp_path / "store") as store:
        with pytest.raises(UnsupportedError, match=WORDS):
            store.commit(upper, "app:1")
        assert store.images() == []
        store.commit(tmp_path / "lower", "app:1")
        container = store.create("app:1", "work", driver=driver)
        (Path(store.containers.mount("work")) / ".gvisor.filestore.1").write_bytes(bytes(8192))
        with pytest.raises(UnsupportedError, match=WORDS):
            store.commit(container, "app:2")
        store.containers.umount("work")
        assert [image.name for image in store.images()] == ["app:1"]


def test_other_names_and_lower_trees_are_ordinary(upper: Path, tmp_path: Path) -> None:
    (tmp_path / "lower/.gvisor.filestore").touch()
    (tmp_path / "lower/d").mkdir()
    (tmp_path / "lower/d/.gvisor.filestore.1").touch()
    assert ocidiff.diff(upper, tmp_path / "lower", tmp_path / "layer").added == 3


def test_only_a_container_has_a_sandbox(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    with Store.open(tmp_path / "store") as store, pytest.raises(UsageError, match="needs a container"):
        store.commit(tmp_path / "tree", "app:1", upper=ocidiff.UpperTar(tmp_path / "upper.tar"))


@pytest.mark.parametrize("driver", ["overlay", "directory"])
@pytest.mark.parametrize("has_change", [False, True])
def test_the_tar_of_a_sandbox_is_a_layer_over_that_of_its_container(
    tmp_path: Path, engine_name: EngineName, driver: DriverName, *, has_change: bool
) -> None:
    if driver == "overlay" and not overlays.can_mount():
        probes.missing("needs overlay mounts")
    (tmp_path / "base/d").mkdir(parents=True)
    (tmp_path / "base/d/a").write_text("a")
    members = [directory(b"./"), directory(b"./d/"), member(b"./d/a", tarfile.CHRTYPE), file(b"./d/n", b"new")]
    (tmp_path / "upper.tar").write_bytes(tar(*members))
    with Store.open(tmp_path / "store") as store:
        store.commit(tmp_path / "base", "app:1")
        container = store.create("app:1", "work", driver=driver)
        root = Path(store.containers.mount("work"))
        (root / ".gvisor.filestore.1").write_bytes(bytes(8192))
        if has_change:
            (root / "own").touch()
        upper = ocidiff.UpperTar(tmp_path / "upper.tar")
        image = store.commit(
            container, "app:2", upper=upper, engine=engine_name, compression="none", additions=[f"{tmp_path}/base/d/a:/d/"]
        )
        store.containers.umount("work")
        found = []
        for descriptor in image.manifest.layers[1:]:
            with tarfile.open(tmp_path / "store/blobs/sha256" / descriptor.digest.hex) as layer:
                found.append(layer.getnames())
        assert found == [*([["own"]] if has_change else []), ["d", "d/.wh.a", "d/n"], ["d", "d/a"]]
        assert [step.empty_layer for step in image.config.history] == [False] * len(image.manifest.layers)
        assert len(image.config.rootfs.diff_ids) == len(image.manifest.layers)
        store.unpack("app:2", tmp_path / "got")
        names = sorted(str(path.relative_to(tmp_path / "got")) for path in (tmp_path / "got").rglob("*"))
        assert names == ["d", "d/a", "d/n", *(["own"] if has_change else [])]
        assert os.listdir(tmp_path / "store/ingest") == []
