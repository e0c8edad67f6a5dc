"""The verbs of an engine, with bytes and plain values instead of descriptors and files."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ocidiff.layer.apply_options import ApplyOptions, IndexOptions
from ocidiff.layer.engine import Engine
from ocidiff.layer.layer import (
    ApplySummary,
    Change,
    IndexPath,
    IndexSummary,
    LayerMeasure,
    LayerSummary,
)
from ocidiff.layer.limits import Limits
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.options import Compression, LayerOptions, Profile
from ocidiff.layer.split import SplitSummary
from ocidiff.layer.squash import SquashSummary
from ocidiff.mounts.layers import OverlayLayers

Place = bytes | str | Path


def diff(
    engine: Engine, lower: Place | IndexPath | None, upper: Place | OverlayLayers, **options: Any
) -> tuple[LayerSummary, bytes]:
    """The layer that turns `lower` into `upper`, and its blob; uncompressed unless the options say else."""
    options.setdefault("compression", Compression.NONE)
    with tempfile.TemporaryFile() as sink:
        summary = engine.write_layer(
            None if lower is None else _lower(lower),
            _upper(upper),
            sink.fileno(),
            LayerOptions(**options),
            Monitor(),
        )
        sink.seek(0)
        return summary, sink.read()


def split(
    engine: Engine,
    lower: Place | IndexPath | None,
    upper: Place | OverlayLayers,
    wanted: Sequence[bool],
    **options: Any,
) -> tuple[SplitSummary, list[bytes | None]]:
    """The layers that turn `lower` into `upper` together, and their blobs, without those that are not wanted."""
    options.setdefault("compression", Compression.NONE)
    with ExitStack() as stack:
        sinks = [stack.enter_context(tempfile.TemporaryFile()) if is_wanted else None for is_wanted in wanted]
        numbers = [None if sink is None else sink.fileno() for sink in sinks]
        below = None if lower is None else _lower(lower)
        summary = engine.write_layers(below, _upper(upper), numbers, LayerOptions(**options), Monitor())
        for sink in sinks:
            if sink is not None:
                sink.seek(0)
        return summary, [None if sink is None else sink.read() for sink in sinks]


def changes(
    engine: Engine, lower: Place | IndexPath | None, upper: Place | OverlayLayers | IndexPath, profile: Profile
) -> list[tuple[str, bytes]]:
    """Kind and relative path of each change, in order."""
    below = None if lower is None else _lower(lower)
    above = upper if isinstance(upper, IndexPath) else _upper(upper)
    found = engine.changes(below, above, LayerOptions(profile=profile))
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


def index(
    engine: Engine,
    tree: Place,
    *,
    sha256: bool = False,
    stamps: bool = False,
    cross_mounts: bool = False,
    threads: int = 0,
) -> bytes:
    """The index of a tree."""
    options = IndexOptions(sha256=sha256, stamps=stamps, cross_mounts=cross_mounts, threads=threads)
    return _index(engine, tree, options)[1]


def index_summary(engine: Engine, tree: Place) -> IndexSummary:
    """What is known once a tree is indexed."""
    return _index(engine, tree, IndexOptions())[0]


def _index(engine: Engine, tree: Place, options: IndexOptions) -> tuple[IndexSummary, bytes]:
    with tempfile.TemporaryFile() as sink:
        summary = engine.write_index(os.fsencode(tree), sink.fileno(), options, Monitor())
        sink.seek(0)
        return summary, _checked(summary, sink.read())


def index_of_layers(engine: Engine, blobs: Iterable[bytes], *, sha256: bool = False) -> tuple[bytes, list[LayerMeasure]]:
    """The index of what layers unpack to, and what the layers were."""
    summary, data, measures = _index_of_layers(engine, blobs, sha256=sha256)
    return _checked(summary, data), measures


def summary_of_layers(engine: Engine, blobs: Iterable[bytes]) -> IndexSummary:
    """What is known once layers are indexed."""
    return _index_of_layers(engine, blobs, sha256=False)[0]


def _index_of_layers(
    engine: Engine, blobs: Iterable[bytes], *, sha256: bool
) -> tuple[IndexSummary, bytes, list[LayerMeasure]]:
    with ExitStack() as stack:
        sink, *sources = (stack.enter_context(tempfile.TemporaryFile()) for _ in [b"", *blobs])
        for source, blob in zip(sources, blobs, strict=True):
            source.write(blob)
            source.seek(0)
        numbers = [source.fileno() for source in sources]
        how = IndexOptions(sha256=sha256)
        summary, measures = engine.write_index_of_layers(numbers, sink.fileno(), how, Limits(), Monitor())
        sink.seek(0)
        return summary, sink.read(), measures


def squash(
    engine: Engine, blobs: Iterable[bytes], *, onto_base: bool = False, **options: Any
) -> tuple[SquashSummary, bytes, list[LayerMeasure]]:
    """The layer that does what several do, and what these were; uncompressed unless the options say else."""
    options.setdefault("compression", Compression.NONE)
    squash, measures = engine.squash(onto_base=onto_base), []
    with ExitStack() as stack:
        sink, *sources = (stack.enter_context(tempfile.TemporaryFile()) for _ in [b"", *blobs])
        for source, blob in zip(sources, blobs, strict=True):
            source.write(blob)
            source.seek(0)
            measures.append(squash.add(source.fileno(), Limits(), Monitor()))
            source.seek(0)
        wanted = squash.content_bytes()
        numbers = [source.fileno() if count else None for source, count in zip(sources, wanted, strict=True)]
        summary = squash.write(numbers, sink.fileno(), LayerOptions(**options), Monitor())
        sink.seek(0)
        return summary, sink.read(), measures


@contextmanager
def saved_index(data: bytes) -> Iterator[IndexPath]:
    """An index in a file, for as long as it is used."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        yield IndexPath(os.fsencode(file.name))


def _checked(summary: IndexSummary, data: bytes) -> bytes:
    assert (summary.size, summary.digest) == (len(data), f"sha256:{hashlib.sha256(data).hexdigest()}")
    return data


def _lower(lower: Place | IndexPath) -> bytes | IndexPath:
    return lower if isinstance(lower, IndexPath) else os.fsencode(lower)


def _upper(upper: Place | OverlayLayers) -> bytes | OverlayLayers:
    return upper if isinstance(upper, OverlayLayers) else os.fsencode(upper)
