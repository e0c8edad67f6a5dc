"""containerd unpacks the layers of a split change to the tree that one layer gives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from containerd.changes import CHANGES
from containerd.daemon import Daemon
from interop import samples
from ocidiff.store import Store
from support import probes, trees

pytestmark = [pytest.mark.interop, pytest.mark.root]


@pytest.mark.parametrize("layers", [2, 5, 16])
def test_containerd_unpacks_the_tree_of_a_split_change(daemon: Daemon, namespace: str, tmp_path: Path, layers: int) -> None:
    try:
        trees.build_tree(samples.LOWER, tmp_path / "lower")
        trees.build_tree(samples.UPPER, tmp_path / "upper")
    except trees.Unsupported as error:
        probes.missing(str(error))
    with Store.open(tmp_path / "store") as store:
        store.commit(tmp_path / "lower", "example.org/base:1", layers=layers)
        for name, count in (("single", 1), ("split", layers)):
            options: dict[str, Any] = {"base": "example.org/base:1", "lower": tmp_path / "lower", "layers": count}
            image = store.commit(tmp_path / "upper", f"example.org/{name}:1", **options)
            assert (len(image.layers) == 1) == (count == 1)
        store.save(["example.org/single:1", "example.org/split:1"], tmp_path / "images.tar")
    daemon.load(tmp_path / "images.tar", namespace)
    with (
        mounted(daemon, namespace, "example.org/single:1", tmp_path) as one,
        mounted(daemon, namespace, "example.org/split:1", tmp_path) as split,
    ):
        trees.assert_same_tree(split, one, directory_times=True)


@pytest.mark.parametrize("change", CHANGES)
def test_a_split_container_is_that_of_one_layer(
    daemon: Daemon, namespace: str, base: str, tmp_path: Path, change: str
) -> None:
    daemon.run(namespace, base, "c1")
    CHANGES[change](daemon.root(namespace, "c1"))
    with Store.containerd(daemon.address, namespace) as store:
        single = store.commit(store.container("c1"), "app:single")
        first = store.commit(store.container("c1"), "app:first", layers=4)
        second = store.commit(store.container("c1"), "app:second", layers=4)
    assert [layer.descriptor for layer in first.layers] == [layer.descriptor for layer in second.layers]
    assert all(layer.reused_bytes == layer.uncompressed_size for layer in second.layers)
    with (
        mounted(daemon, namespace, single.name, tmp_path) as one,
        mounted(daemon, namespace, second.name, tmp_path) as split,
    ):
        trees.assert_same_tree(split, one, directory_times=True)


@contextmanager
def mounted(daemon: Daemon, namespace: str, image: str, place: Path) -> Iterator[Path]:
    """The tree of an image, unpacked by containerd unless it is already."""
    point = place / f"tree-of-{len(list(place.iterdir()))}"
    point.mkdir()
    daemon.ctr("images", "mount", image, point, namespace=namespace)
    try:
        yield point
    finally:
        daemon.ctr("images", "unmount", point, namespace=namespace)
