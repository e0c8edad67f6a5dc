"""Whatever fails around the plugin, a call succeeds or says why not in one line, and containerd is as it was before."""

from __future__ import annotations

import errno
import gzip
import io
import os
import signal
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from containerd.conftest import archived
from containerd.daemon import Daemon
from containerd.serve.plugin import (
    NOTHING,
    Server,
    diff,
    errors_of,
    is_reached,
    left_behind,
    make_large,
    plugged,
    prepared,
    snapshots,
    until,
)
from ocidiff.containerd.channel import Channel
from ocidiff.containerd.content import ContainerdContent
from ocidiff.containerd.leases import ContainerdLeases
from ocidiff.containerd.open import services_of
from ocidiff.errors import OcidiffError
from ocidiff.layer.engine import select_engine
from ocidiff.mounts.mountinfo import mount_points
from ocidiff.oci import media_type
from ocidiff.services import labels
from ocidiff.store import Store

pytestmark = [pytest.mark.interop, pytest.mark.root]

EVERY = os.environ.get("OCIDIFF_KILLS") is not None
# The first two have written something that nobody knows of yet.
MOMENTS = ["Diff work end", "Apply work end"]
if EVERY:
    MOMENTS += ["Diff prepare", "Diff prepare end", "Diff work"]
    MOMENTS += ["Apply prepare", "Apply work", "Apply sync", "Apply sync end"]
CALLERS = 3
DISK_MIB = 48


def kept(daemon: Daemon, channel: Channel) -> dict[str, Any]:
    """All that is in a namespace, and the mounts below the directory of its containerd."""
    services = services_of(channel, select_engine(None))
    return {
        "blobs": set(services.content.walk()),
        "ingests": [one.ref for one in services.content.statuses()],
        "snapshots": {row.key for row in services.snapshotter("overlayfs").walk()},
        "leases": set(services.leases.held()),
        "mounts": sorted(point for point in mount_points() if point.startswith(f"{daemon.place}/")),
    }


def is_again(daemon: Daemon, channel: Channel, before: dict[str, Any]) -> bool:
    """True if nothing is there that was not before, once garbage is collected."""
    daemon.collect(channel.namespace)
    return kept(daemon, channel) == before


def sides_of(channel: Channel, key: str) -> dict[str, Any]:
    """The mounts of a snapshot and of its parent, with no view that stays."""
    sides = snapshots(channel, key)
    own = services_of(channel, select_engine(None)).snapshotter("overlayfs")
    for row in list(own.walk()):
        if row.key.startswith("view-"):
            own.remove(row.key)
    return sides


def small_layer() -> bytes:
    blob = io.BytesIO()
    with tarfile.open(fileobj=blob, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("new"))
    return gzip.compress(blob.getvalue(), mtime=0)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_server_that_is_killed_at_any_part_of_a_call_leaves_nothing(
    daemon: Daemon, server: Server, namespace: str, base: str, channel: Channel, moment: str
) -> None:
    (prepared(daemon, namespace, channel, "s") / "new").write_text("new")
    layer = ContainerdContent(channel).write(small_layer(), media_type.LAYER_GZIP, {labels.ROOT: "now"})
    sides = sides_of(channel, "s")
    daemon.collect(namespace)
    before = kept(daemon, channel)
    server.stop()
    server.start(moment=moment)
    plugin = Channel.connect(str(server.socket), namespace)
    descriptor = {"media_type": layer.media_type, "digest": layer.digest, "size": layer.size}

    def call() -> None:
        if moment.startswith("Diff"):
            plugin.call("diff.v1.Diff/Diff", **sides)
        else:
            plugin.call("diff.v1.Diff/Apply", diff=descriptor, mounts=sides["right"], sync_fs=True)

    with pytest.raises(ConnectionError):
        call()
    plugin.close()
    server.wait()
    server.start()
    until(lambda: is_again(daemon, channel, before))
    plugin = Channel.connect(str(server.socket), namespace)
    call()
    plugin.close()
    assert left_behind(channel, server) == NOTHING


