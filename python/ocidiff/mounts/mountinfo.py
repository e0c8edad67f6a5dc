"""Mounts as the kernel lists them: the only reader of mountinfo, fdinfo and uid_map. Spec: proc_pid_mountinfo(5)."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

from ocidiff.mounts.mount import unescape_octal
from ocidiff.values import dataclass

_MOUNTINFO: Final = "/proc/self/mountinfo"


@dataclass(frozen=True, slots=True)
class MountPoint:
    """A line of mountinfo.

    Attributes:
        id: Number of the mount.
        device: `major:minor` of the mounted file system.
        root: The directory of the file system that is mounted.
        path: Where it is mounted.
        kind: Type of the file system.
        options: Options of the file system, still escaped.
    """

    id: int
    device: bytes
    root: bytes
    path: bytes
    kind: bytes
    options: bytes


def parse_mountinfo(text: bytes) -> list[MountPoint]:
    """Return the mounts that the kernel lists; a line of another form is skipped."""
    mounts = []
    for line in text.splitlines():
        fixed, separator, rest = line.partition(b" - ")
        fields, kinds = fixed.split(b" "), rest.split(b" ")
        if separator and len(fields) >= 5 and len(kinds) == 3:
            root, path = unescape_octal(fields[3]), unescape_octal(fields[4])
            mounts.append(MountPoint(int(fields[0]), fields[2], root, path, kinds[0], kinds[2]))
    return mounts


def mounts_here() -> list[MountPoint]:
    """Return the mounts of this mount namespace; none if the kernel does not tell."""
    try:
        with open(_MOUNTINFO, "rb") as file:
            return parse_mountinfo(file.read())
    except OSError:
        return []


def mount_points() -> set[str]:
    """Return the paths where something is mounted in this mount namespace."""
    with open(_MOUNTINFO, "rb") as file:
        return {os.fsdecode(mount.path) for mount in parse_mountinfo(file.read())}


def is_mounted_anywhere(device: int) -> bool:
    """True if a process that this one may look at has the file system of this `st_dev` mounted."""
    wanted = b"%d:%d" % (os.major(device), os.minor(device))
    seen = set[str]()
    for process in filter(str.isdigit, os.listdir("/proc")):
        # The process may end meanwhile, or belong to another user.
        with suppress(OSError):
            namespace = os.readlink(f"/proc/{process}/ns/mnt")
            if namespace not in seen:
                with open(f"/proc/{process}/mountinfo", "rb") as file:
                    if any(mount.device == wanted for mount in parse_mountinfo(file.read())):
                        return True
                seen.add(namespace)
    return False


def mount_id(handle: int) -> int | None:
    """Return the number of the mount that an open file is in; None if the kernel does not tell."""
    try:
        with open(f"/proc/self/fdinfo/{handle}", encoding="ascii") as file:
            return next((int(line.split()[1]) for line in file if line.startswith("mnt_id:")), None)
    except OSError:
        return None


def has_mounts_below(handle: int) -> bool:
    """True if something may be mounted below an open directory."""
    mounts, path = mounts_here(), os.fsencode(os.readlink(f"/proc/self/fd/{handle}")).rstrip(b"/")
    # The list of this namespace says nothing of a directory in another one.
    is_here = mount_id(handle) in {mount.id for mount in mounts}
    return not is_here or any(mount.path.startswith(path + b"/") for mount in mounts)


def in_user_namespace() -> bool:
    """True if root here has no rights outside, so that it may make no devices and overlayfs keeps its marks in `user.`."""
    with open("/proc/self/uid_map") as file:
        return file.read().split() != ["0", "0", "4294967295"]
