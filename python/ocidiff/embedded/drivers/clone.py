"""Clone: copy a tree, sharing the blocks of its files if the file system can."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from typing import Final, Self

from ocidiff import access
from ocidiff.walk import Cursor, walk

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
    linked = HardLinks(target)
    with linked, Cursor(target) as there, Cursor(source) as here:
        for name, info, is_left in walk(here):
            check()
            if is_left:
                # Children change the times of their directory, and its mode may forbid them.
                there.leave()
                copy_attributes(here, there, name, info)
            elif stat.S_ISDIR(info.st_mode):
                os.mkdir(name, 0o700, dir_fd=there.fd)
                there.enter(name)
            elif not linked.link(info, there, name):
                clone_entry(here, there, name, info)
                copy_attributes(here, there, name, info)
        copy_attributes(here, there, b".", access.fstat(here.fd))


class HardLinks:
    """The hard links of a tree that is being made: every further name of an inode of its source becomes a link to the first.

    Args:
        target: Path of the tree.
    """

    def __init__(self, target: str | bytes) -> None:
        self._first: dict[tuple[int, int], tuple[bytes, bytes]] = {}
        self._cursor = Cursor(target)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._cursor.close()

    def link(self, info: os.stat_result, there: Cursor, name: bytes) -> bool:
        """Link `name`, if its inode has a name in the tree already; else remember it as the first one."""
        if info.st_nlink < 2:
            return False
        inode = (info.st_dev, info.st_ino)
        if inode not in self._first:
            self._first[inode] = (there.path(), name)
            return False
        directory, first = self._first[inode]
        self._cursor.go(directory)
        os.link(first, name, src_dir_fd=self._cursor.fd, dst_dir_fd=there.fd, follow_symlinks=False)
        return True


def copy_attributes(here: Cursor, there: Cursor, name: bytes, info: os.stat_result, new_name: bytes | None = None) -> None:
    """Give `new_name` in the directory `there` the owner, mode, extended attributes and times of `name`, as far as allowed.

    Args:
        here: Directory of `name`.
        there: Directory of `new_name`.
        name: What to copy from.
        info: Its lstat.
        new_name: What to copy to; None for the same name.
    """
    new_name = name if new_name is None else new_name
    source, target = here.proc(name), there.proc(new_name)
    try:
        os.chown(new_name, info.st_uid, info.st_gid, dir_fd=there.fd, follow_symlinks=False)
    except PermissionError:
        if os.geteuid() == 0:
            raise
    # After the owner, whose change drops capabilities; before the mode, which may forbid it to the owner.
    for key in os.listxattr(source, follow_symlinks=False):
        try:
            os.setxattr(target, key, access.get_xattr(source, key, here.fd, name), follow_symlinks=False)
        except OSError as error:
            if os.geteuid() == 0 or error.errno not in _NOTHING_TO_DO:
                raise
    if not stat.S_ISLNK(info.st_mode):
        os.chmod(new_name, info.st_mode & _MODE, dir_fd=there.fd)
    os.utime(new_name, ns=(info.st_atime_ns, info.st_mtime_ns), dir_fd=there.fd, follow_symlinks=False)


def can_share_blocks(directory: str) -> bool:
    """True if files in this directory can share their blocks, so that cloning one takes no space and no time."""
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


def clone_file(source: int, name: bytes, target: int, new_name: bytes) -> None:
    """Make the file `new_name` in the directory `target`, where it is missing, with the content of `name` in `source`."""
    old = access.open_file(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, source)
    try:
        new = os.open(new_name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target)
        try:
            if not _share(old, new):
                _copy(old, new)
        except OSError as error:
            # The calls on descriptors name no file.
            raise OSError(error.errno, error.strerror, new_name) from error
        finally:
            os.close(new)
    finally:
        os.close(old)


def clone_entry(here: Cursor, there: Cursor, name: bytes, info: os.stat_result) -> None:
    """Make `name`, which is no directory, in another directory, without its attributes."""
    if stat.S_ISREG(info.st_mode):
        clone_file(here.fd, name, there.fd, name)
    elif stat.S_ISLNK(info.st_mode):
        os.symlink(os.readlink(name, dir_fd=here.fd), name, dir_fd=there.fd)
    else:
        os.mknod(name, stat.S_IFMT(info.st_mode) | 0o600, info.st_rdev, dir_fd=there.fd)


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
