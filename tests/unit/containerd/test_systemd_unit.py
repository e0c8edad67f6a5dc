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


def test_system_calls_that_are_not_allowed_are_as_in_an_older_kernel() -> None:
    # systemd 252 has no name for getxattrat, which the core tries first. The default is to kill the process.
    lines = UNIT.read_text().splitlines()
    assert any(line.startswith("SystemCallFilter=") for line in lines)
    assert "SystemCallErrorNumber=ENOSYS" in lines
