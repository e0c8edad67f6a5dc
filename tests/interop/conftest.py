"""Trees on disk and the tools that look at them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from interop import samples
from interop.tools import Tool
from ocidiff.store import Store
from support import probes, trees


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the trees `lower` and `upper` of `samples`, for reading only."""
    place = tmp_path_factory.mktemp("sample")
    try:
        trees.build_tree(samples.LOWER, place / "lower")
        trees.build_tree(samples.UPPER, place / "upper")
    except trees.Unsupported as error:
        probes.missing(str(error))
    return place


@pytest.fixture
def tool(tmp_path: Path) -> Callable[[str], Tool]:
    """Finds a tool by name."""
    return lambda name: Tool(name, tmp_path / "home")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store") as opened:
        yield opened
