"""Reading what belongs to this process and is closed to it by its mode: the mode is opened for the moment, and restored.

Law: nobody in this process sees an opened mode. A file is opened and closed again under the lock; a directory, which has to
stay open to be searched, is remembered with its own mode until the last descriptor of it goes.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from ocidiff import opening

_FILE_BITS: Final = 0o400
_DIRECTORY_BITS: Final = 0o500
_lock = threading.RLock()
# Modes belong to the machine, so that all calls of the process share this: mode, and how many descriptors.
_opened: dict[tuple[int, int], tuple[int, int]] = {}

Inode = tuple[int, int]


def is_bound() -> bool:
    """True if modes bind this process even where it owns the file."""
    return os.geteuid() != 0


def lstat(name: bytes, above: int) -> os.stat_result:
    """The lstat of `name`, with the mode that its owner gave it."""
    if not is_bound():
        return os.lstat(name, dir_fd=above)
    with _lock:
        return _with_own_mode(os.lstat(name, dir_fd=above))


def fstat(descriptor: int) -> os.stat_result:
    """The same of an open file or directory."""
    with _lock:
        return _with_own_mode(os.fstat(descriptor))


def _with_own_mode(info: os.stat_result) -> os.stat_result:
    known = _opened.get((info.st_dev, info.st_ino))
    return info if known is None else changed(info, mode=stat.S_IFMT(info.st_mode) | known[0])


def changed(
    info: os.stat_result, *, mode: int | None = None, rdev: int | None = None, ctime_ns: int | None = None
) -> os.stat_result:
    """A stat with other fields."""
    more = {name: getattr(info, name) for name in ("st_atime_ns", "st_mtime_ns", "st_ctime_ns", "st_rdev", "st_blocks")}
    more["st_rdev"] = info.st_rdev if rdev is None else rdev
    more["st_ctime_ns"] = info.st_ctime_ns if ctime_ns is None else ctime_ns
    return os.stat_result((info.st_mode if mode is None else mode, *info[1:10]), more)


@contextmanager
def while_open(above: int, name: bytes) -> Iterator[bytes]:
    """A path to the file or directory `name`, which its owner may read for as long as the block lasts.

    Raises:
        PermissionError: It belongs to somebody else, or is nothing that can be read.
    """
    with _lock:
        pinned = os.open(name, opening.HANDLE, dir_fd=above)
        try:
            info = os.fstat(pinned)
            if info.st_uid != os.geteuid() or not (stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode)):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            path = b"/proc/self/fd/%d" % pinned
            os.chmod(path, stat.S_IMODE(info.st_mode) | _FILE_BITS)
            try:
                yield path
            finally:
                os.chmod(path, stat.S_IMODE(info.st_mode))
        finally:
            os.close(pinned)


def open_file(name: bytes, flags: int, above: int) -> int:
    """Open the file `name` for reading, also one that its mode closes to this process, which owns it."""
    try:
        return os.open(name, flags, dir_fd=above)
    except PermissionError:
        if not is_bound():
            raise
    with while_open(above, name) as path:
        return os.open(path, flags & ~os.O_NOFOLLOW)


def get_xattr(path: bytes, key: str | bytes, above: int, name: bytes) -> bytes:
    """The attribute `key` of `name`, also of a file that its mode closes to this process; `path` leads there too."""
    try:
        return os.getxattr(path, key, follow_symlinks=False)
    except PermissionError:
        if not is_bound():
            raise
    with while_open(above, name) as opened:
        return os.getxattr(opened, key)


def open_directory(name: str | bytes, flags: int, above: int | None) -> tuple[int, Inode | None]:
    """Open a directory so that it can be read and searched; what to `release` it by, if its mode had to be opened."""
    if not is_bound():
        return os.open(name, flags, dir_fd=above), None
    pinned = os.open(name, opening.ROOT_HANDLE | flags & os.O_NOFOLLOW, dir_fd=above)
    try:
        inode = hold(pinned)
        try:
            return os.open(b".", flags & ~os.O_NOFOLLOW, dir_fd=pinned), inode
        except OSError as error:
            if inode is not None:
                release(pinned, inode)
            raise OSError(error.errno, error.strerror, name) from error
    finally:
        os.close(pinned)


def hold(directory: int) -> Inode | None:
    """Let the directory of a descriptor be read and searched; what to `release` it by, if its mode had to be opened."""
    if not is_bound():
        return None
    with _lock:
        info = os.fstat(directory)
        inode, mode = (info.st_dev, info.st_ino), stat.S_IMODE(info.st_mode)
        if inode in _opened:
            mode, count = _opened[inode]
            _opened[inode] = mode, count + 1
            return inode
        if info.st_uid != os.geteuid() or mode & _DIRECTORY_BITS == _DIRECTORY_BITS:
            return None
        os.chmod(b"/proc/self/fd/%d" % directory, mode | _DIRECTORY_BITS)
        _opened[inode] = mode, 1
        return inode


def release(directory: int, inode: Inode) -> None:
    """Give a directory its own mode back, if this is the last descriptor of it."""
    with _lock:
        mode, count = _opened.pop(inode)
        if count > 1:
            _opened[inode] = mode, count - 1
            return
        os.chmod(b"/proc/self/fd/%d" % directory, mode)
