"""Homes of images: a directory, or a containerd. Each gives the services that use-cases work on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from ocidiff.layer.options import OverlayMode

if TYPE_CHECKING:
    # Commands that only open a store start sooner without these.
    from ocidiff.layer.engine import Engine
    from ocidiff.layer.monitor import Monitor
    from ocidiff.services.bundle import Services


class Home(Protocol):
    """Holds images. Safe from several threads and processes."""

    @property
    def place(self) -> str:
        """Path or address, for messages."""
        ...

    def services(self, engine: Engine, monitor: Monitor, overlay: OverlayMode = OverlayMode.AUTO) -> Services:
        """Return the services for one call.

        Args:
            engine: What reads and writes trees.
            monitor: Sees progress of a tree that is reused, and stops the call.
            overlay: Tells if the upper directory of an overlay is read in place of what it shows.
        """
        ...

    def sweep(self) -> None:
        """Remove what dead processes left.

        Raises:
            OSError: This process may not write here.
        """
        ...

    def has_leases(self) -> bool:
        """Return False if nothing can be removed during a call, since the place is read-only or was never collected."""
        ...

    def close(self) -> None:
        """Close the directory or the connection."""
        ...


@contextmanager
def working(home: Home, engine: Engine, monitor: Monitor) -> Iterator[Services]:
    """Yield the services for a call that writes, under a lease."""
    home.sweep()
    with home.services(engine, monitor).leased() as services:
        yield services


@contextmanager
def reading(home: Home, engine: Engine, monitor: Monitor) -> Iterator[Services]:
    """Yield the services for a call that reads, under a lease if the place has leases."""
    if home.has_leases():
        with working(home, engine, monitor) as services:
            yield services
    else:
        yield home.services(engine, monitor)
