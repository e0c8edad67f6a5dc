"""The services of a store in a directory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocidiff.embedded.layout import Layout
from ocidiff.image.layers import LocalDiffer
from ocidiff.layer.engine import Engine
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.options import OverlayMode
from ocidiff.services.bundle import Services
from ocidiff.services.leases import Lease

if TYPE_CHECKING:
    from ocidiff.embedded.containers import Container
    from ocidiff.embedded.snapshotter import LocalSnapshotter
    from ocidiff.oci.digest import ChainID, DiffID
    from ocidiff.services.containers import Committed


def services_of(
    layout: Layout, engine: Engine, monitor: Monitor, overlay: OverlayMode = OverlayMode.AUTO, lease: Lease | None = None
) -> Services:
    """Return the services of a store for one call.

    Args:
        layout: The store.
        engine: What reads and writes trees.
        monitor: Sees progress of a tree that is reused, and stops the call.
        overlay: Says if the upper directory of an overlay is read in place of what it shows.
        lease: The lease that blobs and snapshots belong to.
    """
    from ocidiff.embedded.containers import Containers
    from ocidiff.embedded.drivers.select import snapshotter
    from ocidiff.embedded.leases import Leases

    own = layout if lease is None else layout.under(lease.id)

    def offer(snapshots: LocalSnapshotter, container: Container, committed: Committed) -> None:
        from ocidiff.embedded import reuse

        reuse.offer(own, snapshots, container, committed, engine=engine, monitor=monitor)

    def accept(snapshots: LocalSnapshotter, name: ChainID, diff_id: DiffID) -> bool:
        from ocidiff.embedded import reuse

        return reuse.accept(snapshots, name, diff_id, engine=engine, monitor=monitor)

    return Services(
        content=own,
        images=own.names,
        containers=Containers(own, offer),
        leases=Leases(layout.database),
        differ=LocalDiffer(engine, overlay),
        snapshotter=lambda name: snapshotter(own, name, accept),
        private_directory=layout.temporary_directory,
        under=lambda lease: services_of(layout, engine, monitor, overlay, lease),
        lease=lease,
    )
