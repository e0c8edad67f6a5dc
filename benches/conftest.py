"""What the benches share: workloads, both engines, and the facts that a figure is worth nothing without."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import pytest

import ocidiff
from ocidiff.bench.machine import file_system
from workloads import WORKLOADS, Workload


@pytest.fixture(scope="session", params=WORKLOADS)
def workload(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Workload:
    return WORKLOADS[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(params=["rust", "pure"])
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def figures(benchmark: Any, tmp_path: Path) -> Any:
    """The benchmark, with the circumstances on record. The page cache is warm: every tree was just written or read."""
    benchmark.extra_info |= {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "ocidiff": ocidiff.__version__,
        "filesystem": file_system(tmp_path),
        "cache": "warm",
    }
    return benchmark
