"""Adopt: what a container was committed as, as a committed snapshot made from the container's own tree, not from its layer.

A commit only offers it. The snapshot is made when it is first needed, if the container was not mounted since.

Law: what is adopted is proved to be what applying the layer gives: it is diffed again, and must give the same diff ID.
Nothing that shares its files changes by it.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress

from ocidiff import opening
from ocidiff.embedded.containers import Container
from ocidiff.embedded.drivers.clone import can_share_blocks
from ocidiff.embedded.layout import Layout
from ocidiff.embedded.share import share_changes
from ocidiff.embedded.snapshotter import LocalSnapshotter, label_of_reference
from ocidiff.embedded.tables.snapshots import LABEL_OFFERS, LABEL_OFFERS_UNTIL
from ocidiff.errors import AlreadyExistsError, NotFoundError, OcidiffError
from ocidiff.layer.differ import write_layer
from ocidiff.layer.engine import Engine
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.options import Compression, LayerOptions, OnChange, Profile
from ocidiff.layer.scope import Scope
from ocidiff.log import Logger
from ocidiff.mounts.layers import OverlayLayers
from ocidiff.mounts.mountinfo import in_user_namespace
from ocidiff.oci.digest import ChainID, DiffID
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
            snapshots.update_labels(container.snapshot, {LABEL_OFFERS: name, LABEL_OFFERS_UNTIL: until})
            layout.update_labels(committed.config, {label: container.snapshot})
        elif can_share_blocks(snapshots.directory(container.snapshot)):
            _adopt(snapshots, container.snapshot, name, committed.layer.diff_id, epoch, engine, monitor)
            layout.update_labels(committed.config, {label: name})
    except (OSError, OcidiffError) as error:
        monitor.check()
        _log.debug("%s: not kept as a snapshot: %s", committed.image, error)


def reuse_offered(snapshots: LocalSnapshotter, name: ChainID, diff_id: DiffID, *, engine: Engine, monitor: Monitor) -> bool:
    """Make a snapshot from what a container offers; false where none does, or where that is not what its layer says.

    Args:
        snapshots: Where the tree goes, under a lease.
        name: Of the snapshot.
        diff_id: Of its layer.
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
                    _adopt(snapshots, key, name, diff_id, None if until is None else int(until), engine, monitor)
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
    diff_id: DiffID,
    source_date_epoch: int | None,
    engine: Engine,
    monitor: Monitor,
) -> None:
    key = f"extract-{os.urandom(16).hex()} {name}"
    snapshots.prepare(key, snapshots.stat(source).parent)
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
        actual = _diff_id(snapshots, key, engine, options, monitor)
        if actual != diff_id:
            raise OcidiffError(f"its layer would be {actual}")
        snapshots.commit(name, key)
    except BaseException as error:
        # The end of the lease sweeps a snapshot that cannot be removed now.
        with suppress(OSError, OcidiffError):
            snapshots.remove(key)
        if not isinstance(error, AlreadyExistsError):
            raise
        # Somebody else was faster, with the same tree.
        snapshots.add_to_lease(name)


def _diff_id(snapshots: LocalSnapshotter, key: str, engine: Engine, options: LayerOptions, monitor: Monitor) -> DiffID:
    """Return the diff ID of the layer that a snapshot stands for."""
    own, *lower = map(os.fsencode, snapshots.lineage(key))
    layers = OverlayLayers(own, tuple(lower), userxattr=in_user_namespace(), redirects=False)
    with open(os.devnull, "wb") as sink:
        return write_layer(engine, None, layers, sink.fileno(), options=options, monitor=monitor).diff_id
