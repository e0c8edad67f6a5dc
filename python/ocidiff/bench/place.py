"""Place: a directory of our own for everything that a benchmark makes, which is removed whatever happens."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from ocidiff import opening, workspace
from ocidiff.mounts.kernel import detach
from ocidiff.mounts.mountinfo import mount_points
from ocidiff.sizes import size

_PREFIX: Final = "ocidiff-bench-"


@contextmanager
def private_directory(parent: str | None) -> Iterator[str]:
    """Yield the path of a new directory; it is removed at the end, with all that is in it or mounted below it.

    Args:
        parent: Where it is made; None for `TMPDIR`, else /var/tmp.
    """
    path = tempfile.mkdtemp(prefix=_PREFIX, dir=os.path.abspath(parent or workspace.place_of_files(None)))
    try:
        yield path
    finally:
        remove(path)


def remove(path: str) -> None:
    """Remove a directory, with all that is in it or mounted below it; nothing if it is gone."""
    inside = os.path.realpath(path) + "/"
    for point in sorted((one for one in mount_points() if one.startswith(inside)), key=len, reverse=True):
        detach(point, lazily=True)
    parent, name = os.path.split(path)
    directory = os.open(parent, opening.ROOT)
    try:
        workspace.discard(directory, name, path)
    finally:
        os.close(directory)


def check_room(path: str, needed: int) -> None:
    """Refuse a directory whose file system has less than `needed` bytes free.

    Raises:
        OSError: It has (ENOSPC).
    """
    found = os.statvfs(path)
    free = found.f_bavail * found.f_frsize
    if free < needed:
        error = OSError(errno.ENOSPC, f"about {size(needed)} are needed, and {size(free)} are free", path)
        error.add_note("--directory names another place, --size and --files make the tree smaller")
        raise error
