"""Foreign tools: looked for as `probes.missing` has it, and run away from the user's settings."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import probes


class Tool:
    """A program, run with a home of its own."""

    def __init__(self, name: str, home: Path) -> None:
        found = shutil.which(name)
        if found is None:
            probes.missing(f"needs {name}")
        self._path = found
        self._home = home

    def run(self, *arguments: str | Path) -> str:
        """What it writes to stdout, which may hold names of files; a failure tells what it wrote to stderr."""
        done = self.attempt(*arguments)
        assert done.returncode == 0, f"{self._path} {arguments}: {done.stderr}"
        return done.stdout

    def attempt(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run it, whatever comes of it."""
        self._home.mkdir(exist_ok=True)
        home = str(self._home)
        return subprocess.run(
            [self._path, *map(str, arguments)],
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": home, "XDG_RUNTIME_DIR": home},
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=120,
            check=False,
        )
