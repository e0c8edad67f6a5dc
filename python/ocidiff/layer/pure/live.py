"""Names that change while a tree is read: an error, or another try. Spec: layer-semantics 7."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from typing import Final

from ocidiff.errors import SourceChangedError
from ocidiff.layer.options import OnChange
from ocidiff.layer.pure import sentences
from ocidiff.layer.pure.aside import AsideError
from ocidiff.layer.pure.pace import Pace

ATTEMPTS: Final = 12  # looks at a name before it is told that it never rests
ATTEMPTS_TO_OPEN: Final = 3  # a directory that another is about to replace is away for a moment only
_SIGNS: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE)
_TICK_SECONDS: Final = 0.02  # change times are those of the last tick of a clock: within one, two changes look like one
_WRITE_SECONDS: Final = 0.001  # they are set when a call begins to write; it is done after this, for each MiB
_LONGEST_WRITE_SECONDS: Final = 1.0
_LONGEST_PAUSE: Final = 6  # as a power of two, in milliseconds


class Live:
    """Decides for one call, and counts.

    Attributes:
        retries: Whether a name that changes is read again, and one that is gone counts as absent.
        retried: Names that changed while they were read, and were read again.
        vanished: Names that were there when their directory was listed, and then were gone.
    """

    def __init__(self, on_change: OnChange, pace: Pace) -> None:
        self.retries = on_change is OnChange.RETRY
        self.retried = 0
        self.vanished = 0
        self._pace = pace

    def allows(self, error: OSError | SourceChangedError) -> bool:
        """Return True if a concurrent change of the tree explains `error`, and is no failure."""
        if not self.retries or isinstance(error, AsideError):
            return False
        return isinstance(error, SourceChangedError) or error.errno in _SIGNS

    def pause(self, attempt: int) -> None:
        """Wait before an attempt, longer before each; the first is 0 and comes at once."""
        if attempt:
            time.sleep((1 << min(attempt, _LONGEST_PAUSE)) / 1000)
            self._pace.check()


def settle(file: int, look: Callable[[int], os.stat_result]) -> tuple[os.stat_result, bool]:
    """Return what `look` says of an open file, and True if a later change would show. Waits a little for that."""
    seen = look(file)
    age = time.time() - seen.st_ctime_ns / 1e9
    least = _TICK_SECONDS + min((seen.st_size >> 20) * _WRITE_SECONDS, _LONGEST_WRITE_SECONDS)
    # A time in the future is none of this machine's clock.
    if not 0 <= age < least:
        return seen, True
    time.sleep(least - age)
    now = look(file)
    return now, is_same(now, seen)


def is_same(one: os.stat_result, other: os.stat_result) -> bool:
    """Return True if both are of one unchanged file."""
    return (one.st_dev, one.st_ino, one.st_size, one.st_mtime_ns, one.st_ctime_ns) == (
        other.st_dev,
        other.st_ino,
        other.st_size,
        other.st_mtime_ns,
        other.st_ctime_ns,
    )


def what_changed(expected: os.stat_result, found: os.stat_result) -> str:
    """Say what changed of a file between two looks, as far as they tell."""
    if (expected.st_dev, expected.st_ino) != (found.st_dev, found.st_ino):
        return sentences.REPLACED
    if expected.st_size != found.st_size:
        return sentences.SIZE_CHANGED
    return sentences.WRITTEN_TO if expected.st_mtime_ns != found.st_mtime_ns else sentences.METADATA_CHANGED


def has_grown(before: os.stat_result, after: os.stat_result) -> bool:
    """Return True if a file only grew, as far as its metadata tell."""
    facts = ("st_dev", "st_ino", "st_mode", "st_uid", "st_gid")
    return after.st_size > before.st_size and all(getattr(after, fact) == getattr(before, fact) for fact in facts)
