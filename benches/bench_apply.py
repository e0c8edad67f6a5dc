"""Apply of a whole tree, by each engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ocidiff
from workloads import Workload, shape


def bench_apply(figures: Any, workload: Workload, engine: str, tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    made = ocidiff.diff("scratch", workload.upper, layer)
    targets = iter(range(1_000_000))

    def fresh_target() -> tuple[tuple[Path, Path], dict[str, str]]:
        target = tmp_path / str(next(targets))
        target.mkdir()
        return (layer, target), {"engine": engine}

    summary = figures.pedantic(ocidiff.apply, setup=fresh_target, rounds=3)
    assert summary.diff_id == made.diff_id
    assert shape(tmp_path / "0") == shape(workload.upper)
