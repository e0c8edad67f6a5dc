"""The disk budget of a run: it stops the run before the file system is full, or once it has written its share."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from ocidiff import workspace
from ocidiff.layer.monitor import Progress, ProgressCallback
from ocidiff.sizes import size

FULL: Final = workspace.FULL
"""Errors that stop a run. EFBIG is not one of them: it fails the layer that is too large, and no other."""

# Reserve: bytes written between two checks, and room for other programs.
_MOST_RESERVED_BYTES: Final = 256 << 20
_RESERVED_PART: Final = 20


class DiskBudget:
    """Bounds what a run writes. Safe from several threads.

    Args:
        place: Path of the store.
        most_bytes: Most bytes that the run may add; None for no bound but the free space.
        stop: Called with the reason, once there is no more room.
    """

    def __init__(self, place: str, most_bytes: int | None, stop: Callable[[str], None]) -> None:
        self._place, self._most, self._stop = place, most_bytes, stop
        self._running: dict[int, int] = {}
        self._spent, self._lock = 0, threading.Lock()

    @contextmanager
    def writing(self, number: int) -> Iterator[tuple[ProgressCallback, Callable[[int], None]]]:
        """Yield two callbacks: one sees the layer of a line grow, the other gets the bytes that it added to the store."""
        added: list[int] = []

        def see(progress: Progress) -> None:
            # A change that is measured is written nowhere.
            self._running[number] = 0 if progress.phase == "measure" else progress.bytes_blob
            self.check()

        try:
            yield see, added.append
        finally:
            # A layer counts once: while it grows, or as a blob.
            self._running.pop(number, None)
            self.spend(sum(added))

    def spend(self, count: int) -> None:
        """Note bytes that were added to the store."""
        with self._lock:
            self._spent += count

    def has_room(self, count: int) -> bool:
        """True if so many bytes more may stay; stops the run if not."""
        if self._most is not None and self._spent + count > self._most:
            self._stop(f"the disk budget of {size(self._most)} is used up: give more to --disk, and run it again")
            return False
        return True

    def check(self) -> None:
        """Stop the run if there is no more room for what is being written."""
        if self.has_room(sum(self._running.copy().values())):
            found = os.statvfs(self._place)
            free, whole = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
            if free < min(_MOST_RESERVED_BYTES, whole // _RESERVED_PART):
                self._stop(f"{self._place}: only {size(free)} are free: make room, and run it again")
