"""Clone: a tree that is the same as another and shares nothing with it but, where the file system can, the blocks."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from typing import Final

# linux/fs.h: _IOW(0x94, 9, int)
_FICLONE: Final = 0x40049409
_NO_CLONE: Final = frozenset({errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.EPERM, errno.ENOSYS})
_COPY_BYTES: Final = 1 << 30
_MODE: Final = 0o7777
_NOTHING_TO_DO: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.EACCES})


def clone_tree(source: str, target: str, check: Callable[[], None] = lambda: None) -> None:
    """Make the directory `target`, which is empty, the same as `source`: contents, links, holes, attributes and times.

    Args:
        source: Directory to read.
        target: Directory to fill.
        check: Called for every entry; what it raises ends the call.

    Raises:
        OSError: Something cannot be read or made. An owner that an unprivileged process may not give is left out.
    """
    linked: dict[tuple[int, int], bytes] = {}
    directories: list[tuple[bytes, bytes]] = []
    waiting = [(os.fsencode(source), os.fsencode(target))]
    while waiting:
        here, there = waiting.pop()
        directories.append((here, there))
        with os.scandir(here) as entries:
            for entry in entries:
                check()
                new = os.path.join(there, entry.name)
                info = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(info.st_mode):
                    os.mkdir(new, 0o700)
                    waiting.append((entry.path, new))
                    continue
                inode = (info.st_dev, info.st_ino)
                if info.st_nlink > 1 and inode in linked:
                    os.link(linked[inode], new, follow_symlinks=False)
                    continue
                linked[inode] = new
                _clone_entry(entry.path, new, info)
                copy_attributes(entry.path, new, info)
    # Children change the times of their directory, and its mode may forbid them.
    for here, there in reversed(directories):
        copy_attributes(here, there, os.stat(here))


def copy_attributes(source: bytes, target: bytes, info: os.stat_result) -> None:
    """Give `target` the owner, mode, extended attributes and times that `source` has, as far as this process may."""
    try:
        os.chown(target, info.st_uid, info.st_gid, follow_symlinks=False)
    except PermissionError:
        if os.geteuid() == 0:
            raise
    # After the owner: changing it takes set-user-ID bits and capabilities away.
    if not stat.S_ISLNK(info.st_mode):
        os.chmod(target, info.st_mode & _MODE)
    for name in os.listxattr(source, follow_symlinks=False):
        try:
            os.setxattr(target, name, os.getxattr(source, name, follow_symlinks=False), follow_symlinks=False)
        except OSError as error:
            if os.geteuid() == 0 or error.errno not in _NOTHING_TO_DO:
                raise
    os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns), follow_symlinks=False)


def can_share_blocks(directory: str) -> bool:
    """Whether files in this directory can share their blocks, so that cloning one takes no space and no time."""
    try:
        first = os.open(directory, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
    except OSError:
        return False
    try:
        second = os.open(directory, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
        try:
            os.write(first, bytes(4096))
            return _share(first, second)
        finally:
            os.close(second)
    finally:
        os.close(first)


def clone_file(source: bytes, target: bytes) -> None:
    """Make the file `target`, which is not there, with the content of `source`."""
    old = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        new = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            if not _share(old, new):
                _copy(old, new)
        finally:
            os.close(new)
    finally:
        os.close(old)


def _clone_entry(source: bytes, target: bytes, info: os.stat_result) -> None:
    if stat.S_ISREG(info.st_mode):
        clone_file(source, target)
    elif stat.S_ISLNK(info.st_mode):
        os.symlink(os.readlink(source), target)
    else:
        os.mknod(target, stat.S_IFMT(info.st_mode) | 0o600, info.st_rdev)


def _share(old: int, new: int) -> bool:
    try:
        fcntl.ioctl(new, _FICLONE, old)
    except OSError as error:
        if error.errno in _NO_CLONE:
            return False
        raise
    return True


def _copy(old: int, new: int) -> None:
    """Copy within the kernel, leaving holes as holes."""
    size = os.fstat(old).st_size
    os.ftruncate(new, size)
    end = 0
    while end < size:
        try:
            begin = os.lseek(old, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        end = os.lseek(old, begin, os.SEEK_HOLE)
        while begin < end:
            count = os.copy_file_range(old, new, min(end - begin, _COPY_BYTES), begin, begin)
            if count == 0:
                return
            begin += count
