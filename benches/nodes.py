"""A containerd that unpacks and diffs in several ways, one after another; its images and containers stay."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from containerd.daemon import Daemon, programs, running
from containerd.serve.plugin import CONFIG, Server
from measured import KIND, Processes
from ocidiff.containerd.channel import Channel
from ocidiff.errors import OcidiffError

# Otherwise containerd inflates with what it finds on its path.
_OWN_GZIP = {"CONTAINERD_DISABLE_IGZIP": "1", "CONTAINERD_DISABLE_PIGZ": "1"}


@dataclass(frozen=True)
class Mode:
    """A way to diff and unpack.

    Attributes:
        name: What a report says.
        is_stock: containerd does it itself.
        has_igzip: containerd inflates with igzip.
    """

    name: str
    is_stock: bool
    has_igzip: bool = False


STOCK = Mode("containerd", is_stock=True)
IGZIP = Mode("containerd with igzip", is_stock=True, has_igzip=True)
PLUGIN = Mode("the plugin", is_stock=False)


class Node:
    """A containerd, and the server of the plugin beside it."""

    def __init__(self, daemon: Daemon, server: Server) -> None:
        self.daemon, self.server = daemon, server
        self._environment = dict(daemon.environment)

    @contextmanager
    def within(self, mode: Mode) -> Iterator[Processes]:
        """Start containerd anew so that it works in a mode, until the block ends; yield what is measured."""
        added = {"PATH": f"{programs('igzip')}:{self._environment['PATH']}"} if mode.has_igzip else _OWN_GZIP
        self.daemon.environment = {**self._environment, **added}
        with ExitStack() as stack:
            if mode.is_stock:
                stack.enter_context(self.daemon.stock())
            else:
                self.daemon.stop()
                self.daemon.start()
            self._warm()
            yield Processes(self.daemon.pid, self.server.pid)

    def _warm(self) -> None:
        """Let containerd connect to its differ before anything is measured."""
        channel = Channel.connect(self.daemon.address, "default")
        mount = {"type": "none", "source": os.devnull, "options": []}
        with suppress(OcidiffError, OSError):
            channel.call("diff.v1.Diff/Diff", left=[mount], right=[mount], media_type="application/x")
        channel.close()

    def unpack(self, namespace: str, manifest: str) -> list[str | Path]:
        """The command that unpacks the layers of an image that is in the content store."""
        ctr: list[str | Path] = [self.daemon.programs / "ctr", "--namespace", namespace]
        return [*ctr, "snapshots", "--snapshotter", "overlayfs", "unpack", manifest]


@contextmanager
def node() -> Iterator[Node]:
    """A node with nothing in it, which is gone at the end with all that it had."""
    with running(KIND, CONFIG.format) as daemon:
        server = Server(daemon)
        try:
            yield Node(daemon, server)
        finally:
            if server.runs:
                server.stop()
