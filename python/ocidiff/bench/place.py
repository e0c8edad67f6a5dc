"""Place: a directory of our own for everything that a benchmark makes, which is removed whatever happens."""

from __future__ import annotations

import errno
import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from ocidiff import opening, workspace
from ocidiff.log import Logger
from ocidiff.mounts.kernel import detach
from ocidiff.mounts.mountinfo import mount_points
from ocidiff.sizes import size

_PREFIX: Final = "ocidiff-bench-"
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_log = Logger(__name__)


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
        with _first_signal_held(path):
            remove(path)


@contextmanager
def _first_signal_held(path: str) -> Iterator[None]:
    """Let the first signal that would end the process wait for the end of the block; the second one ends the block.

    Args:
        path: What the block removes. A warning names it if a signal ends the block.
    """
    if threading.current_thread() is not threading.main_thread():
        # Signals reach the main thread only.
        yield
        return
    held: list[BaseException] = []

    def hold(number: int, frame: FrameType | None) -> None:
        try:
            before[signal.Signals(number)](number, frame)
        except BaseException as end:
            if held:
                _log.warning("%s: is left behind, since the removal was interrupted", path)
                raise
            held.append(end)

    handlers = {number: signal.getsignal(number) for number in _ENDING}
    before = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in before:
        signal.signal(number, hold)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if held:
        raise held[0]


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
