"""Chain: the tree of an image as committed snapshots, each under the chain ID of the layers up to it.

A snapshot holds all layers from its parent on. One is made for the whole image, and for each beginning that it has in common
with other images of the store (docs/decisions/0060-snapshots-where-images-end.md).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import takewhile
from typing import Final

from ocidiff.content.layout import Layout
from ocidiff.content.store import LABEL_OFFERS, LABEL_UNCOMPRESSED
from ocidiff.errors import AlreadyExistsError, NotFoundError, OcidiffError, UnsupportedError
from ocidiff.image import adopt
from ocidiff.image.image import Image, manifests_of, read_manifest
from ocidiff.image.unpack import Done, check_layers
from ocidiff.layer.applier import verify
from ocidiff.layer.engine import Engine
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.options import ApplyOptions, Limits
from ocidiff.mounts.kernel import directory_of
from ocidiff.mounts.mount import unsynced
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import ChainID, DiffID, chain_ids
from ocidiff.snapshot.local import LocalSnapshotter

# Beginnings that an image has in common with others and that get a snapshot: each costs a mount.
_MAX_SHARED: Final = 8


class TooManyLayersError(UnsupportedError):
    """The snapshots of an image are more than a mount of the driver takes."""


_Layer = tuple[Descriptor, DiffID]


def unpack_chain(
    layout: Layout, snapshots: LocalSnapshotter, image: Image, *, limits: Limits, engine: Engine, monitor: Monitor
) -> ChainID | None:
    """Have the tree of an image as a committed snapshot; what is there already is left as it is.

    Args:
        layout: Where the layers are, under the lease that keeps the snapshots until something refers to them.
        snapshots: Where the trees go, under the same lease.
        image: What to unpack.
        limits: What the layers that are applied may not pass together.
        engine: What applies the layers.
        monitor: Sees progress over the layers that are applied, and stops the call.

    Returns:
        Name of the snapshot; None for an image without layers.

    Raises:
        NotFoundError, DigestMismatchError: As in `unpack`.
        UnsupportedError: As in `unpack`.
        TooManyLayersError: The snapshot is there, with more parents than a mount of the driver takes.
    """
    diff_ids = image.config.rootfs.diff_ids
    layers = tuple(zip(image.manifest.layers, diff_ids, strict=True))
    chain = chain_ids(diff_ids)
    done = _present(snapshots, chain)
    if done < len(chain):
        check_layers(layout, image)
        done = _adopted(snapshots, chain, diff_ids, done, engine, monitor)
    used = Done()
    monitor = monitor.of("unpack", sum(layer.size for layer in image.manifest.layers[done:]))
    for end in _ends(layout, snapshots, image, chain, done):
        if end == done:
            continue
        # Beyond what a mount takes, all layers are applied anew, onto nothing.
        start = done if _has_room(snapshots, chain, done, 1) else 0
        parent = chain[start - 1] if start else None
        used = _extract(layout, snapshots, layers[start:end], (parent, chain[end - 1]), engine, monitor, limits, used)
        done = end
    if not chain:
        return None
    if not _has_room(snapshots, chain, len(chain), 0):
        most = snapshots.max_parents
        raise TooManyLayersError(
            f"{image.name}: has more than {most} snapshots, which {snapshots.name} cannot mount: use the driver directory"
        )
    snapshots.refer(image.config_digest, chain[-1])
    return chain[-1]


def _present(snapshots: LocalSnapshotter, chain: Sequence[ChainID]) -> int:
    """Return how many layers the deepest snapshot that is there has; it is kept, and so are its parents."""
    for count in snapshots.present(chain):
        with suppress(NotFoundError):
            snapshots.keep(chain[count])
            return count + 1
    return 0


def _adopted(
    snapshots: LocalSnapshotter,
    chain: Sequence[ChainID],
    diff_ids: Sequence[DiffID],
    done: int,
    engine: Engine,
    monitor: Monitor,
) -> int:
    """Take over the tree of a container that was committed as one of the missing layers; return how many layers are done."""
    offered = snapshots.label_values(LABEL_OFFERS)
    for count in range(len(chain), done, -1):
        if (
            chain[count - 1] in offered
            and _has_room(snapshots, chain, count - 1, 1)
            and adopt.accept(snapshots, chain[count - 1], diff_ids[count - 1], engine=engine, monitor=monitor)
        ):
            return count
    return done


def _has_room(snapshots: LocalSnapshotter, chain: Sequence[ChainID], count: int, more: int) -> bool:
    """True if a mount takes the snapshot of the first `count` layers, its parents, and `more` snapshots on top of it."""
    if snapshots.max_parents is None or not count:
        return True
    try:
        return len(snapshots.lineage(chain[count - 1])) + more <= snapshots.max_parents
    except NotFoundError:
        return True


def _ends(layout: Layout, snapshots: LocalSnapshotter, image: Image, chain: Sequence[ChainID], done: int) -> Iterator[int]:
    """Yield how many layers each missing snapshot ends with, the fewest first."""
    if snapshots.shares_parents and done + 1 < len(chain):
        shared = Counter(_common(layout, image.config.rootfs.diff_ids))
        between = [count for count in shared if done < count < len(chain)]
        # Those that most images have in common, and of these the longest.
        yield from sorted(sorted(between, key=lambda count: (-shared[count], -count))[:_MAX_SHARED])
    yield len(chain)


def _common(layout: Layout, diff_ids: Sequence[DiffID]) -> Iterator[int]:
    """Yield how many layers each image of the store has in common with an image."""
    for entry in layout.names.index().manifests:
        # What cannot be read has nothing in common.
        with suppress(OcidiffError, OSError):
            for manifest in manifests_of(layout, entry.digest, entry):
                other = read_manifest(layout, entry.digest, manifest)
                pairs = zip(diff_ids, other.config.rootfs.diff_ids, strict=False)
                yield sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def restore_snapshot(
    layout: Layout,
    snapshots: LocalSnapshotter,
    name: ChainID,
    chain: Sequence[tuple[ChainID, _Layer]],
    limits: Limits,
    engine: Engine,
    monitor: Monitor,
) -> None:
    """Make the tree of a committed snapshot anew, on the one of its parent; what grows on it stays as it is.

    Args:
        layout: Where the layers are, under a lease.
        snapshots: Where the tree goes, under the same lease.
        name: Of the snapshot.
        chain: The layers of an image that it is of, each with the chain ID up to it.
        limits: What these layers may not pass together.
        engine: What applies the layers.
        monitor: Sees progress, and stops the call.

    Raises:
        NotFoundError: A layer is missing, or the snapshot went in the meantime.
        DigestMismatchError: A layer is damaged.
    """
    parent = snapshots.stat(name).parent
    names = [chain_id for chain_id, _ in chain]
    start = 0 if parent is None else names.index(ChainID(parent)) + 1
    layers = [layer for _, layer in chain[start : names.index(name) + 1]]
    with _extracted(layout, snapshots, layers, parent, name, engine, monitor, limits, Done()) as (key, _):
        snapshots.replace(name, key)


def _extract(
    layout: Layout,
    snapshots: LocalSnapshotter,
    layers: Sequence[_Layer],
    place: tuple[ChainID | None, ChainID],
    engine: Engine,
    monitor: Monitor,
    limits: Limits,
    used: Done,
) -> Done:
    parent, name = place
    with _extracted(layout, snapshots, layers, parent, name, engine, monitor, limits, used) as (key, done):
        try:
            snapshots.commit(name, key)
        except AlreadyExistsError:
            # Somebody else was faster, with the same tree.
            snapshots.keep(name)
            snapshots.remove(key)
    return done


@contextmanager
def _extracted(
    layout: Layout,
    snapshots: LocalSnapshotter,
    layers: Sequence[_Layer],
    parent: str | None,
    name: ChainID,
    engine: Engine,
    monitor: Monitor,
    limits: Limits,
    used: Done,
) -> Iterator[tuple[str, Done]]:
    """Yield the key of an active snapshot with the tree of layers on that of its parent; it goes when the block fails."""
    key = f"extract-{os.urandom(16).hex()} {name}"
    mounts = snapshots.prepare(key, parent)
    try:
        with directory_of(unsynced(mounts)) as tree:
            for descriptor, diff_id in layers:
                monitor.check()
                with layout.open_blob(descriptor) as blob:
                    options = used.remaining(ApplyOptions(limits=limits))
                    summary = engine.apply_layer(
                        blob.fileno(), os.fsencode(tree), options, used.continued(monitor, descriptor.digest)
                    )
                verify(summary, descriptor.digest, diff_id)
                used = used.plus(summary)
        layout.label_all({descriptor.digest: {LABEL_UNCOMPRESSED: diff_id} for descriptor, diff_id in layers})
        yield key, used
    except BaseException:
        with suppress(NotFoundError):
            snapshots.remove(key)
        raise
