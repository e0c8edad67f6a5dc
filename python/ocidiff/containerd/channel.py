"""Channel: calls of containerd's API, in one namespace, and what becomes of their failures."""

from __future__ import annotations

import errno
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Self

from ocidiff.containerd.messages import types_of
from ocidiff.errors import (
    AlreadyExistsError,
    BusyError,
    InUseError,
    NotFoundError,
    OcidiffError,
    UnsupportedError,
    UsageError,
)

if TYPE_CHECKING:
    import grpc

    from ocidiff.services.leases import Lease

DEFAULT_ADDRESS: Final = "/run/containerd/containerd.sock"
DEFAULT_NAMESPACE: Final = "default"

# Longest path of a socket. Spec: unix(7).
_MAX_ADDRESS_BYTES: Final = 107
# containerd's own limit of messages in both directions.
_MAX_MESSAGE_BYTES: Final = 16 << 20
# A call that syncs a large file system, or waits for a garbage collection, takes long; one that takes longer hangs.
_PATIENCE_SECONDS: Final = 600.0
# Longest wait of a cleanup for a containerd that is being restarted.
_CLEANUP_SECONDS: Final = 60.0
_RETRY_SECONDS: Final = 0.05
_OLDEST: Final = (1, 7)


class Channel:
    """A connection to containerd. Safe from several threads."""

    def __init__(
        self,
        address: str,
        namespace: str,
        connection: grpc.Channel,
        lease: Lease | None = None,
        cleanup_seconds: float = _CLEANUP_SECONDS,
    ) -> None:
        self.address = address
        self.namespace = namespace
        self.lease = lease
        self._connection = connection
        self._cleanup_seconds = cleanup_seconds

    @classmethod
    def open(cls, address: str, namespace: str) -> Self:
        """Connect to the socket of containerd and check its version and the namespace.

        Raises:
            UsageError: The address is not the path of a socket, or the extra `containerd` is not installed.
            OSError: Nobody listens there, or this user may not connect.
            NotFoundError: containerd has no such namespace.
            UnsupportedError: Its version is too old.
        """
        channel = cls.connect(address, namespace)
        try:
            version = channel.call("version.v1.Version/Version").version
            found = re.match(r"v?([0-9]{1,9})\.([0-9]{1,9})", version)
            if found and (int(found[1]), int(found[2])) < _OLDEST:
                raise UnsupportedError(f"containerd {version}: version {_OLDEST[0]}.{_OLDEST[1]} or newer is needed")
            names = [one.name for one in channel.call("namespaces.v1.Namespaces/List").namespaces]
            if namespace not in names:
                there = ", ".join(sorted(names)) or "none"
                raise NotFoundError(f"containerd has no namespace {namespace!r}; there is {there}")
        except BaseException:
            channel.close()
            raise
        return channel

    @classmethod
    def connect(cls, address: str, namespace: str) -> Self:
        """Connect to the socket of containerd; errors as in `open`, of the socket only."""
        _probe(address.removeprefix("unix://"))
        return cls.later(address, namespace)

    @classmethod
    def later(cls, address: str, namespace: str, cleanup_seconds: float = _CLEANUP_SECONDS) -> Self:
        """Return a connection that is made by the first call, also if containerd is not there yet.

        Args:
            address: Socket of containerd.
            namespace: Namespace of the calls.
            cleanup_seconds: Longest wait of a cleanup for a containerd that is being restarted.

        Raises:
            UsageError: The extra `containerd` is not installed.
        """
        path = address.removeprefix("unix://")
        try:
            import grpc
        except ImportError:
            raise UsageError("containerd: needs the extra: pip install 'ocidiff[containerd]'") from None
        options = [
            ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
            ("grpc.default_authority", "localhost"),
            ("grpc.max_reconnect_backoff_ms", 1000),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        connection = grpc.insecure_channel(f"unix:{os.path.abspath(path)}", options)
        return cls(path, namespace, connection, cleanup_seconds=cleanup_seconds)

    def under(self, lease: Lease | None) -> Channel:
        """Return the same connection, whose calls belong to a lease."""
        return Channel(self.address, self.namespace, self._connection, lease, self._cleanup_seconds)

    def within(self, namespace: str) -> Channel:
        """Return the same connection, whose calls are in another namespace and belong to no lease."""
        return Channel(self.address, namespace, self._connection, cleanup_seconds=self._cleanup_seconds)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def call(self, method: str, *, is_cleanup: bool = False, **fields: object) -> Any:  # noqa: ANN401 - a message
        """Call a method and return its answer.

        Args:
            method: Its name below `containerd.services.`, as in `messages.METHODS`.
            is_cleanup: Wait for a containerd that is being restarted.
            fields: The request.

        Raises:
            OcidiffError, OSError: What containerd answered, or that it did not.
        """
        seconds = self._cleanup_seconds if is_cleanup else _PATIENCE_SECONDS
        return self._call(method, fields, seconds, is_patient=is_cleanup)

    def wait(self, seconds: float) -> None:
        """Wait until containerd answers; a connection to one that has ended is made anew.

        Raises:
            ConnectionError: It does not answer within so many seconds.
        """
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            # This call changes nothing, so that it may be made again after it was lost with a containerd that ended.
            with suppress(ConnectionError, TimeoutError):
                self._call("version.v1.Version/Version", {}, left, is_patient=True)
                return
            time.sleep(_RETRY_SECONDS)
        raise ConnectionError(errno.ECONNREFUSED, "containerd does not answer; is it running?", self.address)

    def _call(self, method: str, fields: dict[str, object], seconds: float, *, is_patient: bool) -> Any:  # noqa: ANN401
        request, answer = types_of(method)
        call = self._connection.unary_unary(*_codec(method, answer))
        return self._translated(
            lambda: call(request(**fields), timeout=seconds, wait_for_ready=is_patient, metadata=self.metadata())
        )

    def stream(self, method: str, **fields: object) -> Iterator[Any]:
        """Call a method that answers with a stream; arguments and errors as in `call`."""
        request, answer = types_of(method)
        call = self._connection.unary_stream(*_codec(method, answer))(request(**fields), metadata=self.metadata())
        try:
            while True:
                found = self._translated(lambda: next(call, None))
                if found is None:
                    return
                yield found
        finally:
            call.cancel()

    def exchange(self, method: str, requests: Iterator[dict[str, object]]) -> Callable[[], Any]:
        """Call a method with a stream of requests; return what gives the next answer, None after the last."""
        request, answer = types_of(method)
        call = self._connection.stream_stream(*_codec(method, answer))(
            (request(**fields) for fields in requests), metadata=self.metadata()
        )
        return lambda: self._translated(lambda: next(call, None))

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the headers that name the namespace, and the lease as it is now."""
        pairs = (("containerd-namespace", self.namespace),)
        return pairs if self.lease is None else (*pairs, ("containerd-lease", self.lease.id))

    def _translated(self, call: Callable[[], Any]) -> Any:  # noqa: ANN401 - as the call has it
        import grpc

        try:
            return call()
        except grpc.RpcError as error:
            raise self._error(error.code().name, error.details() or "") from None
        except ValueError as error:
            # A text that UTF-8 cannot say, or a channel that was closed.
            raise UsageError(f"containerd at {self.address}: {error}") from None

    def _error(self, code: str, details: str) -> Exception:
        """Return the error of our own that says what an answer says."""
        text = details.removesuffix(": not found").removesuffix(": already exists").removesuffix(": unavailable")
        if "no space left on device" in details:
            return OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} where containerd keeps its data", self.address)
        if code == "UNAVAILABLE" and "locked" in details:
            return BusyError(text)
        match code:
            case "NOT_FOUND":
                return NotFoundError(f"{text}: not found in containerd's namespace {self.namespace!r}")
            case "ALREADY_EXISTS":
                return AlreadyExistsError(f"{text}: already exists in containerd's namespace {self.namespace!r}")
            case "INVALID_ARGUMENT" | "OUT_OF_RANGE":
                return UsageError(text)
            case "FAILED_PRECONDITION":
                return InUseError(text)
            case "UNIMPLEMENTED":
                return UnsupportedError(f"containerd at {self.address}: {text}")
            case "UNAVAILABLE" | "CANCELLED":
                return ConnectionError(
                    errno.ECONNRESET,
                    "containerd ended or was restarted during the call; run the command again",
                    self.address,
                )
            case "DEADLINE_EXCEEDED":
                return TimeoutError(errno.ETIMEDOUT, "containerd did not answer", self.address)
            case _:
                return OcidiffError(f"containerd at {self.address}: {text or code}")


def _codec(method: str, answer: Any) -> tuple[str, Callable[[Any], bytes], Callable[[bytes], Any]]:  # noqa: ANN401 - a class
    return f"/containerd.services.{method}", lambda message: bytes(message.SerializeToString()), answer.FromString


def _probe(path: str) -> None:
    """Connect once, since gRPC tells little of a socket that it cannot use and tries for long."""
    if len(os.fsencode(path)) > _MAX_ADDRESS_BYTES:
        raise UsageError(f"address {path!r}: longer than the {_MAX_ADDRESS_BYTES} bytes of a socket's path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
        try:
            one.connect(path)
        except OSError as error:
            hint = {
                errno.ENOENT: "no such socket: is containerd running? --address names another one",
                errno.ECONNREFUSED: "nobody listens at this socket; is containerd running?",
                errno.EACCES: "no permission to use containerd; run as root",
                errno.EPERM: "no permission to use containerd; run as root",
            }.get(error.errno or 0, error.strerror or "cannot connect")
            raise type(error)(error.errno, hint, path) from None
