"""The services of a containerd."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Self

from ocidiff.containerd.channel import DEFAULT_ADDRESS, DEFAULT_NAMESPACE, Channel
from ocidiff.containerd.containers import ContainerdContainers
from ocidiff.containerd.content import ContainerdContent
from ocidiff.containerd.images import ContainerdImages
from ocidiff.containerd.leases import ContainerdLeases
from ocidiff.containerd.snapshots import ContainerdSnapshotter
from ocidiff.image.layers import LocalDiffer
from ocidiff.layer.engine import Engine
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.options import OverlayMode
from ocidiff.log import Logger
from ocidiff.services.bundle import Services

if TYPE_CHECKING:
    from ocidiff.services.segments import SegmentTables

_DEFAULT_SNAPSHOTTER: Final = "overlayfs"

_log = Logger(__name__)


class Containerd:
    """A containerd that a `Store` works on."""

    def __init__(
        self, channel: Channel, snapshotter: str | None, cache: str | None = None, cache_bytes: int | None = None
    ) -> None:
        self._channel, self._snapshotter = channel, snapshotter
        self._cache, self._cache_bytes = cache, cache_bytes

    @classmethod
    def open(
        cls,
        address: str | None,
        namespace: str | None,
        snapshotter: str | None,
        cache: str | None = None,
        cache_bytes: int | None = None,
    ) -> Self:
        """See `Store.containerd`."""
        if cache is not None:
            from ocidiff.containerd.segment_cache import CacheDirectory

            if not CacheDirectory(cache).fits():
                _log.warning("%s: the disk is full; layers are compressed as a whole", cache)
        address = address or os.environ.get("CONTAINERD_ADDRESS") or DEFAULT_ADDRESS
        namespace = namespace or os.environ.get("CONTAINERD_NAMESPACE") or DEFAULT_NAMESPACE
        return cls(Channel.open(address, namespace), snapshotter, cache, cache_bytes)

    @property
    def place(self) -> str:
        """See `Home.place`."""
        return f"containerd at {self._channel.address}, namespace {self._channel.namespace}"

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def services(self, engine: Engine, _: Monitor, overlay: OverlayMode = OverlayMode.AUTO) -> Services:
        """See `Home.services`."""
        return services_of(self._channel, engine, overlay, self._snapshotter, self._segments)

    def _segments(self) -> SegmentTables:
        """Return the cache of segments."""
        from ocidiff.containerd.blobs import BlobFiles
        from ocidiff.containerd.segment_cache import CacheDirectory, SegmentCache, default_directory

        place = CacheDirectory(self._cache or default_directory())
        return SegmentCache(place, BlobFiles(self._channel).directory, self._cache_bytes)

    def sweep(self) -> None:
        """See `Home.sweep`."""
        ContainerdLeases(self._channel).sweep()

    def has_leases(self) -> bool:
        """Return True: containerd may collect garbage at any time."""
        return True


def services_of(
    channel: Channel,
    engine: Engine,
    overlay: OverlayMode = OverlayMode.AUTO,
    snapshotter: str | None = None,
    segments: Callable[[], SegmentTables | None] = lambda: None,
) -> Services:
    """Return the services of a containerd for one call.

    Args:
        channel: The connection, with the lease that blobs and snapshots belong to.
        engine: What reads and writes trees.
        overlay: Read the upper directory of an overlay in place of what it shows.
        snapshotter: Name of the snapshotter for images of directories; None for that of containerd itself.
        segments: Returns where segments of older layers are; None if they are nowhere.
    """
    return Services(
        content=ContainerdContent(channel),
        images=ContainerdImages(channel),
        containers=ContainerdContainers(channel, snapshotter or _DEFAULT_SNAPSHOTTER),
        leases=ContainerdLeases(channel),
        differ=LocalDiffer(engine, overlay, tables=segments),
        snapshotter=lambda name: ContainerdSnapshotter(channel, name or snapshotter or _DEFAULT_SNAPSHOTTER),
        private_directory=lambda: tempfile.TemporaryDirectory(prefix="ocidiff-"),
        under=lambda lease: services_of(channel.under(lease), engine, overlay, snapshotter, segments),
        lease=channel.lease,
        unpacks=True,
    )
