"""Source: what a commit reads, which is a directory and the tree of its base, or a working container."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from ocidiff.content.layout import Layout
from ocidiff.errors import UsageError
from ocidiff.image import lookup
from ocidiff.image.commit import unpacked
from ocidiff.image.image import Image, read_image
from ocidiff.layer.differ import SCRATCH, Tree, lower_path, tree_path
from ocidiff.layer.engine import Engine, Lower
from ocidiff.layer.idmap import IdMaps
from ocidiff.layer.layer import IndexPath
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.options import Limits
from ocidiff.mounts.layers import OverlayLayers
from ocidiff.oci.digest import chain_id
from ocidiff.oci.platform import Platform
from ocidiff.values import dataclass

if TYPE_CHECKING:
    from ocidiff.image.container import Container


@dataclass(frozen=True, slots=True)
class Source:
    """What a commit reads.

    Attributes:
        base: Image that it grows on; None for none.
        lower: What tells the tree of the base; None for no parent tree.
        upper: Path of the changed tree; or an overlay, whose lowerdirs are then the parent tree, and `lower` is None.
        lower_from_layers: Whether the lower tree has the times that layers keep.
        container: The container that it is, locked; None for a directory.
    """

    base: Image | None
    lower: Lower | None
    upper: bytes | OverlayLayers
    lower_from_layers: bool
    container: Container | None = None


def check_source(source: Tree | Container, base: str | None, lower: Tree | None, ids: IdMaps) -> None:
    """Refuse what contradicts itself, before anything is begun.

    Raises:
        UsageError: It does.
        FileNotFoundError, NotADirectoryError: The tree is missing, or is no directory.
    """
    if not isinstance(source, str | os.PathLike):
        if base is not None or lower is not None:
            raise UsageError(f"container {source.name}: has a base of its own")
        if ids:
            raise UsageError(f"container {source.name}: has the ids of its image")
        return
    if lower is not None and base in (None, SCRATCH) and lower_path(lower) is not None:
        raise UsageError(f"lower {os.fspath(lower)!r}: a lower tree needs the base that it is the tree of")
    tree_path(source)


@contextmanager
def open_source(
    layout: Layout,
    source: Tree | Container,
    *,
    base: str | None,
    lower: Tree | None,
    platform: Platform | None,
    walk: bool,
    limits: Limits,
    engine: Engine,
    monitor: Monitor,
) -> Iterator[Source]:
    """What a commit reads, in place for as long as the block lasts.

    Args:
        layout: The store, under a lease.
        source: The directory, or the container.
        base: Name of the image that a directory grows on; None or `scratch` for none.
        lower: What tells the tree of the base; None to unpack it here.
        platform: Which image of a base for several platforms; None for this machine.
        limits: What the layers of the base may not pass.
        walk: Read what a container shows in place of its layers.
        engine: What unpacks the base.
        monitor: Sees progress of unpacking, and stops the call.

    Raises:
        NotFoundError: There is no such base or container, or a part of the image is missing.
        UsageError: The lower tree is an index of other layers than those of the base.
    """
    with ExitStack() as stack:
        if not isinstance(source, str | os.PathLike):
            from ocidiff.image.container import Containers

            containers = Containers(layout)
            container = stack.enter_context(containers.locked(source.name))
            below, own = stack.enter_context(containers.trees(container, walk=walk))
            layout.protect(container.manifest.digest)
            image = read_image(layout, container.image, container.manifest, platform)
            yield Source(image, below, own, lower_from_layers=True, container=container)
            return
        parent = None if base in (None, SCRATCH) else lookup.find_image(layout, str(base), platform)
        tree = stack.enter_context(_lower_tree(layout, parent, lower, limits, engine, monitor))
        from_layers = parent is not None and (lower is None or _is_index_of(tree, parent))
        yield Source(parent, tree, tree_path(source), from_layers)


def _is_index_of(lower: Lower | None, base: Image) -> bool:
    """Whether the lower tree is told by an index of the layers of the base.

    Raises:
        UsageError: It is one of other layers.
    """
    if not isinstance(lower, IndexPath):
        return False
    from ocidiff.layer.indexer import layers_of

    layers, diff_ids = layers_of(lower), base.config.rootfs.diff_ids
    if layers is not None and (not diff_ids or layers != chain_id(diff_ids)):
        raise UsageError(f"lower {os.fsdecode(lower.path)!r}: is an index of other layers than those of {base.name}")
    return layers is not None


@contextmanager
def _lower_tree(
    layout: Layout, base: Image | None, lower: Tree | None, limits: Limits, engine: Engine, monitor: Monitor
) -> Iterator[Lower | None]:
    if lower is not None:
        yield lower_path(lower)
    elif base is None:
        yield None
    else:
        with unpacked(layout, base, limits, engine, monitor) as tree:
            yield tree
