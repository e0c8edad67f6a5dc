"""Server: the life of the process that serves the plugin, from its socket to its last call.

The socket gets its name by a rename once calls are taken, so that nobody meets one that is half there, and a server that
takes over from another (SIGHUP) leaves no gap. The old one serves its connections until their clients have left, since gRPC
cancels calls that arrive after `grpc.Server.stop`.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from ocidiff.containerd.blobs import BlobFiles
from ocidiff.containerd.channel import DEFAULT_NAMESPACE, Channel
from ocidiff.containerd.segment_cache import CacheDirectory, SegmentCache
from ocidiff.containerd.serve import records
from ocidiff.containerd.serve.budget import Budget
from ocidiff.containerd.serve.calls import Calls
from ocidiff.containerd.serve.health import Health
from ocidiff.containerd.serve.leases import ServerLeases
from ocidiff.containerd.serve.metrics import Metrics, MetricsAddress
from ocidiff.containerd.serve.namespaces import Namespaces
from ocidiff.containerd.serve.notify import notify
from ocidiff.containerd.serve.service import NAME, PATIENCE_SECONDS, DiffService
from ocidiff.errors import BusyError, OcidiffError, UsageError
from ocidiff.layer.engine import select_engine
from ocidiff.layer.options import EngineName
from ocidiff.output import naming
from ocidiff.values import dataclass
from ocidiff.workspace import FULL

if TYPE_CHECKING:
    import grpc

DEFAULT_SOCKET: Final = "/run/ocidiff/ocidiff.sock"
MEMORY_PER_SLOT: Final = 128 << 20
# Every call takes this much for pieces of a blob that are read, inflated, hashed and written.
_LEAST_MEMORY_OF_CALL: Final = 64 << 20

_MAX_MESSAGE_BYTES: Final = 16 << 20
# Health checks are answered while all slots are taken and the line is full.
_SPARE_THREADS: Final = 8
_STOP_SECONDS: Final = 30.0
_ENDING: Final = (signal.SIGTERM, signal.SIGINT)
# gRPC tells the client of a connection of this age to make a new one. A server that was replaced lives about as long.
_CONNECTION_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.1
# What the kernel says of a socket that listens. Spec: proc_net(5), and __SO_ACCEPTCON of Linux.
_LISTENS: Final = "00010000"
_LAST_PORT: Final = 65535
_TICK_SECONDS: Final = 10.0
# A caller that was answered by a server just before that died has this long to name what it got.
_GRACE_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of a server.

    Attributes:
        address: Socket of containerd.
        namespace: Namespace of callers that do not say theirs; None to find it.
        socket: Path of the server's socket.
        slots: Calls that run at once; None for as many as there are cores.
        queue: Calls that wait at most.
        memory_bytes: Memory that all calls share; None for 128 MiB a slot. Calls for which it has no 64 MiB wait.
        metrics: `HOST:PORT` or the path of a file; None for none.
        engine: What does the work; None for the best there is.
        cache: Directory of the cache of segments; None to compress every layer as a whole.
        cache_bytes: Bytes that it takes at most; None for 1 GiB.
        grace_seconds: Time after the start until the leases of dead servers are released.
    """

    address: str
    namespace: str | None = None
    socket: str = DEFAULT_SOCKET
    slots: int | None = None
    queue: int = 64
    memory_bytes: int | None = None
    metrics: str | None = None
    engine: EngineName | None = None
    cache: str | None = None
    cache_bytes: int | None = None
    grace_seconds: float = _GRACE_SECONDS


