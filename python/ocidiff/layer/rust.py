"""The Rust engine: the only file that imports `ocidiff._core`."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from ocidiff import _core
from ocidiff.layer.engine import Lower, Upper
from ocidiff.layer.idmap import IdMaps
from ocidiff.layer.layer import ApplySummary, Change, ChangeKind, IndexPath, IndexSummary, LayerMeasure, LayerSummary, Reason
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.options import ApplyOptions, LayerOptions, Limits, OnChange
from ocidiff.oci.digest import ChainID, DiffID, Digest

if TYPE_CHECKING:
    from ocidiff.layer.patterns import Rule

# See `_core.pyi`.
_Patterns: TypeAlias = tuple[list[tuple[int, bytes]], bytes, list[bytes]]


class RustEngine:
    """Walks, compares, packs and unpacks on all cores."""

    def write_layer(
        self, lower: Lower | None, upper: Upper, sink: int, options: LayerOptions, monitor: Monitor
    ) -> LayerSummary:
        """See `Engine.write_layer`."""
        tree, overlay = _overlay(upper)
        digest, size, diff_id, plain, added, modified, deleted, entries, skipped, retried, vanished = _core.write_layer(
            _path(lower),
            tree,
            sink,
            overlay=overlay,
            ids=_ids(options.ids),
            indexes=(isinstance(lower, IndexPath), isinstance(upper, IndexPath)),
            scope=_scope(options),
            compression=options.compression,
            level=options.level,
            threads=options.threads,
            memory_bytes=options.memory_bytes,
            profile=options.profile,
            lower_from_layers=options.lower_from_layers,
            lower_lacks_fractions=options.lower_lacks_fractions,
            device_in_links=options.device_in_links,
            lower_has_ids=options.lower_has_ids,
            source_date_epoch=options.source_date_epoch,
            retry_on_change=options.on_change is OnChange.RETRY,
            spool=None if options.spool is None else os.fsencode(options.spool),
            poll=monitor.poll,
        )
        counts = (added, modified, deleted, entries, skipped, retried, vanished)
        return LayerSummary(Digest(digest), size, DiffID(diff_id), plain, *counts)

    def changes(
        self, lower: Lower | None, upper: Upper, options: LayerOptions, *, explain: bool = False
    ) -> Generator[Change, None, Mapping[str, int]]:
        """See `Engine.changes`."""
        tree, overlay = _overlay(upper)
        stream = _core.ChangeStream(
            _path(lower),
            tree,
            overlay=overlay,
            ids=_ids(options.ids),
            indexes=(isinstance(lower, IndexPath), isinstance(upper, IndexPath)),
            scope=_scope(options),
            threads=options.threads,
            profile=options.profile,
            lower_from_layers=options.lower_from_layers,
            lower_lacks_fractions=options.lower_lacks_fractions,
            lower_has_ids=options.lower_has_ids,
            source_date_epoch=options.source_date_epoch,
            explain=explain,
            retry_on_change=options.on_change is OnChange.RETRY,
        )
        try:
            for batch in stream:
                for kind, path, layer_bytes, explained in batch:
                    reasons, upper_bytes, lower_bytes = explained or ([], None, None)
                    reason = tuple(map(Reason, reasons))
                    yield Change(ChangeKind(kind), os.fsdecode(path), reason, upper_bytes, lower_bytes, layer_bytes)
            return stream.skipped()
        finally:
            stream.close()

    def write_index(
        self,
        tree: bytes,
        sink: int,
        *,
        chain_id: ChainID | None,
        ids: IdMaps,
        sha256: bool,
        stamps: bool,
        cross_mounts: bool,
        threads: int,
        monitor: Monitor,
    ) -> IndexSummary:
        """See `Engine.write_index`."""
        done = _core.write_index(
            tree,
            sink,
            chain_id=chain_id,
            ids=_ids(ids),
            sha256=sha256,
            stamps=stamps,
            cross_mounts=cross_mounts,
            threads=threads,
            poll=monitor.poll,
        )
        return _index_summary(done)

    def write_index_of_layers(
        self, layers: Sequence[int], chain_id: ChainID | None, sink: int, *, sha256: bool, limits: Limits, monitor: Monitor
    ) -> tuple[IndexSummary, list[LayerMeasure]]:
        """See `Engine.write_index_of_layers`."""
        done, found = _core.write_index_of_layers(
            list(layers), chain_id, sink, sha256=sha256, limits=_limits(limits), poll=monitor.poll
        )
        return _index_summary(done), [_measure(layer) for layer in found]

    def apply_layer(self, source: int, target: bytes, options: ApplyOptions, monitor: Monitor) -> ApplySummary:
        """See `Engine.apply_layer`."""
        digest, size, diff_id, plain, holes, has_root, entries, whiteouts, skipped, recorded = _core.apply_layer(
            source,
            target,
            same_owner=options.sets_owners,
            destination=options.destination,
            is_upper=options.is_upper,
            limits=_limits(options.limits),
            poll=monitor.poll,
        )
        return ApplySummary(
            Digest(digest), size, DiffID(diff_id), plain, holes, has_root, entries, whiteouts, skipped, recorded
        )

    def measure_layer(self, source: int, limits: Limits, monitor: Monitor) -> LayerMeasure:
        """See `Engine.measure_layer`."""
        return _measure(_core.measure_layer(source, limits=_limits(limits), poll=monitor.poll))


def _measure(found: tuple[str, int, str, int, int, int]) -> LayerMeasure:
    digest, size, diff_id, plain, holes, entries = found
    return LayerMeasure(Digest(digest), size, DiffID(diff_id), plain, holes, entries)


def _path(lower: Lower | None) -> bytes | None:
    return lower.path if isinstance(lower, IndexPath) else lower


def _overlay(upper: Upper) -> tuple[bytes, tuple[list[bytes], list[bytes], bool | None, bool] | None]:
    """The path of upper, and what lies below it where it is an upperdir."""
    if isinstance(upper, bytes):
        return upper, None
    if isinstance(upper, IndexPath):
        return upper.path, None
    return upper.upperdir, (list(upper.lowerdirs), list(upper.datadirs), upper.userxattr, upper.redirects)


def _ids(ids: IdMaps) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]:
    users, groups = ([(one.container, one.host, one.count) for one in ranges] for ranges in (ids.users, ids.groups))
    return users, groups


def _scope(options: LayerOptions) -> tuple[_Patterns | None, bool, bool]:
    scope = options.scope
    return _patterns(scope.rules) if scope.rules else None, scope.sockets, scope.cross_mounts


def _patterns(rules: Sequence[Rule]) -> _Patterns:
    """Return the rows of an automaton as bytes."""
    from ocidiff.layer.patterns import compile_rules

    automaton = compile_rules(rules)
    size = automaton.size // 8 + 1

    def row(states: int) -> bytes:
        return states.to_bytes(size, "little")

    moves = [(byte, row(states)) for byte, states in automaton.moves.items()]
    loops = (automaton.name_loops, automaton.path_loops, automaton.skips)
    ends = (automaton.accepts, automaton.directories_only, automaton.excludes)
    return moves, row(automaton.other_moves), list(map(row, (automaton.start, *loops, *ends)))


def _limits(limits: Limits) -> tuple[int | None, int | None, int | None, int, int]:
    return limits.max_bytes, limits.max_entries, limits.max_ratio, limits.max_depth, limits.max_header_bytes


def _index_summary(done: tuple[str, int, int, int, dict[str, int]]) -> IndexSummary:
    digest, size, entries, file_bytes, skipped = done
    return IndexSummary(Digest(digest), size, entries, file_bytes, skipped)
