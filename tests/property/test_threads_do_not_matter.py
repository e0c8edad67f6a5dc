"""Law: the bytes of a blob do not depend on the number of threads."""

from __future__ import annotations

import strategies
from hypothesis import given
from hypothesis import strategies as st

from ocidiff.layer.engine import Engine
from ocidiff.layer.options import Compression
from support import verbs


@given(pair=strategies.pairs(sockets=True), compression=st.sampled_from(Compression))
def test_every_number_of_threads_gives_the_same_blob(rust: Engine, pair: strategies.Pair, compression: Compression) -> None:
    strategies.RAN["threads do not matter"] += 1
    with strategies.build(pair) as (lower, upper, _):
        results = [verbs.diff(rust, lower, upper, compression=compression, threads=threads) for threads in (1, 2, 8)]
    assert results[0] == results[1] == results[2]
