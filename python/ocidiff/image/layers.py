"""One layer between trees and content: the differ that every store uses unless it brings its own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from ocidiff.layer.applier import verify
from ocidiff.layer.differ import write_layer
from ocidiff.layer.engine import Engine, Lower
from ocidiff.layer.layer import ApplySummary, Layer
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.options import ApplyOptions, LayerOptions, OverlayMode
from ocidiff.mounts.kernel import directory_of
from ocidiff.mounts.layers import OverlayLayers
from ocidiff.mounts.mount import Mount
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import DiffID
from ocidiff.services import labels
from ocidiff.services.content import ContentStore
from ocidiff.values import dataclass


@dataclass(frozen=True, slots=True)
class LocalDiffer:
    """A `Differ` that reads and writes trees in this process.

    Attributes:
        engine: What does the work.
        overlay: Says if the upper directory of a mounted overlay is read in place of what it shows.
    """

    engine: Engine
    overlay: OverlayMode = OverlayMode.AUTO

    def compare(
        self,
        lower: Lower | None,
        upper: bytes | OverlayLayers,
        content: ContentStore,
        options: LayerOptions,
        monitor: Monitor,
    ) -> Layer | None:
        """See `Differ.compare`."""
        options = replace(options, spool=content.spool)
        with content.ingest() as ingest:
            sink = ingest.fileno()
            layer = write_layer(self.engine, lower, upper, sink, options=options, monitor=monitor, overlay=self.overlay)
            if layer.empty:
                return None
            ingest.commit(layer.descriptor.size, layer.descriptor.digest, {labels.UNCOMPRESSED: layer.diff_id})
            return layer

    def apply(
        self,
        layer: Descriptor,
        diff_id: DiffID,
        mounts: Sequence[Mount],
        content: ContentStore,
        options: ApplyOptions,
        monitor: Monitor,
    ) -> ApplySummary:
        """See `Differ.apply`."""
        with directory_of(mounts) as tree, content.open_blob(layer) as blob:
            summary = self.engine.apply_layer(blob.fileno(), os.fsencode(tree), options, monitor)
        verify(summary, layer.digest, diff_id)
        return summary
