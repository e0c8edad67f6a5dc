"""Run a batch: threads commit lines, and one thread makes what they wrote visible, group by group.

Law: an image is told as made only once its name is on disk. A run that ends at any moment leaves whole images, and the next
run of the same lines goes on from there.
"""

from __future__ import annotations

import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from queue import Queue
from typing import TYPE_CHECKING, Final

from ocidiff.embedded.batch_line import Done, LineCommitter
from ocidiff.embedded.disk import FULL, DiskBudget
from ocidiff.errors import Cancelled, OcidiffError, UsageError, reason
from ocidiff.image.batch import BatchJob, BatchResult, BatchStatus, BatchSummary
from ocidiff.image.batch_lines import MAX_LINE_BYTES, Line, NameSet, numbered_lines
from ocidiff.image.layers import LocalDiffer
from ocidiff.image.reference import shortest
from ocidiff.image.source import Parent, find_parent, open_parent
from ocidiff.layer.engine import select_engine
from ocidiff.layer.monitor import Cancellation, Monitor
from ocidiff.layer.options import Compression, DiffOptions

if TYPE_CHECKING:
    from ocidiff.embedded.layout import Layout
    from ocidiff.embedded.open import Embedded

Take = Callable[[BatchResult], None]

# Files of images whose blobs become visible together. An image has its layers, a configuration and a manifest.
_GROUP_FILES: Final = 192
_DOCUMENTS: Final = 2
# Results that wait for a slow reader.
_RESULTS: Final = 256
# More commits at once would only wait for the interpreter.
_MOST_SLOTS: Final = 4
_MEMORY_BYTES: Final = 128 << 20
_ZSTD_MEMORY_BYTES: Final = 192 << 20
# Memory of the process and of a commit beside it, as the core counts it.
_PROCESS_BYTES: Final = 34 << 20
_SLOT_BYTES: Final = 40 << 20
# Memory of one more layer of a change: its blocks, or the frame of zstd that is being filled.
_LAYER_BYTES: Final = 3 << 20
_ZSTD_LAYER_BYTES: Final = 8 << 20
# A thread at these takes more than a slot has.
_LARGE_ZSTD_LEVEL: Final = 9


