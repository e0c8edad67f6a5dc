"""Place: a directory of our own for everything that a benchmark makes, which is removed whatever happens.

It is locked (flock) while its process lives, and marked by a file. What a killed process left is removed by the next one, if
it has the mark: a directory of somebody else may have such a name.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import signal
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final

from ocidiff import opening, workspace
from ocidiff.log import Logger
from ocidiff.mounts.kernel import detach
from ocidiff.mounts.mountinfo import mount_points
from ocidiff.sizes import size

_PREFIX: Final = "ocidiff-bench-"
_is_named_like_ours: Final = re.compile(f"{_PREFIX}[a-z0-9_]{{8}}").fullmatch
_MARK: Final = ".made-by-ocidiff-bench"
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_log = Logger(__name__)


@contextmanager
def private_directory(parent: str | None, *, kept: str | None = None) -> Iterator[str]:
    """Yield the path of a new directory; it is removed at the end, with all that is in it or mounted below it.

    Args:
        parent: Where it is made; None for `TMPDIR`, else /var/tmp. What killed processes left there is removed first.
        kept: A path that is not removed, wherever it is.
    """
    place = os.path.abspath(parent or workspace.place_of_files(None))
    _sweep(place, kept)
    path, lock = _make(place)
    try:
        yield path
    finally:
        try:
            with _first_signal_held(path):
                _remove_locked(path, lock)
        finally:
            os.close(lock)


def _make(place: str) -> tuple[str, int]:
    """Return the path of a new directory in `place` with the mark, and the descriptor that locks it."""
    while True:
        path = tempfile.mkdtemp(prefix=_PREFIX, dir=place)
        lock = None
        try:
            lock = _lock(path)
            if lock is not None:
                # Last, so that a directory with the mark is never seen without the lock of its process.
                os.close(os.open(_MARK, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=lock))
                return path, lock
        except BaseException:
            if lock is not None:
                os.close(lock)
            with suppress(FileNotFoundError):
                os.rmdir(path)
            raise


def _lock(path: str) -> int | None:
    """Return the locked descriptor of a directory; None if another process has locked or removed it.

    Raises:
        OSError: It cannot be opened or locked.
    """
    try:
        directory = os.open(path, opening.DIRECTORY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(directory).st_nlink > 0:
            return directory
    except BlockingIOError:
        pass
    except BaseException:
        os.close(directory)
        raise
    os.close(directory)
    return None


def _sweep(place: str, kept: str | None) -> None:
    """Remove the directories of killed processes of this user; warn of each, also if it cannot be removed."""
    for name in filter(_is_named_like_ours, os.listdir(place)):
        path = os.path.join(place, name)
        if kept is not None and f"{os.path.realpath(kept)}/".startswith(f"{os.path.realpath(path)}/"):
            continue
        try:
            lock = _lock(path)
        except OSError:
            # Another user's, or not a directory.
            continue
        if lock is None:
            continue
        try:
            if os.fstat(lock).st_uid == os.geteuid() and _has_mark(lock):
                with _first_signal_held(path):
                    _remove_locked(path, lock)
                _log.warning("%s: a killed run left it; it is removed", path)
        except OSError as error:
            _log.warning("%s: a killed run left it, and it cannot be removed: %s", path, error.strerror)
        finally:
            os.close(lock)


def _has_mark(directory: int) -> bool:
    with suppress(FileNotFoundError):
        return stat.S_ISREG(os.stat(_MARK, dir_fd=directory, follow_symlinks=False).st_mode)
    return False


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
    _detach_below(path)
    parent, name = os.path.split(path)
    directory = os.open(parent, opening.ROOT)
    try:
        workspace.discard(directory, name, path)
    finally:
        os.close(directory)


def _remove_locked(path: str, lock: int) -> None:
    """Remove a directory that this process has locked, as `remove` does."""
    _detach_below(path)
    directory = os.open(os.path.dirname(path), opening.ROOT)
    try:
        with suppress(FileNotFoundError):
            workspace.remove(directory, os.path.basename(path), lock, path)
    finally:
        os.close(directory)


def _detach_below(path: str) -> None:
    inside = os.path.realpath(path) + "/"
    for point in sorted((one for one in mount_points() if one.startswith(inside)), key=len, reverse=True):
        detach(point, lazily=True)


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
