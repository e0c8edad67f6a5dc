"""Fixtures and markers that all tests share."""

from __future__ import annotations

import pytest

import probes
from ocidiff.layer.engine import ENGINES, Engine, select_engine


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("root") and not probes.is_root():
        probes.missing("needs root")


@pytest.fixture(scope="session", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each of the two engines."""
    if request.param == "rust" and not probes.has_rust():
        probes.missing("ocidiff._core is not built")
    return select_engine(request.param)


@pytest.fixture(scope="session")
def rust() -> Engine:
    if not probes.has_rust():
        probes.missing("ocidiff._core is not built")
    return select_engine("rust")


@pytest.fixture(scope="session")
def pure() -> Engine:
    return select_engine("pure")
