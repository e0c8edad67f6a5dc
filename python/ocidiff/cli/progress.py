"""How a running call is shown on stderr: as a bar, in plain lines, in JSON lines, or not at all."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Final

from ocidiff.cli.options import Settings
from ocidiff.cli.render import as_json, size

if TYPE_CHECKING:
    from ocidiff.layer.monitor import Progress, ProgressCallback

_PLAIN_SECONDS: Final = 2.0
_JSON_SECONDS: Final = 0.2


@contextmanager
def shown(settings: Settings, what: str, total: int | None = None) -> Iterator[ProgressCallback | None]:
    """A callback that shows progress for as long as the context lasts; None when it is not wanted.

    Args:
        settings: Say how.
        what: Name of the command.
        total: Bytes of the blob that is read; None where only the end will tell.
    """
    mode = "none" if settings.quiet else settings.progress
    if mode == "auto":
        mode = "tty" if sys.stderr.isatty() else "none"
    if mode == "none":
        yield None
    elif mode == "tty":
        with _bar(what, total) as callback:
            yield callback
    else:
        lines = _Lines(what, *((_plain, _PLAIN_SECONDS) if mode == "plain" else (_json, _JSON_SECONDS)))
        yield lines
        lines.finish()


@contextmanager
def _bar(what: str, total: int | None) -> Iterator[ProgressCallback]:
    from rich.console import Console
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    with Bar(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[counters]}"),
        TimeElapsedColumn(),
        console=Console(stderr=True, force_terminal=True),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    ) as bar:
        task = bar.add_task(what, total=total, counters="")

        def update(progress: Progress) -> None:
            bar.update(task, completed=progress.bytes_blob, counters=_counters(progress))

        yield update


class _Lines:
    """Writes a line now and then, and one at the end."""

    def __init__(self, what: str, form: Callable[[str, Progress, float], str], every_seconds: float) -> None:
        self._what = what
        self._form = form
        self._every = every_seconds
        self._started = self._written = monotonic()
        self._unwritten: Progress | None = None

    def __call__(self, progress: Progress) -> None:
        self._unwritten = progress
        if monotonic() - self._written >= self._every:
            self.finish()

    def finish(self) -> None:
        """Write what has not been written."""
        if self._unwritten is None:
            return
        self._written = monotonic()
        print(self._form(self._what, self._unwritten, self._written - self._started), file=sys.stderr, flush=True)
        self._unwritten = None


def _plain(what: str, progress: Progress, seconds: float) -> str:
    return f"{what}: {_counters(progress)}, {seconds:.1f} s"


def _json(what: str, progress: Progress, seconds: float) -> str:
    return as_json(
        {
            "command": what,
            "entries": progress.entries,
            "bytesPlain": progress.bytes_plain,
            "bytesBlob": progress.bytes_blob,
            "seconds": round(seconds, 3),
        }
    )


def _counters(progress: Progress) -> str:
    return f"{progress.entries:,} entries, {size(progress.bytes_plain)} tar, {size(progress.bytes_blob)} blob"
