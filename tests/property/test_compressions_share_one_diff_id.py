"""Law: gzip, zstd and plain share one diffID, and every blob applies to the same tree."""

from __future__ import annotations

import strategies
from hypothesis import given

from ocidiff.layer.engine import Engine
from ocidiff.layer.options import Compression
from support import probes, trees, verbs


@given(pair=strategies.pairs())
def test_compression_changes_nothing_but_the_blob(engine: Engine, pair: strategies.Pair) -> None:
    strategies.RAN[f"gzip = zstd = none, {type(engine).__name__}"] += 1
    probes.require_compression(engine, Compression.ZSTD)
    with strategies.build(pair) as (lower, upper, lower_again):
        plain, tar = verbs.diff(engine, lower, upper)
        expected = lower_again()
        verbs.apply(engine, tar, expected)
        for compression in (Compression.GZIP, Compression.ZSTD):
            summary, blob = verbs.diff(engine, lower, upper, compression=compression)
            assert (summary.diff_id, summary.uncompressed_size) == (plain.diff_id, len(tar))
            target = lower_again()
            applied = verbs.apply(engine, blob, target)
            assert (applied.diff_id, applied.digest) == (summary.diff_id, summary.digest)
            trees.assert_same_tree(target, expected)
