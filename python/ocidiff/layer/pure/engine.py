"""`PureEngine`: the two verbs as one pass each, put together from the rooms beside this file."""

from __future__ import annotations

import os
import zlib
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

from ocidiff.errors import SourceChangedError, UsageError
from ocidiff.frozen import FrozenMapping
from ocidiff.layer.apply_options import ApplyOptions, IndexOptions
from ocidiff.layer.engine import Lower, Upper
from ocidiff.layer.layer import (
    NOTHING_SKIPPED,
    ApplySummary,
    Change,
    ChangeKind,
    IndexPath,
    IndexSummary,
    LayerMeasure,
    LayerSummary,
    Reason,
    TarSummary,
)
from ocidiff.layer.limits import Limits
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.options import MOST_LAYERS, LayerOptions
from ocidiff.layer.pure import indexer, sentences
from ocidiff.layer.pure.apply import Applier
from ocidiff.layer.pure.change import AnyTree, Event, events
from ocidiff.layer.pure.explain import Carried, reasons, sizes
from ocidiff.layer.pure.index_tree import IndexTree
from ocidiff.layer.pure.live import Live
from ocidiff.layer.pure.overlay import OverlayTree
from ocidiff.layer.pure.pace import BLOCK_BYTES, Pace
from ocidiff.layer.pure.record import Recorder
from ocidiff.layer.pure.root import Root
from ocidiff.layer.pure.scope import Narrowing
from ocidiff.layer.pure.squash import PureSquash
from ocidiff.layer.pure.stream import BlobReader, BlobWriter
from ocidiff.layer.pure.tar_reader import TarReader
from ocidiff.layer.pure.tree import Node, Tree
from ocidiff.layer.split import SplitSummary
from ocidiff.mounts.layers import OverlayLayers
from ocidiff.output import write_all


