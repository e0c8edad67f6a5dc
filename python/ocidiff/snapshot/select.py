"""Which snapshotter a store uses here."""

from __future__ import annotations

from typing import Final

from ocidiff.content.layout import Layout
from ocidiff.errors import UsageError
from ocidiff.snapshot.directory import DirectoryDriver
from ocidiff.snapshot.local import Driver, LocalSnapshotter
from ocidiff.snapshot.overlay import OverlayDriver, can_mount_overlay

DRIVERS: Final = ("overlay", "directory")


def snapshotter(layout: Layout, driver: str | None = None) -> LocalSnapshotter:
    """The snapshotter of a store with that driver; None for overlay where it works, else directory.

    Raises:
        UsageError: There is no driver of that name.
    """
    if driver is None:
        with layout.temporary_directory() as directory:
            driver = "overlay" if can_mount_overlay(directory) else "directory"
    return LocalSnapshotter(layout, _driver(driver))


def _driver(name: str) -> Driver:
    if name == "overlay":
        return OverlayDriver()
    if name == "directory":
        return DirectoryDriver()
    raise UsageError(f"driver {name!r}: takes {' or '.join(DRIVERS)}")
