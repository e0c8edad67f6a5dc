"""Stamp: a fingerprint of a tree from what its directories and inodes say, so that no file is read.

A file that is written gets another ctime, which nobody can set. Law: a tree that system calls have changed since its
stamp was taken has another stamp, unless a change came so soon after it that the clock of the file system could not tell. A
write through a memory mapping may change a file and no time of it.
"""

from __future__ import annotations

import os
import struct
import time
from typing import Final

from ocidiff.layer.layer import IndexPath
from ocidiff.values import dataclass
from ocidiff.walk import Cursor, walk

_FIELDS: Final = struct.Struct("<qQQQqq")
# The coarsest clock of a file system in use is that of FAT.
_TICK_NS: Final = 2_000_000_000


@dataclass(frozen=True, slots=True)
class Stamp:
    """The fingerprint of a tree.

    Attributes:
        digest: SHA-256 of the names and inodes, in hex. Another order of the names in a directory gives another digest.
        settled: True if a later change must give another digest, since the last one is older than a tick of the clock.
    """

    digest: str
    settled: bool

    @classmethod
    def of(cls, *trees: bytes) -> Stamp:
        """Return the stamp of directories.

        Raises:
            OSError: A directory cannot be read.
        """
        import hashlib

        hashed, newest, began = hashlib.sha256(), 0, time.time_ns()
        for tree in trees:
            with Cursor(tree) as cursor:
                top = os.fstat(cursor.fd)
                hashed.update(_entry(b"", top))
                newest = max(newest, top.st_ctime_ns)
                for visit in walk(cursor):
                    if visit.is_left:
                        # The end of a directory: the name alone would not tell what is in it.
                        hashed.update(b"\0")
                    else:
                        hashed.update(_entry(visit.name, visit.info))
                        newest = max(newest, visit.info.st_ctime_ns)
        return cls(hashed.hexdigest(), newest < began - _TICK_NS)

    @classmethod
    def of_lower(cls, lower: bytes | IndexPath | None) -> Stamp | None:
        """Return the stamp of a parent tree, or of the file of its index; None for no tree. Errors as in `of`."""
        if lower is None:
            return None
        if not isinstance(lower, IndexPath):
            return cls.of(lower)
        import hashlib

        began, info = time.time_ns(), os.stat(lower.path)
        return cls(hashlib.sha256(_entry(b"", info)).hexdigest(), info.st_ctime_ns < began - _TICK_NS)


def _entry(name: bytes, info: os.stat_result) -> bytes:
    # No name of a file is empty or has a null byte.
    numbers = _FIELDS.pack(info.st_mode, info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
    return b"%s\0%s" % (name, numbers)
