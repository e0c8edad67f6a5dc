"""Segments: parts of layers that were compressed before, for later layers to copy."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from ocidiff.layer.options import Segments
from ocidiff.oci.digest import Digest
from ocidiff.values import dataclass


@dataclass(frozen=True, slots=True)
class NewTables:
    """The tables of layers that are written together.

    Attributes:
        segments: What the engine is told.
        keep: Keeps the table of that number beside the finished blob. A failure is no error: later layers are then
            compressed.
    """

    segments: Segments
    keep: Callable[[Digest, int], None]


class SegmentTables(Protocol):
    """Remembers where the segments of layers are."""

    def begin(self, count: int, *, proves_all: bool) -> AbstractContextManager[NewTables]:
        """Yield tables for new layers, with the older blobs that they may copy from.

        Args:
            count: The number of layers.
            proves_all: Decompress and compare every segment that is copied.
        """
        ...
