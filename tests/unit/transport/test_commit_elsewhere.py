"""Commits straight to another place, and on a base from one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import ocidiff
from ocidiff.cli.main import main
from ocidiff.errors import NotFoundError, UsageError
from support.registries import Registry, answers


@pytest.fixture
def tree(tmp_path: Path, store: ocidiff.Store) -> Path:
    """A tree that has grown from `app:v1`."""
    changed = tmp_path / "changed"
    store.unpack("app:v1", changed)
    (changed / "new").write_bytes(os.urandom(1 << 16))
    return changed


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """Directory of a store that has nothing."""
    return tmp_path / "empty"


def layers(registry: Registry, repository: str, tag: str) -> list[str]:
    return [layer["digest"] for layer in json.loads(registry.manifests[repository, tag][1])["layers"]]


def at(registry: Registry, name: str) -> str:
    return f"docker://{registry.address}/{name}"


def test_an_image_goes_straight_to_a_registry(store: ocidiff.Store, registry: Registry, tree: Path, empty: Path) -> None:
    store.copy("app:v1", at(registry, "base:v1"))
    expected = store.commit(tree, "app:v2", base="app:v1", source_date_epoch=1)
    registry.requests.clear()
    with ocidiff.Store.open(empty) as other:
        image = other.commit(tree, at(registry, "app:v2"), base=at(registry, "base:v1"), source_date_epoch=1)
        assert other.images() == []
        other.collect()
        assert list((empty / "blobs/sha256").iterdir()) == []
    assert image.name == at(registry, "app:v2")
    assert image.layer is not None
    assert expected.layer is not None
    assert image.layer.diff_id == expected.layer.diff_id
    assert layers(registry, "app", "v2")[:2] == layers(registry, "base", "v1")
    assert len(registry.asked("POST", "mount=")) == 2
    # The configuration and the new layer.
    assert len(registry.asked("PUT", "/uploads/")) == 2


def test_the_layers_that_a_change_touches_are_sent(registry: Registry, tmp_path: Path, empty: Path) -> None:
    tree = tmp_path / "split"
    for name in "abcdefgh":
        (tree / name).mkdir(parents=True)
        (tree / name / "file").write_bytes(os.urandom(1 << 16))
    with ocidiff.Store.open(empty) as other:
        first = other.commit(tree, at(registry, "app:v1"), layers=4)
        registry.requests.clear()
        (tree / "a" / "file").write_bytes(os.urandom(1 << 16))
        second = other.commit(tree, at(registry, "app:v2"), layers=4)
        # Nothing is left here to compare with, so that all layers are written, and no more of them is sent.
        other.collect()
        (tree / "b" / "file").write_bytes(os.urandom(1 << 16))
        other.commit(tree, at(registry, "app:v3"), layers=4)
    new = set(layers(registry, "app", "v2")) - set(layers(registry, "app", "v1"))
    assert len(new) == len(set(layers(registry, "app", "v3")) - set(layers(registry, "app", "v2"))) == 1
    taken = [layer for layer in second.layers if layer.reused_bytes == layer.uncompressed_size]
    assert len(taken) == len(first.layers) - 1 == 3
    # Each time the configuration and one layer.
    assert len(registry.asked("PUT", "/uploads/")) == 4


def test_a_push_sends_the_bytes_of_the_touched_layers(registry: Registry, tmp_path: Path, empty: Path) -> None:
    tree = tmp_path / "split"
    for name in "abcdefgh":
        (tree / name).mkdir(parents=True)
        (tree / name / "file").write_bytes(os.urandom(1 << 16))
    with ocidiff.Store.open(empty) as other:
        other.commit(tree, "app:v1", layers=4)
        other.copy("app:v1", at(registry, "app:v1"))
        before = set(registry.blobs)
        assert sum(len(registry.blobs[key]) for key in before) > 8 << 16
        (tree / "a" / "file").write_bytes(os.urandom(1 << 16))
        second = other.commit(tree, "app:v2", layers=4)
        registry.requests.clear()
        other.copy("app:v2", at(registry, "app:v2"))
    touched = [layer.descriptor for layer in second.layers if layer.reused_bytes < layer.uncompressed_size]
    sent = {key[1]: len(data) for key, data in registry.blobs.items() if key not in before}
    assert sent == {one.digest: one.size for one in (*touched, second.manifest.config)}
    assert len(touched) == 1
    assert len(registry.asked("PUT", "/uploads/")) == len(sent)


def test_layers_of_the_base_are_not_needed_if_its_tree_is_told(
    store: ocidiff.Store, registry: Registry, tree: Path, empty: Path, tmp_path: Path
) -> None:
    store.copy("app:v1", at(registry, "base:v1"))
    store.index("app:v1", tmp_path / "index")
    registry.requests.clear()
    known = set(layers(registry, "base", "v1"))
    with ocidiff.Store.open(empty) as other:
        lower = f"index:{tmp_path}/index"
        other.commit(tree, at(registry, "app:v2"), base=at(registry, "base:v1"), lower=lower)
    assert not known & {path.rpartition("/")[2] for path in registry.asked("GET", "/blobs/")}
    assert set(layers(registry, "app", "v2")) > known


def test_layers_that_are_neither_here_nor_there_come_from_the_base(
    store: ocidiff.Store, registry: Registry, tree: Path, empty: Path, tmp_path: Path
) -> None:
    store.index("app:v1", tmp_path / "index")
    store.copy("app:v1", f"oci:{tmp_path}/layout:v1")
    with ocidiff.Store.open(empty) as other:
        base, lower = f"oci:{tmp_path}/layout:v1", f"index:{tmp_path}/index"
        other.commit(tree, at(registry, "app:v2"), base=base, lower=lower)
    assert len(layers(registry, "app", "v2")) == 3


def test_a_base_from_elsewhere_is_whole_in_the_store(store: ocidiff.Store, tree: Path, empty: Path, tmp_path: Path) -> None:
    store.copy("app:v1", f"oci:{tmp_path}/layout:v1")
    store.index("app:v1", tmp_path / "index")
    with ocidiff.Store.open(empty) as other:
        other.commit(tree, "app:v2", base=f"oci:{tmp_path}/layout:v1", lower=f"index:{tmp_path}/index")
        other.collect()
        assert other.verify().faults == ()
        other.unpack("app:v2", tmp_path / "out")
    assert (tmp_path / "out/new").read_bytes() == (tree / "new").read_bytes()


def test_a_failure_leaves_no_name(store: ocidiff.Store, registry: Registry, tree: Path) -> None:
    registry.faults.append(answers(403, "PUT", "/manifests/", 1000))
    with pytest.raises(ocidiff.DeniedError):
        store.commit(tree, at(registry, "app:v2"), base="app:v1")
    assert not registry.manifests
    assert {image.name for image in store.images()} == {"app:v1", "base:1"}


def test_wrong_names_are_refused_before_anything_is_read(store: ocidiff.Store, registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="lower case"):
        store.commit(tmp_path / "missing", at(registry, "App:v2"))
    with pytest.raises(UsageError, match="is no tag"):
        store.commit(tmp_path / "missing", "app:v2", base=at(registry, "app:"))
    with pytest.raises(NotFoundError, match="MANIFEST_UNKNOWN"):
        store.commit(tmp_path / "tree", "app:v2", base=at(registry, "nothing:v1"))


def test_the_command(
    store: ocidiff.Store, registry: Registry, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["commit", str(tree), at(registry, "app:v2"), "--base", "app:v1", "--store", str(tmp_path / "store")]
    assert main([*words, "--tag", "latest", "--chunk-size", "1MB"]) == 0
    digest = capsys.readouterr().out.strip()
    assert {("app", "v2"), ("app", "latest"), ("app", digest)} == registry.manifests.keys()
