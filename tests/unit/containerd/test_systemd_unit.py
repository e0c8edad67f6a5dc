"""The unit of systemd is one that systemd takes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from support import probes

UNIT = Path(__file__).parents[3] / "deploy/ocidiff-serve.service"


def test_systemd_finds_no_fault_with_the_unit() -> None:
    if shutil.which("systemd-analyze") is None:
        probes.missing("needs systemd-analyze")
    done = subprocess.run(["systemd-analyze", "verify", UNIT], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
