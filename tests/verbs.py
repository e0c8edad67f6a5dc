"""The verbs of an engine, with bytes and plain values instead of descriptors and files."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from ocidiff.layer.engine import Engine
from ocidiff.layer.layer import (
    ApplyOptions,
    ApplySummary,
    Change,
    Compression,
    LayerOptions,
    LayerSummary,
    Limits,
    Monitor,
    OverlayLayers,
    Profile,
)

Place = bytes | str | Path


def diff(engine: Engine, lower: Place | None, upper: Place | OverlayLayers, **options: Any) -> tuple[LayerSummary, bytes]:
    """The layer that turns `lower` into `upper`, and its blob; uncompressed unless the options say else."""
    options.setdefault("compression", Compression.NONE)
    with tempfile.TemporaryFile() as sink:
        summary = engine.write_layer(
            None if lower is None else os.fsencode(lower),
            _upper(upper),
            sink.fileno(),
            LayerOptions(**options),
            Monitor(),
        )
        sink.seek(0)
        return summary, sink.read()


def changes(engine: Engine, lower: Place | None, upper: Place | OverlayLayers, profile: Profile) -> list[tuple[str, bytes]]:
    """Kind and relative path of each change, in order."""
    below = None if lower is None else os.fsencode(lower)
    found = engine.changes(below, _upper(upper), LayerOptions(profile=profile))
    return [(str(change.kind), os.fsencode(change.path)[1:]) for change in found]


def explained(engine: Engine, lower: Place | None, upper: Place | OverlayLayers, **options: Any) -> list[Change]:
    """The changes, each with its reason and sizes."""
    below = None if lower is None else os.fsencode(lower)
    return list(engine.changes(below, _upper(upper), LayerOptions(**options), explain=True))


def apply(engine: Engine, blob: bytes, target: Place, **options: Any) -> ApplySummary:
    """Apply a layer onto a directory; options that begin with `max_` are limits."""
    limits = Limits(**{key: options.pop(key) for key in list(options) if key.startswith("max_")})
    with tempfile.TemporaryFile() as source:
        source.write(blob)
        source.seek(0)
        return engine.apply_layer(source.fileno(), os.fsencode(target), ApplyOptions(**options, limits=limits), Monitor())


def _upper(upper: Place | OverlayLayers) -> bytes | OverlayLayers:
    return upper if isinstance(upper, OverlayLayers) else os.fsencode(upper)
