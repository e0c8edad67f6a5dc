"""Adopt: what a container was committed as, as a committed snapshot made from the container's own tree, not from its layers.

A commit only offers it. The snapshot is made when it is first needed, if the container was not mounted since.

Law: what is adopted is proved to be what applying the layers gives: it is diffed again, into as many layers, and must give
the same chain ID.
Nothing that shares its files changes by it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from contextlib import suppress

from ocidiff import opening
from ocidiff.embedded.containers import Container
from ocidiff.embedded.drivers.clone import can_share_blocks
from ocidiff.embedded.layout import Layout
from ocidiff.embedded.share import share_changes
from ocidiff.embedded.snapshotter import LocalSnapshotter, label_of_reference
from ocidiff.embedded.tables.snapshots import LABEL_OFFERS, LABEL_OFFERS_LAYERS, LABEL_OFFERS_UNTIL
from ocidiff.errors import AlreadyExistsError, NotFoundError, OcidiffError
from ocidiff.layer.engine import Engine
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.options import Compression, LayerOptions, OnChange, Profile
from ocidiff.layer.scope import Scope
from ocidiff.layer.split import write_layers
from ocidiff.log import Logger
from ocidiff.mounts.layers import OverlayLayers
from ocidiff.mounts.mountinfo import in_user_namespace
from ocidiff.oci.digest import ChainID, DiffID, chain_id
from ocidiff.oci.timestamp import NS_PER_SECOND
from ocidiff.services.containers import Committed

_log = Logger(__name__)


def offer_for_reuse(
    layout: Layout,
    snapshots: LocalSnapshotter,
    container: Container,
    committed: Committed,
    *,
    engine: Engine,
    monitor: Monitor,
) -> None:
    """Record that the tree of a container may be reused as the snapshot of the image that was just committed from it.

    If somebody may be writing to the container, its files are cloned at once where the file system can, and otherwise it
    offers nothing. A failure does not fail the commit.

    Args:
        layout: The store, under a lease.
        snapshots: What holds the container's tree.
        container: Locked against being mounted.
        committed: What it was committed as.
        engine: What reads the tree again.
        monitor: Stops the call.
    """
    options = committed.options
    if container.in_place or options.profile is not Profile.OCI:
        return
    name, epoch = committed.chain_id, options.source_date_epoch
    label = label_of_reference(snapshots.name)
    try:
        if _is_kept(snapshots, name):
            layout.update_labels(committed.config, {label: name})
        elif not container.maybe_mounted:
            # An empty value takes away what was said before.
            until = "" if epoch is None else str(epoch)
            offered = {LABEL_OFFERS: name, LABEL_OFFERS_UNTIL: until, LABEL_OFFERS_LAYERS: str(committed.layers)}
            snapshots.update_labels(container.snapshot, offered)
            layout.update_labels(committed.config, {label: container.snapshot})
        elif can_share_blocks(snapshots.directory(container.snapshot)):
            _adopt(snapshots, container.snapshot, name, committed.layers, epoch, engine, monitor)
            layout.update_labels(committed.config, {label: name})
    except (OSError, OcidiffError) as error:
        monitor.check()
        _log.debug("%s: not kept as a snapshot: %s", committed.image, error)


def reuse_offered(snapshots: LocalSnapshotter, name: ChainID, *, engine: Engine, monitor: Monitor) -> bool:
    """Make a snapshot from what a container offers; false where none does, or where that is not what its layers say.

    Args:
        snapshots: Where the tree goes, under a lease.
        name: Of the snapshot.
        engine: What reads the tree again.
        monitor: Stops the call.
    """
    for key in snapshots.labelled(LABEL_OFFERS, name):
        try:
            descriptor = os.open(snapshots.directory(key), opening.ROOT)
            try:
                # A process that holds it may change it now, and may have changed its tree since the offer.
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                labels = snapshots.stat(key).labels
                if labels.get(LABEL_OFFERS) == name:
                    until = labels.get(LABEL_OFFERS_UNTIL)
                    count = int(labels.get(LABEL_OFFERS_LAYERS, "1"))
                    _adopt(snapshots, key, name, count, None if until is None else int(until), engine, monitor)
                    return True
            finally:
                os.close(descriptor)
        except (OSError, OcidiffError, ValueError) as error:
            monitor.check()
            _log.debug("%s: not made from %s: %s", name, key, error)
    return False


def _is_kept(snapshots: LocalSnapshotter, name: ChainID) -> bool:
    """Return True if the snapshot is there, and then it stays."""
    try:
        snapshots.add_to_lease(name)
    except NotFoundError:
        return False
    return True


def _adopt(
    snapshots: LocalSnapshotter,
    source: str,
    name: ChainID,
    count: int,
    source_date_epoch: int | None,
    engine: Engine,
    monitor: Monitor,
) -> None:
    key = f"extract-{os.urandom(16).hex()} {name}"
    parent = snapshots.stat(source).parent
    snapshots.prepare(key, parent)
    try:
        directory = snapshots.directory(source)
        share_changes(
            directory,
            snapshots.directory(key),
            link=not can_share_blocks(directory),
            latest_ns=None if source_date_epoch is None else source_date_epoch * NS_PER_SECOND,
            check=monitor.check,
        )
        options = LayerOptions(
            compression=Compression.NONE,
            source_date_epoch=source_date_epoch,
            lower_has_layer_times=True,
            # All of it, so that a snapshot with what the layer leaves out is not taken for the layer.
            scope=Scope(cross_mounts=True),
            on_change=OnChange.FAIL,
        )
        diff_ids = _diff_ids(snapshots, key, count, engine, options, monitor)
        # The name of a snapshot is the chain ID of all layers up to it.
        actual = chain_id(diff_ids if parent is None else (DiffID(parent), *diff_ids))
        if actual != name:
            raise OcidiffError(f"its layers would be {', '.join(diff_ids)}")
        snapshots.commit(name, key)
    except BaseException as error:
        # The end of the lease sweeps a snapshot that cannot be removed now.
        with suppress(OSError, OcidiffError):
            snapshots.remove(key)
        if not isinstance(error, AlreadyExistsError):
            raise
        # Somebody else was faster, with the same tree.
        snapshots.add_to_lease(name)


def _diff_ids(
    snapshots: LocalSnapshotter, key: str, count: int, engine: Engine, options: LayerOptions, monitor: Monitor
) -> Sequence[DiffID]:
    """Return the diff IDs of the layers that a snapshot stands for, `count` or fewer."""
    own, *lower = map(os.fsencode, snapshots.lineage(key))
    layers = OverlayLayers(own, tuple(lower), userxattr=in_user_namespace(), redirects=False)
    with open(os.devnull, "wb") as sink:
        done = write_layers(engine, None, layers, [sink.fileno()] * count, options=options, monitor=monitor)
    return [layer.diff_id for layer in done.layers if layer is not None and not layer.empty]
