"""Machine: the facts that a figure is worth nothing without."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from typing import Final

from ocidiff.mounts.mountinfo import mounts_here

# Of x86 and of ARM.
_SHA_FLAGS: Final = frozenset({"sha_ni", "sha2"})


def facts(directory: str) -> Mapping[str, str | float]:
    """Return what is known of this machine.

    Args:
        directory: Where the benchmark is; its file system is named.
    """
    processor = _fields("/proc/cpuinfo")
    flags = {*processor.get("flags", "").split(), *processor.get("Features", "").split()}
    memory = _fields("/proc/meminfo").get("MemTotal", "0 kB").split()[0]
    return {
        "processor": processor.get("model name", platform.machine()),
        "cores": len(os.sched_getaffinity(0)),
        "shaInstructions": "yes" if flags & _SHA_FLAGS else "no" if flags else "unknown",
        "memoryBytes": int(memory) << 10,
        "kernel": f"{os.uname().sysname} {os.uname().release}",
        "fileSystem": file_system(directory),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
    }


def file_system(path: str | os.PathLike[str]) -> str:
    """Return the type of the file system that holds a path."""
    device = os.stat(path).st_dev
    number = b"%d:%d" % (os.major(device), os.minor(device))
    return next((os.fsdecode(mount.kind) for mount in mounts_here() if mount.device == number), "unknown")


def _fields(path: str) -> Mapping[str, str]:
    """Return the first value of each name in a file of lines `name : value`."""
    found: dict[str, str] = {}
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            name, _, value = line.partition(":")
            found.setdefault(name.strip(), value.strip())
    return found
