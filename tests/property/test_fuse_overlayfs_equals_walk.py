"""The law: what is read from the layers of fuse-overlayfs is what the merged tree gives, byte for byte."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import strategies

from ocidiff.layer.engine import Engine
from support import fuse_overlays, probes

TESTS = Path(__file__).parents[1]


@pytest.mark.root
def test_the_layers_of_root_give_the_bytes_of_the_merged_tree(rust: Engine, pure: Engine) -> None:
    if not fuse_overlays.can_mount():
        probes.missing("needs fuse-overlayfs and /dev/fuse")
    for seed in range(12):
        engines, options = [rust, pure] if seed < 4 else [rust], fuse_overlays.OPTIONS[seed % 3]
        strategies.RAN["fuse-overlayfs: layers = merged tree"] += fuse_overlays.check(seed, engines, options)
    assert strategies.RAN["fuse-overlayfs: layers = merged tree"] >= 10


@pytest.mark.root
def test_those_of_a_user_namespace_too() -> None:
    words = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, fuse_overlays.__file__, "1000", "6"]
    if not fuse_overlays.can_mount():
        probes.missing("needs fuse-overlayfs and /dev/fuse")
    try:
        run = subprocess.run(
            words, env={**os.environ, "PYTHONPATH": str(TESTS)}, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        probes.missing("needs unshare")
    if "unshare failed" in run.stderr:
        probes.missing("needs user namespaces")
    assert run.stdout[:6] in ("4 of 6", "5 of 6", "6 of 6"), run.stderr
