"""Early: a layer is applied while it is written, so that nobody has to read, inflate and hash it again for its snapshot.

Nothing depends on it: if it fails, the layer is applied from its blob afterwards, and that apply reports the error.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Final

from ocidiff.errors import AlreadyExistsError, NotFoundError, OcidiffError
from ocidiff.image.chain import has_room
from ocidiff.layer.apply_options import ApplyOptions
from ocidiff.layer.engine import Engine
from ocidiff.layer.layer import ApplySummary, Layer
from ocidiff.layer.limits import Limits
from ocidiff.layer.monitor import Cancellation, Monitor
from ocidiff.layer.options import LayerOptions
from ocidiff.log import Logger
from ocidiff.mounts.kernel import directory_of
from ocidiff.mounts.mount import Mount, unsynced
from ocidiff.oci.digest import ChainID, DiffID, chain_ids
from ocidiff.services import labels
from ocidiff.services.bundle import Services
from ocidiff.services.snapshots import Snapshotter

_log: Final = Logger(__name__)


class EarlySnapshot:
    """An active snapshot, into which a thread applies the tar that comes through a pipe."""

    def __init__(self, snapshots: Snapshotter, key: str, mounts: Sequence[Mount], engine: Engine, limits: Limits) -> None:
        self._snapshots, self._key, self._mounts = snapshots, key, mounts
        self._engine, self._limits = engine, limits
        self._cancellation = Cancellation()
        self._done: ApplySummary | None = None
        self._source, self._sink = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="ocidiff-early", daemon=True)
        self._thread.start()

    def taking(self, options: LayerOptions) -> LayerOptions:
        """Return the options of a layer that goes here too."""
        return replace(options, copy=self._sink)

    def commit(self, layer: Layer, name: ChainID) -> None:
        """Wait for the tree, and make it the committed snapshot of that name if it is that of the layer."""
        self._end()
        if self._done is None or self._done.diff_id != layer.diff_id:
            return
        wanted = {labels.SNAPSHOT_REF: name, labels.UNCOMPRESSED: layer.diff_id}
        with suppress(AlreadyExistsError):
            self._snapshots.commit(name, self._key, wanted)

    def stop(self) -> None:
        """End the thread, and remove the snapshot unless it was committed."""
        self._cancellation.cancel()
        self._end()
        with suppress(NotFoundError):
            self._snapshots.remove(self._key)

    def _end(self) -> None:
        if self._sink >= 0:
            os.close(self._sink)
            self._sink = -1
        self._thread.join()

    def _run(self) -> None:
        monitor = Monitor(cancel=self._cancellation)
        # The source is closed last, and a writer finds out then.
        with open(self._source, "rb", buffering=0) as source:
            try:
                with directory_of(self._mounts) as tree:
                    options = ApplyOptions(limits=self._limits)
                    self._done = self._engine.apply_layer(source.fileno(), os.fsencode(tree), options, monitor)
            except (OcidiffError, OSError) as error:
                _log.debug("snapshot %s: the layer is applied from its blob: %s", self._key, error)


@contextmanager
def early_snapshot(
    services: Services, driver: str, base: Sequence[DiffID], *, engine: Engine, limits: Limits
) -> Iterator[EarlySnapshot | None]:
    """Yield a snapshot on that of the base for the layer that is written next; None if there is no such snapshot.

    Args:
        services: The store, under a lease.
        driver: Name of the snapshotter.
        base: Diff IDs of the base.
        engine: What applies the layer.
        limits: What the layer may not pass.
    """
    snapshots, chain = services.snapshotter(driver), chain_ids(base)
    if not chain or not services.keep_snapshot(snapshots, chain[-1]) or not has_room(snapshots, chain, len(chain), 1):
        yield None
        return
    key = f"extract-{os.urandom(16).hex()} {chain[-1]}"
    early = EarlySnapshot(snapshots, key, unsynced(snapshots.prepare(key, chain[-1])), engine, limits)
    try:
        yield early
    finally:
        early.stop()
