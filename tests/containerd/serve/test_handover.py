"""A server that takes over from another loses no call, whoever made it and whenever it arrived.

`make soak-serve` has 100 servers take over; `OCIDIFF_HANDOVERS` says another number.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from containerd.daemon import Daemon
from containerd.serve.plugin import NOTHING, Server, Straight, is_alive, left_behind, make_large, prepared, snapshots, until
from ocidiff.containerd.channel import Channel
from ocidiff.containerd.content import ContainerdContent
from ocidiff.containerd.serve.health import SERVICE, is_serving
from ocidiff.errors import OcidiffError

pytestmark = [pytest.mark.interop, pytest.mark.root]

HANDOVERS = int(os.environ.get("OCIDIFF_HANDOVERS", "3"))
# Callers of containerd, whose client is gRPC for Go, and callers of the server, whose client is gRPC for Python.
THROUGH, STRAIGHT = 3, 3
SERVING = 1


@pytest.mark.timeout(300 + 10 * HANDOVERS)
def test_calls_go_on_while_servers_take_over(
    daemon: Daemon, server: Server, namespace: str, base: str, channel: Channel
) -> None:
    names = [f"s{number}" for number in range(THROUGH + STRAIGHT)]
    for name in names:
        (prepared(daemon, namespace, channel, name) / "new").write_text(name)
    sides = {name: snapshots(channel, name) for name in names[THROUGH:]}
    ended, failures, done = threading.Event(), list[str](), list[int]()

    def attempt(name: str) -> None:
        found = daemon.attempt("snapshots", "diff", "--keep", name, namespace=namespace)
        if found.returncode:
            failures.append(found.stderr)

    def call(name: str, own: Channel) -> None:
        try:
            own.call("diff.v1.Diff/Diff", **sides[name])
        except (OcidiffError, OSError) as error:
            failures.append(f"{name}: {error}")

    def work(one: Callable[[], None]) -> None:
        while not ended.is_set():
            one()
            done.append(1)

    before, first = len(server.calls()), server.pid
    channels = {name: Straight.connect(str(server.socket), namespace) for name in sides}
    ways: list[Callable[[], None]] = [lambda name=name: attempt(name) for name in names[:THROUGH]]  # type: ignore[misc]
    ways += [lambda name=name, own=own: call(name, own) for name, own in channels.items()]  # type: ignore[misc]
    threads = [threading.Thread(target=work, args=(way,), daemon=True) for way in ways]
    for thread in threads:
        thread.start()
    for _ in range(HANDOVERS):
        so_far = len(done)
        until(lambda so_far=so_far: len(done) > so_far + len(ways))  # type: ignore[misc]
        server.reload()
    so_far = len(done)
    until(lambda: len(done) > so_far + len(ways))
    ended.set()
    for thread in threads:
        thread.join()
    for own in channels.values():
        own.close()
    assert failures == []
    assert [call["code"] for call in server.calls()[before:]] == ["OK"] * len(done)
    assert server.pid != first
    assert left_behind(channel, server) == NOTHING


def test_a_call_that_runs_when_another_server_takes_over_ends_by_itself(
    daemon: Daemon, server: Server, namespace: str, base: str, channel: Channel
) -> None:
    make_large(prepared(daemon, namespace, channel, "s"))
    line = [str(daemon.programs / "ctr"), "-a", daemon.address, "-n", namespace, "snapshots", "diff", "s"]
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as running:
        until(lambda: bool(ContainerdContent(channel).statuses()))
        server.reload()
        _, error = running.communicate(timeout=60)
    assert running.returncode == 0, error
    assert server.calls()[-1]["code"] == "OK"
    assert left_behind(channel, server) == NOTHING


def test_watchers_of_the_health_find_the_next_server(server: Server) -> None:
    with grpc.insecure_channel(f"unix:{server.socket}", [("grpc.default_authority", "localhost")]) as connection:
        watch: Any = connection.unary_stream(
            f"/{SERVICE}/Watch",
            request_serializer=lambda message: bytes(message.SerializeToString()),
            response_deserializer=Int32Value.FromString,
        )
        seen = watch(StringValue())
        assert next(seen).value == SERVING
        server.reload()
        # The stream ends, and never says that no calls are taken.
        assert [status.value for status in seen] == []
        assert next(watch(StringValue())).value == SERVING


def test_a_signal_ends_a_server_that_waits_for_a_client_to_leave(server: Server) -> None:
    old = server.pid
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        silent.connect(str(server.socket))
        os.kill(old, signal.SIGHUP)
        until(lambda: server.pid != old)
        assert is_alive(old)
        os.kill(old, signal.SIGTERM)
        until(lambda: not is_alive(old))
    assert is_serving(str(server.socket))
