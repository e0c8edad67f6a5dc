"""Calls: what every call of the server goes through, whatever it does.

A call gets a number, a place in line, a share of the machine, and a monitor that stops it when its caller gives up. Its end
is counted and logged, and an error becomes a status code by the one table of errors. Law: UNIMPLEMENTED, after which
containerd asks its next differ, is said only of what another differ may do.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from ocidiff.containerd.messages import types_of
from ocidiff.containerd.serve import records
from ocidiff.containerd.serve.budget import Budget, Share
from ocidiff.containerd.serve.metrics import Metrics
from ocidiff.containerd.serve.namespaces import Namespaces
from ocidiff.errors import outcome_of, reason
from ocidiff.layer.monitor import Cancellation, Monitor

if TYPE_CHECKING:
    import grpc

_PREFIX: Final = "containerd.services."


class Call:
    """One call.

    Attributes:
        number: Its number, which is in every line of the log that belongs to it.
        namespace: Namespace of the caller; None if it was not said.
        share: What it may use.
        monitor: Stops it.
        told: What the log says of it, by name.
    """

    def __init__(self, method: str, namespace: str | None, metrics: Metrics) -> None:
        self.number = os.urandom(4).hex()
        self.namespace = namespace
        self.share = Share(1, 0)
        self.cancel = Cancellation()
        self.monitor = Monitor(cancel=self.cancel)
        self.told: dict[str, object] = {}
        self._method, self._metrics = method, metrics

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure a part of the call."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.took(name, time.monotonic() - started)

    def took(self, name: str, seconds: float) -> None:
        """Count the time of a part of the call."""
        self._metrics.add("phase_seconds_total", seconds, method=self._method, phase=name)
        self.told[f"{name}_seconds"] = seconds

    def passed(self, blob_bytes: int, tar_bytes: int) -> None:
        """Count the bytes of a layer."""
        self._metrics.add("blob_bytes_total", blob_bytes, method=self._method)
        self._metrics.add("tar_bytes_total", tar_bytes, method=self._method)

    def reused(self, tar_bytes: int) -> None:
        """Count the bytes of a layer that were not compressed again."""
        self._metrics.add("reused_bytes_total", tar_bytes, method=self._method)


class Calls:
    """Runs calls. Safe from several threads."""

    def __init__(self, budget: Budget, metrics: Metrics, namespaces: Namespaces) -> None:
        self._budget, self._metrics, self._namespaces = budget, metrics, namespaces
        self._changed = threading.Condition()
        self._running: set[Call] = set()

    def cancel(self) -> None:
        """Stop all calls."""
        with self._changed:
            for call in self._running:
                call.cancel.cancel()

    def wait(self, seconds: float | None) -> bool:
        """Wait until no call runs; False if some do after so many seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._running, seconds)

    def handler(self, method: str, work: Callable[[Any, Call], dict[str, object]]) -> grpc.RpcMethodHandler[Any, Any]:
        """Return what serves a method.

        Args:
            method: Its name below `containerd.services.`.
            work: Takes the request, and returns the fields of the answer.
        """
        import grpc

        request, answer = types_of(method)
        name = method.rpartition("/")[2]

        def serve(message: Any, context: grpc.ServicerContext) -> Any:  # noqa: ANN401 - a message
            try:
                return answer(**self._run(name, message, context, work))
            except Exception as error:  # noqa: BLE001 - the caller gets every error
                context.abort(grpc.StatusCode[outcome_of(error).grpc], f"ocidiff: {reason(error)}")

        return grpc.unary_unary_rpc_method_handler(
            serve,
            request_deserializer=request.FromString,
            response_serializer=lambda one: bytes(one.SerializeToString()),
        )

    def _run(
        self,
        name: str,
        message: Any,  # noqa: ANN401 - as the method has it
        context: grpc.ServicerContext,
        work: Callable[[Any, Call], dict[str, object]],
    ) -> dict[str, object]:
        started = time.monotonic()
        call = Call(name, self._namespaces.of_header(context.invocation_metadata()), self._metrics)
        records.in_request(call.number)
        with self._changed:
            self._running.add(call)
        context.add_callback(call.cancel.cancel)
        code, why = "OK", None
        try:
            with self._budget.slot(call.namespace or "", lambda: call.cancel.cancelled) as call.share:
                call.took("queue", time.monotonic() - started)
                return work(message, call)
        except BaseException as error:
            code, why = outcome_of(error).grpc, reason(error)
            raise
        finally:
            with self._changed:
                self._running.discard(call)
                self._changed.notify_all()
            seconds = time.monotonic() - started
            self._metrics.ended(name, code, seconds)
            say = records.say if code in {"OK", "UNIMPLEMENTED", "CANCELLED"} else records.warn
            say(name, code=code, namespace=call.namespace, seconds=seconds, **call.told, error=why)
            records.in_request(None)
