"""Law: the index of layers is the index of the tree that they unpack to; and what cannot be unpacked has none."""

from __future__ import annotations

import os
import tempfile

import any_layers
import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st

from ocidiff.errors import OcidiffError
from ocidiff.layer.engine import Engine
from support import verbs

pytestmark = [pytest.mark.root, pytest.mark.timeout(3600)]


@given(pair=strategies.pairs(), sha256=st.booleans())
def test_layers_of_trees(rust: Engine, pure: Engine, *, pair: strategies.Pair, sha256: bool) -> None:
    strategies.RAN["index of layers = index of the unpacked tree"] += 1
    with strategies.build(pair) as (lower, upper, _):
        blobs = [verbs.diff(rust, None, lower)[1], verbs.diff(rust, lower, upper)[1]]
        assert_index_of(rust, pure, blobs, sha256=sha256)


@given(layers=st.lists(any_layers.entries(), min_size=1, max_size=4))
def test_layers_of_anything(rust: Engine, pure: Engine, layers: list[any_layers.Entries]) -> None:
    strategies.RAN["index of any layers = index of the unpacked tree"] += 1
    assert_index_of(rust, pure, [any_layers.tar_of(layer) for layer in layers], sha256=False)


def assert_index_of(rust: Engine, pure: Engine, blobs: list[bytes], *, sha256: bool) -> None:
    with tempfile.TemporaryDirectory() as tree:
        os.chmod(tree, 0o755)
        try:
            applied = [verbs.apply(rust, blob, tree, same_owner=True) for blob in blobs]
        except (OcidiffError, OSError) as error:
            for engine in (rust, pure):
                with pytest.raises(OcidiffError if isinstance(error, OcidiffError) else OSError):
                    verbs.index_of_layers(engine, blobs)
            return
        expected = verbs.index(rust, tree, sha256=sha256)
    for engine in (rust, pure):
        found, measures = verbs.index_of_layers(engine, blobs, sha256=sha256)
        assert found == expected
        assert [(one.digest, one.diff_id) for one in measures] == [(one.digest, one.diff_id) for one in applied]
