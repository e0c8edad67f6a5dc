"""A containerd whose differ is ours, and the server behind it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from containerd.daemon import VERSION, Daemon, running
from ocidiff.containerd.channel import Channel
from ocidiff.containerd.content import ContainerdContent
from ocidiff.containerd.open import services_of
from ocidiff.errors import OcidiffError
from ocidiff.layer.engine import select_engine
from ocidiff.oci.digest import Digest, chain_id
from ocidiff.services import labels
from ocidiff.store import Store

# Sweeps at once; a server that people start leaves callers half a minute. May kill itself where a part of a call begins, or
# after one: `moment=Diff work`, `moment=Diff work end`.
PROGRAM = """
import contextlib, os, sys
from ocidiff.containerd.serve import calls, server, service
words = dict(word.split("=", 1) for word in sys.argv[1:])
moment, phase = words.pop("moment", ""), calls.Call.phase
@contextlib.contextmanager
def dying(call, name):
    if moment == f"{call._method} {name}":
        os.kill(os.getpid(), 9)
    with phase(call, name):
        yield
    if moment == f"{call._method} {name} end":
        os.kill(os.getpid(), 9)
calls.Call.phase = dying
server._CONNECTION_SECONDS = 2.0
service.PATIENCE_SECONDS = float(words.pop("patience", service.PATIENCE_SECONDS))
numbers = {name: int(words.pop(name)) for name in ("slots", "queue", "memory_bytes", "cache_bytes") if name in words}
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


LARGE_BYTES = 100 << 20


class Server:
    """A process that serves the plugin in the directory of a daemon."""

    def __init__(self, daemon: Daemon, name: str = "o", **words: str) -> None:
        self.place, self.socket, self.metrics = daemon.place, daemon.place / name, daemon.place / f"{name}.metrics"
        self.temporary = daemon.place / f"{name}.temporary"
        self.temporary.mkdir()
        self._log = daemon.place / f"{name}.log"
        self.cache = daemon.place / f"{name}.cache"
        self._words = {
            "address": daemon.address,
            "socket": str(self.socket),
            "metrics": str(self.metrics),
            "cache": str(self.cache),
            **words,
        }
        self._processes: list[subprocess.Popen[bytes]] = []
        self.start()

    def start(self, **words: str) -> None:
        """Start it, with more words than it has always."""
        line = [sys.executable, "-c", PROGRAM, *(f"{name}={value}" for name, value in {**self._words, **words}.items())]
        environment = {**os.environ, "TMPDIR": str(self.temporary)}
        started = self.log().count("msg=serving")
        with self._log.open("ab") as log:
            self._processes.append(subprocess.Popen(line, stderr=log, env=environment, start_new_session=True))
        self._wait(lambda: self.log().count("msg=serving") > started)

    @property
    def pid(self) -> int:
        """The process that serves now."""
        return int(next(line for line in reversed(self.records()) if line.get("msg") == "serving")["pid"])

    @property
    def runs(self) -> bool:
        return self.log().count("msg=serving") > 0 and is_alive(self.pid)

    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def records(self) -> list[dict[str, str]]:
        """All lines of the log."""
        return [_fields(line) for line in self.log().splitlines()]

    def calls(self) -> list[dict[str, str]]:
        """What the log says of each call, in their order."""
        return [fields for fields in self.records() if fields.get("msg") in {"Diff", "Apply"}]

    def reload(self) -> None:
        """Have another server take over, and wait until the old one has ended."""
        old = self.pid
        os.kill(old, signal.SIGHUP)
        self._wait(lambda: self.pid != old)
        self._wait(lambda: not is_alive(old))

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End the server."""
        pid = self.pid
        os.kill(pid, number)
        self._wait(lambda: not is_alive(pid))
        self.wait()

    def wait(self) -> None:
        """Wait until all its processes have ended."""
        for process in self._processes:
            process.wait(30)

    def _wait(self, is_so: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not is_so():
            assert time.monotonic() < end, self.log()
            time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """True if a process runs, and is not only waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


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
            # containerd 1.7 has looked for it already, and looks again after seconds only.
            until(lambda: is_reached(daemon))
            yield daemon, server
        finally:
            if server.runs:
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


