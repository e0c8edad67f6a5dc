"""Sixteen callers for minutes, with kills in between: no call is lost in silence, and nothing grows.

Half of the callers go through containerd to a server that is killed again and again; half go straight to a server that
stays, whose descriptors, threads and memory must be flat. `make soak-serve` runs it, for the minutes of
`OCIDIFF_SERVE_MINUTES`.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import pytest

from containerd.daemon import Daemon
from containerd.serve.plugin import NOTHING, Server, Straight, left_behind, plugged, prepared, snapshots, until
from ocidiff.containerd.channel import Channel
from ocidiff.containerd.content import ContainerdContent
from ocidiff.containerd.open import services_of
from ocidiff.errors import OcidiffError
from ocidiff.layer.engine import select_engine
from ocidiff.services import labels

pytestmark = [pytest.mark.interop, pytest.mark.root]

MINUTES = float(os.environ.get("OCIDIFF_SERVE_MINUTES", "0"))
CALLERS = 16
KILL_SECONDS = 10.0
SAMPLE_SECONDS = 2.0
# The heap of an allocator swings by this much.
GROWTH_MIB = 24
NAMESPACE = "default"


@dataclass(frozen=True)
class Sample:
    """The descriptors, threads and memory of a process at a moment."""

    descriptors: int
    threads: int
    mib: float


def sample(pid: int) -> Sample:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    return Sample(len(os.listdir(f"/proc/{pid}/fd")), int(status["Threads"]), int(status["VmRSS"].split()[0]) / 1024)


def most(samples: Sequence[Sample]) -> Sample:
    return Sample(*(max(values) for values in zip(*(astuple(one) for one in samples), strict=True)))


class Caller(threading.Thread):
    """Diffs a snapshot that changes, and applies the layer to another one, until it is told to end."""

    def __init__(self, daemon: Daemon, address: str, number: int, ended: threading.Event) -> None:
        super().__init__(name=f"caller-{number}")
        self.daemon_, self.address, self.number, self.ended = daemon, address, number, ended
        self.done, self.errors = Counter[str](), list[str]()
        self._channel = Channel.connect(daemon.address, NAMESPACE)
        self.upper = prepared(daemon, NAMESPACE, self._channel, f"from-{number}")
        self._sides = snapshots(self._channel, f"from-{number}")

    def run(self) -> None:
        asked = Straight.later(self.address, NAMESPACE)
        own = services_of(self._channel, select_engine(None)).snapshotter("overlayfs")
        turn = 0
        while not self.ended.is_set():
            turn += 1
            # A small change mostly, and a large one at times.
            (self.upper / "changed").write_bytes(os.urandom(8 << 20 if turn % 10 == 0 else 50 << 10))
            key = f"to-{self.number}-{turn}"
            try:
                layer = asked.call("diff.v1.Diff/Diff", **self._sides).diff
                self.done["Diff"] += 1
                mounts = own.prepare(key, own.stat(f"from-{self.number}").parent, {labels.ROOT: "now"})
                described = [{"type": one.type, "source": one.source, "options": list(one.options)} for one in mounts]
                blob = {"media_type": layer.media_type, "digest": layer.digest, "size": layer.size}
                asked.call("diff.v1.Diff/Apply", diff=blob, mounts=described)
                applied = Path(mounts[-1].option("upperdir") or "") / "changed"
                assert applied.read_bytes() == (self.upper / "changed").read_bytes()
                self.done["Apply"] += 1
            except (OcidiffError, OSError) as error:
                self.errors.append(str(error))
                self.ended.wait(0.2)
            finally:
                if any(row.key == key for row in own.walk()):
                    own.remove(key)
        asked.close()
        self._channel.close()


@pytest.mark.skipif(MINUTES == 0, reason="takes minutes; make soak-serve")
@pytest.mark.timeout(max(300, MINUTES * 60 + 300))
def test_sixteen_callers_and_kills_leave_nothing_and_nothing_grows(archive: Path) -> None:
    with plugged(slots="4", queue="64") as (daemon, killed):
        daemon.load(archive, NAMESPACE)
        stays = Server(daemon, "stays", slots="4", queue="64")
        ended, samples, kills = threading.Event(), list[Sample](), 0
        addresses = [daemon.address if number % 2 else str(stays.socket) for number in range(CALLERS)]
        callers = [Caller(daemon, address, number, ended) for number, address in enumerate(addresses)]
        for caller in callers:
            caller.start()
        try:
            end, next_kill = time.monotonic() + MINUTES * 60, time.monotonic() + KILL_SECONDS
            while time.monotonic() < end:
                time.sleep(SAMPLE_SECONDS)
                samples.append(sample(stays.pid))
                if time.monotonic() < next_kill:
                    continue
                if kills % 3 == 2:
                    killed.reload()
                else:
                    killed.stop(signal.SIGKILL)
                    killed.start()
                kills, next_kill = kills + 1, time.monotonic() + KILL_SECONDS
                daemon.collect(NAMESPACE)
        finally:
            ended.set()
            for caller in callers:
                caller.join()
        channel = Channel.connect(daemon.address, NAMESPACE)
        done = sum((caller.done for caller in callers), Counter[str]())
        errors = Counter(error for caller in callers for error in caller.errors)
        third = len(samples) // 3
        before, after = most(samples[:-third]), most(samples[-third:])
        print(f"\n{MINUTES:g} minutes, {kills} kills: {dict(done)}; {errors.total()} calls failed")
        print(f"the server that stays had at most {before} in two thirds of the time, and {after} in the last")
        assert all("\n" not in error for error in errors)
        for caller in callers:
            assert min(caller.done["Diff"], caller.done["Apply"]) > 0, f"{caller.name} starved: {caller.done}"
            # Nothing disturbs the server that stays.
            assert caller.address == daemon.address or caller.errors == []
        assert after.descriptors <= before.descriptors + CALLERS
        assert after.threads <= before.threads
        assert after.mib <= before.mib + GROWTH_MIB
        for server in (killed, stays):
            until(lambda server=server: left_behind(channel, server) == NOTHING)  # type: ignore[misc]
        assert [one.ref for one in ContainerdContent(channel).statuses()] == []
        stays.stop()
        channel.close()
