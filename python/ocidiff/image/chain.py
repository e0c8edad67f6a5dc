"""Chain: the tree of an image as committed snapshots, one a layer, each under the chain ID of the layers up to it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from ocidiff.content.layout import Layout
from ocidiff.content.store import LABEL_UNCOMPRESSED
from ocidiff.errors import AlreadyExistsError, NotFoundError
from ocidiff.image import adopt
from ocidiff.image.image import Image
from ocidiff.image.unpack import Done, check_layers
from ocidiff.layer.applier import verify
from ocidiff.layer.engine import Engine
from ocidiff.layer.layer import ApplySummary
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.options import ApplyOptions
from ocidiff.mounts.kernel import directory_of
from ocidiff.mounts.mount import unsynced
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import ChainID, DiffID, chain_ids
from ocidiff.snapshot.local import LocalSnapshotter


def unpack_chain(
    layout: Layout, snapshots: LocalSnapshotter, image: Image, *, engine: Engine, monitor: Monitor
) -> ChainID | None:
    """Have the tree of an image as a committed snapshot; what is there already is left as it is.

    Args:
        layout: Where the layers are, under the lease that keeps the snapshots until something refers to them.
        snapshots: Where the trees go, under the same lease.
        image: What to unpack.
        engine: What applies the layers.
        monitor: Sees progress over the layers that are applied, and stops the call.

    Returns:
        Name of the snapshot; None for an image without layers.

    Raises:
        NotFoundError, UnsupportedError, DigestMismatchError: As in `unpack`.
    """
    diff_ids = image.config.rootfs.diff_ids
    chain = chain_ids(diff_ids)
    done = _present(snapshots, chain)
    if done < len(chain):
        check_layers(layout, image)
    used = Done()
    monitor = monitor.of("unpack", sum(layer.size for layer in image.manifest.layers[done:]))
    for position in range(done, len(chain)):
        monitor.check()
        parent = chain[position - 1] if position else None
        descriptor, diff_id = image.manifest.layers[position], diff_ids[position]
        if adopt.accept(snapshots, chain[position], diff_id, engine=engine, monitor=monitor):
            continue
        used = _extract(layout, snapshots, (descriptor, diff_id), (parent, chain[position]), engine, monitor, used)
    if not chain:
        return None
    snapshots.refer(image.config_digest, chain[-1])
    return chain[-1]


def _present(snapshots: LocalSnapshotter, chain: Sequence[ChainID]) -> int:
    """How many of the snapshots are there; the last of them is kept, and so are its parents."""
    for count in range(len(chain), 0, -1):
        with suppress(NotFoundError):
            snapshots.keep(chain[count - 1])
            return count
    return 0


def restore_snapshot(
    layout: Layout,
    snapshots: LocalSnapshotter,
    name: ChainID,
    layer: tuple[Descriptor, DiffID],
    engine: Engine,
    monitor: Monitor,
) -> None:
    """Make the tree of a committed snapshot anew, on the one of its parent; what grows on it stays as it is.

    Args:
        layout: Where the layer is, under a lease.
        snapshots: Where the tree goes, under the same lease.
        name: Of the snapshot.
        layer: What its tree is made from, and the digest of its tar.
        engine: What applies the layer.
        monitor: Sees progress, and stops the call.

    Raises:
        NotFoundError: The layer is missing, or the snapshot went in the meantime.
        DigestMismatchError: The layer is damaged.
    """
    parent = snapshots.stat(name).parent
    with _extracted(layout, snapshots, layer, parent, name, engine, monitor, Done()) as (key, _):
        snapshots.replace(name, key)


def _extract(
    layout: Layout,
    snapshots: LocalSnapshotter,
    layer: tuple[Descriptor, DiffID],
    place: tuple[ChainID | None, ChainID],
    engine: Engine,
    monitor: Monitor,
    used: Done,
) -> Done:
    parent, name = place
    with _extracted(layout, snapshots, layer, parent, name, engine, monitor, used) as (key, summary):
        try:
            snapshots.commit(name, key)
        except AlreadyExistsError:
            # Somebody else was faster, with the same tree.
            snapshots.keep(name)
            snapshots.remove(key)
    return used.plus(summary)


@contextmanager
def _extracted(
    layout: Layout,
    snapshots: LocalSnapshotter,
    layer: tuple[Descriptor, DiffID],
    parent: str | None,
    name: ChainID,
    engine: Engine,
    monitor: Monitor,
    used: Done,
) -> Iterator[tuple[str, ApplySummary]]:
    """The key of an active snapshot with the tree of a layer on that of its parent; it goes when the block fails."""
    descriptor, diff_id = layer
    key = f"extract-{os.urandom(16).hex()} {name}"
    mounts = snapshots.prepare(key, parent)
    try:
        with directory_of(unsynced(mounts)) as tree, layout.open_blob(descriptor) as blob:
            options = used.remaining(ApplyOptions())
            summary = engine.apply_layer(
                blob.fileno(), os.fsencode(tree), options, used.continued(monitor, descriptor.digest)
            )
        verify(summary, descriptor.digest, diff_id)
        layout.update_labels(descriptor.digest, {LABEL_UNCOMPRESSED: diff_id})
        yield key, summary
    except BaseException:
        with suppress(NotFoundError):
            snapshots.remove(key)
        raise
