"""Progress of a copy, blob by blob."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from time import monotonic
from typing import Final

from ocidiff.errors import Cancelled
from ocidiff.layer.monitor import BlobProgress, BlobState, Monitor, Progress
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import Digest

_SECONDS_BETWEEN_REPORTS: Final = 0.1


class Tracker:
    """Counts for all threads of a copy, tells `Monitor.progress` now and then, and stops the threads.

    Args:
        monitor: Sees progress, and stops the call.
        blobs: What may be copied.
    """

    def __init__(self, monitor: Monitor, blobs: Sequence[Descriptor]) -> None:
        self._monitor = monitor
        self._blobs = {blob.digest: BlobProgress(blob.digest, blob.size) for blob in blobs}
        self._lock = threading.Lock()
        self._reported = 0.0
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Let every thread raise `Cancelled` soon."""
        self._stopped.set()

    def check(self) -> None:
        """Raise if the call shall stop.

        Raises:
            Cancelled: It shall.
        """
        self._monitor.check()
        if self._stopped.is_set():
            raise Cancelled("cancelled")

    def wait(self, seconds: float) -> None:
        """Wait, unless the call shall stop; errors as in `check`."""
        until = monotonic() + seconds
        while (left := until - monotonic()) > 0:
            self.check()
            self._stopped.wait(min(left, 0.2))
        self.check()

    def begin(self, digest: Digest, kept: int) -> None:
        """Note that a blob is being copied, from this offset on."""
        self._change(digest, BlobState.COPYING, kept, kept)

    def advance(self, digest: Digest, count: int) -> None:
        """Note that bytes of a blob came."""
        self.check()
        with self._lock:
            blob = self._blobs[digest]
            self._blobs[digest] = replace(blob, done=blob.done + count)
        self.report()

    def finish(self, digest: Digest, state: BlobState) -> None:
        """Note what became of a blob."""
        blob = self._blobs[digest]
        self._change(digest, state, blob.size, blob.kept)

    def _change(self, digest: Digest, state: BlobState, done: int, kept: int) -> None:
        with self._lock:
            self._blobs[digest] = replace(self._blobs[digest], state=state, done=done, kept=kept)
        self.report(at_once=True)

    def report(self, *, at_once: bool = False) -> None:
        """Tell the caller, unless it was told a moment ago."""
        if self._monitor.progress is None:
            return
        with self._lock:
            now = monotonic()
            if not at_once and now - self._reported < _SECONDS_BETWEEN_REPORTS:
                return
            self._reported = now
            blobs = self.blobs()
            # Under the lock, since callers do not expect two calls at once.
            self._monitor.progress(
                Progress(0, 0, sum(blob.done for blob in blobs), "copy", sum(blob.size for blob in blobs), blobs=blobs)
            )

    def blobs(self) -> tuple[BlobProgress, ...]:
        """Return how far each blob is."""
        return tuple(self._blobs.values())
