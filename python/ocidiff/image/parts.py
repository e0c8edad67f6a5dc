"""Parts: the layers of a split change between trees and content."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from ocidiff.layer.engine import Lower
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.options import Compression, LayerOptions
from ocidiff.layer.split import Split, write_layers
from ocidiff.mounts.layers import OverlayLayers
from ocidiff.services.content import Ingester

if TYPE_CHECKING:
    from ocidiff.image.layers import LocalDiffer


def measure_parts(
    differ: LocalDiffer,
    lower: Lower | None,
    upper: bytes | OverlayLayers,
    count: int,
    options: LayerOptions,
    monitor: Monitor,
) -> Split:
    """See `Differ.measure`."""
    options = replace(options, compression=Compression.NONE, level=None)
    with open(os.devnull, "wb") as sink:
        sinks = [sink.fileno()] * count
        return write_layers(differ.engine, lower, upper, sinks, options=options, monitor=monitor, overlay=differ.overlay)


def store_parts(
    differ: LocalDiffer,
    lower: Lower | None,
    upper: bytes | OverlayLayers,
    wanted: Sequence[bool],
    content: Ingester,
    options: LayerOptions,
    monitor: Monitor,
) -> Split:
    """See `Differ.split`."""
    with ExitStack() as stack:
        tables = differ.begin_tables(len(wanted), options, stack)
        if tables is not None:
            options = replace(options, segments=tables.segments)
        ingests = [stack.enter_context(content.ingest()) if is_wanted else None for is_wanted in wanted]
        sinks = [None if ingest is None else ingest.fileno() for ingest in ingests]
        done = write_layers(differ.engine, lower, upper, sinks, options=options, monitor=monitor, overlay=differ.overlay)
        for number, (layer, ingest) in enumerate(zip(done.layers, ingests, strict=True)):
            if layer is not None and ingest is not None and not layer.empty:
                differ.commit_layer(layer, ingest, tables, number, monitor)
        return done
