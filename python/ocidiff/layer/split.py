"""Split: one change as several layers that hold it together, written in one pass."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ocidiff.layer.differ import describe, write_trees
from ocidiff.layer.engine import Engine, Lower, Upper
from ocidiff.layer.layer import Layer, LayerSummary
from ocidiff.layer.monitor import Monitor, check_size
from ocidiff.layer.options import LayerOptions, OverlayMode
from ocidiff.values import dataclass


@dataclass(frozen=True, slots=True)
class SplitSummary:
    """The result of writing one change as several layers.

    Attributes:
        layers: The layers, lowest first; None for one that was left out. What is counted of the whole change stands with the
            first: what was skipped, retried and vanished.
        placement: Hash of which names are one file, and which files are large. Two calls of one engine with different hashes
            may have assigned names to other layers.
    """

    layers: tuple[LayerSummary | None, ...]
    placement: bytes


@dataclass(frozen=True, slots=True)
class Split:
    """The layers of one change.

    Attributes:
        layers: The layers, lowest first; None for one that was left out. The first one has what is counted of the whole
            change, and its time.
        placement: See `SplitSummary`.
    """

    layers: tuple[Layer | None, ...]
    placement: bytes


def write_layers(
    engine: Engine,
    lower: Lower | None,
    upper: Upper,
    sinks: Sequence[int | None],
    *,
    options: LayerOptions,
    monitor: Monitor,
    overlay: OverlayMode = OverlayMode.AUTO,
) -> Split:
    """Write one change as layers; arguments as in `Engine.write_layers`, errors as in `diff`."""
    started = time.monotonic()

    def write(lower: Lower | None, upper: Upper, monitor: Monitor) -> SplitSummary:
        return engine.write_layers(lower, upper, sinks, options, monitor)

    summary = write_trees(lower, upper, write, options, monitor, overlay)
    check_size(sum(layer.uncompressed_size for layer in summary.layers if layer is not None), options.fail_above)
    seconds, layers = time.monotonic() - started, list[Layer | None]()
    for layer in summary.layers:
        layers.append(None if layer is None else describe(layer, options, seconds))
        seconds = seconds if layer is None else 0
    return Split(tuple(layers), summary.placement)