def snapshots(channel: Channel, key: str) -> dict[str, Any]:
    """The mounts of an active snapshot and of its parent, as the plugin gets them."""
    own = services_of(channel, select_engine(None)).snapshotter("overlayfs")
    parent = own.stat(key).parent
    assert parent is not None
    left = own.view(f"view-{os.urandom(4).hex()}", parent)
    return {
        side: [{"type": one.type, "source": one.source, "options": list(one.options)} for one in mounts]
        for side, mounts in (("left", left), ("right", own.mounts(key)))
    }


def diff(plugin: Channel, channel: Channel, key: str, **fields: Any) -> Any:
    return plugin.call("diff.v1.Diff/Diff", **snapshots(channel, key), **fields).diff


def prepared(daemon: Daemon, namespace: str, channel: Channel, key: str, ids: Mapping[str, str] | None = None) -> Path:
    """The upper directory of a new snapshot over the image `base:1`, with labels that map its ids."""
    store = services_of(channel, select_engine(None))
    with Store.containerd(daemon.address, namespace) as opened:
        document: Any = opened.inspect("base:1")
    chain = chain_id([Digest(one) for one in document["config"]["rootfs"]["diff_ids"]])  # type: ignore[misc]
    mounts = store.snapshotter("overlayfs").prepare(key, chain, {labels.ROOT: "now", **(ids or {})})
    return Path(mounts[-1].option("upperdir") or "")


def left_behind(channel: Channel, server: Server) -> dict[str, object]:
    """Return leftovers: things that must be gone when no call runs."""
    mounts = Path(f"/proc/{server.pid}/mountinfo").read_text()
    return {
        "ingests": [one.ref for one in ContainerdContent(channel).statuses()],
        "mounts": [line for line in mounts.splitlines() if str(server.temporary) in line],
        "files": os.listdir(server.temporary),
    }


NOTHING: dict[str, object] = {"ingests": [], "mounts": [], "files": []}


def until(is_so: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)


class Straight(Channel):
    """A caller of the server without containerd in between.

    gRPC for Python may write a call to a connection just when the server, which has told it to leave, closes that. Nobody
    has seen the call then. gRPC for Go, which containerd has, does not.
    """

    def call(self, method: str, *, is_cleanup: bool = False, **fields: object) -> Any:
        try:
            return super().call(method, is_cleanup=is_cleanup, **fields)
        except BrokenPipeError:
            return super().call(method, is_cleanup=is_cleanup, **fields)

    def _error(self, code: str, details: str) -> Exception:
        return BrokenPipeError(details) if "sendmsg: Broken pipe" in details else super()._error(code, details)


def errors_of(stderr: str) -> list[str]:
    """The lines of ctr without its warnings that something is deprecated."""
    return [line for line in stderr.splitlines() if "DEPRECATION" not in line]


def is_reached(daemon: Daemon) -> bool:
    """True if a call of containerd gets to the server, which answers what it thinks of it."""
    channel = Channel.connect(daemon.address, "default")
    mount = {"type": "erofs", "source": "/dev/loop7", "options": []}
    try:
        channel.call("diff.v1.Diff/Diff", left=[mount], right=[mount], media_type="application/x")
    except (OcidiffError, OSError) as error:
        return not isinstance(error, OSError) and "error while dialing" not in str(error).lower()
    finally:
        channel.close()
    return True


def make_large(upper: Path) -> None:
    """A file that takes a second or so, since it does not compress."""
    block = os.urandom(1 << 20)
    with (upper / "large").open("wb") as file:
        for number in range(LARGE_BYTES >> 20):
            file.write(block[number:] + block[:number])
