"""The plugin beside containerd's own differ. Needs root, and Go to build containerd and nerdctl (once, minutes).

`PYTHONPATH=tests python benches/plugin_peers.py [FILES [MIB [SMALL [ROUNDS [CALLERS]]]]]` runs one containerd, which is
started anew for each turn: with the plugin, without it, and for unpacks also with igzip, which it finds on its path.

- **commit**: a container of an image of FILES (60000) files, with one per cent of them changed, and one with packages of MIB
  (1300) MiB added, by `ctr snapshots diff` and `nerdctl commit`.
- **call**: one call of Diff from a process that runs, with no change and with 300 files; also straight at the plugin.
- **unpack**: `ctr snapshots unpack` of a layer of MIB (1300) MiB and of one of SMALL (100000) small files.
- **at once**: CALLERS (16) containers with some MiB of changes each, all diffed at the same time.

With FILES 0 it only unpacks.

The ways take turns ROUNDS (3) times. Printed are medians: wall time with the least and the most, and how many times faster
than containerd; processor time and peak memory of client + daemons (igzip's memory is not in it). It fails if the diff IDs
differ or a snapshot shows another tree. What was unpacked stays until the end, because ext4 looks for long for inodes that
were not deleted a short while ago. Needs about 26 GiB below /tmp for the full size.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from containerd.conftest import archived
from containerd.engines import Nerdctl, load
from containerd.serve.plugin import snapshots
from measured import Processes, Taken, base, end_cleanly, figures, median, take
from nodes import IGZIP, PLUGIN, STOCK, Mode, Node, node
from ocidiff.bench.measure import Usage, launch
from ocidiff.bench.trees import MIB, Pool
from ocidiff.containerd.channel import Channel
from ocidiff.containerd.open import services_of
from ocidiff.layer.engine import select_engine
from ocidiff.mounts.kernel import directory_of
from ocidiff.oci.digest import DiffID, Digest, chain_id
from ocidiff.store import Store
from workloads import add_packages, change_one_percent, shape

NAMESPACE = "nerdctl"
IMAGE = "docker.io/library/new:1"
CALLS = 20
# Slow ones are not repeated as often.
SECONDS_OF_CALLS = 5.0
CHANGED_FILES = 300
MIB_AT_ONCE = 20


def report(what: str, runs: dict[Mode, list[Taken]]) -> None:
    for mode, taken in runs.items():
        gain = median(runs[STOCK], "seconds") / median(taken, "seconds")
        print(f"{what:26} {mode.name:22} {gain:6.2f}x {figures(taken)}", flush=True)


def turns(rounds: int, modes: tuple[Mode, ...], on: Node) -> Iterator[tuple[Mode, Processes]]:
    """Each mode in turn, `rounds` times."""
    for _ in range(rounds):
        for mode in modes:
            with on.within(mode) as processes:
                yield mode, processes


def commits(on: Node, nerdctl: Nerdctl, change: str, make: Callable[[Path], None], rounds: int) -> None:
    daemon = on.daemon
    container = nerdctl.run("base:1")
    make(daemon.root(NAMESPACE, container))
    ctr: list[str | Path] = [daemon.programs / "ctr", "--namespace", NAMESPACE, "snapshots", "diff", container]
    tools = {"ctr snapshots diff": ctr, "nerdctl commit": [*nerdctl.line, "commit", container, "new:1"]}
    runs: dict[str, dict[Mode, list[Taken]]] = {name: {STOCK: [], PLUGIN: []} for name in tools}
    diff_ids = set()
    for mode, processes in turns(rounds, (STOCK, PLUGIN), on):
        for name, words in tools.items():
            runs[name][mode].append(take(words, nerdctl.environment, processes))
        with Store.containerd(daemon.address, NAMESPACE) as store:
            image: Any = store.inspect(IMAGE)
        diff_ids.add(image["config"]["rootfs"]["diff_ids"][-1])
        daemon.ctr("images", "rm", "--sync", IMAGE, namespace=NAMESPACE)
        daemon.collect(NAMESPACE)
    for name, found in runs.items():
        report(f"{name}, {change}", found)
    assert len(diff_ids) == 1, diff_ids
    nerdctl("rm", "--force", container)


def change_some(root: Path, count: int) -> None:
    """Change some files of the system."""
    pool = Pool(6)
    for path in sorted((root / "usr").rglob("*[0-9]"))[::7]:
        if path.is_file() and count > 0:
            pool.write(path, 3000)
            count -= 1


def calls(on: Node, nerdctl: Nerdctl, rounds: int) -> None:
    """Measure single calls from this process, which is connected already."""
    daemon = on.daemon
    containers = {"no change": nerdctl.run("base:1"), f"{CHANGED_FILES} files": nerdctl.run("base:1")}
    change_some(daemon.root(NAMESPACE, containers[f"{CHANGED_FILES} files"]), CHANGED_FILES)
    ways = ("containerd", "the plugin", "straight at the plugin")
    seconds: dict[str, dict[str, list[float]]] = {change: {way: [] for way in ways} for change in containers}
    for mode, _ in turns(rounds, (STOCK, PLUGIN), on):
        addresses = {mode.name: daemon.address}
        if not mode.is_stock:
            addresses[ways[-1]] = str(on.server.socket)
        for way, address in addresses.items():
            for change, container in containers.items():
                seconds[change][way] += timed_calls(address, daemon.address, container)
    for change, found in seconds.items():
        for way, taken in found.items():
            taken.sort()
            gain = statistics.median(found["containerd"]) / statistics.median(taken)
            middle, last = statistics.median(taken) * 1000, taken[-1] * 1000
            print(
                f"call of Diff, {change:12} {way:22} {gain:6.2f}x {middle:8.2f} ms ({taken[0] * 1000:.2f} to {last:.2f})",
                flush=True,
            )
    for container in containers.values():
        nerdctl("rm", "--force", container)


def timed_calls(address: str, containerd: str, key: str) -> list[float]:
    channel, asked = Channel.connect(containerd, NAMESPACE), Channel.connect(address, NAMESPACE)
    sides = snapshots(channel, key)
    # The first one connects.
    asked.call("diff.v1.Diff/Diff", **sides)
    seconds: list[float] = []
    while len(seconds) < CALLS and sum(seconds) < SECONDS_OF_CALLS:
        began = time.perf_counter()
        asked.call("diff.v1.Diff/Diff", **sides)
        seconds.append(time.perf_counter() - began)
    for one in (channel, asked):
        one.close()
    return seconds


def layer_of(place: Path, name: str, make: Callable[[Path], None]) -> tuple[Path, Digest, DiffID]:
    """Make the archive of an image of one layer; return it, the digest of its manifest and the diff ID."""
    tree, store = place / f"{name}.tree", place / f"{name}.store"
    tree.mkdir()
    make(tree)
    with Store.open(store) as opened:
        image = opened.commit(tree, f"{name}:1", profile="containerd")
    assert image.layer is not None
    layer = image.layer
    print(
        f"{name}: {layer.added} entries, {layer.uncompressed_size / 1e6:.0f} MB, {layer.size / 1e6:.0f} MB of gzip",
        flush=True,
    )
    return archived(store, place / f"{name}.tar"), image.digest, layer.diff_id


def small_files(tree: Path, count: int) -> None:
    """Write small files: 2 KiB at the median, 16 KiB at most."""
    pool = Pool(7)
    for number in range(count):
        directory = tree / f"lib/{number % 97:02}/{number % 13:02}"
        if number < 97 * 13:
            directory.mkdir(parents=True, exist_ok=True)
        pool.write(directory / f"{number:06}", int(min(pool.chance.lognormvariate(7.6, 1.0), 16 << 10)))


def unpacks(on: Node, place: Path, name: str, make: Callable[[Path], None], rounds: int) -> None:
    daemon = on.daemon
    archive, manifest, diff_id = layer_of(place, name, make)
    modes = (STOCK, IGZIP, PLUGIN)
    runs: dict[Mode, list[Taken]] = {mode: [] for mode in modes}
    expected: set[tuple[str, int, int, int]] | None = None
    for number, (mode, processes) in enumerate(turns(rounds, modes, on)):
        # In a namespace of its own each turn has a snapshot of its own; the blob is shared.
        namespace = f"{name}-{number}"
        daemon.ctr("images", "import", "--local", "--no-unpack", archive, namespace=namespace)
        runs[mode].append(take(on.unpack(namespace, manifest), daemon.environment, processes))
        with tree_shown(daemon.address, namespace, chain_id([diff_id])) as tree:
            found = shape(tree)
        expected = expected or found
        assert found == expected, f"{mode.name}: {len(found ^ expected)} names differ"
    report(f"unpack, {name}", runs)


@contextmanager
def tree_shown(address: str, namespace: str, key: str) -> Iterator[Path]:
    channel = Channel.connect(address, namespace)
    try:
        own = services_of(channel, select_engine(None)).snapshotter("overlayfs")
        with own.reading(key) as mounts, directory_of(mounts) as tree:
            yield Path(tree)
    finally:
        channel.close()


def at_once(on: Node, nerdctl: Nerdctl, callers: int, rounds: int) -> None:
    """Diff several containers at the same time."""
    daemon = on.daemon
    containers = [nerdctl.run("base:1") for _ in range(callers)]
    for number, container in enumerate(containers):
        pool = Pool(100 + number)
        for file in range(MIB_AT_ONCE):
            pool.write(daemon.root(NAMESPACE, container) / f"opt/{file}", 1 << 20)
    ctr: list[str | Path] = [daemon.programs / "ctr", "--namespace", NAMESPACE, "snapshots", "diff"]
    runs: dict[Mode, list[Taken]] = {STOCK: [], PLUGIN: []}
    slowest: dict[Mode, list[str]] = {STOCK: [], PLUGIN: []}

    def diff(container: str) -> tuple[Usage, str]:
        return launch([*ctr, container], nerdctl.environment, discards_output=True)

    with ThreadPoolExecutor(callers) as pool_of_threads:
        for mode, processes in turns(rounds, (STOCK, PLUGIN), on):
            processes.forget_peaks()
            cpu, began = processes.cpu(), time.perf_counter()
            done = list(pool_of_threads.map(diff, containers))
            seconds = time.perf_counter() - began
            taken = [usage.seconds for usage, _ in done]
            clients = sum(usage.processor_seconds or 0.0 for usage, _ in done)
            peak = max(usage.peak_bytes or 0 for usage, _ in done) / MIB
            runs[mode].append(Taken(seconds, clients, processes.cpu() - cpu, peak, processes.peak_mib()))
            slowest[mode].append(f"{min(taken):.2f} to {max(taken):.2f}")
            daemon.collect(NAMESPACE)
    report(f"{callers} at once, {MIB_AT_ONCE} MiB each", runs)
    for mode, texts in slowest.items():
        print(f"{'':26} {mode.name:22} a caller waited {'; '.join(texts)} s", flush=True)
    for container in containers:
        nerdctl("rm", "--force", container)


def main(
    count: str = "60000", size_mib: str = "1300", small: str = "100000", rounds: str = "3", callers: str = "16"
) -> None:
    turns_of_each = int(rounds)
    with tempfile.TemporaryDirectory(prefix="plugin-peers-") as directory, node() as on:
        place = Path(directory)
        if int(count) > 0:
            load(on.daemon, base(place, int(count)), NAMESPACE)
            nerdctl = Nerdctl(on.daemon, NAMESPACE)
            calls(on, nerdctl, turns_of_each)
            commits(on, nerdctl, "1 %", change_one_percent, turns_of_each)
            commits(on, nerdctl, f"{size_mib} MiB", lambda root: add_packages(root, int(size_mib)), turns_of_each)
            at_once(on, nerdctl, int(callers), turns_of_each)
        unpacks(on, place, f"{small}-files", lambda tree: small_files(tree, int(small)), turns_of_each)
        unpacks(on, place, f"{size_mib}-mib", lambda tree: add_packages(tree, int(size_mib)), turns_of_each)


if __name__ == "__main__":
    end_cleanly()
    main(*sys.argv[1:])
