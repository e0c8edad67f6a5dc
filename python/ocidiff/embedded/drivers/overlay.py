"""The overlay driver: a snapshot is what was changed, and overlayfs shows it on top of its parents."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from ocidiff import opening, workspace
from ocidiff.embedded.trees import TREE
from ocidiff.layer.xattrs import class_of
from ocidiff.mounts.kernel import directory_of, max_lower_directories
from ocidiff.mounts.mount import Mount, bind, overlay, unsynced
from ocidiff.mounts.mountinfo import in_user_namespace
from ocidiff.services.snapshots import Kind

_WORK: Final = "work"

# Nothing that only one mount of one machine understands, so that an upper directory is a layer and nothing else.
_OPTIONS: Final = ("index=off", "redirect_dir=off", "metacopy=off")
# `userxattr` implies the other two, and the kernel refuses them beside it.
_USER_OPTIONS: Final = ("index=off", "userxattr")


class OverlayDriver:
    """See `snapshotter.Driver`."""

    name: Final = "overlay"
    shares_parents: Final = True

    @property
    def max_parents(self) -> int:
        """See `Driver.max_parents`."""
        return max_lower_directories()

    def fill(self, directory: str, parents: Sequence[str], kind: Kind) -> None:
        """See `Driver.fill`."""
        workspace.make_root(os.path.join(directory, TREE))
        if parents:
            # The root of a merged tree is the one of the upper directory.
            _like(parents[0], os.path.join(directory, TREE))
        if kind is Kind.ACTIVE:
            os.mkdir(os.path.join(directory, _WORK), 0o700)

    def mounts(self, directory: str, parents: Sequence[str], kind: Kind) -> tuple[Mount, ...]:
        """See `Driver.mounts`."""
        options = _USER_OPTIONS if in_user_namespace() else _OPTIONS
        own = os.path.join(directory, TREE)
        if kind is Kind.ACTIVE:
            if not parents:
                return (bind(own, read_only=False),)
            return (overlay(parents, own, os.path.join(directory, _WORK), options),)
        lower = parents if kind is Kind.VIEW else (own, *parents)
        if not lower:
            return (bind(own, read_only=True),)
        return (bind(lower[0], read_only=True),) if len(lower) == 1 else (overlay(lower, None, None, options),)

    def finalize(self, directory: str) -> None:
        """See `Driver.settle`."""
        with suppress(FileNotFoundError):
            descriptor = os.open(os.path.join(directory, _WORK), opening.DIRECTORY)
            try:
                workspace.clear(descriptor)
            finally:
                os.close(descriptor)
            os.rmdir(os.path.join(directory, _WORK))


def can_mount_overlay(directory: str) -> bool:
    """Return True if overlayfs works for this process, with its upper directory in `directory`.

    Args:
        directory: Path of an empty directory, which is left with rubbish.
    """
    driver = OverlayDriver()
    lower = os.path.join(directory, "lower")
    try:
        os.mkdir(lower)
        driver.fill(directory, (lower,), Kind.ACTIVE)
        with directory_of(unsynced(driver.mounts(directory, (lower,), Kind.ACTIVE))) as tree:
            os.mkdir(os.path.join(tree, "probe"))
            os.rmdir(os.path.join(tree, "probe"))
    except OSError:
        return False
    return True


def _like(source: str, target: str) -> None:
    """Give the directory `target` mode, owner, attributes and times of `source`."""
    info = os.stat(source)
    os.chown(target, info.st_uid, info.st_gid)
    for name in os.listxattr(source):
        # Opaqueness is of the one directory alone.
        if class_of(os.fsencode(name)).owner != "overlayfs":
            with suppress(PermissionError):
                os.setxattr(target, name, os.getxattr(source, name))
    os.chmod(target, info.st_mode & 0o7777)
    os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))
