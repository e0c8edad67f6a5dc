"""One layer between trees and content: the differ that every store uses unless it brings its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from ocidiff.layer.applier import verify
from ocidiff.layer.apply_options import ApplyOptions
from ocidiff.layer.differ import write_layer
from ocidiff.layer.engine import Engine, Lower
from ocidiff.layer.layer import ApplySummary, Layer
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.options import Compression, LayerOptions, OverlayMode, Reuse
from ocidiff.mounts.kernel import directory_of
from ocidiff.mounts.layers import OverlayLayers
from ocidiff.mounts.mount import Mount
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import DiffID
from ocidiff.services import labels
from ocidiff.services.damage import reading_stored
from ocidiff.values import dataclass

if TYPE_CHECKING:
    from ocidiff.layer.split import Split
    from ocidiff.services.content import ContentStore, Ingest, Ingester
    from ocidiff.services.segments import NewTables, SegmentTables

_NO_LABELS: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class LocalDiffer:
    """A `Differ` that reads and writes trees in this process.

    Attributes:
        engine: What does the work.
        overlay: Says if the upper directory of a mounted overlay is read in place of what it shows.
        ref: Name of the ingest of a layer, begun anew; None for one that nobody else knows.
        layer_labels: Labels of a layer, beside its diff ID.
        tables: Returns where segments of older layers are, which is asked only if they are wanted; None if they are nowhere.
    """

    engine: Engine
    overlay: OverlayMode = OverlayMode.AUTO
    ref: str | None = None
    layer_labels: Mapping[str, str] = field(default_factory=lambda: _NO_LABELS)
    tables: Callable[[], SegmentTables | None] = lambda: None

    def compare(
        self,
        lower: Lower | None,
        upper: bytes | OverlayLayers,
        content: Ingester,
        options: LayerOptions,
        monitor: Monitor,
    ) -> Layer | None:
        """See `Differ.compare`."""
        layer = self._store(lower, upper, content, options, monitor, stores_empty=False)
        return None if layer.empty else layer

    def store(
        self,
        lower: Lower | None,
        upper: bytes | OverlayLayers,
        content: Ingester,
        options: LayerOptions,
        monitor: Monitor,
    ) -> Layer:
        """Store a layer as `compare` does, also if it is empty."""
        return self._store(lower, upper, content, options, monitor, stores_empty=True)

    def _store(
        self,
        lower: Lower | None,
        upper: bytes | OverlayLayers,
        content: Ingester,
        options: LayerOptions,
        monitor: Monitor,
        *,
        stores_empty: bool,
    ) -> Layer:
        options = replace(options, spool=content.spool)
        with ExitStack() as stack:
            tables = self.begin_tables(1, options, stack)
            if tables is not None:
                options = replace(options, segments=tables.segments)
            ingest = stack.enter_context(content.ingest(self.ref))
            if self.ref is not None:
                ingest.restart()
            sink = ingest.fileno()
            layer = write_layer(self.engine, lower, upper, sink, options=options, monitor=monitor, overlay=self.overlay)
            if stores_empty or not layer.empty:
                self.commit_layer(layer, ingest, tables, 0, monitor)
            return layer

    def commit_layer(self, layer: Layer, ingest: Ingest, tables: NewTables | None, number: int, monitor: Monitor) -> None:
        """Store a layer, and its table."""
        digest, stored = layer.descriptor.digest, {**self.layer_labels, labels.UNCOMPRESSED: layer.diff_id}
        ingest.commit(layer.descriptor.size, digest, stored, monitor.check)
        if tables is not None:
            tables.keep(digest, number)

    def measure(
        self, lower: Lower | None, upper: bytes | OverlayLayers, count: int, options: LayerOptions, monitor: Monitor
    ) -> Split:
        """See `Differ.measure`."""
        from ocidiff.image.parts import measure_parts

        return measure_parts(self, lower, upper, count, options, monitor)

    def split(
        self,
        lower: Lower | None,
        upper: bytes | OverlayLayers,
        wanted: Sequence[bool],
        content: Ingester,
        options: LayerOptions,
        monitor: Monitor,
    ) -> Split:
        """See `Differ.split`."""
        from ocidiff.image.parts import store_parts

        return store_parts(self, lower, upper, wanted, content, options, monitor)

    def begin_tables(self, count: int, options: LayerOptions, stack: ExitStack) -> NewTables | None:
        """Return new tables of segments, dropped with `stack`; None if layers have none."""
        is_wanted = options.reuse is Reuse.AUTO and options.compression is not Compression.NONE
        tables = self.tables() if is_wanted else None
        return None if tables is None else stack.enter_context(tables.begin(count, proves_all=options.proves_reuse))

    def apply(
        self,
        layer: Descriptor,
        diff_id: DiffID | None,
        mounts: Sequence[Mount],
        content: ContentStore,
        options: ApplyOptions,
        monitor: Monitor,
    ) -> ApplySummary:
        """See `Differ.apply`."""
        with reading_stored(layer.digest):
            with directory_of(mounts) as tree, content.open_blob(layer) as blob:
                summary = self.engine.apply_layer(blob.fileno(), os.fsencode(tree), options, monitor)
            verify(summary, layer.digest, diff_id)
        return summary
