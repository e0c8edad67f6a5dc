"""containerd behind our protocols keeps the promises that all stores keep."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from containerd.daemon import Daemon
from ocidiff.containerd.channel import Channel
from ocidiff.containerd.content import ContainerdContent
from ocidiff.containerd.open import services_of
from ocidiff.containerd.snapshots import ContainerdSnapshotter
from ocidiff.layer.engine import Engine
from ocidiff.services.bundle import Services
from ocidiff.services.content import ContentStore
from ocidiff.services.snapshots import Snapshotter
from suites.content_store import ContentStoreSuite
from suites.images import ImagesSuite
from suites.leases import LeasesSuite
from suites.snapshotter import SnapshotterSuite
from suites.use_cases import UseCasesSuite

pytestmark = [pytest.mark.interop, pytest.mark.root]


class _Services:
    @pytest.fixture
    def services(self, channel: Channel, engine: Engine, tmp_path: Path) -> Services:
        return services_of(channel, engine)


class TestLeases(_Services, LeasesSuite):
    pass


class TestImages(_Services, ImagesSuite):
    pass


class TestUseCases(_Services, UseCasesSuite):
    pass


class TestContent(ContentStoreSuite):
    @pytest.fixture
    def store(self, channel: Channel) -> ContentStore:
        return ContainerdContent(channel)

    def unfinished(self, store: ContentStore) -> list[str]:
        return [status.ref for status in store.statuses()]


class TestSnapshots(SnapshotterSuite):
    lost: Mapping[str, str] = {"overlayfs": "the mode of the root", "native": "holes"}

    @pytest.fixture(params=["overlayfs", "native"])
    def snapshotter(self, request: pytest.FixtureRequest, channel: Channel, daemon: Daemon) -> Snapshotter:
        return ContainerdSnapshotter(channel, request.param)

    def leftovers(self, snapshotter: Snapshotter) -> list[str]:
        return []
