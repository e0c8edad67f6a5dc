"""Workspace: private files and directories under a directory, which vanish with their owner; and files by name in it.

Each is locked (flock) by the process that made it. What is not locked was left by a process that died, and is swept.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from io import BufferedReader
from typing import BinaryIO, Final, cast

from ocidiff import opening
from ocidiff.walk import Cursor, walk

_CREATE_FILE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SEARCHABLE: Final = 0o700
_LARGE_FILES: Final = "/var/tmp"  # noqa: S108 - for files without a name
_NO_XATTR: Final = frozenset({errno.ENODATA, errno.EOPNOTSUPP})
FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Numbers of the errors of a full disk."""
# The file system of temporary files, or a limit of the process, may also bound the size of one file.
_NO_ROOM: Final = FULL | {errno.EFBIG}
# O_NONBLOCK: a FIFO in place of a file is an error, not a wait.
_REGULAR: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# A symbolic link, and a socket or a device without a driver.
_NOT_OPENED: Final = frozenset({errno.ELOOP, errno.ENXIO, errno.ENODEV})
# Of a directory that no layer describes.
ROOT_MODE: Final = 0o755


def create_file(parent: int, mode: int = 0o600) -> tuple[str, int]:
    """Return the name and the locked descriptor of a new file in the directory `parent`.

    Args:
        parent: Descriptor of the directory.
        mode: Its permissions, whatever the umask is.
    """
    while True:
        name = os.urandom(16).hex()
        descriptor = os.open(name, _CREATE_FILE, mode, dir_fd=parent)
        try:
            os.fchmod(descriptor, mode)
            if _lock_new(descriptor):
                return name, descriptor
        except BaseException:
            os.close(descriptor)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=parent)
            raise
        os.close(descriptor)


def create_directory(parent: int) -> tuple[str, int]:
    """Return the name and the locked descriptor of a new private directory in the directory `parent`."""
    while True:
        name = os.urandom(16).hex()
        os.mkdir(name, _SEARCHABLE, dir_fd=parent)
        try:
            descriptor = os.open(name, opening.DIRECTORY, dir_fd=parent)
        except FileNotFoundError:
            continue
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(name, dir_fd=parent)
            raise
        try:
            if _lock_new(descriptor):
                return name, descriptor
        except BaseException:
            os.close(descriptor)
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(name, dir_fd=parent)
            raise
        os.close(descriptor)


def nameless_file(directory: str | None) -> BinaryIO:
    """Open a file that has no name, and vanishes with its descriptor or its process.

    Args:
        directory: Where its bytes are; None for `TMPDIR`, else /var/tmp, since /tmp is often memory.
    """
    import tempfile

    return cast("BinaryIO", tempfile.TemporaryFile(buffering=0, dir=place_of_files(directory)))


def place_of_files(directory: str | None) -> str:
    """Return the directory of large temporary files: `directory`, or if it is None `TMPDIR`, else /var/tmp."""
    return directory or os.environ.get("TMPDIR", _LARGE_FILES)


