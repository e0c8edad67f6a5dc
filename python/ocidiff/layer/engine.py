"""The two engines behind the verbs, and which one is used."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from typing import Protocol

from ocidiff.errors import UsageError
from ocidiff.layer.layer import (
    ApplyOptions,
    ApplySummary,
    Change,
    LayerMeasure,
    LayerOptions,
    LayerSummary,
    Monitor,
    OverlayLayers,
)

ENGINES = ("rust", "pure")


class Engine(Protocol):
    """What reads and writes the bytes and inodes of a layer. Both engines give the same bytes for every input."""

    def write_layer(
        self, lower: bytes | None, upper: bytes | OverlayLayers, sink: int, options: LayerOptions, monitor: Monitor
    ) -> LayerSummary:
        """Write the layer that turns `lower` into `upper`.

        Args:
            lower: Path of the parent tree; None for no parent, so that all is added.
            upper: Path of the changed tree; or an overlay, whose lowerdirs are then the parent tree, and `lower` is None.
            sink: File descriptor that takes the blob, from its current offset.
            options: What the layer shall be.
            monitor: Sees progress, and stops the call.

        Raises:
            OverlayError: The directories of the overlay cannot be read without mounting it; nothing was written.
        """
        ...

    def changes(
        self, lower: bytes | None, upper: bytes | OverlayLayers, options: LayerOptions, *, explain: bool = False
    ) -> Iterator[Change]:
        """The changes from `lower` to `upper`, lazily, in layer order.

        Args:
            lower: See `write_layer`.
            upper: See `write_layer`.
            options: Of these profile, threads and ids count.
            explain: Tell why each is a change, and of how many bytes: contents are then compared that need not be.
        """
        ...

    def apply_layer(self, source: int, target: bytes, options: ApplyOptions, monitor: Monitor) -> ApplySummary:
        """Write a layer onto a directory.

        Args:
            source: File descriptor to read the blob from; its compression is detected.
            target: Path of the directory, which exists.
            options: How it is written.
            monitor: Sees progress, and stops the call.
        """
        ...

    def measure_layer(self, source: int, monitor: Monitor) -> LayerMeasure:
        """What a blob is, without writing it anywhere; what is in its tar is not looked at.

        Args:
            source: File descriptor to read the blob from; its compression is detected.
            monitor: Sees progress, and stops the call.
        """
        ...


def select_engine(name: str | None = None) -> Engine:
    """The engine `name`, else the one of `OCIDIFF_ENGINE`, else Rust where it is built and pure Python elsewhere.

    Raises:
        UsageError: There is no engine of that name.
    """
    chosen = name or os.environ.get("OCIDIFF_ENGINE") or ("rust" if importlib.util.find_spec("ocidiff._core") else "pure")
    if chosen == "rust":
        from ocidiff.layer.rust import RustEngine

        return RustEngine()
    if chosen == "pure":
        from ocidiff.layer.pure import PureEngine

        return PureEngine()
    raise UsageError(f"engine {chosen!r}: there are {' and '.join(ENGINES)}")
