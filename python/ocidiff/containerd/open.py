"""The services of a containerd."""

from __future__ import annotations

import os
import tempfile
from typing import Final, Self

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
from ocidiff.services.bundle import Services

_DEFAULT_SNAPSHOTTER: Final = "overlayfs"


class Containerd:
    """A containerd that a `Store` works on."""

    def __init__(self, channel: Channel, snapshotter: str | None) -> None:
        self._channel, self._snapshotter = channel, snapshotter

    @classmethod
    def open(cls, address: str | None, namespace: str | None, snapshotter: str | None) -> Self:
        """See `Store.containerd`."""
        address = address or os.environ.get("CONTAINERD_ADDRESS") or DEFAULT_ADDRESS
        namespace = namespace or os.environ.get("CONTAINERD_NAMESPACE") or DEFAULT_NAMESPACE
        return cls(Channel.open(address, namespace), snapshotter)

    @property
    def place(self) -> str:
        """See `Home.place`."""
        return f"containerd at {self._channel.address}, namespace {self._channel.namespace}"

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def services(self, engine: Engine, _: Monitor, overlay: OverlayMode = OverlayMode.AUTO) -> Services:
        """See `Home.services`."""
        return services_of(self._channel, engine, overlay, self._snapshotter)

    def sweep(self) -> None:
        """See `Home.sweep`."""
        ContainerdLeases(self._channel).sweep()

    def has_leases(self) -> bool:
        """Return True: containerd may collect garbage at any time."""
        return True


def services_of(
    channel: Channel, engine: Engine, overlay: OverlayMode = OverlayMode.AUTO, snapshotter: str | None = None
) -> Services:
    """Return the services of a containerd for one call.

    Args:
        channel: The connection, with the lease that blobs and snapshots belong to.
        engine: What reads and writes trees.
        overlay: Read the upper directory of an overlay in place of what it shows.
        snapshotter: Name of the snapshotter for images of directories; None for that of containerd itself.
    """
    return Services(
        content=ContainerdContent(channel),
        images=ContainerdImages(channel),
        containers=ContainerdContainers(channel, snapshotter or _DEFAULT_SNAPSHOTTER),
        leases=ContainerdLeases(channel),
        differ=LocalDiffer(engine, overlay),
        snapshotter=lambda name: ContainerdSnapshotter(channel, name or snapshotter or _DEFAULT_SNAPSHOTTER),
        private_directory=lambda: tempfile.TemporaryDirectory(prefix="ocidiff-"),
        under=lambda lease: services_of(channel.under(lease), engine, overlay, snapshotter),
        lease=channel.lease,
        unpacks=True,
    )
