"""Law: diff(a, a) is empty."""

from __future__ import annotations

import tempfile

import strategies
from hypothesis import given
from hypothesis import strategies as st

from ocidiff.layer.engine import Engine
from ocidiff.layer.options import Profile
from support import verbs

EMPTY_TAR = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"


@given(pair=strategies.pairs(sockets=True), profile=st.sampled_from(Profile))
def test_equal_trees_have_no_diff(engine: Engine, pair: strategies.Pair, profile: Profile) -> None:
    strategies.RAN[f"diff(a, a) is empty, {type(engine).__name__}"] += 1
    with strategies.build(pair) as (lower, _, lower_again):
        for upper in (lower, lower_again()):
            summary, _ = verbs.diff(engine, lower, upper, profile=profile)
            assert summary.diff_id == EMPTY_TAR
            assert (summary.entries, summary.added, summary.modified, summary.deleted) == (0, 0, 0, 0)
            assert not summary.skipped
            assert verbs.changes(engine, lower, upper, profile) == []


@given(pair=strategies.pairs(), profile=st.sampled_from(Profile), epoch=st.none() | st.just(1_600_000_500))
def test_a_tree_does_not_differ_from_what_its_layers_give(
    engine: Engine, pair: strategies.Pair, profile: Profile, epoch: int | None
) -> None:
    strategies.RAN[f"diff(layers of a, a) is empty, {type(engine).__name__}"] += 1
    with strategies.build(pair) as (lower, upper, _), tempfile.TemporaryDirectory() as unpacked:
        for before, after in ((None, lower), (lower, upper)):
            _, layer = verbs.diff(engine, before, after, profile=profile, source_date_epoch=epoch)
            verbs.apply(engine, layer, unpacked)
        summary, _ = verbs.diff(
            engine, unpacked, upper, profile=profile, source_date_epoch=epoch, lower_has_layer_times=True
        )
        assert summary.diff_id == EMPTY_TAR