def test_a_server_that_hangs_holds_up_its_callers_and_nothing_else(
    daemon: Daemon, server: Server, namespace: str, base: str, channel: Channel
) -> None:
    (prepared(daemon, namespace, channel, "s") / "new").write_text("new")
    until(lambda: is_reached(daemon))
    line = [str(daemon.programs / "ctr"), "-a", daemon.address, "-n", namespace, "snapshots", "diff", "--keep", "s"]
    os.kill(server.pid, signal.SIGSTOP)
    try:
        with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as gives_up:
            time.sleep(0.5)
            assert gives_up.poll() is None
            # containerd itself answers.
            assert "base:1" in daemon.ctr("images", "ls", "-q", namespace=namespace)
            gives_up.kill()
        waits = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(0.2)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    _, error = waits.communicate(timeout=60)
    assert waits.returncode == 0, error
    until(lambda: left_behind(channel, server) == NOTHING)


def test_calls_end_in_a_result_or_one_line_while_servers_are_killed_and_garbage_is_collected(
    daemon: Daemon, server: Server, namespace: str, base: str, channel: Channel
) -> None:
    for number in range(CALLERS):
        (prepared(daemon, namespace, channel, f"s{number}") / "new").write_bytes(os.urandom(2 << 20))
    daemon.collect(namespace)
    before, ended, done, errors = kept(daemon, channel), threading.Event(), list[str](), list[str]()

    def work(name: str) -> None:
        while not ended.is_set():
            found = daemon.attempt("snapshots", "diff", name, namespace=namespace)
            if found.returncode:
                errors.append(found.stderr)
            else:
                done.append(name)

    def collect() -> None:
        while not ended.is_set():
            daemon.collect(namespace)

    threads = [threading.Thread(target=work, args=(f"s{number}",)) for number in range(CALLERS)]
    threads.append(threading.Thread(target=collect))
    for thread in threads:
        thread.start()
    for _ in range(6 if EVERY else 2):
        so_far = len(done)
        until(lambda so_far=so_far: len(done) > so_far + 1)  # type: ignore[misc]
        server.stop(signal.SIGKILL)
        server.start()
    so_far = len(done)
    until(lambda: len(done) > so_far + CALLERS)
    ended.set()
    for thread in threads:
        thread.join()
    for text in errors:
        assert len(errors_of(text)) == 1, text
        assert any(word in text for word in ("transport", "EOF", "connection", "unavailable")), text
    server.stop()
    server.start()
    until(lambda: is_again(daemon, channel, before))


def test_a_socket_that_is_gone_is_one_error_until_the_next_start(
    daemon: Daemon, server: Server, namespace: str, base: str, channel: Channel
) -> None:
    (prepared(daemon, namespace, channel, "s") / "new").write_text("new")
    until(lambda: is_reached(daemon))
    server.socket.unlink()
    # An open connection stays open.
    assert daemon.attempt("snapshots", "diff", "s", namespace=namespace).returncode == 0
    server.stop()
    failed = daemon.attempt("snapshots", "diff", "s", namespace=namespace)
    assert (failed.returncode, len(errors_of(failed.stderr))) == (1, 1), failed.stderr
    server.start()
    until(lambda: is_reached(daemon))
    assert daemon.attempt("snapshots", "diff", "s", namespace=namespace).returncode == 0


def test_a_containerd_that_is_killed_fails_the_call_and_the_server_goes_on(
    daemon: Daemon, server: Server, namespace: str, base: str, channel: Channel
) -> None:
    make_large(prepared(daemon, namespace, channel, "s"))
    sides = sides_of(channel, "s")
    daemon.collect(namespace)
    before, pid = kept(daemon, channel), server.pid
    plugin, errors = Channel.connect(str(server.socket), namespace), list[str]()

    def call() -> None:
        try:
            plugin.call("diff.v1.Diff/Diff", **sides)
        except (OcidiffError, OSError) as error:
            errors.append(str(error))

    thread = threading.Thread(target=call)
    thread.start()
    until(lambda: bool(ContainerdContent(channel).statuses()))
    daemon.stop(signal.SIGKILL)
    # The call waits for it, so that nothing of the ingest is left.
    daemon.start()
    thread.join()
    assert len(errors) == 1
    assert "\n" not in errors[0]
    call()
    assert (len(errors), server.pid) == (1, pid), errors
    plugin.close()
    server.stop()
    server.start()
    # The rest of an ingest of a killed containerd is under the lease of the server.
    until(lambda: is_again(daemon, channel, before))


