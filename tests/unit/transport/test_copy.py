"""Copies between the store and layouts: whole, in pieces, again, and interrupted."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import ocidiff


def blobs(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (directory / "blobs/sha256").iterdir()}


def names(directory: Path) -> list[str | None]:
    index = json.loads((directory / "index.json").read_bytes())
    return [entry.get("annotations", {}).get("org.opencontainers.image.ref.name") for entry in index["manifests"]]


def test_a_layout_gets_the_same_bytes_and_comes_back(store: ocidiff.Store, tmp_path: Path) -> None:
    descriptor = store.resolve("app:v1")
    done = store.copy("app:v1", f"oci:{tmp_path}/layout:there")
    assert done.descriptor.digest == descriptor.digest
    assert (done.copied, done.skipped, done.mounted) == (3, 0, 0)
    assert names(tmp_path / "layout") == ["there"]
    mine = blobs(tmp_path / "store")
    assert all(mine[name] == data for name, data in blobs(tmp_path / "layout").items())
    assert sorted(os.listdir(tmp_path / "layout")) == ["blobs", "index.json", "index.lock", "oci-layout"]
    with ocidiff.Store.open(tmp_path / "other") as other:
        back = other.copy(f"oci:{tmp_path}/layout:there", "app:back")
        assert back.descriptor.digest == descriptor.digest
        assert other.verify().faults == ()


def test_more_tags_are_refused_where_no_registry_takes_them(store: ocidiff.Store, tmp_path: Path) -> None:
    registry = ocidiff.Registry(tags=("extra",))
    for target in (f"oci:{tmp_path}/layout:there", "app:v2"):
        with pytest.raises(ocidiff.UsageError, match="only registries take more tags"):
            store.copy("app:v1", target, registry=registry)
        with pytest.raises(ocidiff.UsageError, match="only registries take more tags"):
            store.commit(tmp_path, target, registry=registry)
    assert not (tmp_path / "layout").exists()


def test_what_is_there_is_not_copied(store: ocidiff.Store, tmp_path: Path) -> None:
    store.copy("base:1", f"oci:{tmp_path}/layout:base")
    done = store.copy("app:v1", f"oci:{tmp_path}/layout:app")
    # The configuration and the new layer.
    assert (done.copied, done.skipped) == (2, 1)
    again = store.copy("app:v1", f"oci:{tmp_path}/layout:app")
    assert (again.copied, again.skipped, again.copied_bytes) == (0, 3, 0)
    assert sorted(map(str, names(tmp_path / "layout"))) == ["app", "base"]
