"""Foreign programs: of the system, or built once from their sources."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

from support import probes

GET: Final = Path(__file__).parents[1] / "containerd/get"
BUILT: Final = frozenset({"registry", "olareg", "crane", "oras"})
"""Programs that Debian has not, or not in a version of today. `get` builds them."""


def program_of(name: str) -> str:
    """The path of a program, which is built if it is none of the system's."""
    if name not in BUILT:
        return shutil.which(name) or probes.missing(f"needs {name}")
    done = subprocess.run([GET, name], capture_output=True, text=True, check=False)
    if done.returncode:
        probes.missing(f"{name} cannot be had: {done.stderr[-1000:]}")
    return f"{done.stdout.strip()}/{name}"
