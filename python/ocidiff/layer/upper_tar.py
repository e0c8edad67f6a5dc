"""The changed tree as the tar of an overlay's upper directory, for uppers that the host does not see as a directory."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from ocidiff import opening, workspace
from ocidiff.errors import UsageError
from ocidiff.layer.apply_options import ApplyOptions, Destination
from ocidiff.layer.engine import Engine, Lower
from ocidiff.layer.idmap import IdMaps
from ocidiff.layer.input import UpperTar, bytes_left, empty_file, open_input
from ocidiff.layer.layer import IndexPath
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.options import LayerOptions, OnChange
from ocidiff.mounts.layers import OverlayLayers

_PROBE: Final = "user.overlay.probe"


@contextmanager
def unpacked(
    upper: UpperTar, lower: Lower | OverlayLayers | None, directory: str, *, engine: Engine, monitor: Monitor
) -> Iterator[OverlayLayers]:
    """Yield an overlay whose upper directory is what the tar holds.

    Args:
        upper: The tar, which is read to its end.
        lower: Path of the tree below, or its layers; None for no parent.
        directory: Path of an empty private directory, where the tar is unpacked.
        engine: What unpacks it.
        monitor: Sees progress, and stops the call.

    Raises:
        UsageError: The tree below is told by an index, which has no directory to lay the upper one over.
        MalformedLayerError: The tar is broken, cut off or empty.
        UnsafeLayerError, LimitExceededError: As for a layer.
        UnsupportedError: It has attributes of overlayfs that a tar cannot resolve.
    """
    if isinstance(lower, IndexPath):
        raise UsageError(f"lower {os.fsdecode(lower.path)!r}: an upper tar takes a directory as lower tree, not an index")
    tree = os.path.join(directory, "upper")
    workspace.make_root(tree)
    layers = _layers_over(lower, tree, directory)
    destination = Destination.OVERLAY_USERXATTR if layers.userxattr else Destination.OVERLAY
    options = ApplyOptions(destination=destination, limits=upper.limits, is_upper=True)
    with open_input(upper.tar) as source:
        summary = engine.apply_layer(source, os.fsencode(tree), options, monitor.of("apply", bytes_left(source)))
    if not summary.uncompressed_size:
        raise empty_file(upper.tar)
    yield layers


def options_for(layers: OverlayLayers, options: LayerOptions) -> LayerOptions:
    """Return the options for an overlay that `unpacked` has yielded.

    Nobody else changes it, so that nothing has to be put aside; and it was never mounted, so that an inode number is no file
    of another device.
    """
    ids = options.ids or IdMaps.of_noted(layers.upperdir)
    return replace(options, ids=ids, on_change=OnChange.FAIL, links_by_device=True)


@contextmanager
def private_directory(parent: str) -> Iterator[str]:
    """Yield the path of an empty directory in `parent` that only this process knows, and remove it with all it holds."""
    descriptor = os.open(parent, opening.ROOT)
    try:
        with workspace.directory(descriptor) as name:
            yield os.path.join(parent, name)
    finally:
        os.close(descriptor)


def _layers_over(lower: bytes | OverlayLayers | None, tree: str, directory: str) -> OverlayLayers:
    """Return an overlay of the upper directory `tree`, marked as the layers below are."""
    upperdir = os.fsencode(tree)
    if isinstance(lower, OverlayLayers):
        lowerdirs = (lower.upperdir, *lower.lowerdirs)
        return replace(lower, upperdir=upperdir, lowerdirs=lowerdirs, userxattr=bool(lower.userxattr))
    if lower is None:
        lower = os.path.join(os.fsencode(directory), b"lower")
        os.mkdir(lower)
    return OverlayLayers(upperdir, (lower,), userxattr=_can_mark_as_user(tree), redirects=False)


def _can_mark_as_user(tree: str) -> bool:
    """True if `user.*` can mark the directories of an upper directory here: `trusted.*` takes CAP_SYS_ADMIN."""
    try:
        os.setxattr(tree, _PROBE, b"")
        os.removexattr(tree, _PROBE)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return False
    return True