def run(home: Embedded, job: BatchJob, take: Take, cancel: Cancellation | None) -> BatchSummary:
    """Commit what the lines say. `take` gets a result for each, in the order in which they are done.

    Raises:
        NotFoundError: There is no such base, or a part of it is missing.
        UsageError: An option is out of range.
        KeyboardInterrupt: Raised once all threads have ended, with a note that says how many images were made.
    """
    engine, stop = select_engine(job.options.engine), Stop(cancel)
    monitor = Monitor(cancel=stop)
    cores = job.options.threads or len(os.sched_getaffinity(0))
    slots, memory_bytes = slots_of(job.options, cores, job.layers)
    home.sweep()
    with home.services(engine, monitor, job.options.overlay).leased() as leased, ExitStack() as opened:
        assert leased.lease is not None  # noqa: S101 - it is leased
        segments = home.layout.shared_segments()
        opened.callback(segments.close)
        services = replace(leased, differ=LocalDiffer(engine, job.options.overlay, tables=lambda: segments))
        layout = home.layout.under(leased.lease.id)
        base = find_parent(services, job.base, job.platform, job.find_base)
        parent = SharedParent(
            lambda: opened.enter_context(open_parent(services, base, job.lower, job.limits, engine, monitor)), stop
        )
        threads = BatchThreads(job, layout, stop, slots)
        committer = LineCommitter(
            job,
            services,
            layout,
            base=base,
            parent=parent.get,
            engine=engine,
            # The last lines of a batch, and the only one, get all cores.
            threads=lambda: max(1, cores // max(1, threads.busy)),
            memory_bytes=memory_bytes,
        )
        return threads.run(committer, take)


def slots_of(options: DiffOptions, cores: int, layers: int = 1) -> tuple[int, int | None]:
    """Return how many commits run at once, and the memory of each; None for the default."""
    is_zstd = options.compression is Compression.ZSTD
    memory = options.memory_bytes or (_ZSTD_MEMORY_BYTES if is_zstd else _MEMORY_BYTES)
    slot_bytes = _SLOT_BYTES + (layers - 1) * (_ZSTD_LAYER_BYTES if is_zstd else _LAYER_BYTES)
    slots = max(1, min(cores, _MOST_SLOTS, (memory - _PROCESS_BYTES) // slot_bytes))
    if slots == 1 or (is_zstd and (options.level or 0) >= _LARGE_ZSTD_LEVEL):
        return 1, options.memory_bytes
    # Each counts the process, which they share.
    return slots, _PROCESS_BYTES + (memory - _PROCESS_BYTES) // slots


class Stop(Cancellation):
    """Stops a run, and says why.

    Args:
        outer: The caller's, which stops it too.
    """

    __slots__ = ("_outer", "error", "why")

    def __init__(self, outer: Cancellation | None) -> None:
        super().__init__()
        self._outer = outer
        self.why = "cancelled"
        self.error: BaseException | None = None

    @property
    def cancelled(self) -> bool:
        """See `Cancellation.cancelled`."""
        return self._cancelled or (self._outer is not None and self._outer.cancelled)

    def because(self, why: str) -> None:
        """Stop, unless the run is stopped already."""
        if not self.cancelled:
            self.why = why
            self.cancel()

    def check(self) -> None:
        """Raise `Cancelled` if the run is stopped."""
        if self.cancelled:
            raise Cancelled(self.why)


class SharedParent:
    """The tree of the base, opened by the first thread that needs it.

    Args:
        open_tree: Opens it.
        stop: Stopped by a failure, which is one of the whole run.
    """

    def __init__(self, open_tree: Callable[[], Parent], stop: Stop) -> None:
        self._open, self._stop, self._lock = open_tree, stop, threading.Lock()
        self._parent: Parent | None = None

    def get(self) -> Parent:
        """Return the base and its tree."""
        with self._lock:
            if self._parent is None:
                self._stop.check()
                try:
                    self._parent = self._open()
                except (OcidiffError, OSError) as error:
                    if not self._stop.cancelled:
                        self._stop.because(reason(error))
                        self._stop.error = error
                    raise Cancelled(self._stop.why) from error
            return self._parent


class BatchThreads:
    """The threads of a run.

    Args:
        job: The batch.
        layout: The store, under a lease.
        stop: Stops them.
        slots: Commits that run at once.
    """

    def __init__(self, job: BatchJob, layout: Layout, stop: Stop, slots: int) -> None:
        self._job, self._layout, self._stop, self._slots = job, layout, stop, slots
        self._most_ready = _GROUP_FILES // (job.layers + _DOCUMENTS)
        self._budget = DiskBudget(layout.path, job.disk_bytes, stop.because)
        self._lines, self._reading = self._own_lines(), threading.Lock()
        self._changed = threading.Condition()
        self._ready: deque[Done] = deque()
        self._working = slots
        self._results: Queue[BatchResult | None] = Queue(_RESULTS)
        self._told = threading.Event()
        self._take_error: BaseException | None = None
        self.busy = 0

    def run(self, committer: LineCommitter, take: Take) -> BatchSummary:
        """Do all lines of the shard. `take` is called in a thread of its own, which no interrupt reaches."""
        # An interrupt may come twice, and the second one waits for nothing.
        threads = [threading.Thread(target=self._work, args=(committer,), daemon=True) for _ in range(self._slots)]
        threads.append(threading.Thread(target=self._publish, daemon=True))
        counts = Counter[str]()
        threads.append(threading.Thread(target=self._tell, args=(take, counts), daemon=True))
        for thread in threads:
            thread.start()
        failure = self._wait()
        for thread in threads:
            thread.join()
        failure = failure or self._take_error or self._stop.error
        summary = BatchSummary(**counts)
        if failure is not None:
            failure.add_note(f"{summary}; run it again to go on")
            raise failure
        return summary

    def _wait(self) -> BaseException | None:
        """Wait until all results are told. An interrupt stops the run, and is returned; the second one is raised."""
        failure: BaseException | None = None
        while True:
            try:
                self._told.wait()
            except BaseException as error:
                if failure is not None:
                    raise
                failure = error
                self._stop.because("interrupted")
            else:
                return failure

    def _tell(self, take: Take, counts: Counter[str]) -> None:
        """Give results to `take` until the last one. A failure of `take` stops the run."""
        try:
            while (result := self._results.get()) is not None:
                counts[result.status] += 1
                if self._take_error is None:
                    try:
                        take(result)
                    except BaseException as error:  # noqa: BLE001 - `run` raises it
                        self._take_error = error
                        self._stop.because(reason(error))
        finally:
            self._told.set()

    # Threads that commit.

    def _own_lines(self) -> Iterator[Line | BatchResult]:
        """Yield the lines of the shard. Names count in all lines, so that each shard knows which of two equal ones fails."""
        seen = NameSet()
        for number, data in numbered_lines(self._job.file, lambda: self._stop.cancelled):
            if data is not None and not data.strip():
                continue
            name = ""
            found: Line | BatchResult
            try:
                if data is None:
                    raise UsageError(f"longer than {MAX_LINE_BYTES} bytes")
                found = Line.parse(number, data)
                name = found.name
                if not seen.add(shortest(name)):
                    raise UsageError(f"name {name[:200]!r}: an earlier line has it too")
            except OcidiffError as error:
                # The result has the number of the line.
                why = reason(error).removeprefix("line: ")
                found = BatchResult(number, BatchStatus.FAILED, name, error=why)
            if self._job.shard.has(number):
                yield found

    def _work(self, committer: LineCommitter) -> None:
        try:
            while (line := self._next()) is not None:
                if isinstance(line, Line):
                    self._commit(committer, line)
                else:
                    self._results.put(line)
        finally:
            with self._changed:
                self._working -= 1
                self._changed.notify_all()

    def _next(self) -> Line | BatchResult | None:
        with self._reading:
            try:
                return None if self._stop.cancelled else next(self._lines, None)
            except Exception as error:  # noqa: BLE001 - `run` raises it
                self._stop.because(reason(error))
                self._stop.error = error
                return None

    def _commit(self, committer: LineCommitter, line: Line) -> None:
        with self._changed:
            self.busy += 1
        try:
            self._budget.check()
            self._stop.check()
            with self._budget.writing(line.number) as (progress, added):
                done = committer.commit(line, Monitor(progress, self._stop), added)
        except Exception as error:  # noqa: BLE001 - it ends this line, and no other
            self._fail(line.number, line.name, error)
            return
        finally:
            with self._changed:
                self.busy -= 1
        if done.pending is None:
            self._results.put(done.result)
            return
        with self._changed:
            while len(self._ready) >= self._most_ready:
                self._changed.wait()
            self._ready.append(done)
            self._changed.notify_all()

    def _fail(self, number: int, name: str, error: Exception) -> None:
        if isinstance(error, OSError) and error.errno in FULL:
            self._stop.because(f"{reason(error)}: make room, and run it again")
            error = Cancelled(self._stop.why)
        if isinstance(error, Cancelled):
            self._results.put(BatchResult(number, BatchStatus.STOPPED, name, error=self._stop.why))
        else:
            self._results.put(BatchResult(number, BatchStatus.FAILED, name, error=reason(error)))

    # The thread that publishes.

    def _publish(self) -> None:
        try:
            while group := self._group():
                try:
                    self._publish_group(group)
                finally:
                    for done in group:
                        if done.pending is not None:
                            done.pending.blobs.drop()
        finally:
            self._results.put(None)

    def _group(self) -> list[Done]:
        """Return the images that wait, once there are any; none if no more will come."""
        with self._changed:
            while not self._ready and self._working:
                self._changed.wait()
            group = list(self._ready)
            self._ready.clear()
            self._changed.notify_all()
            return group

    def _publish_group(self, group: list[Done]) -> None:
        fitting = list[Done]()
        size = 0
        for done in group:
            assert done.pending is not None  # noqa: S101 - the others do not wait
            # An upper bound: what is there already takes no room.
            if self._budget.has_room(size + done.pending.blobs.size):
                size += done.pending.blobs.size
                fitting.append(done)
            else:
                self._fail(done.result.line, done.result.name, Cancelled(self._stop.why))
        if not fitting:
            return
        try:
            self._name(fitting)
            return
        except Exception as error:  # noqa: BLE001 - told below
            if len(fitting) == 1:
                self._fail(fitting[0].result.line, fitting[0].result.name, error)
                return
        # Find whose failure it is: the others get their names.
        for done in fitting:
            try:
                self._name([done])
            except Exception as error:  # noqa: BLE001 - it ends this line, and no other
                self._fail(done.result.line, done.result.name, error)

    def _name(self, group: list[Done]) -> None:
        images = [done.pending for done in group if done.pending is not None]
        self._budget.spend(self._layout.publish(images, self._stop.check))
        for done in group:
            self._results.put(done.result)
