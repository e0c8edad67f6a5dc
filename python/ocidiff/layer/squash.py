"""Squash: several layers become one, as an engine does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Protocol

from ocidiff.layer.layer import NOTHING_SKIPPED, LayerMeasure
from ocidiff.layer.limits import Limits
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.options import LayerOptions
from ocidiff.oci.digest import DiffID, Digest
from ocidiff.values import dataclass


@dataclass(frozen=True, slots=True)
class SquashSummary:
    """The result of making one layer of several.

    Attributes:
        digest: sha256 of the blob as written.
        size: Its length in bytes.
        diff_id: sha256 of the uncompressed tar.
        uncompressed_size: Its length in bytes.
        entries: Tar entries written.
        whiteouts: How many of them are whiteouts.
        skipped: What was left out, by reason: `xattrs.NAMESPACE`, the attributes that no apply sets.
    """

    digest: Digest
    size: int
    diff_id: DiffID
    uncompressed_size: int
    entries: int
    whiteouts: int
    skipped: Mapping[str, int] = field(default_factory=lambda: NOTHING_SKIPPED)


class Squash(Protocol):
    """Makes one layer that does to a base what several do one after another: add them all, base first, then write it.

    Memory is taken for every name, never for contents. After an error it is not to be used.
    """

    def add(self, source: int, limits: Limits, monitor: Monitor) -> LayerMeasure:
        """Read the next layer, and tell what it is.

        Args:
            source: File descriptor to read the blob from; its compression is detected.
            limits: What the layer may not pass.
            monitor: Sees progress, and stops the call.

        Raises:
            MalformedLayerError, UnsafeLayerError, LimitExceededError: As `Engine.apply_layer` does.
            UnsupportedError: As `Engine.apply_layer` does; or a hard link leads to a file of the base.
        """
        ...

    def content_bytes(self) -> list[int]:
        """Return how many bytes of files the new layer gets from each layer."""
        ...

    def write(self, sources: Sequence[int | None], sink: int, options: LayerOptions, monitor: Monitor) -> SquashSummary:
        """Write the new layer.

        Args:
            sources: File descriptor of each layer, to read the blob from once more; None for one without content for it.
            sink: File descriptor that takes the blob, from its current offset.
            options: Of these compression, level, threads, memory_bytes and spool count.
            monitor: Sees progress, and stops the call.

        Raises:
            UnrepresentableError: A directory has the name of a whiteout.
            MalformedLayerError: A layer is another one than before.
        """
        ...
