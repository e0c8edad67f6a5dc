"""A mount as containerd describes it, and the one codec of overlayfs' `lowerdir` option."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from ocidiff.errors import UnsupportedError
from ocidiff.values import dataclass

# A byte as mountinfo escapes it. Spec: proc_pid_mountinfo(5).
_OCTAL: Final = rb"\\([0-7]{3})"
_ID_MAPS: Final = ("uidmap=", "gidmap=")
_TYPES: Final = frozenset({"bind", "overlay"})


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount, as containerd describes it.

    Attributes:
        type: `bind` or `overlay` are understood here; a snapshotter may name any other file system.
        source: The directory of a bind mount; a name for an overlay.
        options: `ro`, `rw`, and those of overlayfs, with `lowerdir` as one text of escaped paths.
        target: Directory below the place of the mounts that this one covers; empty for the place itself.
    """

    type: str
    source: str
    options: tuple[str, ...]
    target: str = ""

    @property
    def read_only(self) -> bool:
        """True if nothing can be written through the mount."""
        return "ro" in self.options

    def option(self, name: str) -> str | None:
        """Return the value of the option `name=value`; None if there is none."""
        prefix = f"{name}="
        return next((option.removeprefix(prefix) for option in self.options if option.startswith(prefix)), None)


def bind(source: str, *, read_only: bool) -> Mount:
    """Return the mount that shows a directory as it is."""
    return Mount("bind", source, ("rbind", "ro" if read_only else "rw"))


def overlay(lower: Sequence[str], upper: str | None, work: str | None, options: Sequence[str]) -> Mount:
    """Return the mount that shows several directories as one, the nearest first; read only without an upper directory."""
    parts = [f"lowerdir={':'.join(map(escaped, lower))}"]
    if upper is not None:
        parts += [f"upperdir={upper}", f"workdir={work}"]
    return Mount("overlay", "overlay", (*options, *parts, "ro" if upper is None else "rw"))


def only_mount(mounts: Sequence[Mount]) -> Mount:
    """Return the mount that decides what the mounts show: each covers the ones before it.

    Raises:
        UnsupportedError: The mounts show more than one directory or overlay at their place.
    """
    for mount in mounts:
        if mount.target:
            raise UnsupportedError(f"mount at {mount.target}: mounts below the root of a snapshot are not supported")
        mapped = next((option for option in mount.options if option.startswith(_ID_MAPS)), None)
        if mapped is not None:
            raise UnsupportedError(f"mount option {mapped}: id-mapped mounts are not supported")
        if mount.type not in _TYPES:
            raise UnsupportedError(f"{mount.type} mount: only bind and overlay mounts can be read as directories")
    if not mounts:
        raise UnsupportedError("no mounts: the snapshot shows no directory")
    return mounts[-1]


def unmapped(mounts: Sequence[Mount]) -> tuple[Mount, ...]:
    """Return the mounts without their id maps: they show the ids that files have on disk."""
    return tuple(
        replace(mount, options=tuple(option for option in mount.options if not option.startswith(_ID_MAPS)))
        for mount in mounts
    )


def unsynced(mounts: Sequence[Mount]) -> tuple[Mount, ...]:
    """Return the mounts with `volatile` on writable overlays, for trees that are made durable by other means or not at all.

    Without it, the end of an overlay mount syncs the whole file system of its upper directory.
    """
    return tuple(
        replace(mount, options=(*mount.options, "volatile")) if mount.type == "overlay" and not mount.read_only else mount
        for mount in mounts
    )


def lower_directories(mount: Mount) -> list[str]:
    """Return the lower directories of an overlay, the nearest first."""
    below, _ = split_lowerdir(os.fsencode(mount.option("lowerdir") or ""))
    return [os.fsdecode(path) for path in below]


def escaped(path: str) -> str:
    """Return a path as `lowerdir` takes it: separators are escaped."""
    return re.sub(r"([\\:,])", r"\\\1", path)


def unescape_octal(text: bytes) -> bytes:
    """Return a field of mountinfo with its octal escapes resolved."""
    return re.sub(_OCTAL, lambda digits: bytes([int(digits[1], 8)]), text)


def split_lowerdir(value: bytes, *, octal: bool = False) -> tuple[list[bytes], list[bytes]]:
    """Return the directories that the mount option `lowerdir` names, and the data-only ones, which follow `::`.

    Args:
        value: Directories separated by colons; a backslash keeps the byte after it.
        octal: True if bytes are escaped as in mountinfo. A colon escaped that way separates nothing.

    Spec: Linux, Documentation/filesystems/overlayfs.rst.
    """
    groups, name, rest = [list[bytes]()], bytearray(), value

    def take() -> tuple[bytes, bool]:
        nonlocal rest
        digits = re.match(_OCTAL, rest) if octal else None
        rest, byte = (rest[4:], bytes([int(digits[1], 8)])) if digits else (rest[1:], rest[:1])
        return byte, digits is not None

    while rest:
        byte, is_escaped = take()
        if byte == b"\\":
            name += take()[0]
        elif byte == b":" and not is_escaped:
            groups[-1].append(bytes(name))
            name.clear()
            if rest.startswith(b":"):
                groups.append([])
                rest = rest[1:]
        else:
            name += byte
    groups[-1].append(bytes(name))
    return groups[0], [layer for group in groups[1:] for layer in group]
