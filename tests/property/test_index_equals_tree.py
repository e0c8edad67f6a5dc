"""Law: an index in place of a tree gives the same bytes and the same changes; both engines write and read the same index."""

from __future__ import annotations

import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st

from ocidiff.layer.engine import Engine
from ocidiff.layer.options import Profile
from support import verbs

# As long as `make soak-index` takes.
pytestmark = pytest.mark.timeout(3600)


@given(
    pair=strategies.pairs(sockets=True),
    profile=st.sampled_from(Profile),
    epoch=st.sampled_from([None, None, 0, 1_600_000_000]),
    lower_has_layer_times=st.booleans(),
    sha256=st.booleans(),
)
def test_an_index_in_place_of_the_tree(
    rust: Engine,
    pure: Engine,
    *,
    pair: strategies.Pair,
    profile: Profile,
    epoch: int | None,
    lower_has_layer_times: bool,
    sha256: bool,
) -> None:
    # What was unpacked from layers has no inode of the changed tree.
    lower_has_layer_times = lower_has_layer_times and not any(entry["type"] == "lowerlink" for entry in pair.upper)
    strategies.RAN["index = tree, in both engines"] += 1
    options = {"profile": profile, "source_date_epoch": epoch, "lower_has_layer_times": lower_has_layer_times}
    with strategies.build(pair) as (lower, upper, _):
        below, above = (verbs.index(rust, tree, sha256=sha256) for tree in (lower, upper))
        assert below == verbs.index(pure, lower, sha256=sha256)
        expected = verbs.diff(rust, lower, upper, **options)
        listed = verbs.changes(rust, lower, upper, profile)
        with verbs.saved_index(below) as lower_index, verbs.saved_index(above) as upper_index:
            for engine in (rust, pure):
                assert verbs.diff(engine, lower_index, upper, **options) == expected
                assert verbs.changes(engine, lower_index, upper, profile) == listed
                assert verbs.changes(engine, lower_index, upper_index, profile) == listed
                assert verbs.changes(engine, lower, upper_index, profile) == listed
                assert verbs.changes(engine, upper_index, upper_index, profile) == []


@given(pair=strategies.pairs(), threads=st.integers(1, 8))
def test_threads_have_no_part_in_an_index(rust: Engine, pair: strategies.Pair, threads: int) -> None:
    strategies.RAN["an index does not depend on threads"] += 1
    with strategies.build(pair) as (_, upper, _):
        assert verbs.index(rust, upper, threads=1) == verbs.index(rust, upper, threads=threads)
