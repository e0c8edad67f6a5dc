"""A pipe gets the tar of a layer while the layer is written, and may be closed at any time."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ocidiff.layer.differ import write_layer
from ocidiff.layer.engine import Engine
from ocidiff.layer.layer import Layer
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.options import Compression, LayerOptions
from ocidiff.oci.digest import Digest

BYTES = 3 << 20


@pytest.fixture
def tree(tmp_path: Path) -> bytes:
    place = tmp_path / "tree"
    place.mkdir()
    for number in range(3):
        (place / str(number)).write_bytes(os.urandom(BYTES))
    return os.fsencode(place)


def written(engine: Engine, tree: bytes, sink: Path, options: LayerOptions, read: Callable[[int], None]) -> Layer:
    """Write a layer while a thread reads the copy, and closes it when it has read enough."""
    source, copy = os.pipe()

    def run() -> None:
        with open(source, "rb", buffering=0) as file:
            read(file.fileno())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        with sink.open("wb") as file:
            return write_layer(engine, None, tree, file.fileno(), options=replace(options, copy=copy), monitor=Monitor())
    finally:
        os.close(copy)
        thread.join()


@pytest.mark.parametrize("compression", list(Compression))
def test_the_copy_is_the_tar(engine: Engine, tree: bytes, tmp_path: Path, compression: Compression) -> None:
    parts = []

    def read(source: int) -> None:
        while part := os.read(source, 1 << 16):
            parts.append(part)

    layer = written(engine, tree, tmp_path / "layer", LayerOptions(compression=compression), read)
    tar = b"".join(parts)
    assert (len(tar), Digest.of(tar)) == (layer.uncompressed_size, layer.diff_id)


@pytest.mark.parametrize("enough", [0, 1000, BYTES])
def test_a_reader_that_stops_changes_nothing(engine: Engine, tree: bytes, tmp_path: Path, enough: int) -> None:
    def read(source: int) -> None:
        left = enough
        while left > 0 and (part := os.read(source, min(left, 1 << 16))):
            left -= len(part)

    layer = written(engine, tree, tmp_path / "layer", LayerOptions(), read)
    with (tmp_path / "alone").open("wb") as file:
        alone = write_layer(engine, None, tree, file.fileno(), options=LayerOptions(), monitor=Monitor())
    assert (layer.diff_id, layer.descriptor) == (alone.diff_id, alone.descriptor)
    assert (tmp_path / "layer").read_bytes() == (tmp_path / "alone").read_bytes()
