"""The Rust engine: the only file that imports `ocidiff._core`."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ocidiff import _core
from ocidiff.layer.layer import (
    ApplyOptions,
    ApplySummary,
    Change,
    ChangeKind,
    LayerMeasure,
    LayerOptions,
    LayerSummary,
    Monitor,
    OverlayLayers,
    Reason,
)
from ocidiff.oci.digest import DiffID, Digest

_Upper = bytes | OverlayLayers


class RustEngine:
    """Walks, compares, packs and unpacks on all cores."""

    def write_layer(
        self, lower: bytes | None, upper: _Upper, sink: int, options: LayerOptions, monitor: Monitor
    ) -> LayerSummary:
        """See `Engine.write_layer`."""
        tree, overlay = _overlay(upper)
        digest, size, diff_id, plain, added, modified, deleted, entries, skipped = _core.write_layer(
            lower,
            tree,
            sink,
            overlay=overlay,
            ids=_ids(options),
            scope=_scope(options),
            compression=options.compression,
            level=options.level,
            threads=options.threads,
            profile=options.profile,
            lower_from_layers=options.lower_from_layers,
            source_date_epoch=options.source_date_epoch,
            poll=monitor.poll,
        )
        return LayerSummary(Digest(digest), size, DiffID(diff_id), plain, added, modified, deleted, entries, skipped)

    def changes(
        self, lower: bytes | None, upper: _Upper, options: LayerOptions, *, explain: bool = False
    ) -> Iterator[Change]:
        """See `Engine.changes`."""
        tree, overlay = _overlay(upper)
        stream = _core.ChangeStream(
            lower,
            tree,
            overlay=overlay,
            ids=_ids(options),
            scope=_scope(options),
            threads=options.threads,
            profile=options.profile,
            explain=explain,
        )
        try:
            for batch in stream:
                for kind, path, layer_bytes, explained in batch:
                    reasons, upper_bytes, lower_bytes = explained or ([], None, None)
                    reason = tuple(map(Reason, reasons))
                    yield Change(ChangeKind(kind), os.fsdecode(path), reason, upper_bytes, lower_bytes, layer_bytes)
        finally:
            stream.close()

    def apply_layer(self, source: int, target: bytes, options: ApplyOptions, monitor: Monitor) -> ApplySummary:
        """See `Engine.apply_layer`."""
        limits = options.limits
        digest, size, diff_id, plain, entries, whiteouts, skipped, recorded = _core.apply_layer(
            source,
            target,
            same_owner=options.sets_owners,
            destination=options.destination,
            limits=(
                limits.max_bytes,
                limits.max_entries,
                limits.max_ratio,
                limits.max_depth,
                limits.max_header_bytes,
            ),
            poll=monitor.poll,
        )
        return ApplySummary(Digest(digest), size, DiffID(diff_id), plain, entries, whiteouts, skipped, recorded)

    def measure_layer(self, source: int, monitor: Monitor) -> LayerMeasure:
        """See `Engine.measure_layer`."""
        digest, size, diff_id, plain = _core.measure_layer(source, poll=monitor.poll)
        return LayerMeasure(Digest(digest), size, DiffID(diff_id), plain)


def _overlay(upper: _Upper) -> tuple[bytes, tuple[list[bytes], list[bytes], bool | None, bool] | None]:
    """The path of upper, and what lies below it where it is an upperdir."""
    if isinstance(upper, bytes):
        return upper, None
    return upper.upperdir, (list(upper.lowerdirs), list(upper.datadirs), upper.userxattr, upper.redirects)


def _ids(options: LayerOptions) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]:
    users, groups = (
        [(one.container, one.host, one.count) for one in ranges] for ranges in (options.ids.users, options.ids.groups)
    )
    return users, groups


def _scope(options: LayerOptions) -> tuple[list[tuple[str, bool]], bool, bool]:
    scope = options.scope
    return [(rule.expression, rule.excludes) for rule in scope.rules], scope.sockets, scope.cross_mounts