class PureEngine:
    """Walks, compares, packs and unpacks in one thread, with memory that does not grow with files or trees."""

    @property
    def encoder(self) -> str:
        """See `Engine.encoder`."""
        return f"pure {zlib.ZLIB_RUNTIME_VERSION}"

    def write_layer(
        self, lower: Lower | None, upper: Upper, sink: int, options: LayerOptions, monitor: Monitor
    ) -> LayerSummary:
        """See `Engine.write_layer`."""
        layer = self._write(lower, upper, [sink], options, monitor).layers[0]
        assert layer is not None  # noqa: S101 - it has a sink
        return layer

    def write_layers(
        self, lower: Lower | None, upper: Upper, sinks: Sequence[int | None], options: LayerOptions, monitor: Monitor
    ) -> SplitSummary:
        """See `Engine.write_layers`."""
        if not 1 <= len(sinks) <= MOST_LAYERS:
            what, choices = f"layers {len(sinks)}", f"1 to {MOST_LAYERS}"
            raise UsageError(sentences.NOT_A_CHOICE.format(what=what, choices=choices))
        return self._write(lower, upper, sinks, replace(options, copy=None), monitor)

    def _write(
        self, lower: Lower | None, upper: Upper, sinks: Sequence[int | None], options: LayerOptions, monitor: Monitor
    ) -> SplitSummary:
        pace = Pace(monitor)
        with ExitStack() as stack:
            below, above = _open(lower, upper, options, pace, stack)
            if isinstance(above, IndexTree):
                raise UsageError(sentences.INDEX_AS_UPPER)
            blobs = [
                None if sink is None else BlobWriter(sink, options.compression, options.level, pace, options.copy)
                for sink in sinks
            ]
            live, narrowing = Live(options.on_change, pace), Narrowing(options.scope)
            recorder = Recorder(above, blobs, options, live)
            counts = [Counter[ChangeKind | None]() for _ in sinks]
            for event in events(below, above, pace, options, narrowing, live):
                kind = recorder.record(event)
                counts[recorder.at][kind] += 1
            recorder.finish()
        pace.report()
        options.scope.warn_of_unfitted(narrowing.fitted, upper)
        left_out = {"excluded": narrowing.excluded, "mounts": narrowing.mounts, "sockets": recorder.sockets}
        skipped = FrozenMapping({reason: count for reason, count in {**left_out, **recorder.lost}.items() if count})
        layers: list[LayerSummary | None] = []
        for number, blob in enumerate(blobs):
            if blob is None:
                layers.append(None)
                continue
            is_first = not any(layers)
            layers.append(
                LayerSummary(
                    blob.digest,
                    blob.size,
                    blob.diff_id,
                    blob.plain_size,
                    counts[number][ChangeKind.ADD],
                    counts[number][ChangeKind.MODIFY],
                    counts[number][ChangeKind.DELETE],
                    recorder.entries[number],
                    skipped if is_first else NOTHING_SKIPPED,
                    live.retried if is_first else 0,
                    live.vanished if is_first else 0,
                )
            )
        return SplitSummary(tuple(layers), recorder.placement.digest())

    def changes(
        self, lower: Lower | None, upper: Upper, options: LayerOptions, *, explain: bool = False
    ) -> Generator[Change, None, Mapping[str, int]]:
        """See `Engine.changes`."""
        pace, carried, lost = Pace(Monitor()), Carried(options.profile), Counter[str]()
        with ExitStack() as stack:
            below, above = _open(lower, upper, options, pace, stack)
            live, narrowing = Live(options.on_change, pace), Narrowing(options.scope)
            for event in events(below, above, pace, options, narrowing, live):
                if event.kind is not None:
                    layer_bytes, is_first = carried.next(event.node)
                    if event.node is not None and is_first:
                        lost.update(_lost(event.node, above, live))
                    reason = _reasons(event, below, above, options, live) if explain else ()
                    upper_bytes, lower_bytes = sizes(event, below, pace) if explain else (None, None)
                    path = "/" + os.fsdecode(event.path)
                    yield Change(event.kind, path, reason, upper_bytes, lower_bytes, layer_bytes)

        options.scope.warn_of_unfitted(narrowing.fitted, upper)
        left_out = {"excluded": narrowing.excluded, "mounts": narrowing.mounts, **lost}
        return {reason: count for reason, count in left_out.items() if count}

    def write_index(self, tree: bytes, sink: int, options: IndexOptions, monitor: Monitor) -> IndexSummary:
        """See `Engine.write_index`."""
        return indexer.write_index(tree, sink, options, Pace(monitor))

    def write_index_of_layers(
        self, layers: Sequence[int], sink: int, options: IndexOptions, limits: Limits, monitor: Monitor
    ) -> tuple[IndexSummary, list[LayerMeasure]]:
        """See `Engine.write_index_of_layers`."""
        return indexer.write_index_of_layers(layers, sink, options, limits, Pace(monitor))

    def squash(self, *, onto_base: bool) -> PureSquash:
        """See `Engine.squash`."""
        return PureSquash(onto_base=onto_base)

    def apply_layer(self, source: int, target: bytes, options: ApplyOptions, monitor: Monitor) -> ApplySummary:
        """See `Engine.apply_layer`."""
        pace = Pace(monitor)
        blob = BlobReader(source, options.limits, pace)
        with Root(target, pace) as root, Applier(root, options) as applier:
            archive = TarReader(blob, options.limits)
            for entry in archive.entries():
                pace.entry()
                applier.apply(entry, archive.data())
            if options.is_upper:
                archive.check_end()
            applier.finish()
        blob.drain()
        pace.report()
        return ApplySummary(
            blob.digest,
            blob.size,
            blob.diff_id,
            blob.plain_size,
            archive.holes,
            applier.has_root,
            archive.count,
            applier.whiteouts,
            FrozenMapping({reason: count for reason, count in applier.skipped.items() if count}),
            applier.recorded,
        )

    def measure_layer(self, source: int, limits: Limits, monitor: Monitor) -> LayerMeasure:
        """See `Engine.measure_layer`."""
        pace = Pace(monitor)
        blob = BlobReader(source, limits, pace)
        archive = TarReader(blob, limits)
        for _ in archive.entries():
            pace.entry()
        blob.drain()
        pace.report()
        return LayerMeasure(blob.digest, blob.size, blob.diff_id, blob.plain_size, archive.holes, archive.count)

    def write_tar(self, source: int, sink: int, limits: Limits, monitor: Monitor) -> TarSummary:
        """See `Engine.write_tar`."""
        pace = Pace(monitor)
        blob = BlobReader(source, limits, pace)
        while data := blob.read(BLOCK_BYTES):
            write_all(sink, data)
        pace.report()
        return TarSummary(blob.digest, blob.size, blob.diff_id, blob.plain_size)


def _lost(node: Node, upper: AnyTree, live: Live) -> Counter[str]:
    """The attributes of a changed entry that the profile leaves out; nothing when it has changed again."""
    try:
        return upper.lost(node)
    except (OSError, SourceChangedError) as error:
        if not live.allows(error):
            raise
        return Counter()


def _reasons(event: Event, lower: AnyTree | None, upper: AnyTree, options: LayerOptions, live: Live) -> tuple[Reason, ...]:
    """Why an event is one; nothing when it has changed again."""
    try:
        return tuple(reasons(event, lower, upper, options))
    except (OSError, SourceChangedError) as error:
        if not live.allows(error):
            raise
        return ()


def _open(
    lower: Lower | None, upper: Upper, options: LayerOptions, pace: Pace, stack: ExitStack
) -> tuple[AnyTree | None, AnyTree]:
    """The two trees to compare, closed with `stack`."""
    if isinstance(upper, OverlayLayers):
        below, above = (OverlayTree(upper, first, options, pace) for first in (1, 0))
        return stack.enter_context(below), stack.enter_context(above)

    def enter(tree: bytes | IndexPath, options: LayerOptions) -> AnyTree:
        if isinstance(tree, IndexPath):
            return stack.enter_context(IndexTree(tree.path, options.profile, pace))
        return stack.enter_context(Tree(tree, options, pace))

    return None if lower is None else enter(lower, options.of_lower), enter(upper, options)
