"""Adopt: the layer that a commit has just written as a committed snapshot, without reading the layer back.

Law: what is adopted is proved to be what applying the layer gives: it is diffed again, and must give the same diff ID.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Final

from ocidiff.errors import AlreadyExistsError, Cancelled, NotFoundError, OcidiffError
from ocidiff.image.container import Container
from ocidiff.image.image import Image
from ocidiff.layer.differ import write_layer
from ocidiff.layer.engine import Engine
from ocidiff.layer.layer import OverlayLayers
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.options import Compression, LayerOptions, OnChange, Profile
from ocidiff.layer.scope import Scope
from ocidiff.oci.digest import ChainID, DiffID, chain_id
from ocidiff.snapshot.clone import can_share_blocks
from ocidiff.snapshot.local import LocalSnapshotter
from ocidiff.snapshot.mount import in_user_namespace
from ocidiff.snapshot.share import Outline, outline_changes, share_files

_NS_PER_SECOND: Final = 10**9
_log = logging.getLogger(__name__)


@contextmanager
def adoption(
    snapshots: LocalSnapshotter,
    container: Container,
    *,
    engine: Engine,
    options: LayerOptions,
    monitor: Monitor,
) -> Iterator[Callable[[Image], bool]]:
    """Have the tree of a container's image as a snapshot, so that nobody has to unpack it.

    It can be where files are cloned, and where nobody may be writing to the container, so that they may be linked. Elsewhere
    the layer is unpacked when the snapshot is first needed. A failure is no failure of the commit. What can be made before
    the layer is known is made beside the block, which writes it.

    Args:
        snapshots: What holds the container's tree, under a lease.
        container: Locked against being mounted.
        engine: What reads the tree again.
        options: What the layer is written with.
        monitor: Stops the call.

    Yields:
        What takes the image that the container was committed as, and says whether its tree is a snapshot now.
    """
    clone = not container.in_place and can_share_blocks(snapshots.directory(container.snapshot))
    if container.in_place or options.profile is not Profile.OCI or (container.maybe_mounted and not clone):
        yield lambda _: False
        return
    prepared = _Prepared(snapshots, container.snapshot, options)

    def adopt(image: Image) -> bool:
        if image.layer is None:
            return False
        name = chain_id(image.config.rootfs.diff_ids)
        try:
            try:
                snapshots.keep(name)
            except NotFoundError:
                if not prepared.commit(name, image.layer.diff_id, link=not clone, engine=engine, monitor=monitor):
                    return False
            snapshots.refer(image.config_digest, name)
        except (OSError, OcidiffError) as error:
            monitor.check()
            _log.debug("%s: not kept as a snapshot: %s", image.name, error)
            return False
        return True

    try:
        yield adopt
    finally:
        prepared.drop()


class _Prepared:
    """A snapshot that begins as the outline of a container's, which is made on a thread."""

    def __init__(self, snapshots: LocalSnapshotter, source: str, options: LayerOptions) -> None:
        self._snapshots = snapshots
        self._source = source
        self._options = options
        epoch = options.source_date_epoch
        self._latest_ns = None if epoch is None else epoch * _NS_PER_SECOND
        self._key = f"extract-{os.urandom(16).hex()}"
        self._outline: Outline | None = None
        self._error: Exception | None = None
        self._ends = self._is_kept = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def commit(self, name: ChainID, diff_id: DiffID, *, link: bool, engine: Engine, monitor: Monitor) -> bool:
        """Give it files and a name; false when it is not the tree of the layer, because somebody wrote to it since."""
        self._thread.join()
        if self._outline is None:
            raise self._error or OcidiffError("not prepared")
        directory = self._snapshots.directory(self._source)
        share_files(directory, self._outline, link=link, latest_ns=self._latest_ns, check=monitor.check)
        if _diff_id(self._snapshots, self._key, engine, self._options, monitor) != diff_id:
            return False
        try:
            self._snapshots.commit(name, self._key)
            self._is_kept = True
        except AlreadyExistsError:
            # Somebody else was faster, with the same tree.
            self._snapshots.keep(name)
        return True

    def drop(self) -> None:
        """Remove what has got no name."""
        self._ends = True
        self._thread.join()
        if not self._is_kept:
            # What cannot be removed now is swept once the lease has ended.
            with suppress(OSError, OcidiffError):
                self._snapshots.remove(self._key)

    def _run(self) -> None:
        try:
            self._snapshots.prepare(self._key, self._snapshots.stat(self._source).parent)
            self._outline = outline_changes(
                self._snapshots.directory(self._source),
                self._snapshots.directory(self._key),
                latest_ns=self._latest_ns,
                check=self._check,
            )
        except Exception as error:  # noqa: BLE001 - raised by `commit`, in the thread that can tell of it
            self._error = error

    def _check(self) -> None:
        if self._ends:
            raise Cancelled("not needed any more")


def _diff_id(snapshots: LocalSnapshotter, key: str, engine: Engine, options: LayerOptions, monitor: Monitor) -> DiffID:
    """What the layer would be that a snapshot is."""
    own, *lower = map(os.fsencode, snapshots.lineage(key))
    with open(os.devnull, "wb") as sink:
        return write_layer(
            engine,
            None,
            OverlayLayers(own, tuple(lower), userxattr=in_user_namespace(), redirects=False),
            sink.fileno(),
            options=replace(
                options,
                compression=Compression.NONE,
                level=None,
                # All of it, so that a snapshot with what the layer leaves out is not taken for the layer.
                scope=Scope(cross_mounts=True),
                on_change=OnChange.FAIL,
            ),
            monitor=monitor,
        ).diff_id
