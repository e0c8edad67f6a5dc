"""Metrics: what the server did, in the text format of Prometheus, at a local address or in a file.

Spec: prometheus.io/docs/instrumenting/exposition_formats.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Final, NamedTuple

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class _Kind(NamedTuple):
    type: str
    help: str


_KINDS: Final[Mapping[str, _Kind]] = {
    "calls_total": _Kind("counter", "Calls that have ended, by method and status code."),
    "call_seconds": _Kind("histogram", "Wall time of calls, waiting included."),
    "phase_seconds_total": _Kind("counter", "Wall time of calls by phase: queue, prepare, work, sync."),
    "blob_bytes_total": _Kind("counter", "Bytes of layers as they are stored, written by Diff and read by Apply."),
    "tar_bytes_total": _Kind("counter", "Bytes of the same layers, uncompressed."),
    "reused_bytes_total": _Kind("counter", "Bytes of the tar that Diff copied compressed from older layers."),
    "fallbacks_total": _Kind("counter", "Calls left to containerd's next differ (UNIMPLEMENTED)."),
    "slots_busy": _Kind("gauge", "Calls that have a slot."),
    "queue_length": _Kind("gauge", "Calls that wait for a slot."),
    "open_files": _Kind("gauge", "Open file descriptors of the server."),
    "threads": _Kind("gauge", "Threads of the server."),
    "resident_memory_bytes": _Kind("gauge", "Memory of the server."),
}


class Metrics:
    """Counts what ends, and asks for what is. Safe from several threads.

    Args:
        gauges: Values that are asked for when the text is written, by name.
    """

    def __init__(self, gauges: Mapping[str, Callable[[], float]]) -> None:
        self._gauges = gauges
        self._lock = threading.Lock()
        self._values: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        self._calls: dict[str, tuple[list[int], float]] = {}

    def add(self, name: str, value: float, **labels: str) -> None:
        """Add to a counter."""
        key = (name, tuple(sorted(labels.items())))
        with self._lock:
            self._values[key] = self._values.get(key, 0) + value

    def ended(self, method: str, code: str, seconds: float) -> None:
        """Count a call that has ended."""
        self.add("calls_total", 1, method=method, code=code)
        if code == "UNIMPLEMENTED":
            self.add("fallbacks_total", 1, method=method)
        with self._lock:
            counts, total = self._calls.setdefault(method, ([0] * (len(_SECONDS) + 1), 0.0))
            counts[bisect_left(_SECONDS, seconds)] += 1
            self._calls[method] = (counts, total + seconds)

    def text(self) -> str:
        """Return all values in the format of Prometheus."""
        now = {name: ask() for name, ask in {**self._gauges, **_of_process()}.items()}
        with self._lock:
            values = dict(self._values)
            calls = {method: (list(counts), total) for method, (counts, total) in self._calls.items()}
        lines: list[str] = []
        for name, kind in _KINDS.items():
            full = f"ocidiff_{name}"
            lines += [f"# HELP {full} {kind.help}", f"# TYPE {full} {kind.type}"]
            if kind.type == "histogram":
                lines += _histogram(full, calls)
            elif kind.type == "gauge":
                lines.append(f"{full} {now[name]:.17g}")
            else:
                rows = sorted((labels, value) for (own, labels), value in values.items() if own == name)
                lines += [f"{full}{_labels(labels)} {value:.17g}" for labels, value in rows]
        return "\n".join(lines) + "\n"

    def write(self, path: str) -> None:
        """Replace a file by the text, whole at any moment."""
        partial = f"{path}.{os.getpid()}"
        file = open(partial, "w", encoding="utf-8")  # noqa: SIM115 - closed below
        try:
            with file:
                file.write(self.text())
            os.replace(partial, path)
        except OSError:
            os.unlink(partial)
            raise


def _histogram(name: str, calls: Mapping[str, tuple[list[int], float]]) -> Iterator[str]:
    for method, (counts, total) in sorted(calls.items()):
        so_far = 0
        for bound, count in zip((*map(str, _SECONDS), "+Inf"), counts, strict=True):
            so_far += count
            yield f'{name}_bucket{{method="{method}",le="{bound}"}} {so_far}'
        yield f'{name}_sum{{method="{method}"}} {total:.17g}'
        yield f'{name}_count{{method="{method}"}} {so_far}'


def _labels(labels: tuple[tuple[str, str], ...]) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels) + "}" if labels else ""


def _of_process() -> dict[str, Callable[[], float]]:
    return {
        "open_files": lambda: len(os.listdir("/proc/self/fd")),
        "threads": lambda: len(os.listdir("/proc/self/task")),
        "resident_memory_bytes": _resident_bytes,
    }


def _resident_bytes() -> float:
    # Spec: proc_pid_statm(5); the second number is in pages.
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class MetricsAddress:
    """Serves the text over HTTP, at `/metrics` of a host and a port."""

    def __init__(self, host: str, port: int, text: Callable[[], str]) -> None:
        from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.partition("?")[0] != "/metrics":
                    self.send_error(404)
                    return
                body = text().encode()
                self.send_response(200)
                self.send_header("Content-Type", CONTENT_TYPE)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with suppress(BrokenPipeError):
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing: a scrape is no event."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            # A server that takes over binds the port while the old one still answers.
            allow_reuse_port = True

        self._server = Server((host, port), Handler)
        threading.Thread(target=self._server.serve_forever, name="ocidiff-metrics", daemon=True).start()

    @property
    def port(self) -> int:
        """The port, which the system chose if it was asked for 0."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Close the address."""
        self._server.shutdown()
        self._server.server_close()
