"""The two engines behind the verbs, and which one is used."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from ocidiff.errors import UsageError
from ocidiff.layer.layer import (
    ApplySummary,
    Change,
    IndexPath,
    IndexSummary,
    LayerMeasure,
    LayerSummary,
    TarSummary,
)
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.options import ENGINES, EngineName, LayerOptions
from ocidiff.mounts.layers import OverlayLayers

if TYPE_CHECKING:
    from ocidiff.layer.apply_options import ApplyOptions, IndexOptions
    from ocidiff.layer.limits import Limits
    from ocidiff.layer.split import SplitSummary
    from ocidiff.layer.squash import Squash

Lower = bytes | IndexPath
Upper = bytes | OverlayLayers | IndexPath


class Engine(Protocol):
    """Reads and writes the bytes and inodes of a layer. Both engines give the same tar for every input."""

    @property
    def encoder(self) -> str:
        """Return the name of the encoder. Equal tars, compressions, levels and encoders give equal blobs."""
        ...

    def write_layer(
        self, lower: Lower | None, upper: Upper, sink: int, options: LayerOptions, monitor: Monitor
    ) -> LayerSummary:
        """Write the layer that turns `lower` into `upper`.

        Args:
            lower: Path of the parent tree, or an index of it; None for no parent, so that all is added.
            upper: Path of the changed tree; or an overlay, whose lowerdirs are then the parent tree, and `lower` is None. An
                index has no contents for a layer.
            sink: File descriptor that takes the blob, from its current offset.
            options: What the layer shall be.
            monitor: Sees progress, and stops the call.

        Raises:
            OverlayError: The directories of the overlay cannot be read without mounting it; nothing was written.
            IndexFileError: The index is none, or a broken one.
        """
        ...

    def write_layers(
        self, lower: Lower | None, upper: Upper, sinks: Sequence[int | None], options: LayerOptions, monitor: Monitor
    ) -> SplitSummary:
        """Write the change from `lower` to `upper` as layers that hold it together.

        Args:
            lower: See `write_layer`.
            upper: See `write_layer`.
            sinks: File descriptor of each layer, lowest first; None for one that is left out: the contents of its files are
                not read. Their number, 1 to 16, says which layer a path is in.
            options: What the layers shall be; `copy` has no effect.
            monitor: Sees progress, and stops the call.

        Raises:
            OverlayError, IndexFileError: As `write_layer` does.
        """
        ...

    def changes(
        self, lower: Lower | None, upper: Upper, options: LayerOptions, *, explain: bool = False
    ) -> Generator[Change, None, Mapping[str, int]]:
        """The changes from `lower` to `upper`, lazily, in layer order; in the end what is left out, by reason.

        Args:
            lower: See `write_layer`.
            upper: See `write_layer`; it may be an index.
            options: Of these profile, threads, ids and on_change count.
            explain: Tell why each is a change, and of how many bytes: contents are then compared that need not be.
        """
        ...

    def write_index(self, tree: bytes, sink: int, options: IndexOptions, monitor: Monitor) -> IndexSummary:
        """Write the index of a tree.

        Args:
            tree: Path of the tree.
            sink: File descriptor that takes the index, from its current offset.
            options: How the index is made.
            monitor: Sees progress, and stops the call.
        """
        ...

    def write_index_of_layers(
        self, layers: Sequence[int], sink: int, options: IndexOptions, limits: Limits, monitor: Monitor
    ) -> tuple[IndexSummary, list[LayerMeasure]]:
        """Write the index of the tree that layers unpack to, with owners; and tell what the layers were.

        Args:
            layers: File descriptors to read the blobs from, base first; their compression is detected.
            sink: File descriptor that takes the index, from its current offset.
            options: How the index is made; of these `chain_id` and `sha256` count.
            limits: What all of them together may not pass.
            monitor: Sees progress, and stops the call.
        """
        ...

    def squash(self, *, onto_base: bool) -> Squash:
        """Begin to make one layer of several.

        Args:
            onto_base: True if the layer goes onto others: it then says what is gone of them. False if it is the first one.
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

    def measure_layer(self, source: int, limits: Limits, monitor: Monitor) -> LayerMeasure:
        """Return what a layer is, without writing it anywhere; its entries are read, and not judged.

        Args:
            source: File descriptor to read the blob from; its compression is detected.
            limits: What the layer may not pass.
            monitor: Sees progress, and stops the call.

        Raises:
            MalformedLayerError, LimitExceededError, UnsupportedError: As `apply_layer` does.
        """
        ...

    def write_tar(self, source: int, sink: int, limits: Limits, monitor: Monitor) -> TarSummary:
        """Write the plain tar of a layer; its entries are not read.

        Args:
            source: File descriptor to read the blob from; its compression is detected.
            sink: File descriptor that takes the tar, from its current offset.
            limits: What the layer may not pass: bytes and ratio.
            monitor: Sees progress, and stops the call.
        """
        ...


def select_engine(name: EngineName | None = None) -> Engine:
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
