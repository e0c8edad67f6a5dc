"""Diff and its listing, on each workload by each engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import ocidiff
from ocidiff.layer.options import EngineName
from workloads import Workload


@pytest.fixture(scope="session")
def diff_id(workload: Workload, tmp_path_factory: pytest.TempPathFactory) -> ocidiff.DiffID:
    """What every engine and compression must come to."""
    layer = tmp_path_factory.mktemp("reference") / "layer"
    return ocidiff.diff(workload.lower, workload.upper, layer, compression="none", engine="pure").diff_id


@pytest.mark.parametrize("compression", ["gzip", "none"])
def bench_diff(
    figures: Any, workload: Workload, engine: EngineName, compression: str, diff_id: ocidiff.DiffID, tmp_path: Path
) -> None:
    output = tmp_path / "layer"
    layer = figures(ocidiff.diff, workload.lower, workload.upper, output, compression=compression, engine=engine)
    assert layer.diff_id == diff_id
    assert layer.descriptor.size == output.stat().st_size


def bench_changes(figures: Any, workload: Workload, engine: EngineName) -> None:
    found = figures(lambda: list(ocidiff.changes(workload.lower, workload.upper, engine=engine)))
    lower, upper = ({f"/{path.relative_to(tree)}" for path in tree.rglob("*")} for tree in (workload.lower, workload.upper))
    assert {change.path for change in found if change.kind is ocidiff.ChangeKind.ADD} == upper - lower
