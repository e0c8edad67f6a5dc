"""All services in memory and in a directory keep the same promises."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ocidiff.embedded.layout import Layout
from ocidiff.embedded.open import services_of
from ocidiff.layer.engine import Engine, select_engine
from ocidiff.layer.monitor import Monitor
from ocidiff.services.bundle import Services
from ocidiff.services.content import ContentStore
from ocidiff.services.snapshots import Snapshotter
from suites.content_store import ContentStoreSuite
from suites.images import ImagesSuite
from suites.leases import LeasesSuite
from suites.snapshotter import SnapshotterSuite
from suites.use_cases import UseCasesSuite
from support.memory_services import MemoryContent, memory_services


class _Both:
    @pytest.fixture(params=["memory", "embedded"])
    def services(self, request: pytest.FixtureRequest, engine: Engine, tmp_path: Path) -> Iterator[Services]:
        if request.param == "memory":
            (tmp_path / "snapshots").mkdir()
            yield memory_services(tmp_path / "snapshots", engine)
        else:
            with Layout.open(tmp_path / "store", create=True) as layout:
                yield services_of(layout, engine, Monitor())


class TestLeases(_Both, LeasesSuite):
    pass


class TestImages(_Both, ImagesSuite):
    pass


class TestUseCases(_Both, UseCasesSuite):
    pass


class TestMemoryContent(ContentStoreSuite):
    @pytest.fixture
    def store(self) -> ContentStore:
        return MemoryContent()

    def unfinished(self, store: ContentStore) -> list[str]:
        assert isinstance(store, MemoryContent)
        return [*store.unfinished, *map(str, store.open)]


class TestMemorySnapshots(SnapshotterSuite):
    @pytest.fixture
    def snapshotter(self, tmp_path: Path) -> Snapshotter:
        (tmp_path / "snapshots").mkdir()
        return memory_services(tmp_path / "snapshots", select_engine(None)).snapshotter(None)

    def leftovers(self, snapshotter: Snapshotter) -> list[str]:
        return []
