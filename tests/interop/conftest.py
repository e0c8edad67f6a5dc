"""Trees on disk and the tools that look at them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ocidiff
from interop import samples
from interop.tools import Tool
from ocidiff.store import Store
from support import probes, trees
from support.programs import BUILT
from support.registry_software import SOFTWARE, running

# Peers that are built from sources, or bring much with them, are for `make interop` alone.
HAS_ALL = os.environ.get("OCIDIFF_PEERS") == "all"
collect_ignore = [] if HAS_ALL else ["test_registry_clients.py"]


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


@pytest.fixture(scope="module", params=[name for name in SOFTWARE if HAS_ALL or name not in BUILT])
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`localhost:PORT` of a registry."""
    place = tmp_path_factory.mktemp("registry")
    with running(place, request.param) as address:
        yield address
    shutil.rmtree(place)


@pytest.fixture
def images(tmp_path: Path) -> Iterator[ocidiff.Store]:
    """A store with `app:v1` and `app:v2`, which has one layer more."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "one").write_bytes(os.urandom(3 << 20))
    with ocidiff.Store.open(tmp_path / "images") as opened:
        opened.commit(tree, "app:v1")
        (tree / "two").write_bytes(os.urandom(1 << 20))
        opened.commit(tree, "app:v2", base="app:v1")
        yield opened
