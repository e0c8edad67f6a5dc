"""Images are copied into a real containerd and out of it, whole and safe from its collector."""

from __future__ import annotations

from pathlib import Path

import pytest

import ocidiff
from containerd.daemon import Daemon

pytestmark = [pytest.mark.interop, pytest.mark.root]


def test_an_image_goes_out_and_comes_back(daemon: Daemon, namespace: str, base: str, tmp_path: Path) -> None:
    with (
        ocidiff.Store.containerd(daemon.address, namespace) as there,
        ocidiff.Store.open(tmp_path / "store") as store,
    ):
        out = store.copy(f"containerd:{base}", "base:1", containerd=there)
        assert out.descriptor.digest == there.resolve(base).digest
        assert store.verify().faults == ()
        store.unpack("base:1", tmp_path / "tree")
        (tmp_path / "tree/new").write_text("new")
        image = store.commit(tmp_path / "tree", "new:1", base="base:1")
        back = store.copy("new:1", "containerd:new:1", containerd=there)
        # The layer of the base is there.
        assert (back.copied, back.skipped) == (2, 1)
        daemon.collect(namespace)
        assert there.resolve("new:1").digest == image.descriptor.digest
        again = store.copy("new:1", "containerd:new:1", containerd=there)
        assert (again.copied, again.skipped) == (0, 3)
        # The copy does not need the old name.
        there.untag(base)
        daemon.collect(namespace)
        assert there.copy("new:1", f"oci:{tmp_path}/layout:1").descriptor.digest == image.descriptor.digest
    daemon.run(namespace, "new:1", "copied")
    assert (daemon.root(namespace, "copied") / "new").read_text() == "new"
