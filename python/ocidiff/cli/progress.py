"""Progress on stderr: as a bar, in plain lines, in JSON lines, or not at all."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Final

from ocidiff.cli.render import as_json
from ocidiff.cli.settings import Settings
from ocidiff.printable import printable
from ocidiff.sizes import counted, size

if TYPE_CHECKING:
    from ocidiff.layer.monitor import BlobProgress, Progress, ProgressCallback

_PLAIN_SECONDS: Final = 2.0
_JSON_SECONDS: Final = 0.2
_WIDTH_FOR_A_BAR: Final = 80
_WIDTH_FOR_ALL: Final = 64
# Of a digest, on a wide and on a narrow terminal.
_DIGITS: Final = 12
_FEW_DIGITS: Final = 6
# A rate over less time is mostly noise.
_SECONDS_FOR_A_RATE: Final = 0.5


@contextmanager
def shown(settings: Settings, what: str) -> Iterator[ProgressCallback | None]:
    """Yield a callback that shows progress until the block ends; None if nobody wants to see it.

    Args:
        settings: Say how.
        what: Name of the command.
    """
    mode = "none" if settings.quiet else settings.progress
    if mode == "auto":
        mode = "tty" if sys.stderr.isatty() else "none"
    if mode == "none":
        yield None
    elif mode == "tty":
        with _bar(what) as callback:
            yield callback
    else:
        lines = _Lines(what, *((_plain, _PLAIN_SECONDS) if mode == "plain" else (_json, _JSON_SECONDS)))
        yield lines
        lines.finish()


@contextmanager
def _bar(what: str) -> Iterator[ProgressCallback]:
    from rich.console import Console
    from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar
    from rich.table import Column

    console = Console(stderr=True, force_terminal=True)
    is_narrow = console.width < _WIDTH_FOR_ALL
    with Bar(
        *([] if is_narrow else [SpinnerColumn()]),
        TextColumn("{task.description}", table_column=Column(no_wrap=True)),
        *([BarColumn(bar_width=20)] if console.width >= _WIDTH_FOR_A_BAR else []),
        TextColumn("{task.fields[counters]}", table_column=Column(no_wrap=True, overflow="ellipsis")),
        *([] if is_narrow else [TimeElapsedColumn()]),
        console=console,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    ) as bar:
        task = bar.add_task(what, total=None, counters="")
        rows: dict[str, TaskID] = {}
        begun, phase = monotonic(), ""

        def update(progress: Progress) -> None:
            nonlocal begun, phase
            if progress.note:
                bar.console.print(f"{what}: {printable(progress.note)}", markup=False, highlight=False)
                return
            if progress.phase != phase:
                begun, phase = monotonic(), progress.phase
                # `update` keeps a total that is not known any more, and with it a clock that stands still.
                bar.tasks[0].total, bar.tasks[0].finished_time = progress.total_bytes, None
            seconds = monotonic() - begun
            if is_narrow:
                name, counters = phase or what, _short(progress, seconds)
            else:
                name = what if phase in {"", what} else f"{what}: {phase}"
                counters = _expected(progress, seconds) or _counters(progress)
            bar.update(task, description=name, total=progress.total_bytes, completed=progress.bytes_blob, counters=counters)
            for blob in progress.blobs:
                if blob.state == "copying":
                    done = f"{size(blob.done)} of {size(blob.size)}"
                    if blob.digest in rows:
                        bar.update(rows[blob.digest], completed=blob.done, counters=done)
                        continue
                    short = blob.digest.rpartition(":")[2][: _FEW_DIGITS if is_narrow else _DIGITS]
                    rows[blob.digest] = bar.add_task(f"  {short}", total=blob.size, completed=blob.done, counters=done)
                elif blob.digest in rows:
                    bar.remove_task(rows.pop(blob.digest))

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
        if progress.note:
            self._write(progress, monotonic())
            return
        self._unwritten = progress
        if monotonic() - self._written >= self._every:
            self.finish()

    def finish(self) -> None:
        """Write what has not been written."""
        if self._unwritten is None:
            return
        self._written = monotonic()
        self._write(self._unwritten, self._written)
        self._unwritten = None

    def _write(self, progress: Progress, now: float) -> None:
        print(self._form(self._what, progress, now - self._started), file=sys.stderr, flush=True)


def _plain(what: str, progress: Progress, seconds: float) -> str:
    if progress.note:
        return f"{what}: {printable(progress.note)}"
    name = what if progress.phase in {"", what} else f"{what}: {progress.phase}"
    if progress.blobs and (expected := _expected(progress, seconds)):
        return f"{name}: {expected}, {seconds:.1f} s"
    percent = f"{_percent(progress)} %, " if progress.total_bytes else ""
    return f"{name}: {percent}{_counters(progress)}, {seconds:.1f} s"


def _percent(progress: Progress) -> int:
    return min(100, 100 * progress.bytes_blob // (progress.total_bytes or 1))


def _short(progress: Progress, seconds: float) -> str:
    """Return what fits a narrow terminal: percent, rate and what remains; or counters if the total is not known."""
    if progress.runs is not None:
        return _counters(progress)
    if not progress.total_bytes:
        return f"{counted(progress.entries, 'entry', 'entries')}, {size(progress.bytes_blob)}"
    return f"{_percent(progress)} %{_pace(progress, progress.total_bytes, seconds)}"


def _pace(progress: Progress, total_bytes: int, seconds: float) -> str:
    """Return how fast a phase is, and what remains of it, behind a comma; empty while that cannot be told."""
    if seconds < _SECONDS_FOR_A_RATE:
        return ""
    # A blob that was there took no time.
    rate = (progress.bytes_blob - sum(map(_found, progress.blobs))) / seconds
    left = max(0, total_bytes - progress.bytes_blob)
    remaining = f", {left / rate:.0f} s left" if rate >= 1 and left else ""
    return f", {size(round(rate))}/s{remaining}"


def _expected(progress: Progress, seconds: float) -> str:
    """Return how much of the phase is done, how fast, and what remains; empty if the total is not known."""
    if not progress.total_bytes:
        return ""
    pace = _pace(progress, progress.total_bytes, seconds)
    states = [str(blob.state) for blob in progress.blobs]
    counts = "".join(f", {states.count(state)} {state}" for state in ("skipped", "mounted") if state in states)
    return f"{_percent(progress)} % of {size(progress.total_bytes)}{pace}{counts}"


def _found(blob: BlobProgress) -> int:
    """Return how many bytes of a blob did not have to come."""
    return blob.size if blob.state in {"skipped", "mounted"} else blob.kept


def _json(what: str, progress: Progress, seconds: float) -> str:
    if progress.note:
        return as_json({"command": what, "note": progress.note, "seconds": round(seconds, 3)})
    return as_json(
        {
            "command": what,
            "entries": progress.entries,
            "bytesPlain": progress.bytes_plain,
            "bytesBlob": progress.bytes_blob,
            "phase": progress.phase or what,
            "totalBytes": progress.total_bytes,
            "item": progress.item or None,
            "seconds": round(seconds, 3),
            **({"blobs": [_blob(blob) for blob in progress.blobs]} if progress.blobs else {}),
            **({"runs": progress.runs[0], "totalRuns": progress.runs[1]} if progress.runs else {}),
        }
    )


def _blob(blob: BlobProgress) -> dict[str, object]:
    return {"digest": blob.digest, "size": blob.size, "done": blob.done, "kept": blob.kept, "state": blob.state}


def _counters(progress: Progress) -> str:
    if progress.runs is not None:
        return f"{progress.runs[0]} of {progress.runs[1]} runs"
    return (
        f"{counted(progress.entries, 'entry', 'entries')}, {size(progress.bytes_blob)}, "
        f"{size(progress.bytes_plain)} uncompressed"
    )
