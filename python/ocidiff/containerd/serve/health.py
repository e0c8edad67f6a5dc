"""Health: the standard service that tells if a server takes calls. Spec: grpc.io, GRPC Health Checking Protocol.

Its messages have one field each, so that protobuf's own wrappers have the same bytes: `StringValue` is the request, and
`Int32Value` the answer.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import grpc

_SERVING, _NOT_SERVING, _UNKNOWN = 1, 2, 3
_LOOK_SECONDS: Final = 0.5
_ANSWER_SECONDS: Final = 10.0
SERVICE: Final = "grpc.health.v1.Health"


class Health:
    """Tells if calls are taken, of the server and of the services that it has."""

    def __init__(self, *services: str) -> None:
        self._known = {"", SERVICE, *services}
        self._takes_calls = True
        self._leaving = threading.Event()

    def leave(self) -> None:
        """End the streams of watchers, so that they connect to the server that takes over."""
        self._leaving.set()

    def stop(self) -> None:
        """Say from now on that no calls are taken."""
        self._takes_calls = False
        self._leaving.set()

    def handler(self) -> grpc.GenericRpcHandler:
        """Return what the server adds to its services."""
        import grpc
        from google.protobuf.wrappers_pb2 import Int32Value, StringValue

        def check(request: Any, context: grpc.ServicerContext) -> Any:  # noqa: ANN401 - a message
            if request.value not in self._known:
                context.abort(grpc.StatusCode.NOT_FOUND, f"unknown service {request.value!r}")
            return Int32Value(value=self._status())

        def watch(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: ANN401 - a message
            is_known = request.value in self._known
            yield Int32Value(value=self._status() if is_known else _UNKNOWN)
            while context.is_active():
                if self._leaving.wait(_LOOK_SECONDS):
                    # The stream ends with the server, so that a watcher does not hold it up.
                    if is_known and not self._takes_calls:
                        yield Int32Value(value=_NOT_SERVING)
                    return

        coding: dict[str, Any] = {
            "request_deserializer": StringValue.FromString,
            "response_serializer": lambda message: bytes(message.SerializeToString()),
        }
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Check": grpc.unary_unary_rpc_method_handler(check, **coding),
                "Watch": grpc.unary_stream_rpc_method_handler(watch, **coding),
            },
        )

    def _status(self) -> int:
        return _SERVING if self._takes_calls else _NOT_SERVING


def is_serving(socket: str) -> bool:
    """True if the server at this socket says that it takes calls."""
    import grpc
    from google.protobuf.wrappers_pb2 import Int32Value, StringValue

    with grpc.insecure_channel(f"unix:{socket}", [("grpc.default_authority", "localhost")]) as channel:
        check: Any = channel.unary_unary(
            f"/{SERVICE}/Check",
            request_serializer=lambda message: bytes(message.SerializeToString()),
            response_deserializer=Int32Value.FromString,
        )
        try:
            return bool(check(StringValue(), timeout=_ANSWER_SECONDS).value == _SERVING)
        except grpc.RpcError:
            return False
