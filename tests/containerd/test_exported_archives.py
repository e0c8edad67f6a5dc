"""containerd imports our archives, and we load what it exports."""

from __future__ import annotations

from pathlib import Path

import pytest

from containerd.daemon import Daemon
from ocidiff.store import Store

pytestmark = [pytest.mark.interop, pytest.mark.root]


def test_archives_go_to_containerd_and_back(daemon: Daemon, namespace: str, archive: Path, tmp_path: Path) -> None:
    with Store.open(tmp_path / "store") as store:
        (loaded,) = store.load(archive)
        store.tag(loaded.target, "example.org/app:1")
        store.save(["example.org/app:1"], tmp_path / "ours.tar")
        daemon.load(tmp_path / "ours.tar", namespace)
        daemon.ctr("images", "export", tmp_path / "theirs.tar", "example.org/app:1", namespace=namespace)
        with Store.open(tmp_path / "other") as other:
            (back,) = other.load(tmp_path / "theirs.tar")
            assert other.verify().faults == ()
        assert (back.target, back.descriptor.digest) == ("example.org/app:1", store.resolve(loaded.target).digest)
