"""Foreign tools: looked for as `probes.missing` has it, and run away from the user's settings."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from support.programs import program_of


class Tool:
    """A program, run with `home` as its home and none of the user's settings; with all of them when that is None."""

    def __init__(self, name: str, home: Path | None) -> None:
        self._path = program_of(name)
        self._environment = dict(os.environ)
        if home is not None:
            home.mkdir(exist_ok=True)
            place = str(home)
            self._environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": place, "XDG_RUNTIME_DIR": place}

    def run(self, *arguments: str | Path, directory: Path | None = None) -> str:
        """What it writes to stdout, which may hold names of files; a failure tells what it wrote to stderr."""
        done = self.attempt(*arguments, directory=directory)
        assert done.returncode == 0, f"{self._path} {arguments}: {done.stderr}"
        return done.stdout

    def attempt(self, *arguments: str | Path, directory: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run it, in a directory if one is given, whatever comes of it."""
        return subprocess.run(
            [self._path, *map(str, arguments)],
            cwd=directory,
            env=self._environment,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=250,
            check=False,
        )
