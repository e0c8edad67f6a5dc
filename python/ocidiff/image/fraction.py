"""Fraction: layers keep whole seconds, so a tree that came out of layers lacks the fractions of its files' times.

A diff takes a file for modified when only one side has a fraction, without looking at its content. Against an unpacked base
that would put every file into the new layer. Here the unpacked tree, which is ours, gets the fractions of the changed tree
back wherever the content is the same; what is left out of that is found modified, never the other way round.
"""

from __future__ import annotations

import os
import stat
from typing import Final

from ocidiff.errors import Cancelled
from ocidiff.layer.layer import Monitor

_NS_PER_SECOND: Final = 10**9
_BLOCK_BYTES: Final = 1 << 20
_OPEN_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def adopt_fractions(unpacked: bytes, changed: bytes, monitor: Monitor) -> None:
    """Give files in `unpacked` the whole modification time of those in `changed` that have the same second and content.

    Args:
        unpacked: Path of a private tree that nobody else writes.
        changed: Path of the tree that it will be compared with.
        monitor: Stops the call.

    Raises:
        Cancelled: The caller cancelled.
    """
    waiting = [(unpacked, changed)]
    while waiting:
        if monitor.cancel is not None and monitor.cancel.cancelled:
            raise Cancelled("cancelled")
        here = waiting.pop()
        for name in _names(here[0]):
            mine, theirs = (os.path.join(directory, name) for directory in here)
            try:
                own, other = os.lstat(mine), os.lstat(theirs)
                if stat.S_ISDIR(own.st_mode) and stat.S_ISDIR(other.st_mode):
                    waiting.append((mine, theirs))
                elif _differ_in_fraction_only(own, other) and _same_content(mine, theirs, other):
                    os.utime(mine, ns=(own.st_atime_ns, other.st_mtime_ns), follow_symlinks=False)
            except OSError:
                # Gone, unreadable or too deep for a path: it stays as it is.
                continue


def _names(directory: bytes) -> list[bytes]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _differ_in_fraction_only(own: os.stat_result, other: os.stat_result) -> bool:
    return (
        stat.S_IFMT(own.st_mode) == stat.S_IFMT(other.st_mode)
        and not stat.S_ISDIR(own.st_mode)
        and own.st_size == other.st_size
        and own.st_mtime_ns % _NS_PER_SECOND == 0
        and 0 < other.st_mtime_ns - own.st_mtime_ns < _NS_PER_SECOND
    )


def _same_content(mine: bytes, theirs: bytes, other: os.stat_result) -> bool:
    if stat.S_ISLNK(other.st_mode):
        return os.readlink(mine) == os.readlink(theirs)
    if not stat.S_ISREG(other.st_mode) or other.st_size == 0:
        return True
    with (
        open(mine, "rb", buffering=0, opener=_open) as left,
        open(theirs, "rb", buffering=0, opener=_open) as right,
    ):
        while True:
            block = left.read(_BLOCK_BYTES)
            if block != _read_exactly(right.fileno(), len(block)):
                return False
            if not block:
                # Changed while it was read: its time is no longer the one that was looked at.
                return os.fstat(right.fileno()).st_mtime_ns == other.st_mtime_ns


def _open(path: str, _flags: int) -> int:
    return os.open(path, _OPEN_FILE)


def _read_exactly(file: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        block = os.read(file, size - len(data))
        if not block:
            break
        data += block
    return data
