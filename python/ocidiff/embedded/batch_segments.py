"""Segments for many commits in a row: opening the tables takes a part of a small commit, so they stay open."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Final

from ocidiff.embedded.files import Files
from ocidiff.embedded.segments import StoreSegments

# Commits between two searches for tables.
_COMMITS: Final = 16


class _Opened:
    """Tables and blobs that are open, and the commits that use them."""

    def __init__(self, opened: contextlib.ExitStack, sources: tuple[tuple[int, int], ...]) -> None:
        self.opened, self.sources = opened, sources
        self.commits = self.users = 0


class SharedSegments(StoreSegments):
    """`SegmentTables` in a layout, safe from several threads.

    Args:
        files: The layout.
    """

    def __init__(self, files: Files) -> None:
        super().__init__(files)
        self._lock = threading.Lock()
        self._newest: _Opened | None = None

    def close(self) -> None:
        """Close what is open, once no commit runs."""
        if self._newest is not None:
            self._newest.opened.close()
            self._newest = None

    def _sources(self, stack: contextlib.ExitStack) -> tuple[tuple[int, int], ...]:
        with self._lock:
            found = self._newest
            if found is None or found.commits == _COMMITS:
                if found is not None and not found.users:
                    found.opened.close()
                opened = contextlib.ExitStack()
                found = self._newest = _Opened(opened, super()._sources(opened))
            found.commits += 1
            found.users += 1
        stack.callback(self._release(found))
        return found.sources

    def _release(self, used: _Opened) -> Callable[[], None]:
        def release() -> None:
            with self._lock:
                used.users -= 1
                if not used.users and used is not self._newest:
                    used.opened.close()

        return release