class Server:
    """A server that takes calls until `stop`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        slots = settings.slots or len(os.sched_getaffinity(0))
        memory_bytes = settings.memory_bytes or slots * MEMORY_PER_SLOT
        slots = max(1, min(slots, memory_bytes // _LEAST_MEMORY_OF_CALL))
        self.budget = Budget(slots, settings.queue, len(os.sched_getaffinity(0)), memory_bytes)
        self.metrics = Metrics({"slots_busy": lambda: self.budget.running, "queue_length": lambda: self.budget.waiting})
        self._channel = Channel.later(settings.address, settings.namespace or DEFAULT_NAMESPACE, PATIENCE_SECONDS)
        namespaces = Namespaces(self._channel, settings.namespace)
        self._leases = ServerLeases(self._channel)
        self._calls = Calls(self.budget, self.metrics, namespaces)
        self._health = Health(NAME)
        segments = _cache(settings, BlobFiles(self._channel))
        self._service = DiffService(select_engine(settings.engine), self._channel, namespaces, self._leases, segments)
        self._stopped = threading.Event()
        self._grpc: grpc.Server | None = None
        self._bound = ""
        self._metrics_file: str | None = None
        self._address: MetricsAddress | None = None
        self._threads = slots + settings.queue + _SPARE_THREADS

    def start(self) -> None:
        """Take calls at the socket from now on.

        Raises:
            BusyError: Another server is there.
            OSError: The socket cannot be made.
        """
        import grpc

        path = self.settings.socket
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="ocidiff-call")
        limits = [(f"grpc.max_{way}_message_length", _MAX_MESSAGE_BYTES) for way in ("receive", "send")]
        age = ("grpc.max_connection_age_ms", int(_CONNECTION_SECONDS * 1000))
        self._grpc = grpc.server(pool, options=[*limits, age])
        methods = {"Diff": self._service.diff, "Apply": self._service.apply}
        handlers = {name: self._calls.handler(f"diff.v1.Diff/{name}", work) for name, work in methods.items()}
        self._grpc.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, handlers), self._health.handler()))
        with _socket_at(path) as self._bound:
            # First, so that a wrong option leaves no socket.
            self._watch_metrics()
            try:
                self._grpc.add_insecure_port(f"unix:{self._bound}")
            except RuntimeError as error:
                raise OSError(f"{path}: no socket can be made: {error}") from None
            self._grpc.start()
        self._identity = _identity(path)
        threading.Thread(target=self._look_after, name="ocidiff-upkeep", daemon=True).start()

    def hand_over(self) -> None:
        """Serve those who are connected until they have left for the server that took over, or a signal ends it.

        A client that stays is left alone once no call has run for half a minute.
        """
        self._health.leave()
        self._end_metrics()
        quiet = 0.0
        while quiet < _STOP_SECONDS and _connections(self._bound):
            if signal.sigtimedwait(_ENDING, _LOOK_SECONDS) is not None:
                return
            quiet = quiet + _LOOK_SECONDS if self._calls.wait(0) else 0.0

    def stop(self, seconds: float = _STOP_SECONDS) -> None:
        """Take no more calls, let those that run end, and stop those that take longer than `seconds`."""
        self._health.stop()
        self._stopped.set()
        if _identity(self.settings.socket) == self._identity:
            # The name may be another server's by now.
            with suppress(FileNotFoundError):
                os.unlink(self.settings.socket)
        if self._grpc is not None:
            ended = self._grpc.stop(seconds)
            if not self._calls.wait(seconds):
                self._calls.cancel()
                self._calls.wait(None)
            ended.wait()
        self._write_metrics()
        self._end_metrics()
        self._channel.close()

    def _watch_metrics(self) -> None:
        where = self.settings.metrics
        if where and "/" not in where:
            host, _, port = where.rpartition(":")
            if not host or not re.fullmatch("[0-9]{1,5}", port) or int(port) > _LAST_PORT:
                raise UsageError(f"metrics {where!r}: must be HOST:PORT or the path of a file")
            with naming(where):
                self._address = MetricsAddress(host, int(port), self.metrics.text)
        elif where:
            try:
                self.metrics.write(where)
            except OSError as error:
                # A full disk may have room again while the server runs.
                if error.errno not in FULL:
                    raise OSError(error.errno, error.strerror, where) from None
            self._metrics_file = where

    def _write_metrics(self) -> None:
        file = self._metrics_file
        if file:
            try:
                self.metrics.write(file)
            except OSError as error:
                records.warn("metrics cannot be written", file=file, error=error.strerror)

    def _end_metrics(self) -> None:
        """Leave the file or the address to the server that took over, if there is one."""
        self._metrics_file, address, self._address = None, self._address, None
        if address is not None:
            address.close()

    def _look_after(self) -> None:
        """Release what dead servers left, renew leases, and write metrics, until the server stops."""
        is_swept, waited = False, 0.0
        while True:
            if not is_swept and waited >= self.settings.grace_seconds:
                with suppress(OcidiffError, OSError):
                    self._leases.sweep()
                    is_swept = True
            self._leases.renew()
            self._write_metrics()
            tick = _TICK_SECONDS if is_swept else min(_TICK_SECONDS, max(0.1, self.settings.grace_seconds - waited))
            waited += tick
            if self._stopped.wait(tick):
                return


def _cache(settings: Settings, blobs: BlobFiles) -> SegmentCache | None:
    """Return the cache of segments; None if there shall be none, or its directory is of no use, which is logged."""
    if settings.cache is None:
        return None
    place = CacheDirectory(settings.cache)
    try:
        place.check()
    except OSError as error:
        records.warn("layers are compressed as a whole", cache=settings.cache, error=error.strerror)
        return None
    return SegmentCache(place, blobs.directory, settings.cache_bytes)


def serve(settings: Settings) -> None:
    """Serve until a signal ends it: SIGTERM and SIGINT let calls end; SIGHUP starts a server that takes over.

    Raises:
        BusyError: Another server is there.
        OSError: The socket cannot be made.
    """
    from ocidiff.containerd.serve.takeover import announce, start_successor

    records.begin()
    _allow_descriptors()
    # Threads inherit the mask. A handler in Python would wait for the main thread, which may have just begun to sleep.
    signal.pthread_sigmask(signal.SIG_BLOCK, {*_ENDING, signal.SIGHUP})
    server = Server(settings)
    server.start()
    records.say("serving", socket=settings.socket, containerd=settings.address, pid=os.getpid())
    announce()
    notify("READY=1", f"STATUS=serving at {settings.socket}")
    try:
        while signal.sigwait({*_ENDING, signal.SIGHUP}) == signal.SIGHUP:
            successor = start_successor()
            if successor is not None:
                records.say("another server takes over", pid=successor)
                notify(f"MAINPID={successor}")
                server.hand_over()
                break
        else:
            notify("STOPPING=1")
    finally:
        server.stop()
    records.say("stopped", pid=os.getpid())


def _allow_descriptors() -> None:
    """Raise the limit of open files as far as this process may: each call opens up to 64 for segments of older layers."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextmanager
