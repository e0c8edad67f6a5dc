"""A commit that fails, is refused or is killed leaves nothing in containerd, and every container runs on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from containerd.daemon import Daemon
from containerd.test_commit import NOTHING, changed, left_behind
from ocidiff.containerd.channel import Channel
from ocidiff.containerd.leases import ContainerdLeases
from ocidiff.containerd.open import services_of
from ocidiff.errors import OcidiffError
from ocidiff.image import lookup
from ocidiff.image.layers import LocalDiffer
from ocidiff.layer.engine import Engine, select_engine
from ocidiff.mounts.mountinfo import mount_points
from ocidiff.oci.digest import chain_id
from ocidiff.services.leases import CONTENT
from ocidiff.store import Store

pytestmark = [pytest.mark.interop, pytest.mark.root]

KILLED = Path(__file__).with_name("killed.py")
MOMENTS = 8


@pytest.fixture
def store(daemon: Daemon, namespace: str, base: str) -> Iterator[Store]:
    with Store.containerd(daemon.address, namespace) as opened:
        yield opened


@pytest.fixture
def engine() -> Engine:
    return select_engine(None)


def killed(daemon: Daemon, namespace: str, moment: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, str(KILLED), daemon.address, namespace, moment]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def rests(daemon: Daemon, namespace: str, channel: Channel, engine: Engine) -> None:
    """Wait until a container runs, and nothing is left of a commit."""
    end = time.monotonic() + 20
    while True:
        left, status = left_behind(daemon, channel, engine), daemon.status(namespace, "c1")
        if (left, status) == (NOTHING, "RUNNING"):
            return
        assert time.monotonic() < end, (left, status)
        time.sleep(0.1)


def while_compared(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Have each commit act while its container is paused, before its trees are compared."""
    compare = LocalDiffer.compare

    def acting(self: LocalDiffer, *arguments: Any) -> Any:
        act()
        return compare(self, *arguments)

    monkeypatch.setattr(LocalDiffer, "compare", acting)


