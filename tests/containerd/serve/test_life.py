"""The plugin may be checked, replaced, stopped, killed and overrun: calls succeed or say why not, and nothing is left."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from containerd.daemon import Daemon
from containerd.serve.plugin import (
    NOTHING,
    Server,
    diff,
    errors_of,
    is_reached,
    left_behind,
    make_large,
    prepared,
    snapshots,
    until,
)
from ocidiff.containerd.channel import Channel
from ocidiff.containerd.content import ContainerdContent
from ocidiff.containerd.leases import ContainerdLeases
from ocidiff.containerd.serve.health import is_serving
from ocidiff.errors import OcidiffError
from ocidiff.oci import media_type
from ocidiff.oci.digest import Digest

pytestmark = [pytest.mark.interop, pytest.mark.root]


def ocidiff_(*words: str | Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "ocidiff", "serve", *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)


def test_the_check_knows_if_the_plugin_is_used(daemon: Daemon, server: Server, tmp_path: Path) -> None:
    place = ["--address", daemon.address, "--socket", str(server.socket)]
    done = ocidiff_("--check", *place)
    assert (done.returncode, done.stdout, done.stderr) == (0, "containerd uses the plugin.\n", "")
    printed = ocidiff_("--print-config", *place).stdout
    (tmp_path / "config.toml").write_text(printed)
    program = daemon.programs / "containerd"
    dumped = subprocess.run(
        [program, "--config", tmp_path / "config.toml", "config", "dump"], capture_output=True, check=True
    )
    assert f'address = "{server.socket}"'.encode() in dumped.stdout.replace(b"'", b'"')
    assert printed.splitlines()[1] == ("version = 2" if daemon.is_first else "version = 3")
    server.stop()
    done = ocidiff_("--check", *place)
    assert done.returncode == 1
    assert done.stdout.startswith("The server does not run: ")
    with daemon.stock():
        done = ocidiff_("--check", *place)
    assert done.returncode == 1
    assert f"{daemon.place}/config.toml has no [proxy_plugins.ocidiff]" in done.stdout
    assert (
        ocidiff_("--check", "--address", "/no/such", "--socket", server.socket).stdout.count("containerd does not answer")
        == 1
    )


def test_only_its_owner_uses_the_socket_and_one_server_is_enough(daemon: Daemon, server: Server) -> None:
    assert stat.S_IMODE(server.socket.stat().st_mode) == 0o600
    assert is_serving(str(server.socket))
    done = ocidiff_("--address", daemon.address, "--socket", server.socket)
    assert done.returncode == 1
    assert "another server listens at this socket" in done.stderr
    assert is_serving(str(server.socket))
    assert not [one for one in os.listdir(daemon.place) if one.startswith("o.") and one[2:].isdigit()]


def test_a_successor_that_fails_leaves_the_server_in_place(daemon: Daemon, namespace: str) -> None:
    other = Server(daemon, "fails", engine="rust")
    # A directory has the name of the socket.
    hidden = daemon.place / "fails.hidden"
    other.socket.rename(hidden)
    other.socket.mkdir()
    pid = other.pid
    os.kill(pid, signal.SIGHUP)
    until(lambda: "no other server took over" in other.log())
    other.socket.rmdir()
    hidden.rename(other.socket)
    assert other.pid == pid
    assert is_serving(str(other.socket))
    other.stop()


def test_a_server_opens_as_many_files_as_it_may(daemon: Daemon) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        server = Server(daemon, "many")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert resource.prlimit(server.pid, resource.RLIMIT_NOFILE) == (hard, hard)
    server.stop()


def test_a_server_that_is_stopped_lets_its_calls_end(
    daemon: Daemon, server: Server, namespace: str, base: str, channel: Channel
) -> None:
    make_large(prepared(daemon, namespace, channel, "s"))
    line = [str(daemon.programs / "ctr"), "-a", daemon.address, "-n", namespace, "snapshots", "diff", "s"]
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as running:
        until(lambda: bool(ContainerdContent(channel).statuses()))
        server.stop()
        assert running.wait(60) == 0, running.stderr
    assert server.calls()[-1]["code"] == "OK"
    assert not server.socket.exists()
    assert "msg=stopped" in server.log().splitlines()[-1]
    # containerd says so at once, and does not hang.
    assert "o: timeout" in daemon.attempt("snapshots", "diff", "s", namespace=namespace).stderr


def test_a_caller_that_gives_up_stops_its_call(
    daemon: Daemon, server: Server, namespace: str, base: str, channel: Channel
) -> None:
    make_large(prepared(daemon, namespace, channel, "s"))
    line = [str(daemon.programs / "ctr"), "-a", daemon.address, "-n", namespace, "snapshots", "diff", "s"]
    before = len(server.calls())
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        until(lambda: bool(ContainerdContent(channel).statuses()))
        running.kill()
    until(lambda: len(server.calls()) > before)
    assert server.calls()[-1]["code"] == "CANCELLED"
    assert left_behind(channel, server) == NOTHING


def test_a_server_that_is_killed_leaves_nothing(
    daemon: Daemon, server: Server, namespace: str, base: str, channel: Channel
) -> None:
    make_large(prepared(daemon, namespace, channel, "s"))
    line = [str(daemon.programs / "ctr"), "-a", daemon.address, "-n", namespace, "snapshots", "diff", "s"]
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as running:
        until(lambda: bool(ContainerdContent(channel).statuses()))
        server.stop(signal.SIGKILL)
        _, error = running.communicate(timeout=60)
    assert running.returncode == 1
    assert len(errors_of(error)) == 1, error
    dead = ContainerdLeases(channel).held()
    assert dead
    server.start()
    until(lambda: is_reached(daemon))
    until(lambda: not set(dead) & set(ContainerdLeases(channel).held()))
    daemon.collect(namespace)
    assert left_behind(channel, server) == NOTHING
    assert daemon.attempt("snapshots", "diff", "--keep", "s", namespace=namespace).returncode == 0


def test_an_unpack_whose_server_is_killed_succeeds_the_next_time(
    daemon: Daemon, server: Server, namespace: str, channel: Channel, tmp_path: Path
) -> None:
    import ocidiff
    from containerd.conftest import archived

    (tmp_path / "tree").mkdir()
    make_large(tmp_path / "tree")
    # Unpacked after it, so that the server still works when it is killed.
    for number in range(4):
        shutil.copy(tmp_path / "tree/large", tmp_path / f"tree/later{number}")
    with ocidiff.Store.open(tmp_path / "store") as store:
        store.commit(tmp_path / "tree", "large:1", compression="none")
    archive = archived(tmp_path / "store", tmp_path / "large.tar")
    local = () if daemon.is_first else ("--local",)
    line = [str(daemon.programs / "ctr"), "-a", daemon.address, "-n", namespace, "images", "import", *local, str(archive)]
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as running:
        uppers = daemon.place / "root/io.containerd.snapshotter.v1.overlayfs/snapshots"
        known = {path.parent.parent.name for path in uppers.glob("*/fs/large")}
        until(lambda: any(path.parent.parent.name not in known for path in uppers.glob("*/fs/large")))
        server.stop(signal.SIGKILL)
        running.communicate(timeout=60)
    assert running.returncode == 1
    server.start()
    until(lambda: is_reached(daemon))
    daemon.load(archive, namespace)
    assert server.calls()[-1]["code"] == "OK"
    assert left_behind(channel, server) == NOTHING


def test_a_full_server_refuses_clearly(daemon: Daemon, namespace: str, base: str, channel: Channel) -> None:
    other = Server(daemon, "full", slots="1", queue="0")
    plugin = Channel.connect(str(other.socket), namespace)
    make_large(prepared(daemon, namespace, channel, "s"))
    thread = threading.Thread(target=diff, args=(plugin, channel, "s"), kwargs={"media_type": media_type.LAYER})
    thread.start()
    until(lambda: bool(ContainerdContent(channel).statuses()))
    with pytest.raises(OcidiffError, match="1 calls run and 0 wait"):
        diff(plugin, channel, "s")
    assert is_serving(str(other.socket))
    thread.join()
    assert sorted(call["code"] for call in other.calls()) == ["OK", "RESOURCE_EXHAUSTED"]
    other.stop()
    text = other.metrics.read_text()
    assert 'ocidiff_calls_total{code="RESOURCE_EXHAUSTED",method="Diff"} 1' in text
    plugin.close()


class Silent(Channel):
    """A caller that does not say in which namespace it works, as containerd 1.7 does not."""

    def metadata(self) -> tuple[tuple[str, str], ...]:
        return ()


def test_the_namespace_is_found_if_the_caller_does_not_say_it(
    daemon: Daemon, server: Server, namespace: str, base: str, channel: Channel
) -> None:
    (prepared(daemon, namespace, channel, "s") / "new").write_text("new")
    silent = Silent.connect(str(server.socket), namespace)
    found = diff(silent, channel, "s")
    assert server.calls()[-1]["namespace"] == namespace
    assert ContainerdContent(channel).contains(Digest(found.digest))
    layer = {"media_type": found.media_type, "digest": found.digest, "size": found.size}
    prepared(daemon, namespace, channel, "other")
    done = silent.call("diff.v1.Diff/Apply", diff=layer, mounts=snapshots(channel, "other")["right"])
    assert done.applied.digest == server.calls()[-2]["diff_id"]
    silent.close()


def test_a_wrong_namespace_is_one_error(daemon: Daemon, server: Server, namespace: str, base: str, channel: Channel) -> None:
    (prepared(daemon, namespace, channel, "s") / "new").write_text("new")
    other = Channel.connect(str(server.socket), "no-such-namespace")
    layer: Any = {"media_type": media_type.LAYER, "digest": "sha256:" + "2" * 64, "size": 1}
    with pytest.raises(OcidiffError, match="not found"):
        other.call("diff.v1.Diff/Apply", diff=layer, mounts=snapshots(channel, "s")["right"])
    other.close()
    assert left_behind(channel, server) == NOTHING


def test_collections_take_nothing_that_a_caller_has_not_named_yet(
    daemon: Daemon, server: Server, namespace: str, base: str, channel: Channel, plugin: Channel
) -> None:
    upper, ended = prepared(daemon, namespace, channel, "s"), threading.Event()

    def collect() -> None:
        while not ended.is_set():
            daemon.collect(namespace)

    thread = threading.Thread(target=collect)
    thread.start()
    try:
        digests = []
        for number in range(10):
            (upper / "new").write_text(str(number // 2))
            os.utime(upper / "new", (0, 0))
            os.utime(upper, (0, 0))
            digests.append(Digest(diff(plugin, channel, "s").digest))
    finally:
        ended.set()
        thread.join()
    assert len(set(digests)) == 5
    daemon.collect(namespace)
    assert all(map(ContainerdContent(channel).contains, digests))
