"""containerd's own differ, in process, gives the diff IDs that ocidiff gives."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from interop.tools import Tool
from ocidiff.layer.engine import Engine
from ocidiff.layer.options import Profile
from property import strategies
from support import probes, trees, verbs

pytestmark = [pytest.mark.interop, pytest.mark.root]

SOURCE = Path(__file__).parent / "refdiff"
VECTORS = [trees.load(path) for path in sorted(trees.VECTORS.glob("*.json"))]
# containerd's entry point for two directories knows no epoch.
WITHOUT_EPOCH = [vector for vector in VECTORS if vector.get("source_date_epoch") is None]


class Refdiff(Tool):
    """containerd's differ."""

    def diff_id(self, lower: bytes | None, upper: bytes) -> str:
        found: dict[str, Any] = json.loads(self.run("sha", os.fsdecode(lower or b""), os.fsdecode(upper)))
        return str(found["diffID"])


@pytest.fixture(scope="session")
def refdiff(tmp_path_factory: pytest.TempPathFactory) -> Refdiff:
    """The program in refdiff/, built from the modules that its go.sum pins."""
    place = tmp_path_factory.mktemp("refdiff")
    go = Tool("go", home=None)  # its caches and its proxy are the user's
    listed = go.attempt("list", "-C", SOURCE, "-deps")
    if listed.returncode:
        probes.missing(f"go cannot fetch the modules of refdiff: {listed.stderr[-1000:]}")
    go.run("build", "-C", SOURCE, "-trimpath", "-buildvcs=false", "-o", place / "refdiff")
    return Refdiff(str(place / "refdiff"), place)


def diff_id(engine: Engine, lower: bytes | None, upper: bytes) -> str:
    return verbs.diff(engine, lower, upper, profile=Profile.CONTAINERD)[0].diff_id


@pytest.mark.parametrize("vector", WITHOUT_EPOCH, ids=lambda vector: str(vector["name"]))
def test_the_golden_vectors_are_what_containerd_writes_today(
    refdiff: Refdiff, rust: Engine, pure: Engine, vector: dict[str, Any], tmp_path: Path
) -> None:
    try:
        lower, upper = trees.build_vector(vector, tmp_path)
    except trees.Unsupported as error:
        probes.missing(str(error))
    wanted = refdiff.diff_id(lower, upper)
    assert wanted == vector["expect"]["diff_id"]
    assert [diff_id(engine, lower, upper) for engine in (rust, pure)] == [wanted, wanted]


def test_the_sample_with_one_of_everything_gives_what_containerd_writes(
    refdiff: Refdiff, engine: Engine, sample: Path
) -> None:
    lower, upper = os.fsencode(sample / "lower"), os.fsencode(sample / "upper")
    for pair in ((None, lower), (lower, upper), (upper, lower)):
        assert diff_id(engine, *pair) == refdiff.diff_id(*pair)


@settings(
    max_examples=200,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
@given(pair=strategies.pairs(sockets=True))
def test_both_engines_write_what_containerd_writes(
    refdiff: Refdiff, rust: Engine, pure: Engine, pair: strategies.Pair
) -> None:
    with strategies.build(pair) as (lower, upper, _):
        wanted = refdiff.diff_id(lower, upper)
        assert [diff_id(engine, lower, upper) for engine in (rust, pure)] == [wanted, wanted]
