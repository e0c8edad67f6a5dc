"""A store with an image, and registries in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import ocidiff
from ocidiff.transport import copy
from support.registries import Registry, serving


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ocidiff.EmbeddedStore]:
    """A store with the images `base:1` of one layer of 3 MiB, and `app:v1` with one layer of 1 MiB more."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(os.urandom(3 << 20))
    with ocidiff.Store.open(tmp_path / "store") as store:
        store.commit(tree, "base:1")
        (tree / "more").write_bytes(os.urandom(1 << 20))
        store.commit(tree, "app:v1", base="base:1")
        yield store


@pytest.fixture
def registry() -> Iterator[Registry]:
    """A registry that serves at its `address`."""
    registry = Registry()
    with serving(registry):
        yield registry


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait a hundredth of the time between attempts."""
    monkeypatch.setattr(copy, "_FIRST_DELAY_SECONDS", 0.005)


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with no settings of the user."""
    for name in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "DOCKER_CONFIG", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    place = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(place))
    return place
