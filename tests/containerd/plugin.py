"""A containerd whose differ is ours, and the server behind it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from containerd.daemon import VERSION, Daemon, running

# Sweeps at once; a server that people start leaves callers half a minute.
PROGRAM = """
import sys
from ocidiff.containerd.serve import server
words = dict(word.split("=", 1) for word in sys.argv[1:])
numbers = {name: int(words.pop(name)) for name in ("slots", "queue", "memory_bytes") if name in words}
server.serve(server.Settings(**words, **numbers, grace_seconds=0))
"""
CONFIG = """
[proxy_plugins.ocidiff]
  type = "diff"
  address = "{0}/o"
[plugins."io.containerd.service.v1.diff-service"]
  default = ["ocidiff", "walking"]
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "linux/amd64"
  snapshotter = "overlayfs"
  differ = "ocidiff"
"""


class Server:
    """A process that serves the plugin at `o` in the directory of a daemon."""

    def __init__(self, daemon: Daemon, **words: str) -> None:
        self.place, self.socket, self.metrics = daemon.place, daemon.place / "o", daemon.place / "metrics"
        self.temporary = daemon.place / "temporary"
        self.temporary.mkdir()
        self._words = {"address": daemon.address, "socket": str(self.socket), "metrics": str(self.metrics), **words}
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        environment = {**os.environ, "TMPDIR": str(self.temporary)}
        line = [sys.executable, "-c", PROGRAM, *(f"{name}={value}" for name, value in self._words.items())]
        with (self.place / "server.log").open("ab") as log:
            self.process = subprocess.Popen(line, stderr=log, env=environment, start_new_session=True)
        end = time.monotonic() + 30
        while not (self.socket.exists() and f"pid={self.process.pid}" in self.log()):
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < end, self.log()
            time.sleep(0.02)

    def log(self) -> str:
        return (self.place / "server.log").read_text()

    def calls(self) -> list[dict[str, str]]:
        """What the log says of each call, in their order."""
        return [fields for line in self.log().splitlines() if (fields := _fields(line)).get("msg") in {"Diff", "Apply"}]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End the server; return its status."""
        assert self.process is not None
        self.process.send_signal(number)
        status = self.process.wait(60)
        self.process = None
        return status


def _fields(line: str) -> dict[str, str]:
    """The fields of a line of the log."""
    fields, rest = {}, line
    while "=" in rest:
        name, _, rest = rest.partition("=")
        if rest.startswith('"'):
            value, end = json.JSONDecoder().raw_decode(rest)
            fields[name], rest = value, rest[end + 1 :]
        else:
            fields[name], _, rest = rest.partition(" ")
    return fields


@contextmanager
def plugged(**words: str) -> Iterator[tuple[Daemon, Server]]:
    """A containerd, and the server that does its diffs and unpacks."""
    with running(VERSION, CONFIG.format) as daemon:
        server = Server(daemon, **words)
        try:
            yield daemon, server
        finally:
            if server.process is not None:
                server.stop()


def tree_of(root: Path) -> dict[str, tuple[object, ...]]:
    """Everything that a tree shows, by path."""
    found: dict[str, tuple[object, ...]] = {}
    for directory, names, files in os.walk(root):
        for name in (*names, *files):
            path = os.path.join(directory, name)
            facts = os.lstat(path)
            data: object = os.readlink(path) if os.path.islink(path) else None
            if os.path.isfile(path) and not os.path.islink(path):
                data = Path(path).read_bytes()
            attributes = tuple(
                (key, os.getxattr(path, key, follow_symlinks=False)) for key in os.listxattr(path, follow_symlinks=False)
            )
            links = facts.st_nlink if not os.path.isdir(path) else 0
            found[os.path.relpath(path, root)] = (
                facts.st_mode,
                facts.st_uid,
                facts.st_gid,
                facts.st_mtime_ns,
                facts.st_rdev,
                links,
                data,
                attributes,
            )
    return found
