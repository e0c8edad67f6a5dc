"""Every reader takes layers of zstd with several frames: those of other tools, and both engines."""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from interop.tools import Tool
from ocidiff.image.image import Image
from ocidiff.layer.engine import Engine
from ocidiff.layer.options import Compression
from ocidiff.store import Store
from support import probes, trees, verbs

pytestmark = [pytest.mark.interop, pytest.mark.root]

MAGIC = bytes.fromhex("28b52ffd")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree whose layer has frames of all kinds: of small files, of one large file, and the rest of one."""
    root, numbers = tmp_path / "tree", random.Random(1)
    (root / "small").mkdir(parents=True)
    for number in range(300):
        (root / "small" / f"{number:03}").write_bytes(numbers.randbytes(20_000).hex().encode())
    (root / "large").write_bytes(numbers.randbytes(5 << 20).hex().encode() + b"end")
    (root / "whole").write_bytes(bytes(8 << 20))
    return root


@pytest.fixture
def blob(rust: Engine, tree: Path) -> bytes:
    """The layer of the tree."""
    made = verbs.diff(rust, None, tree, compression=Compression.ZSTD)[1]
    assert made.count(MAGIC) >= 6
    return made


@pytest.fixture
def image(rust: Engine, store: Store, tree: Path) -> Image:
    """The same as an image, `app:v1`."""
    assert rust is not None
    return store.commit(tree, "app:v1", compression="zstd", engine="rust")


def test_both_engines_apply_the_frames(engine: Engine, rust: Engine, blob: bytes, tree: Path, tmp_path: Path) -> None:
    probes.require_compression(engine, Compression.ZSTD)
    (tmp_path / "out").mkdir()
    applied = verbs.apply(engine, blob, tmp_path / "out")
    assert applied.diff_id == verbs.diff(rust, None, tree)[0].diff_id
    trees.assert_same_tree(tmp_path / "out", tree, directory_times=True)


def test_the_command_tests_and_decompresses_the_frames(
    rust: Engine, blob: bytes, tree: Path, tool: Callable[[str], Tool], tmp_path: Path
) -> None:
    layer = tmp_path / "layer.zst"
    layer.write_bytes(blob)
    tool("zstd").run("--test", "--quiet", layer)
    listed = tool("zstd").run("--list", "-v", layer)
    assert "XXH64" in listed
    tar = subprocess.run(["zstd", "-dcq", layer], check=True, capture_output=True).stdout
    assert tar == verbs.diff(rust, None, tree)[1]
    assert f"{len(tar)} B" in listed.replace(",", "")


def test_a_library_of_python_reads_across_the_frames(rust: Engine, blob: bytes, tree: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(blob), read_across_frames=True) as reader:
        assert reader.read() == verbs.diff(rust, None, tree)[1]


def test_skopeo_decompresses_the_frames(image: Image, tool: Callable[[str], Tool], tmp_path: Path) -> None:
    tool("skopeo").run(
        "copy", "--insecure-policy", "--dest-decompress", f"oci:{tmp_path}/store:app:v1", f"dir:{tmp_path}/copy"
    )
    assert image.layer is not None
    assert (tmp_path / "copy" / image.layer.diff_id.removeprefix("sha256:")).stat().st_size == image.layer.uncompressed_size


def test_buildah_pulls_and_mounts_the_frames(image: Image, tree: Path, tool: Callable[[str], Tool], tmp_path: Path) -> None:
    assert image.layer is not None
    buildah, policy = tool("buildah"), tmp_path / "policy.json"
    policy.write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
    storage = ("--root", tmp_path / "storage", "--runroot", tmp_path / "run", "--storage-driver", "vfs")
    # It makes a name of the path, which takes no capital letters.
    pulled = buildah.run(
        *storage, "pull", "-q", "--signature-policy", policy, "oci:store:app:v1", directory=tmp_path
    ).split()[-1]
    container = buildah.run(*storage, "from", "--signature-policy", policy, pulled).split()[-1]
    mounted = Path(buildah.run(*storage, "mount", container).split()[-1])
    for name in ("large", "whole", "small/000", "small/299"):
        assert (mounted / name).read_bytes() == (tree / name).read_bytes()
    assert sorted(os.listdir(mounted / "small")) == sorted(os.listdir(tree / "small"))
