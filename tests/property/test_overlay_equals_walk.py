"""The law: what is read from the layers of an overlay is what a walk of the mounted trees gives, byte for byte."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import strategies

from ocidiff.layer.engine import Engine
from support import overlays, probes

TESTS = Path(__file__).parents[1]


@pytest.mark.root
@pytest.mark.parametrize("options", overlays.OPTIONS, ids=lambda options: "+".join(options) or "plain")
def test_the_layers_give_the_bytes_of_the_walk(rust: Engine, pure: Engine, options: tuple[str, ...]) -> None:
    if not overlays.can_mount(*options):
        probes.missing(f"needs overlay mounts with {options}")
    for seed in range(10):
        strategies.RAN["overlay: layers = walk"] += 1
        overlays.check(seed, options, [rust, pure] if seed < 3 else [rust])


def test_the_same_in_a_user_namespace(rust: Engine) -> None:
    words = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, overlays.__file__, "1000", "5", "userxattr"]
    try:
        run = subprocess.run(
            words, env={**os.environ, "PYTHONPATH": str(TESTS)}, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        probes.missing("needs unshare")
    if "unshare failed" in run.stderr or "mount: " in run.stderr:
        probes.missing("needs overlay mounts in a user namespace")
    assert run.stdout.startswith("5 sequences"), run.stderr
