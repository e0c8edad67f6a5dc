"""Slots are handed out within their bounds, fairly, and never to a call that gave up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from ocidiff.containerd.serve.budget import Budget, Share
from ocidiff.errors import Cancelled, OverloadedError

SECONDS = 20.0


def never() -> bool:
    return False


class Line:
    """Calls that hold their slots until they are told to end."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.entered: list[str] = []
        self.shares: list[Share] = []
        self._ends: dict[str, threading.Event] = {}
        self._threads: list[threading.Thread] = []

    def call(self, caller: str, name: str) -> None:
        self._ends[name] = threading.Event()
        waiting = self.budget.waiting + self.budget.running
        thread = threading.Thread(target=self._run, args=(caller, name))
        self._threads.append(thread)
        thread.start()
        until(lambda: self.budget.waiting + self.budget.running > waiting)

    def _run(self, caller: str, name: str) -> None:
        with self.budget.slot(caller, never) as share:
            self.entered.append(name)
            self.shares.append(share)
            self._ends[name].wait(SECONDS)

    def end(self, name: str) -> None:
        self._ends[name].set()

    def end_all(self) -> None:
        while any(thread.is_alive() for thread in self._threads):
            for name in list(self.entered):
                self.end(name)
            time.sleep(0.005)


def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_no_more_calls_run_than_there_are_slots_and_callers_take_turns() -> None:
    line = Line(Budget(1, 10, 4, 400))
    line.call("a", "a1")
    for name in ("a2", "a3", "a4", "b1", "c1"):
        line.call(name[0], name)
    assert line.entered == ["a1"]
    assert (line.budget.running, line.budget.waiting) == (1, 5)
    for number, name in enumerate(("a1", "a2", "b1", "c1", "a3", "a4"), 1):
        assert line.entered[-1] == name
        line.end(name)
        until(lambda number=number: len(line.entered) > number or number == 6)  # type: ignore[misc]
    line.end_all()
    assert (line.budget.running, line.budget.waiting) == (0, 0)


def test_a_call_alone_has_all_cores_and_several_share_them() -> None:
    line = Line(Budget(4, 0, 8, 400))
    for name in ("a1", "a2", "a3", "a4"):
        line.call("a", name)
    line.end_all()
    assert [share.threads for share in line.shares] == [8, 4, 2, 2]
    assert {share.memory_bytes for share in line.shares} == {100}


def test_a_full_line_refuses_at_once() -> None:
    line = Line(Budget(1, 1, 1, 1))
    line.call("a", "a1")
    line.call("b", "b1")
    with pytest.raises(OverloadedError, match="1 calls run and 1 wait"), line.budget.slot("c", never):
        pass
    line.end_all()
    with line.budget.slot("c", never) as share:
        assert share.threads == 1


def test_a_call_that_gave_up_leaves_the_line() -> None:
    line = Line(Budget(1, 1, 1, 1))
    line.call("a", "a1")
    with pytest.raises(Cancelled), line.budget.slot("b", lambda: True):
        pass
    assert line.budget.waiting == 0
    line.call("b", "b1")
    line.end("a1")
    until(lambda: line.entered == ["a1", "b1"])
    line.end_all()


def test_a_failure_gives_its_slot_back() -> None:
    budget = Budget(1, 0, 1, 1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), budget.slot("a", never):
            raise ZeroDivisionError
    assert budget.running == 0


def test_many_calls_of_many_callers_all_end() -> None:
    budget, most, lock = Budget(3, 1000, 3, 3), 0, threading.Lock()
    running = 0

    def work(caller: str) -> None:
        nonlocal running, most
        for _ in range(20):
            with budget.slot(caller, never):
                with lock:
                    running += 1
                    most = max(most, running)
                time.sleep(0.0005)
                with lock:
                    running -= 1

    threads = [threading.Thread(target=work, args=(str(number % 5),)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert (most, budget.running, budget.waiting) == (3, 0, 0)
