"""GNU tar, Python's tarfile, gzip and zstd read ocidiff's layers; ocidiff applies theirs."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from interop import samples
from interop.tools import Tool
from ocidiff.layer.engine import Engine
from ocidiff.layer.options import Compression
from support import probes, trees, verbs

pytestmark = [pytest.mark.interop, pytest.mark.root]

ALL_XATTRS = ("--xattrs", "--xattrs-include=*")
FORMATS = {
    "ustar": (samples.PLAIN, ()),
    "gnu": (samples.PLAIN + samples.LONG_ONES, ()),
    "pax": (samples.LOWER, ALL_XATTRS),
}


def test_gnu_tar_extracts_the_tree(engine: Engine, sample: Path, tool: Callable[[str], Tool], tmp_path: Path) -> None:
    layer, out = tmp_path / "layer.tar", tmp_path / "out"
    layer.write_bytes(verbs.diff(engine, None, sample / "lower")[1])
    out.mkdir()
    tool("tar").run(
        "--extract", "--file", layer, "--directory", out, "--preserve-permissions", "--numeric-owner", *ALL_XATTRS
    )
    trees.assert_same_tree(out, sample / "lower", directory_times=True)


def test_python_extracts_the_tree(engine: Engine, sample: Path, tmp_path: Path) -> None:
    _, blob = verbs.diff(engine, None, sample / "lower")
    # Older Pythons trust every archive, and have no word for it.
    trust: dict[str, Any] = {"filter": "fully_trusted"} if hasattr(tarfile, "fully_trusted_filter") else {}
    with tarfile.open(fileobj=io.BytesIO(blob), errors="surrogateescape", encoding="utf-8") as archive:
        archive.extractall(tmp_path / "out", numeric_owner=True, **trust)
    trees.assert_same_facts(what_python_restores(tmp_path / "out"), what_python_restores(sample / "lower"))


def what_python_restores(tree: Path) -> dict[bytes, trees.Facts]:
    """The facts without what tarfile leaves alone: xattrs, and the times of symlinks."""
    facts = trees.comparable(trees.scan_tree(tree), xattrs=lambda _: False, directory_times=True)
    for entry in facts.values():
        if entry["type"] == "symlink":
            del entry["mtime"]
    return facts


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("order", ["none", "name"])
def test_what_gnu_tar_wrote_is_applied(
    engine: Engine, tool: Callable[[str], Tool], tmp_path: Path, format_: str, order: str
) -> None:
    spec, options = FORMATS[format_]
    tree, layer, out = tmp_path / "tree", tmp_path / "layer.tar", tmp_path / "out"
    trees.build_tree(spec, tree)
    tool("tar").run(
        "--create", "--file", layer, "--directory", tree, f"--format={format_}", f"--sort={order}", *options, "."
    )  # fmt: skip
    out.mkdir()
    summary = verbs.apply(engine, layer.read_bytes(), out)
    trees.assert_same_tree(out, tree, directory_times=True)
    assert not summary.skipped
    assert summary.entries == len(trees.scan_tree(tree))


@pytest.mark.parametrize("compression", [Compression.GZIP, Compression.ZSTD])
def test_the_compressors_accept_the_blobs(
    engine: Engine, sample: Path, tool: Callable[[str], Tool], tmp_path: Path, compression: Compression
) -> None:
    probes.require_compression(engine, compression)
    layer = tmp_path / ("layer.gz" if compression is Compression.GZIP else "layer.zst")
    layer.write_bytes(verbs.diff(engine, None, sample / "lower", compression=compression)[1])
    tool(str(compression)).run("--test", "--quiet", layer)


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_what_the_compressors_wrote_is_applied(
    engine: Engine, sample: Path, tool: Callable[[str], Tool], tmp_path: Path, name: str
) -> None:
    probes.require_compression(engine, Compression(name))
    plain = tmp_path / "layer"
    made, tar = verbs.diff(engine, None, sample / "lower")
    plain.write_bytes(tar)
    tool(name).run("--quiet", plain)
    (compressed,) = tmp_path.glob("layer.*")
    (tmp_path / "out").mkdir()
    applied = verbs.apply(engine, compressed.read_bytes(), tmp_path / "out")
    assert applied.diff_id == made.diff_id
    trees.assert_same_tree(tmp_path / "out", sample / "lower", directory_times=True)


@pytest.mark.parametrize("version", ["0.0", "0.1", "1.0"])
def test_sparse_files_of_gnu_tar_are_expanded(
    engine: Engine, tool: Callable[[str], Tool], tmp_path: Path, version: str
) -> None:
    tree, layer, out = tmp_path / "tree", tmp_path / "layer.tar", tmp_path / "out"
    (tree / "d").mkdir(parents=True)
    for name, size, pieces in (
        ("sparse", 8 << 20, {0: b"head", 3 << 20: b"x" * 100_000}),
        ("d/" + "n" * 120, 1 << 20, {1000: b"y"}),
        ("hole", 4 << 20, {}),
        ("full", 5000, {0: b"z" * 5000}),
        ("many", 4 << 20, {number * 65_536: b"p" for number in range(60)}),
    ):
        with (tree / name).open("wb") as file:
            for place, data in pieces.items():
                file.seek(place)
                file.write(data)
            file.truncate(size)
    tool("tar").run(
        "--create", "--file", layer, "--directory", tree, "--format=pax", "--sparse", f"--sparse-version={version}", "."
    )  # fmt: skip
    out.mkdir()
    summary = verbs.apply(engine, layer.read_bytes(), out)
    trees.assert_same_tree(out, tree, directory_times=True)
    assert summary.holes > 16 << 20
    for name in ("sparse", "hole", "many"):
        assert (out / name).stat().st_blocks <= (tree / name).stat().st_blocks
