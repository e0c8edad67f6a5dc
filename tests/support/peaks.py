"""Peaks of memory in a process of its own: those of the test process hide behind the largest test before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_PEAK = """
import pathlib

def peak():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))
"""


def peak_growth(before: str, work: str, *words: str | Path) -> int:
    """Return by how many bytes `work` raises the peak of a process that has run `before`."""
    script = f"{_PEAK}\n{before}\nstart = peak()\n{work}\nprint(peak() - start)\n"
    command = [sys.executable, "-c", script, *words]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
