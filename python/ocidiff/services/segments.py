"""Segments: parts of layers that were compressed before, for later layers to copy."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from ocidiff.layer.options import Segments
from ocidiff.oci.digest import Digest
from ocidiff.values import dataclass


@dataclass(frozen=True, slots=True)
class NewTable:
    """The table of a layer that is being written.

    Attributes:
        segments: What the engine is told.
        keep: Keeps the table beside the finished blob. A failure is no error: later layers are compressed then.
    """

    segments: Segments
    keep: Callable[[Digest], None]


class SegmentTables(Protocol):
    """Remembers where the segments of layers are."""

    def begin(self, *, proves_all: bool) -> AbstractContextManager[NewTable]:
        """Yield a table for a new layer, with the older blobs that it may copy from.

        Args:
            proves_all: Inflate and compare every segment that is copied.
        """
        ...
