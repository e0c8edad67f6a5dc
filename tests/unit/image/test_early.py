"""A snapshot is made while its layer is written, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ocidiff.image.early import early_snapshot
from ocidiff.layer.engine import Engine
from ocidiff.layer.layer import Layer
from ocidiff.layer.limits import Limits
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.options import LayerOptions
from ocidiff.oci.digest import ChainID, DiffID, chain_id
from ocidiff.services.bundle import Services
from ocidiff.services.snapshots import Kind
from support import trees
from support.memory_services import memory_services

BASE = DiffID("sha256:" + "a" * 64)
PARENT = chain_id([BASE])


@pytest.fixture
def services(tmp_path: Path, engine: Engine) -> Services:
    """Services with the snapshot of a base that has one file."""
    (tmp_path / "services").mkdir()
    services = memory_services(tmp_path / "services", engine)
    snapshots = services.snapshotter(None)
    (mount,) = snapshots.prepare("base", None)
    Path(mount.source, "old").write_text("old")
    snapshots.commit(PARENT, "base")
    return services


@pytest.fixture
def changed(tmp_path: Path, services: Services) -> tuple[bytes, bytes]:
    """The tree of the base, and one that differs."""
    with services.snapshotter(None).reading(PARENT) as (mount,):
        lower = os.fsencode(mount.source)
    upper = tmp_path / "upper"
    upper.mkdir()
    (upper / "new").write_bytes(os.urandom(1 << 20))
    return lower, os.fsencode(upper)


def compare(services: Services, changed: tuple[bytes, bytes], options: LayerOptions) -> Layer:
    layer = services.differ.compare(*changed, services.content, options, Monitor())
    assert layer is not None
    return layer


def names(services: Services) -> list[tuple[str, Kind]]:
    return [(row.key, row.kind) for row in services.snapshotter(None).walk()]


def test_the_snapshot_has_the_tree_of_the_layer(engine: Engine, services: Services, changed: tuple[bytes, bytes]) -> None:
    with early_snapshot(services, "memory", [BASE], engine=engine, limits=Limits()) as early:
        assert early is not None
        layer = compare(services, changed, early.taking(LayerOptions()))
        name = chain_id([BASE, layer.diff_id])
        early.commit(layer, name)
    assert names(services) == [(PARENT, Kind.COMMITTED), (name, Kind.COMMITTED)]
    with services.snapshotter(None).reading(name) as (mount,):
        found = trees.comparable(trees.scan_tree(mount.source))
    # A layer has whole seconds.
    assert set(found) == set(trees.comparable(trees.scan_tree(os.fsdecode(changed[1]))))
    assert Path(mount.source, "new").read_bytes() == Path(os.fsdecode(changed[1]), "new").read_bytes()


def test_another_layer_is_not_taken_for_it(engine: Engine, services: Services, changed: tuple[bytes, bytes]) -> None:
    other = compare(services, (changed[1], changed[0]), LayerOptions())
    with early_snapshot(services, "memory", [BASE], engine=engine, limits=Limits()) as early:
        assert early is not None
        compare(services, changed, early.taking(LayerOptions()))
        early.commit(other, ChainID("sha256:" + "b" * 64))
    assert names(services) == [(PARENT, Kind.COMMITTED)]


def test_a_layer_that_cannot_be_applied_is_written_all_the_same(
    engine: Engine, services: Services, changed: tuple[bytes, bytes]
) -> None:
    with early_snapshot(services, "memory", [BASE], engine=engine, limits=Limits(max_bytes=1000)) as early:
        assert early is not None
        layer = compare(services, changed, early.taking(LayerOptions()))
        early.commit(layer, ChainID("sha256:" + "b" * 64))
    assert layer.diff_id == compare(services, changed, LayerOptions()).diff_id
    assert names(services) == [(PARENT, Kind.COMMITTED)]


def test_nothing_is_left_if_the_layer_fails(engine: Engine, services: Services) -> None:
    def fail() -> None:
        with early_snapshot(services, "memory", [BASE], engine=engine, limits=Limits()) as early:
            assert early is not None
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert names(services) == [(PARENT, Kind.COMMITTED)]


def test_there_is_none_without_a_snapshot_of_the_base(engine: Engine, services: Services) -> None:
    missing = DiffID("sha256:" + "c" * 64)
    for base in ([], [missing], [BASE, missing]):
        with early_snapshot(services, "memory", base, engine=engine, limits=Limits()) as early:
            assert early is None
    assert names(services) == [(PARENT, Kind.COMMITTED)]
