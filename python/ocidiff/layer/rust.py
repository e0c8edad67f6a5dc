"""The Rust engine: the only file that imports `ocidiff._core`."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING

from ocidiff import _core
from ocidiff.frozen import FrozenMapping
from ocidiff.layer.engine import Lower, Upper
from ocidiff.layer.layer import (
    ApplySummary,
    Change,
    ChangeKind,
    IndexSummary,
    LayerMeasure,
    LayerSummary,
    Reason,
    TarSummary,
)
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.options import LayerOptions
from ocidiff.oci.digest import DiffID, Digest

if TYPE_CHECKING:
    from ocidiff.layer.apply_options import ApplyOptions, IndexOptions
    from ocidiff.layer.limits import Limits
    from ocidiff.layer.split import SplitSummary
    from ocidiff.layer.squash import SquashSummary


class RustEngine:
    """Walks, compares, packs and unpacks on all cores."""

    @property
    def encoder(self) -> str:
        """See `Engine.encoder`."""
        return f"rust {_core.__version__} {_core.ENCODERS}"

    def write_layer(
        self, lower: Lower | None, upper: Upper, sink: int, options: LayerOptions, monitor: Monitor
    ) -> LayerSummary:
        """See `Engine.write_layer`."""
        done = _core.write_layer(lower, upper, sink, options, monitor.poll)
        options.scope.warn_of_unfitted(int.from_bytes(done.fitted, "little"), upper)
        return _layer(done)

    def write_layers(
        self, lower: Lower | None, upper: Upper, sinks: Sequence[int | None], options: LayerOptions, monitor: Monitor
    ) -> SplitSummary:
        """See `Engine.write_layers`."""
        from ocidiff.layer.split import SplitSummary

        done = _core.write_layers(lower, upper, sinks, options, monitor.poll)
        options.scope.warn_of_unfitted(int.from_bytes(done.fitted, "little"), upper)
        layers = tuple(None if layer is None else _layer(layer) for layer in done.layers)
        return SplitSummary(layers, bytes(done.placement))

    def changes(
        self, lower: Lower | None, upper: Upper, options: LayerOptions, *, explain: bool = False
    ) -> Generator[Change, None, Mapping[str, int]]:
        """See `Engine.changes`."""
        stream = _core.ChangeStream(lower, upper, options, explain)
        try:
            for batch in stream:
                for change in batch:
                    yield Change(
                        ChangeKind(change.kind),
                        os.fsdecode(change.path),
                        tuple(map(Reason, change.reasons)),
                        change.upper_bytes,
                        change.lower_bytes,
                        change.layer_bytes,
                    )
            options.scope.warn_of_unfitted(int.from_bytes(stream.fitted(), "little"), upper)
            return FrozenMapping(stream.skipped())
        finally:
            stream.close()

    def write_index(self, tree: bytes, sink: int, options: IndexOptions, monitor: Monitor) -> IndexSummary:
        """See `Engine.write_index`."""
        return _index(_core.write_index(tree, sink, options, monitor.poll))

    def write_index_of_layers(
        self, layers: Sequence[int], sink: int, options: IndexOptions, limits: Limits, monitor: Monitor
    ) -> tuple[IndexSummary, list[LayerMeasure]]:
        """See `Engine.write_index_of_layers`."""
        done, measures = _core.write_index_of_layers(layers, sink, options, limits, monitor.poll)
        return _index(done), list(map(_measure, measures))

    def squash(self, *, onto_base: bool) -> RustSquash:
        """See `Engine.squash`."""
        return RustSquash(onto_base=onto_base)

    def apply_layer(self, source: int, target: bytes, options: ApplyOptions, monitor: Monitor) -> ApplySummary:
        """See `Engine.apply_layer`."""
        done = _core.apply_layer(source, target, options, monitor.poll)
        return ApplySummary(
            Digest(done.digest),
            done.size,
            DiffID(done.diff_id),
            done.uncompressed_size,
            done.holes,
            done.has_root,
            done.entries,
            done.whiteouts,
            FrozenMapping(done.skipped),
            done.recorded,
        )

    def measure_layer(self, source: int, limits: Limits, monitor: Monitor) -> LayerMeasure:
        """See `Engine.measure_layer`."""
        return _measure(_core.measure_layer(source, limits, monitor.poll))

    def write_tar(self, source: int, sink: int, limits: Limits, monitor: Monitor) -> TarSummary:
        """See `Engine.write_tar`."""
        done = _core.write_tar(source, sink, limits, monitor.poll)
        return TarSummary(Digest(done.digest), done.size, DiffID(done.diff_id), done.uncompressed_size)


class RustSquash:
    """See `Squash`."""

    def __init__(self, *, onto_base: bool) -> None:
        self._squash = _core.Squash(onto_base)

    def add(self, source: int, limits: Limits, monitor: Monitor) -> LayerMeasure:
        """See `Squash.add`."""
        return _measure(self._squash.add(source, limits, monitor.poll))

    def content_bytes(self) -> list[int]:
        """See `Squash.content_bytes`."""
        return self._squash.content_bytes()

    def write(self, sources: Sequence[int | None], sink: int, options: LayerOptions, monitor: Monitor) -> SquashSummary:
        """See `Squash.write`."""
        from ocidiff.layer.squash import SquashSummary

        done = self._squash.write(sources, sink, options, monitor.poll)
        return SquashSummary(
            Digest(done.digest),
            done.size,
            DiffID(done.diff_id),
            done.uncompressed_size,
            done.entries,
            done.whiteouts,
            FrozenMapping(done.skipped),
        )


def _layer(done: _core.LayerSummary) -> LayerSummary:
    return LayerSummary(
        Digest(done.digest),
        done.size,
        DiffID(done.diff_id),
        done.uncompressed_size,
        done.added,
        done.modified,
        done.deleted,
        done.entries,
        FrozenMapping(done.skipped),
        done.retried,
        done.vanished,
        done.reused_bytes,
    )


def _measure(done: _core.LayerMeasure) -> LayerMeasure:
    return LayerMeasure(
        Digest(done.digest), done.size, DiffID(done.diff_id), done.uncompressed_size, done.holes, done.entries
    )


def _index(done: _core.IndexSummary) -> IndexSummary:
    return IndexSummary(Digest(done.digest), done.size, done.entries, done.file_bytes, FrozenMapping(done.skipped))
