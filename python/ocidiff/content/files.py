"""Files of a layout, reached by directory handles: nothing in it is followed out of it."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import BinaryIO, Final

# Other tools and users read the layout.
DIRECTORY_MODE: Final = 0o755
OPEN_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# O_NONBLOCK: a FIFO in place of a file is an error, not a wait.
_OPEN_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_directory(root: int, path: str, *names: str, create: bool, mode: int = DIRECTORY_MODE) -> int:
    """A directory below `root`, as a descriptor; a symlink in its place is an error.

    Args:
        root: Descriptor of the layout.
        path: Its path, for messages.
        names: Where the directory is.
        create: Make what is missing.
        mode: Of what is made.
    """
    current = os.dup(root)
    for name in names:
        parent = current
        try:
            if create:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, mode, dir_fd=parent)
            current = os.open(name, OPEN_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
        except OSError as error:
            raise OSError(error.errno, error.strerror, "/".join((path, *names))) from None
        finally:
            os.close(parent)
    return current


def open_regular(name: str, parent: int, path: str) -> BinaryIO:
    """A regular file in the directory `parent`, for reading; anything else of that name is an error."""
    try:
        file = os.open(name, _OPEN_FILE, dir_fd=parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return os.fdopen(file, "rb")
