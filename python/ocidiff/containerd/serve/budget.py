"""Budget: how many calls run at once, and which part of the machine each of them gets.

Slots bound the calls that run. Calls beyond them wait, fair among callers: the callers in turn, and each caller's calls in
their order. The line is bounded, and a call that finds it full is refused at once: a refusal is clearer than a timeout.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from ocidiff.errors import Cancelled, OverloadedError
from ocidiff.values import dataclass

_LOOK_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Share:
    """The share of a running call.

    Attributes:
        threads: Number of threads.
        memory_bytes: Bytes of memory.
    """

    threads: int
    memory_bytes: int


class Budget:
    """Hands out slots. Safe from several threads.

    Args:
        slots: Calls that run at once.
        line: Calls that wait for a slot at most.
        cores: Cores that the calls share.
        memory_bytes: Memory that the calls share; each may use its slot's part.
    """

    def __init__(self, slots: int, line: int, cores: int, memory_bytes: int) -> None:
        self._slots, self._line, self._cores, self._memory_bytes = slots, line, cores, memory_bytes
        self._lock = threading.Lock()
        self._callers: OrderedDict[str, deque[threading.Event]] = OrderedDict()
        self._running = 0

    @property
    def running(self) -> int:
        """Calls that have a slot."""
        return self._running

    @property
    def waiting(self) -> int:
        """Calls that wait for one."""
        return sum(map(len, self._callers.values()))

    @contextmanager
    def slot(self, caller: str, is_cancelled: Callable[[], bool]) -> Iterator[Share]:
        """Wait for a slot, and hold it until the block ends.

        Raises:
            OverloadedError: Too many calls wait already.
            Cancelled: The caller gave up while it waited.
        """
        self._enter(caller, is_cancelled)
        try:
            yield self._share()
        finally:
            with self._lock:
                self._running -= 1
                self._admit()

    def _share(self) -> Share:
        # A call alone has all cores; among several each has its part, and never less than that of its slot.
        with self._lock:
            return Share(max(1, self._cores // max(1, min(self._running, self._slots))), self._memory_bytes // self._slots)

    def _enter(self, caller: str, is_cancelled: Callable[[], bool]) -> None:
        turn = threading.Event()
        with self._lock:
            if self._running < self._slots and not self._callers:
                self._running += 1
                return
            if self.waiting >= self._line:
                raise OverloadedError(
                    f"{self._running} calls run and {self.waiting} wait, which is as many as --slots and --queue allow; "
                    "try again later"
                )
            self._callers.setdefault(caller, deque()).append(turn)
        while not turn.wait(_LOOK_SECONDS):
            if is_cancelled() and self._withdraw(caller, turn):
                raise Cancelled("cancelled while it waited for a slot")

    def _withdraw(self, caller: str, turn: threading.Event) -> bool:
        """Leave the line; False if the turn has just come."""
        with self._lock:
            line = self._callers.get(caller)
            if line is None or turn not in line:
                return False
            line.remove(turn)
            if not line:
                del self._callers[caller]
            return True

    def _admit(self) -> None:
        """Give free slots to the callers in turn; the lock is held."""
        while self._running < self._slots and self._callers:
            caller, line = self._callers.popitem(last=False)
            self._running += 1
            line.popleft().set()
            if line:
                self._callers[caller] = line