@contextlib.contextmanager
def filling(directory: str | None) -> Iterator[None]:
    """Name the directory of a nameless file if it is full, since nobody knows that there is such a file.

    Args:
        directory: That of `nameless_file`.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        full = OSError(error.errno, error.strerror, place_of_files(directory))
        if directory is None:
            full.add_note("TMPDIR names another directory for temporary files")
        raise full from None


def make_root(path: str) -> None:
    """Make the root directory of a tree that no layer describes yet: mode 0755, owner of this process, and no ACL.

    The umask, a set-group-ID bit and the default ACL of the directory around it do not count.
    """
    os.mkdir(path, _SEARCHABLE)
    os.chown(path, os.geteuid(), os.getegid())
    for acl in ("system.posix_acl_access", "system.posix_acl_default"):
        try:
            os.removexattr(path, acl)
        except OSError as error:
            if error.errno not in _NO_XATTR:
                raise
    os.chmod(path, ROOT_MODE)


@contextlib.contextmanager
def directory(parent: int) -> Iterator[str]:
    """Yield the name of a new private directory in the directory `parent`; remove it with all it holds at the end."""
    name, descriptor = create_directory(parent)
    try:
        yield name
    finally:
        try:
            remove(parent, name, descriptor)
        finally:
            os.close(descriptor)


def adopt(parent: int, source: int, name: str) -> str | None:
    """Move a file or directory out of sight, into the directory `parent`, where `sweep` finds it; return its name there.

    Returns None if it is gone already. Nothing is removed yet, so that this is quick however much it holds.
    """
    aside = os.urandom(16).hex()
    try:
        os.rename(name, aside, src_dir_fd=source, dst_dir_fd=parent)
    except FileNotFoundError:
        return None
    return aside


def discard(parent: int, name: str, path: str) -> None:
    """Remove what `adopt` has moved into the directory `parent`; a sweep may have been faster.

    Args:
        parent: Descriptor of the directory.
        name: What to remove.
        path: Its path, for messages.

    Raises:
        OSError: Something in it cannot be removed; what is left is swept by every later call that can.
    """
    with contextlib.suppress(FileNotFoundError):
        _sweep_one(parent, name, path)


def sweep(parent: int, keep: Callable[[str], bool] = lambda _: False, path: str = "") -> list[OSError]:
    """Remove what dead processes left in the directory `parent`, but for the names to `keep`.

    Args:
        parent: Descriptor of the directory.
        keep: True for a name to leave alone.
        path: Path of the directory, for messages.

    Returns:
        Why something could not be removed. It is in nobody's way, so this is no failure of the caller.
    """
    failures = list[OSError]()
    for name in os.listdir(parent):
        if keep(name):
            continue
        try:
            _sweep_one(parent, name, os.path.join(path, name))
        except FileNotFoundError:
            # Another sweep was faster.
            continue
        except OSError as error:
            failures.append(error)
    return failures


def clear(directory: int, path: str = "") -> None:
    """Remove everything in a directory, however deep it is and whatever its modes are.

    Args:
        directory: Its descriptor.
        path: Its path, for messages.

    Raises:
        OSError: Something cannot be removed; the error names its path.
    """
    # A name that another process adds meanwhile is removed in the next round.
    while names_in(directory):
        with Cursor(directory, shown=path) as here:
            for name, info, is_left in walk(here):
                if not stat.S_ISDIR(info.st_mode):
                    os.unlink(name, dir_fd=here.fd)
                elif is_left:
                    os.rmdir(name, dir_fd=here.fd)
                elif info.st_mode & _SEARCHABLE != _SEARCHABLE:
                    os.chmod(name, _SEARCHABLE, dir_fd=here.fd)


def names_in(directory: int) -> list[str]:
    """Return the names in a directory, with those that came since it was opened, which btrfs would hide."""
    os.lseek(directory, 0, os.SEEK_SET)
    return os.listdir(directory)


def remove(parent: int, name: str, directory: int, path: str = "") -> None:
    """Remove a private directory, given by name and descriptor, with all it holds; `path` is for messages."""
    # Somebody may have changed its mode.
    os.fchmod(directory, _SEARCHABLE)
    clear(directory, path)
    os.rmdir(name, dir_fd=parent)


def _lock_new(descriptor: int) -> bool:
    """Lock what was just made; return False if a sweeper came between."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return os.fstat(descriptor).st_nlink > 0


def _sweep_one(parent: int, name: str, path: str) -> None:
    """Remove a name in the directory `parent`, unless a live process has locked it; `path` is for messages."""
    try:
        _sweep_unlocked(parent, name, path)
    except OSError as error:
        if error.filename == name:
            raise OSError(error.errno, error.strerror, path) from error
        raise


def _sweep_unlocked(parent: int, name: str, path: str) -> None:
    info = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if not (stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode)):
        # Nobody makes such a thing here but `adopt`, which is done with it.
        os.unlink(name, dir_fd=parent)
        return
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        if stat.S_ISDIR(info.st_mode):
            remove(parent, name, descriptor, path)
        else:
            os.unlink(name, dir_fd=parent)
    finally:
        os.close(descriptor)


def open_directory(root: int, path: str, *names: str, create: bool, mode: int = 0o755) -> int:
    """Open a directory below `root`; a symlink in its place is an error. The caller closes it.

    Args:
        root: Descriptor of the directory that it is in.
        path: Path of that, for messages.
        names: Where the directory is.
        create: Make what is missing.
        mode: Of what is made.
    """
    current = os.dup(root)
    for name in names:
        parent = current
        try:
            is_new = create and _make_directory(name, parent)
            current = os.open(name, opening.DIRECTORY, dir_fd=parent)
            if is_new:
                os.fchmod(current, mode)
        except OSError as error:
            raise OSError(error.errno, error.strerror, "/".join((path, *names))) from None
        finally:
            os.close(parent)
    return current


def _make_directory(name: str, parent: int) -> bool:
    """Make a directory for its owner alone; return False if it is there already."""
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        return False
    return True


class IrregularError(OSError):
    """A name that should be a regular file is something else."""


def open_regular(name: str, parent: int, path: str) -> BufferedReader:
    """Open a regular file in the directory `parent` for reading.

    Raises:
        IrregularError: It is something else: a symbolic link, a FIFO, a socket, a device or a directory.
    """
    try:
        file = os.open(name, _REGULAR, dir_fd=parent)
    except OSError as error:
        if error.errno in _NOT_OPENED:
            raise IrregularError(error.errno, error.strerror, path) from None
        raise OSError(error.errno, error.strerror, path) from None
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise IrregularError(errno.EINVAL, "not a regular file", path)
    return os.fdopen(file, "rb")
