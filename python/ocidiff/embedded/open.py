"""Open a store in a directory, and get its services."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Self

from ocidiff.embedded.layout import Layout
from ocidiff.layer.options import OverlayMode

if TYPE_CHECKING:
    from ocidiff.embedded.containers import Container
    from ocidiff.embedded.snapshotter import LocalSnapshotter
    from ocidiff.layer.engine import Engine
    from ocidiff.layer.monitor import Monitor
    from ocidiff.oci.digest import ChainID
    from ocidiff.services.bundle import Services
    from ocidiff.services.containers import Committed
    from ocidiff.services.leases import Lease


class Embedded:
    """A directory that a `Store` works on.

    Attributes:
        layout: Its files.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, create: bool) -> Self:
        """See `Store.open`."""
        try:
            return cls(Layout.open(path, create=create))
        except FileNotFoundError as error:
            if not create:
                error.add_note("there is no store; commit, pull or load makes one")
            raise

    @property
    def place(self) -> str:
        """See `Home.place`."""
        return self.layout.path

    def close(self) -> None:
        """See `Home.close`."""
        self.layout.close()

    def services(self, engine: Engine, monitor: Monitor, overlay: OverlayMode = OverlayMode.AUTO) -> Services:
        """See `Home.services`."""
        return services_of(self.layout, engine, monitor, overlay)

    def sweep(self) -> None:
        """See `Home.sweep`."""
        from ocidiff.embedded.trees import sweep_leftovers

        self.layout.require_writable()
        sweep_leftovers(self.layout)

    def has_leases(self) -> bool:
        """See `Home.has_leases`."""
        # Nothing was ever collected without a database.
        return self.layout.has_database() and self.layout.refusal is None


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
    from ocidiff.image.layers import LocalDiffer
    from ocidiff.services.bundle import Services

    own = layout if lease is None else layout.under(lease.id)

    def offer(snapshots: LocalSnapshotter, container: Container, committed: Committed) -> None:
        from ocidiff.embedded import reuse

        reuse.offer_for_reuse(own, snapshots, container, committed, engine=engine, monitor=monitor)

    def accept(snapshots: LocalSnapshotter, name: ChainID) -> bool:
        from ocidiff.embedded import reuse

        return reuse.reuse_offered(snapshots, name, engine=engine, monitor=monitor)

    return Services(
        content=own,
        images=own.names,
        containers=Containers(own, offer),
        leases=Leases(layout.database),
        differ=LocalDiffer(engine, overlay, tables=lambda: layout.segments),
        snapshotter=lambda name: snapshotter(own, name, accept),
        private_directory=layout.temporary_directory,
        under=lambda lease: services_of(layout, engine, monitor, overlay, lease),
        lease=lease,
    )