def test_calls_end_with_one_error_while_containerd_is_dead_and_the_next_one_succeeds(
    daemon: Daemon, server: Server, namespace: str, base: str, channel: Channel
) -> None:
    make_large(prepared(daemon, namespace, channel, "s"))
    sides = sides_of(channel, "s")
    plugin, before = Channel.connect(str(server.socket), namespace), len(server.calls())

    def call() -> None:
        with suppress(OSError):
            plugin.call("diff.v1.Diff/Diff", **sides)

    thread = threading.Thread(target=call)
    thread.start()
    until(lambda: bool(ContainerdContent(channel).statuses()))
    daemon.stop(signal.SIGKILL)
    # The call that ran ends, and those that come find both slots free.
    until(lambda: len(server.calls()) == before + 1)
    thread.join()
    for number in range(2, 5):
        call()
        until(lambda number=number: len(server.calls()) == before + number)  # type: ignore[misc]
    told = server.calls()[before:]
    assert [one["code"] for one in told] == ["UNAVAILABLE"] * 4
    assert "containerd ended or was restarted" in told[0]["error"]
    assert {one["error"] for one in told[1:]} == {f"{daemon.address}: containerd does not answer; is it running?"}
    daemon.start()
    assert plugin.call("diff.v1.Diff/Diff", **sides).diff.size > 0
    plugin.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_calls_wait_for_a_containerd_that_is_restarted(
    daemon: Daemon, namespace: str, base: str, channel: Channel, number: int
) -> None:
    (prepared(daemon, namespace, channel, "s") / "new").write_text("new")
    sides = sides_of(channel, "s")
    server = Server(daemon, f"patient-{number}", patience="60")
    plugin = Channel.connect(str(server.socket), namespace)

    def call() -> None:
        with suppress(OSError):
            plugin.call("diff.v1.Diff/Diff", **sides)

    call()
    for _ in range(2):
        daemon.stop(number)
        thread = threading.Thread(target=call)
        thread.start()
        daemon.start()
        thread.join()
    daemon.stop(number)
    daemon.start()
    # The first call on a connection that has ended.
    call()
    assert [one["code"] for one in server.calls()] == ["OK"] * 4
    plugin.close()
    server.stop()


@contextmanager
def small_disk(daemon: Daemon) -> Iterator[None]:
    """Keep what a new containerd has in a file system of some MiB."""
    daemon.stop()
    root = daemon.place / "root"
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", root], check=True)
    daemon.start()
    try:
        yield
    finally:
        daemon.kill_containers("default")
        daemon.stop()
        subprocess.run(["umount", "-l", root], check=True)
        daemon.start()


def test_a_full_disk_is_one_error_and_nothing_is_left(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/zeros").write_bytes(b"\1" * (DISK_MIB << 20))
    with Store.open(tmp_path / "store") as store:
        store.commit(tmp_path / "tree", "large:1")
    large = archived(tmp_path / "store", tmp_path / "large.tar")
    with plugged() as (daemon, server), small_disk(daemon):
        daemon.load(archive, "default")
        channel = Channel.connect(daemon.address, "default")
        upper = prepared(daemon, "default", channel, "s")
        daemon.collect("default")
        before = kept(daemon, channel)
        (upper / "noise").write_bytes(os.urandom(DISK_MIB << 19))
        plugin = Channel.connect(str(server.socket), "default")
        with pytest.raises((OcidiffError, OSError), match=os.strerror(errno.ENOSPC)):
            diff(plugin, channel, "s")
        (upper / "noise").unlink()
        local = () if daemon.is_first else ("--local",)
        failed = daemon.attempt("images", "import", *local, large)
        assert failed.returncode == 1
        assert "no space left on device" in failed.stderr.lower()
        daemon.attempt("images", "rm", "--sync", "large:1")
        (upper / "noise").write_text("small")
        assert diff(plugin, channel, "s").size > 0
        plugin.close()
        server.stop()
        server.start()
        own = services_of(channel, select_engine(None)).snapshotter("overlayfs")
        for row in list(own.walk()):
            if row.key.startswith("view-"):
                own.remove(row.key)
        until(lambda: not ContainerdLeases(channel).held())
        until(lambda: is_again(daemon, channel, before))
        channel.close()
