"""Chooses the snapshotter of a store."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from ocidiff.embedded.drivers.directory import DirectoryDriver
from ocidiff.embedded.drivers.overlay import OverlayDriver, can_mount_overlay
from ocidiff.embedded.layout import Layout
from ocidiff.embedded.snapshotter import Driver, LocalSnapshotter, Reuse
from ocidiff.errors import UsageError

DriverName: TypeAlias = Literal["overlay", "directory"]
DRIVERS: Final = ("overlay", "directory")


def snapshotter(layout: Layout, driver: str | None = None, reuse: Reuse | None = None) -> LocalSnapshotter:
    """Return the snapshotter of a store with that driver; None for overlay if it works here, else directory.

    Raises:
        UsageError: There is no driver of that name.
    """
    if driver is None:
        with layout.temporary_directory() as directory:
            driver = "overlay" if can_mount_overlay(directory) else "directory"
    return LocalSnapshotter(layout, _driver(driver), reuse)


def _driver(name: str) -> Driver:
    if name == "overlay":
        return OverlayDriver()
    if name == "directory":
        return DirectoryDriver()
    raise UsageError(f"driver {name!r}: must be {' or '.join(DRIVERS)}")
