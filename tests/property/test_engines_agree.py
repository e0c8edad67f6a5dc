"""Law: rust = pure, in what a diff writes and in what an apply leaves."""

from __future__ import annotations

import strategies
from hypothesis import given
from hypothesis import strategies as st

from ocidiff.layer.engine import Engine
from ocidiff.layer.options import Profile
from support import trees, verbs


@given(
    pair=strategies.pairs(sockets=True),
    profile=st.sampled_from(Profile),
    epoch=st.sampled_from([None, None, 0, 1_600_000_000]),
    from_scratch=st.booleans(),
    lower_has_layer_times=st.booleans(),
)
def test_both_engines_write_the_same_tar(
    rust: Engine,
    pure: Engine,
    *,
    pair: strategies.Pair,
    profile: Profile,
    epoch: int | None,
    from_scratch: bool,
    lower_has_layer_times: bool,
) -> None:
    strategies.RAN["diff: rust = pure"] += 1
    options = {"profile": profile, "source_date_epoch": epoch, "lower_has_layer_times": lower_has_layer_times}
    with strategies.build(pair) as (lower, upper, _):
        below = None if from_scratch else lower
        one, tar = verbs.diff(rust, below, upper, **options)
        other, same_tar = verbs.diff(pure, below, upper, **options)
        assert trees.read_layer(tar) == trees.read_layer(same_tar)
        assert tar == same_tar
        assert one == other
        listed = verbs.changes(rust, below, upper, profile)
        assert listed == verbs.changes(pure, below, upper, profile)
        if not lower_has_layer_times:
            assert len(listed) == one.added + one.modified + one.deleted


@given(pair=strategies.pairs(), profile=st.sampled_from(Profile))
def test_both_engines_leave_the_same_tree(rust: Engine, pure: Engine, pair: strategies.Pair, profile: Profile) -> None:
    strategies.RAN["apply: rust = pure"] += 1
    with strategies.build(pair) as (lower, upper, lower_again):
        _, tar = verbs.diff(pure, lower, upper, profile=profile)
        one, other = lower_again(), lower_again()
        assert verbs.apply(rust, tar, one) == verbs.apply(pure, tar, other)
        trees.assert_same_facts(named_by(tar, one), named_by(tar, other))


def named_by(tar: bytes, tree: bytes) -> dict[bytes, trees.Facts]:
    """The facts of a tree, without the times of directories that the layer does not name: those are when it ran."""
    facts = trees.comparable(trees.scan_tree(tree), xattrs=lambda _: True, directory_times=True)
    written = {trees.name_of(entry, "name").rstrip(b"/") for entry in trees.read_layer(tar)}
    for name, entry in facts.items():
        if entry["type"] == "dir" and name not in written:
            del entry["mtime"]
    return facts
