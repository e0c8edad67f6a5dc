"""Owner: the process that holds a lease, so that a later one can release what a dead process has left."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

EXPIRE: Final = "containerd.io/gc.expire"
"""Label of a lease: when it ends by itself."""
OWNER: Final = "ocidiff/owner"
"""Label of our leases: the process that holds it."""


def labels_of_lease(lifetime_seconds: float) -> dict[str, str]:
    """Return the labels of a lease that this process holds."""
    expires = datetime.now(UTC) + timedelta(seconds=lifetime_seconds)
    return {EXPIRE: expires.isoformat(timespec="seconds"), OWNER: _owner("self")}


def is_left_behind(labels: Mapping[str, str]) -> bool:
    """True if a lease is ours, and the process that held it is dead."""
    boot, namespace, *_ = _owner("self").split()
    owner = labels.get(OWNER, "").split()
    # Processes of another namespace cannot be seen from here.
    if len(owner) != 4 or (owner[0] == boot and owner[1] != namespace):
        return False
    return owner[0] != boot or _owner(owner[2]).split() != owner


def _owner(process: str) -> str:
    """Return what names a process on this machine: run of the kernel, namespace, number, time of its start."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        boot = file.read().strip()
    try:
        namespace = os.stat(f"/proc/{process}/ns/pid").st_ino
        with open(f"/proc/{process}/stat") as file:
            number, _, rest = file.read().partition(" ")
    except OSError:
        return boot
    # The name before the last bracket may hold anything. Spec: proc_pid_stat(5).
    return f"{boot} {namespace} {number} {rest.rpartition(')')[2].split()[19]}"
