"""Law: apply(diff(a, b), a) = b."""

from __future__ import annotations

import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st

from ocidiff.layer.engine import Engine
from ocidiff.layer.options import Compression, Profile
from support import probes, trees, verbs


# As long as `make soak-trees` takes.
@pytest.mark.timeout(3600)
@given(pair=strategies.pairs(), compression=st.sampled_from(Compression))
def test_applying_a_diff_to_lower_gives_upper(engine: Engine, pair: strategies.Pair, compression: Compression) -> None:
    if compression is Compression.ZSTD and engine.__class__.__name__ == "PureEngine" and not probes.has_zstd_module():
        compression = Compression.GZIP
    strategies.RAN[f"apply(diff(a, b), a) = b, {type(engine).__name__}"] += 1
    with strategies.build(pair) as (lower, upper, lower_again):
        made, blob = verbs.diff(engine, lower, upper, profile=Profile.OCI, compression=compression)
        changed = {path for _, path in verbs.changes(engine, lower, upper, Profile.OCI)}
        target = lower_again()
        applied = verbs.apply(engine, blob, target, same_owner=True)
        assert (applied.entries, applied.whiteouts, applied.diff_id) == (made.entries, made.deleted, made.diff_id)
        assert not applied.skipped
        _, tar = verbs.diff(engine, lower, upper, profile=Profile.OCI)
        before, after, now = (trees.scan_tree(tree) for tree in (lower, upper, target))
    found = trees.comparable(now, directory_times=True)
    expected = trees.comparable(expected_links(before, after, changed), directory_times=True)
    written = {trees.name_of(entry, "name").rstrip(b"/") for entry in trees.read_layer(tar)}
    for name in found.keys() & expected.keys():
        if expected[name]["type"] == "dir" and name not in written:
            del found[name]["mtime"], expected[name]["mtime"]  # a layer says nothing of them
    trees.assert_same_facts(found, expected)


def expected_links(
    before: dict[bytes, trees.Facts], after: dict[bytes, trees.Facts], changed: set[bytes]
) -> dict[bytes, trees.Facts]:
    """What is to come of the upper tree, with the one thing that no layer says by the rules.

    A name that is unchanged and has no changed name beside it is not written, so it stays linked to what it was linked to.
    """
    silent = {name for name, facts in after.items() if "links" in facts and changed.isdisjoint(facts["links"])}
    expected = dict(after)
    for name in silent:
        links = tuple(other for other in before[name]["links"] if other in silent)
        expected[name] = dict(after[name], links=links)
    return expected
