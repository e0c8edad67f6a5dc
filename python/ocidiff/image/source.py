"""Sources of a commit: a directory and the tree of its base, or a container."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from ocidiff import workspace
from ocidiff.errors import NotFoundError, UnsupportedError, UsageError
from ocidiff.image import lookup
from ocidiff.image.image import Image, read_image
from ocidiff.image.unpack import apply_layers, check_layers
from ocidiff.layer.apply_options import ApplyOptions
from ocidiff.layer.engine import Engine, Lower
from ocidiff.layer.idmap import IdMaps
from ocidiff.layer.incomplete import refuse_incomplete
from ocidiff.layer.input import UpperTar
from ocidiff.layer.layer import IndexPath
from ocidiff.layer.limits import Limits
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.operand import SCRATCH, Tree
from ocidiff.layer.paths import changed_tree_path, lower_path, tree_path
from ocidiff.layer.unseen import refuse_unseen
from ocidiff.mounts.layers import OverlayLayers
from ocidiff.mounts.mount import bind, unmapped
from ocidiff.mounts.trees import trees_to_compare
from ocidiff.oci.digest import chain_id
from ocidiff.oci.platform import Platform
from ocidiff.services.bundle import Services
from ocidiff.services.containers import Container
from ocidiff.values import dataclass


@dataclass(frozen=True, slots=True)
class Parent:
    """The base of a directory, and its tree.

    Attributes:
        image: The base; None for none.
        tree: The tree of the base, or an index of it; None for no parent tree.
        from_layers: True if the tree has the times that layers keep.
        lacks_owners: True if it was unpacked without the right to set owners.
    """

    image: Image | None
    tree: Lower | None
    from_layers: bool
    lacks_owners: bool


@dataclass(frozen=True, slots=True)
class Source:
    """The trees that a commit reads.

    Attributes:
        base: Image that it grows on; None for none.
        lower: What tells the tree of the base; None for no parent tree.
        upper: Path of the changed tree; or an overlay, whose lowerdirs are then the parent tree, and `lower` is None.
        lower_has_layer_times: True if the lower tree has the times that layers keep.
        lower_lacks_owners: True if it was unpacked without the right to set owners.
        ids: What the ids of files are in a container whose trees lack owners.
        container: The container that it is, locked; None for a directory.
    """

    base: Image | None
    lower: Lower | None
    upper: bytes | OverlayLayers
    lower_has_layer_times: bool
    lower_lacks_owners: bool
    ids: IdMaps = IdMaps()
    container: Container | None = None


CommitSource = Tree | UpperTar | OverlayLayers | Container
"""A directory, the tar of an upper directory, the layers of an overlay over the tree of the base, or a container."""


def check_source(
    source: CommitSource, base: str | None, lower: Tree | None, ids: IdMaps, upper: UpperTar | None = None
) -> None:
    """Refuse what contradicts itself, before anything is begun.

    Raises:
        UsageError: It does.
        FileNotFoundError, NotADirectoryError: The tree is missing, or is no directory.
    """
    if isinstance(source, OverlayLayers):
        refuse_unseen(source.upperdir)
        return
    if not isinstance(source, str | os.PathLike | UpperTar):
        if base is not None or lower is not None:
            raise UsageError(f"container {source.name}: base and lower cannot be given, since it has its own base")
        if ids:
            raise UsageError(f"container {source.name}: id maps cannot be given, since its files have the ids of its image")
        return
    if upper is not None:
        raise UsageError("upper: needs a container; without one give the tar as the source")
    check_lower(base, lower)
    if not isinstance(source, UpperTar):
        changed_tree_path(source)


def check_lower(base: str | None, lower: Tree | None) -> None:
    """Refuse a lower tree without a base.

    Raises:
        UsageError: There is a lower tree, and no base.
    """
    if lower is not None and base in (None, SCRATCH) and lower_path(lower) is not None:
        raise UsageError(f"lower {os.fspath(lower)!r}: needs a base, the image that it is the tree of")


@contextmanager
def open_source(
    services: Services,
    source: CommitSource,
    *,
    base: str | None,
    lower: Tree | None,
    platform: Platform | None,
    walk: bool,
    limits: Limits,
    engine: Engine,
    monitor: Monitor,
    may_be_unseen: bool = False,
    find_base: Callable[[Services], Image] | None = None,
    parent: Parent | None = None,
) -> Iterator[Source]:
    """Yield what a commit reads, which stays as it is until the block ends.

    Args:
        services: The store, under a lease.
        source: The directory, the tar of an upper directory, the layers of an overlay over the parent, or the container.
        base: Name of the image that a directory grows on; None or `scratch` for none.
        lower: Path of the tree of the base, or an index of it; None to unpack the base for the time of the call.
        platform: Which image of a base for several platforms; None for this machine.
        limits: What the layers of the base may not pass.
        walk: Read what a container shows in place of its layers.
        engine: What unpacks the base.
        monitor: Sees progress of unpacking, and stops the call.
        find_base: Brings the base from elsewhere; None to look for its name.
        may_be_unseen: Accept a container whose changes a sandbox keeps elsewhere.
        parent: The base and its tree, opened already: `base`, `lower` and `find_base` do not count then.

    Raises:
        NotFoundError: There is no such base or container, or a part of the image is missing.
        UsageError: The lower tree is an index of other layers than those of the base.
        UnrepresentableError: The tree is not whole.
        UnsupportedError: The changes are where the host does not see them.
    """
    with ExitStack() as stack:
        if not isinstance(source, str | os.PathLike | UpperTar | OverlayLayers):
            container = stack.enter_context(services.containers.still(source.name))
            if container.unseen and not may_be_unseen:
                raise UnsupportedError(f"container {container.name}: {container.unseen}")
            below, own, ids, lower_has_ids = stack.enter_context(_trees(services, container, walk=walk))
            services.keep_blob(container.manifest.digest)
            image = read_image(services.content, container.image, container.manifest, platform)
            _check_parent(services, container, image)
            refuse_incomplete(*((own.upperdir, *own.lowerdirs) if isinstance(own, OverlayLayers) else (own,)))
            if not may_be_unseen:
                refuse_unseen(own.upperdir if isinstance(own, OverlayLayers) else own)
            lacks_owners = bool(ids) and not lower_has_ids
            yield Source(
                image, below, own, lower_has_layer_times=True, lower_lacks_owners=lacks_owners, ids=ids, container=container
            )
            return
        if parent is None:
            grown_from = find_parent(services, base, platform, find_base)
            parent = stack.enter_context(open_parent(services, grown_from, lower, limits, engine, monitor))
        if isinstance(source, str | os.PathLike):
            yield Source(parent.image, parent.tree, tree_path(source), parent.from_layers, parent.lacks_owners)
            return
        if isinstance(source, UpperTar):
            from ocidiff.layer.upper_tar import unpacked

            place = stack.enter_context(services.private_directory())
            source = stack.enter_context(unpacked(source, parent.tree, place, engine=engine, monitor=monitor))
        yield Source(parent.image, None, source, parent.from_layers, parent.lacks_owners)


def find_parent(
    services: Services, base: str | None, platform: Platform | None, find_base: Callable[[Services], Image] | None
) -> Image | None:
    """Return the base of a directory; None for none. Arguments and errors as in `open_source`."""
    if find_base is not None:
        return find_base(services)
    return None if base in (None, SCRATCH) else lookup.find_image(services, str(base), platform)


@contextmanager
def open_parent(
    services: Services, image: Image | None, lower: Tree | None, limits: Limits, engine: Engine, monitor: Monitor
) -> Iterator[Parent]:
    """Yield the base with its tree, unpacked unless `lower` tells it. Arguments and errors as in `open_source`."""
    with _lower_tree(services, image, lower, limits, engine, monitor) as tree:
        from_layers = image is not None and (lower is None or _is_index_of(tree, image))
        yield Parent(image, tree, from_layers, not (isinstance(tree, IndexPath) or ApplyOptions().restores_owners))


@contextmanager
def _trees(
    services: Services, container: Container, *, walk: bool
) -> Iterator[tuple[bytes | None, bytes | OverlayLayers, IdMaps, bool]]:
    """Yield the tree that a container began with and its own; the layers of an overlay in place of both, unless `walk`.

    The third is what the ids of its files are in the container. The last is true if the first tree has those already.
    """
    snapshots = services.snapshotter(container.driver)
    parent = snapshots.stat(container.snapshot).parent
    with ExitStack() as stack:
        below = () if parent is None else stack.enter_context(snapshots.reading(parent))
        upper = stack.enter_context(snapshots.reading(container.snapshot))
        ids, lower_has_ids = services.containers.ids(container, upper)
        if walk and container.mount_point is not None:
            # The mount that somebody uses, since a second one over the same upper directory is undefined.
            upper = (bind(container.mount_point, read_only=True),)
        lower, own = stack.enter_context(trees_to_compare(below, unmapped(upper), walk=walk))
        if lower_has_ids and not isinstance(own, OverlayLayers):
            # The mount would show files of both kinds of owners.
            raise UnsupportedError(f"container {container.name}: is id-mapped: only its overlay can be read")
        yield lower, own, ids or IdMaps.of_noted(own.upperdir if isinstance(own, OverlayLayers) else own), lower_has_ids


def _check_parent(services: Services, container: Container, image: Image) -> None:
    """Refuse a container that grew on other layers than those of its image: the name may have moved to a newer image.

    Raises:
        NotFoundError: No parent of its snapshot is the tree of the image.
    """
    diff_ids = image.config.rootfs.diff_ids
    if not diff_ids:
        return
    wanted, snapshots, name = chain_id(diff_ids), services.snapshotter(container.driver), container.snapshot
    # A snapshot may lie between: Docker puts one there, and containerd 1.7 to map ids.
    while parent := snapshots.stat(name).parent:
        if parent == wanted:
            return
        name = parent
    raise NotFoundError(
        f"container {container.name}: was created from another image than the one that "
        f"now has the name {container.image!r}; give that name back to the image it was made from"
    )


def _is_index_of(lower: Lower | None, base: Image) -> bool:
    """Return True if the lower tree is told by an index of the layers of the base.

    Raises:
        UsageError: It is one of other layers.
    """
    if not isinstance(lower, IndexPath):
        return False
    from ocidiff.layer.indexer import layers_of

    layers, diff_ids = layers_of(lower), base.config.rootfs.diff_ids
    if layers is not None and (not diff_ids or layers != chain_id(diff_ids)):
        raise UsageError(
            f"lower {os.fsdecode(lower.path)!r}: is not an index of {base.name}, whose layers differ; "
            "make one with `ocidiff index`"
        )
    return layers is not None


@contextmanager
def _lower_tree(
    services: Services, base: Image | None, lower: Tree | None, limits: Limits, engine: Engine, monitor: Monitor
) -> Iterator[Lower | None]:
    if lower is not None:
        yield lower_path(lower)
    elif base is None:
        yield None
    else:
        check_layers(services.content, base)
        with services.private_directory() as private:
            # A layer may open up the mode of the directory that it is applied onto, but not of the one around it.
            tree = os.path.join(private, "tree")
            workspace.make_root(tree)
            apply_layers(services.content, base, tree, engine=engine, options=ApplyOptions(limits=limits), monitor=monitor)
            yield os.fsencode(tree)
