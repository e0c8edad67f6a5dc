"""How a long call is seen and stopped."""

from __future__ import annotations

from collections.abc import Callable

from ocidiff.errors import Cancelled, ChangeTooLargeError
from ocidiff.values import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a running call is.

    Attributes:
        entries: Directory entries looked at (diff), or layer entries handled (apply).
        bytes_plain: Bytes of the uncompressed tar.
        bytes_blob: Bytes of the stored blob.
    """

    entries: int
    bytes_plain: int
    bytes_blob: int


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
        """Whether `cancel` was called."""
        return self._cancelled


ProgressCallback = Callable[[Progress], None]


def check_size(bytes_plain: int, fail_above: int | None) -> None:
    """Refuse a layer whose uncompressed tar is larger than `fail_above` bytes.

    Raises:
        ChangeTooLargeError: It is larger.
    """
    # The size is not in the message: a call stops as soon as the limit is passed.
    if fail_above is not None and bytes_plain > fail_above:
        raise ChangeTooLargeError(f"the change takes more than {fail_above} bytes, uncompressed")


@dataclass(frozen=True, slots=True)
class Monitor:
    """What a caller wants to see of a running call, and how it stops it."""

    progress: ProgressCallback | None = None
    cancel: Cancellation | None = None
    fail_above: int | None = None

    def poll(self, entries: int, bytes_plain: int, bytes_blob: int) -> bool:
        """Report the counters; false when the call shall stop.

        Raises:
            ChangeTooLargeError: There are more bytes of tar than `fail_above`.
        """
        check_size(bytes_plain, self.fail_above)
        if self.progress is not None:
            self.progress(Progress(entries, bytes_plain, bytes_blob))
        return self.cancel is None or not self.cancel.cancelled

    def check(self) -> None:
        """Let a call that was cancelled already do nothing: an engine may be done before it asks for the first time.

        Raises:
            Cancelled: The call shall stop.
        """
        if self.cancel is not None and self.cancel.cancelled:
            raise Cancelled("cancelled")
