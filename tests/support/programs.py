"""Foreign programs: of the system, or built once from their sources."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from support import probes

GET: Final = Path(__file__).parents[1] / "containerd/get"
BUILT: Final = frozenset({"registry", "olareg", "crane", "oras"})
"""Programs that Debian has not, or not in a version of today. `get` builds them."""


def program_of(name: str) -> str:
    """The path of a program. One that takes minutes to build is built only where every tool is required."""
    if name not in BUILT:
        return shutil.which(name) or probes.missing(f"needs {name}")
    place = os.environ.get("OCIDIFF_CACHE") or f"{os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'}/ocidiff-tests"
    if not Path(place, "containerd", name, "ready").exists() and os.environ.get("OCIDIFF_REQUIRE") != "all":
        probes.missing(f"needs {name}, which tests/containerd/get builds")
    done = subprocess.run([GET, name], capture_output=True, text=True, check=False)
    if done.returncode:
        probes.missing(f"{name} cannot be had: {done.stderr[-1000:]}")
    return f"{done.stdout.strip()}/{name}"
