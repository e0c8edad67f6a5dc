"""Counters of a running call, shown to the caller about twenty times a second, and its answer, which may stop the call."""

from __future__ import annotations

import math
import time
from typing import Final

from ocidiff.errors import Cancelled
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.pure import sentences

BLOCK_BYTES: Final = 1 << 18  # of a file at a time: some milliseconds of compression, so that a cancel is seen in time
_INTERVAL_SECONDS: Final = 0.05


class Pace:
    """Counts the work of one call and polls its monitor in time.

    Attributes:
        entries: Directory or layer entries so far.
        bytes_plain: Bytes of the uncompressed tar so far.
        bytes_aside: Bytes of it that are known before they are written: those of the file that is being copied.
        bytes_blob: Bytes of the stored blob so far.
    """

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._due = time.monotonic()  # at once, so that a call which is cancelled beforehand does nothing
        self.entries = 0
        self.bytes_plain = 0
        self.bytes_aside = 0
        self.bytes_blob = 0

    def entry(self) -> None:
        """Count one entry."""
        self.entries += 1
        self.check()

    def check(self) -> None:
        """Poll the monitor when it is time to; for every loop over files or blocks.

        Raises:
            Cancelled: The monitor says stop.
        """
        if time.monotonic() >= self._due:
            self.report()

    def stop_polling(self) -> None:
        """Poll the monitor no more: the call has failed, and only cleans up."""
        self._due = math.inf

    def report(self) -> None:
        """Poll the monitor now.

        Raises:
            Cancelled: The monitor says stop.
        """
        if not self._monitor.poll(self.entries, self.bytes_plain + self.bytes_aside, self.bytes_blob):
            raise Cancelled(sentences.CANCELLED)
        self._due = time.monotonic() + _INTERVAL_SECONDS
