"""A containerd whose differ is ours, and the server behind it, for each module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from containerd.daemon import NEW, VERSION, Daemon
from containerd.engines import Docker, docker, load
from containerd.serve.plugin import Server, is_reached, plugged, until
from ocidiff.containerd.channel import Channel

# Building from sources takes minutes.
collect_ignore = [] if VERSION.startswith(NEW) else ["test_engines.py"]


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[Daemon, Server]]:
    with plugged(slots="2", queue="8") as pair:
        yield pair


@pytest.fixture(scope="module")
def daemon(both: tuple[Daemon, Server]) -> Daemon:
    return both[0]


@pytest.fixture
def server(both: tuple[Daemon, Server]) -> Server:
    """The server, which containerd reaches, whatever the test before did with it."""
    if not both[1].runs:
        both[1].start()
        # containerd looks for a server that was away only every few seconds.
        until(lambda: is_reached(both[0]))
    return both[1]


@pytest.fixture
def plugin(server: Server, namespace: str) -> Iterator[Channel]:
    """The server as containerd 2 calls it."""
    opened = Channel.connect(str(server.socket), namespace)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def docker_engine(daemon: Daemon, archive: Path) -> Iterator[Docker]:
    with docker(daemon) as engine:
        load(daemon, archive, engine.namespace)
        yield engine
