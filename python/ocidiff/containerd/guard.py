"""Guard: a process that undoes what a client leaves in containerd if it is killed.

The client tells it, through a pipe, which leases it is about to make, and lets it freeze and thaw containers. The pipe ends
when the client dies, however it dies. The guard then thaws what it has frozen and releases the leases, so that the garbage
collector takes everything that was under them. It has a session of its own, so that a signal to the client's group does not
reach it, and it alone freezes, so that a freeze cannot come after its thaw. A lease named after the container says who has
paused it: another commit waits for that, and the next one undoes it if the guard died too.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from ocidiff.containerd.channel import Channel
from ocidiff.containerd.owner import labels_of_lease
from ocidiff.containerd.tasks import PAUSED, PAUSING, status_of
from ocidiff.errors import AlreadyExistsError, NotFoundError, OcidiffError

# Time for a containerd that was stopped to come back.
_PATIENCE_SECONDS: Final = 3600.0
_PAUSE_SECONDS: Final = 0.2
_ATTEMPTS: Final = 10
PAUSED_PREFIX: Final = "ocidiff-paused-"
"""The beginning of the id of a lease that says who has paused a container."""
_PAUSED_SECONDS: Final = 86_400.0
_OK, _BUSY = "ok", "busy"


class Guard:
    """The client's side: starts the process, and tells it things until the block ends."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._left = set[str]()

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter
            [sys.executable, "-c", _PROGRAM, self._channel.address, self._channel.namespace],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, filter(None, sys.path)))},
            cwd="/",
            start_new_session=True,
            bufsize=0,
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self._left:
            # It may still be starting, and one that was killed has nothing to be told.
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        if self._left:
            # The end of the pipe tells it to go on where this process has failed.
            self._process.returncode = 0

    def keep(self, lease: str) -> None:
        """Let the guard release this lease if this process dies before `released`."""
        self._left.add(lease)
        self._tell(f"lease {lease}")

    def released(self, lease: str) -> None:
        """Say that a lease is gone."""
        self._left.discard(lease)

    def prepare(self, container: str) -> None:
        """Let the guard connect in the meantime, since this container will be frozen soon."""
        self._tell(f"connect {container}")

    def freeze(self, container: str) -> bool:
        """Stop all processes of a container until `thaw`, or until this process is dead; False if another commit has.

        Raises:
            OcidiffError: containerd refuses, or the guard was killed.
        """
        self._left.add(container)
        answer = self._ask(f"freeze {container}")
        if answer == _BUSY:
            self._left.discard(container)
        elif answer != _OK:
            raise OcidiffError(
                f"container {container}: cannot be paused: {answer or 'the guard was killed'}; see --no-pause"
            )
        return answer == _OK

    def thaw(self, container: str) -> None:
        """Let the processes of a container run on, if `freeze` stopped them; done here if the guard was killed."""
        if container in self._left:
            if self._ask(f"thaw {container}") != _OK:
                thaw(self._channel, container)
            self._left.discard(container)

    def _ask(self, line: str) -> str:
        self._tell(line)
        # An interrupt may have left the answer to another question.
        while self._process.stdout is not None and (answer := self._process.stdout.readline().decode()):
            question, _, text = answer.rstrip("\n").partition("\t")
            if question == line:
                return text
        return ""

    def _tell(self, line: str) -> None:
        if self._process.stdin is not None:
            # One write for each line, since the thread that renews a lease tells things too. A killed guard reads nothing.
            with suppress(BrokenPipeError):
                self._process.stdin.write(f"{line}\n".encode())


_PROGRAM: Final = "import sys; from ocidiff.containerd.guard import main; main(*sys.argv[1:])"


def main(address: str, namespace: str) -> None:
    """Be the guard of the process at the other end of stdin."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    leases, frozen = [], set[str]()
    channel: Channel | None = None
    for line in sys.stdin:
        word, _, name = line.strip().partition(" ")
        if word == "lease":
            leases.append(name)
            continue
        try:
            channel = channel or Channel.connect(address, namespace)
            if word == "connect":
                # The first call takes as long as all others: it connects, and makes the messages.
                status_of(channel, name)
                continue
            if word == "freeze":
                answer = _freeze(channel, name, frozen)
            else:
                thaw(channel, name)
                frozen.discard(name)
                answer = _OK
        except (OcidiffError, OSError) as error:
            answer = " ".join(str(error).split())
        with suppress(BrokenPipeError):
            print(f"{word} {name}", answer, sep="\t", flush=True)
    _undo(address, namespace, leases, frozen)


def _undo(address: str, namespace: str, leases: list[str], frozen: set[str]) -> None:
    ends = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < ends:
        try:
            channel = Channel.connect(address, namespace)
            while frozen:
                thaw(channel, next(iter(frozen)))
                frozen.pop()
            while leases:
                _release(channel, leases[-1])
                leases.pop()
            return
        except (OcidiffError, OSError):
            time.sleep(_PAUSE_SECONDS)


def _release(channel: Channel, lease: str) -> None:
    """Delete a lease, and wait until the garbage collector has taken what was under it."""
    for _ in range(_ATTEMPTS):
        with suppress(NotFoundError):
            channel.call("leases.v1.Leases/Delete", is_cleanup=True, id=lease, sync=True)
            return
        # The call that makes it may have been on its way when its sender was killed.
        time.sleep(_PAUSE_SECONDS)


def _freeze(channel: Channel, container: str, frozen: set[str]) -> str:
    """Pause a container, once it is among the frozen ones; return `busy` if another commit has paused it."""
    try:
        channel.call("leases.v1.Leases/Create", id=PAUSED_PREFIX + container, labels=labels_of_lease(_PAUSED_SECONDS))
    except AlreadyExistsError:
        return _BUSY
    frozen.add(container)
    channel.call("tasks.v1.Tasks/Pause", container_id=container)
    return _OK


def thaw(channel: Channel, container: str) -> None:
    """Let a container run on that a commit has paused; one that runs or has ended is left as it is.

    Raises:
        OcidiffError: containerd refuses.
    """
    for attempt in range(_ATTEMPTS, -1, -1):
        status = status_of(channel, container)
        if status == PAUSED:
            try:
                channel.call("tasks.v1.Tasks/Resume", is_cleanup=True, container_id=container)
                continue
            except OcidiffError:
                if not attempt:
                    raise
        elif status != PAUSING:
            with suppress(NotFoundError):
                channel.call("leases.v1.Leases/Delete", is_cleanup=True, id=PAUSED_PREFIX + container)
            return
        time.sleep(_PAUSE_SECONDS)
    raise OcidiffError(f"container {container}: is being paused and cannot be resumed")
