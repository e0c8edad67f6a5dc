"""Adopt: the layer that a commit has just written as a committed snapshot, without reading the layer back.

Law: what is adopted is proved to be what applying the layer gives: it is diffed again, and must give the same diff ID.
"""

from __future__ import annotations

import logging
import os
import secrets
from contextlib import suppress
from dataclasses import replace
from typing import Final

from ocidiff.content.layout import Layout
from ocidiff.errors import AlreadyExistsError, NotFoundError, OcidiffError
from ocidiff.image.chain import refer_to_snapshot
from ocidiff.image.container import Container
from ocidiff.image.image import Image
from ocidiff.layer.differ import write_layer
from ocidiff.layer.engine import Engine
from ocidiff.layer.layer import Compression, LayerOptions, Monitor, OverlayLayers, Profile
from ocidiff.layer.scope import Scope
from ocidiff.oci.digest import DiffID, chain_id
from ocidiff.snapshot.clone import can_share_blocks
from ocidiff.snapshot.local import LocalSnapshotter
from ocidiff.snapshot.mount import in_user_namespace
from ocidiff.snapshot.share import share_changes

_NS_PER_SECOND: Final = 10**9
_log = logging.getLogger(__name__)


def adopt_layer(
    layout: Layout,
    snapshots: LocalSnapshotter,
    container: Container,
    image: Image,
    *,
    engine: Engine,
    options: LayerOptions,
    monitor: Monitor,
) -> bool:
    """Have the tree of a container's image as a snapshot, so that nobody has to unpack it; whether that could be.

    It can where files are cloned, and where nobody may be writing to the container, so that they may be linked. Elsewhere
    the layer is unpacked when the snapshot is first needed. A failure is no failure of the commit.

    Args:
        layout: The store, under a lease.
        snapshots: What holds the container's tree, under the same lease.
        container: Locked against being mounted.
        image: What it was committed as.
        engine: What reads the tree again.
        options: What the layer was written with.
        monitor: Stops the call.
    """
    if image.layer is None or container.in_place or options.profile is not Profile.OCI:
        return False
    clone = can_share_blocks(snapshots.directory(container.snapshot))
    if not clone and container.maybe_mounted:
        return False
    name = chain_id(image.config.rootfs.diff_ids)
    try:
        try:
            snapshots.keep(name)
        except NotFoundError:
            if not _share(snapshots, container, image.layer.diff_id, name, clone, engine, options, monitor):
                return False
        refer_to_snapshot(layout, image.config_digest, snapshots.name, name)
    except (OSError, OcidiffError) as error:
        monitor.check()
        _log.debug("%s: not kept as a snapshot: %s", image.name, error)
        return False
    return True


def _share(
    snapshots: LocalSnapshotter,
    container: Container,
    diff_id: DiffID,
    name: str,
    clone: bool,
    engine: Engine,
    options: LayerOptions,
    monitor: Monitor,
) -> bool:
    key = f"extract-{secrets.token_hex(16)} {name}"
    snapshots.prepare(key, snapshots.stat(container.snapshot).parent)
    try:
        epoch = options.source_date_epoch
        share_changes(
            snapshots.directory(container.snapshot),
            snapshots.directory(key),
            link=not clone,
            latest_ns=None if epoch is None else epoch * _NS_PER_SECOND,
            check=monitor.check,
        )
        if _diff_id(snapshots, key, engine, options, monitor) != diff_id:
            # Somebody wrote to it after the layer was written.
            snapshots.remove(key)
            return False
        with suppress(AlreadyExistsError):
            snapshots.commit(name, key)
            return True
        snapshots.keep(name)
        snapshots.remove(key)
    except BaseException:
        with suppress(NotFoundError):
            snapshots.remove(key)
        raise
    return True


def _diff_id(snapshots: LocalSnapshotter, key: str, engine: Engine, options: LayerOptions, monitor: Monitor) -> DiffID:
    """What the layer would be that a snapshot is."""
    own, *lower = map(os.fsencode, snapshots.lineage(key))
    with open(os.devnull, "wb") as sink:
        return write_layer(
            engine,
            None,
            OverlayLayers(own, tuple(lower), userxattr=in_user_namespace(), redirects=False),
            sink.fileno(),
            # All of it, so that a snapshot with what the layer leaves out is not taken for the layer.
            options=replace(options, compression=Compression.NONE, level=None, scope=Scope(cross_mounts=True)),
            monitor=monitor,
        ).diff_id