def kill_guards() -> None:
    """Kill the processes that guard the commits of this one."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    guards = [one for one in children if b"containerd.guard" in Path(f"/proc/{one}/cmdline").read_bytes()]
    assert guards
    for one in guards:
        os.kill(int(one), signal.SIGKILL)


def test_a_container_is_paused_while_it_is_read_and_no_longer(
    store: Store, daemon: Daemon, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed(daemon, namespace, "c1", script="echo x >/etc/new")
    seen: list[str] = []
    while_compared(monkeypatch, lambda: seen.append(daemon.status(namespace, "c1")))
    for pause in (True, False):
        store.commit(store.container("c1"), "app:v1", pause=pause)
        assert daemon.status(namespace, "c1") == "RUNNING"
    daemon.ctr("tasks", "pause", "c1", namespace=namespace)
    store.commit(store.container("c1"), "app:v1")
    assert seen == ["PAUSED", "RUNNING", "PAUSED"]
    assert daemon.status(namespace, "c1") == "PAUSED", "somebody else has paused it"


@pytest.mark.parametrize("error", [OcidiffError("no"), KeyboardInterrupt(), OSError(28, "no space")])
def test_a_failure_while_it_is_paused_lets_it_run_on(
    store: Store,
    daemon: Daemon,
    namespace: str,
    channel: Channel,
    engine: Engine,
    error: BaseException,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changed(daemon, namespace, "c1", script="echo x >/etc/new")

    def fail(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(LocalDiffer, "compare", fail)
    with pytest.raises(type(error)):
        store.commit(store.container("c1"), "app:v1")
    assert daemon.status(namespace, "c1") == "RUNNING"
    assert left_behind(daemon, channel, engine) == NOTHING
    assert [one.name for one in store.images()] == ["base:1"]


def test_a_client_that_is_killed_while_it_is_paused_lets_it_run_on(
    store: Store, daemon: Daemon, namespace: str, channel: Channel, engine: Engine
) -> None:
    changed(daemon, namespace, "c1", script="echo x >/etc/new")
    assert killed(daemon, namespace, "diff").returncode == -signal.SIGKILL
    rests(daemon, namespace, channel, engine)


def kept(daemon: Daemon, channel: Channel, engine: Engine) -> tuple[set[str], set[str], set[str]]:
    """Blobs, snapshots and mounts that are there."""
    points = {point for point in mount_points() if point.startswith(f"{daemon.place}/")}
    services = services_of(channel, engine)
    return set(services.content.walk()), {row.key for row in services.snapshotter("overlayfs").walk()}, points


@pytest.mark.timeout(1800)
def test_a_client_that_is_killed_at_any_call_leaves_nothing(
    store: Store, daemon: Daemon, namespace: str, channel: Channel, engine: Engine
) -> None:
    changed(daemon, namespace, "c1", script="echo x >/etc/new; rm /etc/gone")
    # Leftovers of the import of the base.
    daemon.collect(namespace)
    before = kept(daemon, channel, engine)
    calls = int(killed(daemon, namespace, "never").stdout)
    daemon.ctr("images", "rm", "--sync", "app:v1", namespace=namespace)
    every = [f"{number}{after}" for number in range(1, calls + 1) for after in ("", "+")]
    moments = every if os.environ.get("OCIDIFF_KILLS") is not None else every[:: max(1, len(every) // MOMENTS)]
    ends = []
    for moment in moments:
        ends.append(killed(daemon, namespace, moment).returncode)
        rests(daemon, namespace, channel, engine)
        if any(one.name == "app:v1" for one in store.images()):
            # It has its name last of all, so that it is whole.
            image = lookup.find_image(store._services(), "app:v1", None)
            assert all(store._services().content.contains(layer.digest) for layer in image.manifest.layers)
            assert store._services().snapshotter("overlayfs").stat(chain_id(image.config.rootfs.diff_ids))
            daemon.ctr("images", "rm", "--sync", "app:v1", namespace=namespace)
        assert kept(daemon, channel, engine) == before, moment
    # A thread that writes may make one exchange fewer.
    assert ends.count(-signal.SIGKILL) >= len(moments) - 2
    # Whatever was before, the next one does its work.
    assert int(killed(daemon, namespace, "never").stdout) > 0


def test_a_guard_that_is_killed_is_done_without(
    store: Store, daemon: Daemon, namespace: str, channel: Channel, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed(daemon, namespace, "c1", script="echo x >/etc/new")
    while_compared(monkeypatch, kill_guards)
    store.commit(store.container("c1"), "app:v1")
    rests(daemon, namespace, channel, engine)


def test_a_lease_that_others_delete_fails_the_commit_and_no_name_changes(
    store: Store, daemon: Daemon, namespace: str, channel: Channel, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed(daemon, namespace, "c1", script="echo x >/etc/new")

    def end_leases() -> None:
        for one in ContainerdLeases(channel).held():
            daemon.ctr("leases", "rm", one, namespace=namespace)

    while_compared(monkeypatch, end_leases)
    with pytest.raises(OcidiffError, match="lease"):
        store.commit(store.container("c1"), "app:v1")
    rests(daemon, namespace, channel, engine)
    assert [one.name for one in store.images()] == ["base:1"]


def test_a_containerd_that_is_restarted_meanwhile_is_one_clear_error(
    store: Store, daemon: Daemon, namespace: str, channel: Channel, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed(daemon, namespace, "c1", script="echo x >/etc/new")
    compare = LocalDiffer.compare

    def restarted(self: LocalDiffer, *arguments: Any) -> Any:
        daemon.stop(signal.SIGKILL)
        try:
            return compare(self, *arguments)
        finally:
            daemon.start()

    monkeypatch.setattr(LocalDiffer, "compare", restarted)
    with pytest.raises(ConnectionError, match="was restarted during the call"):
        store.commit(store.container("c1"), "app:v1")
    rests(daemon, namespace, channel, engine)
    monkeypatch.undo()
    assert store.commit(store.container("c1"), "app:v1").layer is not None


def test_two_commits_of_a_container_take_turns(
    store: Store, daemon: Daemon, namespace: str, channel: Channel, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed(daemon, namespace, "c1", script="echo x >/etc/new")
    seen: list[str] = []
    first, compare = threading.Event(), LocalDiffer.compare

    def watched(self: LocalDiffer, *arguments: Any) -> Any:
        seen.extend((daemon.status(namespace, "c1"), threading.current_thread().name))
        first.set()
        time.sleep(1)
        seen.extend((daemon.status(namespace, "c1"), threading.current_thread().name))
        return compare(self, *arguments)

    monkeypatch.setattr(LocalDiffer, "compare", watched)
    threads = [
        threading.Thread(target=store.commit, name=f"app:v{number}", args=(store.container("c1"), f"app:v{number}"))
        for number in range(3)
    ]
    for thread in threads:
        thread.start()
        first.wait(20)
    for thread in threads:
        thread.join()
    assert seen[::2] == ["PAUSED"] * 6
    assert seen[1::4] == seen[3::4], "one after another"
    assert {one.name for one in store.images()} == {"base:1", "app:v0", "app:v1", "app:v2"}
    rests(daemon, namespace, channel, engine)


def test_a_pause_whose_guard_died_too_ends_with_the_next_command(
    store: Store, daemon: Daemon, namespace: str, channel: Channel, engine: Engine
) -> None:
    changed(daemon, namespace, "c1", script="echo x >/etc/new")
    channel.call("leases.v1.Leases/Create", id="ocidiff-paused-c1", labels={"ocidiff/owner": "other-boot 1 1 1"})
    daemon.ctr("tasks", "pause", "c1", namespace=namespace)
    store.commit(store.container("c1"), "app:v1")
    rests(daemon, namespace, channel, engine)


def test_an_image_that_others_delete_meanwhile_is_kept_by_the_lease(
    store: Store, daemon: Daemon, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed(daemon, namespace, "c1", script="echo told >/etc/told")
    compare = LocalDiffer.compare

    def without_image(self: LocalDiffer, *arguments: Any) -> Any:
        daemon.ctr("images", "rm", "--sync", "base:1", namespace=namespace)
        daemon.collect(namespace)
        return compare(self, *arguments)

    monkeypatch.setattr(LocalDiffer, "compare", without_image)
    store.commit(store.container("c1"), "app:v1")
    assert daemon.ctr("run", "--rm", "app:v1", "again", "/bin/cat", "/etc/told", namespace=namespace) == "told\n"


def test_a_lease_outlives_its_lifetime(daemon: Daemon, channel: Channel) -> None:
    leases = ContainerdLeases(channel, lifetime=3.0)
    blob = "sha256:" + "1" * 64
    with leases.hold() as lease:
        first = lease.id
        leases.add(lease, CONTENT, blob)
        time.sleep(5)
        daemon.collect(channel.namespace)
        assert lease.id != first
        # While its resources are moved there are two.
        end = time.monotonic() + 5
        while leases.held() != [lease.id]:
            assert time.monotonic() < end
        assert leases.resources(lease) == [(CONTENT, blob)]
    assert leases.held() == []


def test_what_dead_clients_hold_is_released_by_the_next_commit(
    store: Store, daemon: Daemon, namespace: str, channel: Channel, engine: Engine
) -> None:
    changed(daemon, namespace, "c1", script="echo x >/etc/new")
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    pids = os.stat("/proc/self/ns/pid").st_ino
    for number, owner in enumerate((f"{boot} {pids} 4194303 1", "other-boot 1 1 1")):
        channel.call("leases.v1.Leases/Create", id=f"dead-{number}", labels={"ocidiff/owner": owner})
    # In another namespace of processes, where nobody here can look, and of another program.
    for name, labels in (("alive", {"ocidiff/owner": f"{boot} 1 1 1"}), ("foreign", {})):
        channel.call("leases.v1.Leases/Create", id=name, labels=labels)
    store.commit(store.container("c1"), "app:v1")
    assert sorted(ContainerdLeases(channel).held()) == ["alive", "foreign"]


def refused(*words: str, lines: int | None = 1) -> tuple[int, str]:
    """Exit status of a command that fails, and the line that it writes."""
    done = subprocess.run([sys.executable, "-m", "ocidiff", *words], capture_output=True, text=True, check=False, cwd="/")
    assert done.stdout == ""
    assert lines in {None, done.stderr.count("\n")}, done.stderr
    return done.returncode, done.stderr


def test_what_cannot_be_done_is_refused_in_one_line(store: Store, daemon: Daemon, namespace: str, tmp_path: Path) -> None:
    def commit(name: str = "c1", address: str = daemon.address, where: str = namespace) -> tuple[int, str]:
        return refused("commit", f"containerd:{name}", "app:v1", "--address", address, "--namespace", where)

    status, line = commit(address=str(tmp_path / "none"))
    assert (status, "no such socket: is containerd running" in line) == (1, True), line
    (tmp_path / "file").touch()
    status, line = commit(address=str(tmp_path / "file"))
    assert (status, "nobody listens" in line) == (1, True), line
    status, line = commit(address="/" + "x" * 120)
    assert (status, "107 bytes" in line) == (2, True), line
    status, line = commit(where="nowhere")
    assert (status, "no namespace 'nowhere'; there is" in line) == (1, True), line
    status, line = commit()
    assert (status, "no container 'c1' in containerd's namespace" in line) == (1, True), line
    for runtime, why in (("runsc", "gVisor"), ("kata", "virtual machine")):
        words = ("containers", "create", "--runtime", f"io.containerd.{runtime}.v1", "base:1", runtime)
        daemon.ctr(*words, namespace=namespace)
        status, line = commit(runtime)
        assert (status, why in line) == (1, True), line
    daemon.ctr("containers", "create", "base:1", "c2", namespace=namespace)
    daemon.ctr("images", "rm", "base:1", namespace=namespace)
    status, line = commit("c2")
    assert (status, "its image 'base:1' was removed" in line) == (1, True), line
    for command in (("gc",), ("verify",), ("ps",), ("create", "base:1")):
        status, _ = refused(*command, "--containerd", "--address", daemon.address, "--namespace", namespace, lines=None)
        assert status == 2, command


def test_a_user_without_permission_is_told_so(daemon: Daemon, namespace: str) -> None:
    # What is imported later may be out of reach of a user.
    program = (
        "import os, grpc, ocidiff.containerd.open; from ocidiff.store import Store\n"
        "os.setgroups([]); os.setgid(1000); os.setuid(1000)\n"
        f"Store.containerd({daemon.address!r}, {namespace!r})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "PermissionError" in done.stderr
    assert "no permission to use containerd; run as root" in done.stderr
