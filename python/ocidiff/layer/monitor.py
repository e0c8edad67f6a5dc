"""Progress of a long call, and its cancellation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from typing import Final

from ocidiff.errors import Cancelled, ChangeTooLargeError
from ocidiff.sizes import size
from ocidiff.values import dataclass

SECONDS_BETWEEN_CHECKS: Final = 0.2
"""Interval of the calls of `Monitor.check` in a thread that waits."""


class BlobState(StrEnum):
    """The state of a blob in a copy."""

    WAITING = "waiting"
    COPYING = "copying"
    COPIED = "copied"
    SKIPPED = "skipped"
    MOUNTED = "mounted"


@dataclass(frozen=True, slots=True)
class BlobProgress:
    """Progress of one blob.

    Attributes:
        digest: Its digest.
        size: Its length in bytes.
        done: Bytes of it that are there.
        kept: Bytes that an interrupted copy had brought already.
        state: What becomes of it.
    """

    digest: str
    size: int
    done: int = 0
    kept: int = 0
    state: BlobState = BlobState.WAITING


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a running call.

    Attributes:
        entries: Directory entries looked at (diff), or layer entries handled (apply).
        bytes_plain: Bytes of the uncompressed tar.
        bytes_blob: Bytes of the stored blobs.
        phase: What is being done: `apply`, `copy`, `diff`, `index`, `measure`, `read`, `squash`, `unpack` or `verify`; of a
            benchmark, its step; empty if the call does one thing only.
        total_bytes: What `bytes_blob` will be at the end of the phase; None if only the end will tell.
        item: What is being worked on, such as the digest of a layer; empty if there is one thing only.
        blobs: How far each blob is while an image is copied.
        note: What the call waits for, such as a registry that asks to be left alone; empty in every other report. A report
            with a note has no counters, and may come while another one is made.
        runs: Timed runs of a benchmark, done and in all; None for other calls.
    """

    entries: int
    bytes_plain: int
    bytes_blob: int
    phase: str = ""
    total_bytes: int | None = None
    item: str = ""
    blobs: tuple[BlobProgress, ...] = ()
    note: str = ""
    runs: tuple[int, int] | None = None


class Cancellation:
    """Stops a call from another thread: pass it in, `cancel()` it, and the call raises `Cancelled`."""

    __slots__ = ("_cancelled",)

    def __init__(self) -> None:
        self._cancelled = False

    def cancel(self) -> None:
        """Ask every call that holds this to stop."""
        self._cancelled = True

    @property
    def cancelled(self) -> bool:
        """True once `cancel` was called."""
        return self._cancelled


ProgressCallback = Callable[[Progress], None]

_NOTHING_DONE: Final = Progress(0, 0, 0)


def check_size(bytes_plain: int, fail_above: int | None) -> None:
    """Refuse a layer whose uncompressed tar is larger than `fail_above` bytes.

    Raises:
        ChangeTooLargeError: It is larger.
    """
    # The size is not in the message: a call stops as soon as the limit is passed.
    if fail_above is not None and bytes_plain > fail_above:
        raise ChangeTooLargeError(f"the change takes more than {size(fail_above)}, uncompressed")


@dataclass(frozen=True, slots=True)
class Monitor:
    """The caller's view of a running call: progress, and the way to stop it.

    Attributes:
        progress: Called with the counters; None for nobody.
        cancel: Stops the call.
        fail_above: Largest uncompressed size of a layer in bytes; None for no limit.
        done: Counters of what the call did before, to which those of the engine are added; its phase, total and item hold
            until it is replaced.
    """

    progress: ProgressCallback | None = None
    cancel: Cancellation | None = None
    fail_above: int | None = None
    done: Progress = _NOTHING_DONE

    def of(self, phase: str, total_bytes: int | None = None) -> Monitor:
        """Return the monitor for a phase that begins."""
        return replace(self, done=Progress(0, 0, 0, phase, total_bytes))

    def working_on(self, item: str, entries: int, bytes_plain: int, bytes_blob: int) -> Monitor:
        """Return the monitor for the next item of the phase, after items that came to these counters."""
        return replace(
            self, done=replace(self.done, entries=entries, bytes_plain=bytes_plain, bytes_blob=bytes_blob, item=item)
        )

    def poll(self, entries: int, bytes_plain: int, bytes_blob: int) -> bool:
        """Report the counters of the engine; False if the call shall stop.

        Raises:
            ChangeTooLargeError: There are more bytes of tar than `fail_above`.
        """
        check_size(bytes_plain, self.fail_above)
        if self.progress is not None:
            done = self.done
            self.progress(
                replace(
                    done,
                    entries=done.entries + entries,
                    bytes_plain=done.bytes_plain + bytes_plain,
                    bytes_blob=done.bytes_blob + bytes_blob,
                )
            )
        return self.cancel is None or not self.cancel.cancelled

    def say(self, note: str) -> None:
        """Report what the call waits for."""
        if self.progress is not None:
            self.progress(replace(_NOTHING_DONE, note=note))

    def check(self) -> None:
        """Refuse to begin if the call was cancelled already: an engine may end before it asks for the first time.

        Raises:
            Cancelled: It was.
        """
        if self.cancel is not None and self.cancel.cancelled:
            raise Cancelled("cancelled")