def _socket_at(path: str) -> Iterator[str]:
    """Yield a path to make a socket at, which gets its name at the end of the block; only its owner may use it.

    Raises:
        BusyError: A server listens there already, and this one does not take over from it.
    """
    from ocidiff.containerd.serve.takeover import takes_over

    if not takes_over() and _answers(path):
        raise BusyError(f"{path}: another server listens at this socket; stop it, or choose another --socket")
    directory = os.path.dirname(os.path.abspath(path))
    os.makedirs(directory, 0o711, exist_ok=True)
    partial = f"{path}.{os.getpid()}"
    mask = os.umask(0o177)
    try:
        yield partial
        os.rename(partial, path)
    finally:
        os.umask(mask)
        with suppress(FileNotFoundError):
            os.unlink(partial)


def _connections(path: str) -> int:
    """Return how many connections a socket has that was bound to this path; those count that are not accepted yet."""
    with open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as file:
        lines = [line.rstrip("\n").split(maxsplit=7) for line in file]
    return sum(line[7:] == [path] and line[3] != _LISTENS for line in lines)


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
        try:
            one.connect(path)
        except OSError:
            return False
        return True


def _identity(path: str) -> tuple[int, int] | None:
    with suppress(FileNotFoundError):
        found = os.lstat(path)
        return (found.st_dev, found.st_ino) if stat.S_ISSOCK(found.st_mode) else None
    return None
