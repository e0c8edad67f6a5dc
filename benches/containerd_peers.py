"""Commit on containerd beside nerdctl, Docker and ctr. Needs root, and Go to build them (once, minutes).

`PYTHONPATH=tests python benches/containerd_peers.py [FILES [MIB [ROUNDS]]]` makes an image of FILES (60000) files and starts
containers of it with nerdctl and with Docker. Some are left as they are, in some one per cent of everything is changed, and
in some packages of MIB (1300) are added. All tools take turns ROUNDS (5) times on the same containers; what a commit made is
removed again, untimed. Printed are medians: wall time with the least and the most; processor time and peak memory of client
+ daemons; how long the container stood still, by containerd's events; and the size of the layer. It fails if the diff IDs
differ. Needs about 12 GiB below /tmp for the full size.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from containerd.daemon import Daemon, programs, running
from containerd.engines import ContainerEngine, Docker, Nerdctl, docker, load
from containerd.layers import layer_of_containerd
from installed import compiled_command
from ocidiff.oci.digest import Digest
from ocidiff.store import Store
from workloads import add_packages, change_one_percent, system

OCIDIFF = compiled_command()
KIND = "new-2"
NAMESPACE = "nerdctl"
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
KIB_PER_MIB = 1024
IMAGE = "docker.io/library/new:1"
# A process counts what its parent had when it was made, so that a small one starts it.
LAUNCHER = """
import json, os, sys, time
start = time.perf_counter()
silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
process = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=silent)
_, status, usage = os.wait4(process, 0)
print(json.dumps([time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss]))
sys.exit(os.waitstatus_to_exitcode(status))
"""


@dataclass
class Run:
    """What one commit took."""

    seconds: float
    client_cpu: float
    daemon_cpu: float
    client_mib: float
    daemon_mib: float
    paused: float


@dataclass
class Tool:
    """A commit of a container by a tool."""

    name: str
    namespace: str
    command: list[str | Path]
    environment: dict[str, str] | None = None
    # Where the layer is afterwards; ctr writes it to stdout.
    has_image: bool = True
    runs: list[Run] = field(default_factory=list)
    diff_id: str = ""
    size_bytes: int = 0


class Daemons:
    """The processes of containerd and Docker, as they are measured, and containerd's events."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.pids = [daemon.pid, int((daemon.place / "docker.pid").read_text())]

    def cpu(self) -> float:
        stats = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in self.pids]
        return sum(int(stat[11]) + int(stat[12]) for stat in stats) / TICKS_PER_SECOND

    def forget_peaks(self) -> None:
        for pid in self.pids:
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def peak_mib(self) -> float:
        lines = [line for pid in self.pids for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
        return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / KIB_PER_MIB

    @contextmanager
    def events(self) -> Iterator[Callable[[], float]]:
        """Yield what returns how long tasks were paused since the block began."""
        with tempfile.TemporaryFile("w+") as file:
            words: list[str | Path] = [self.daemon.programs / "ctr", "events"]
            process = subprocess.Popen(words, env=self.daemon.environment, stdout=file, stderr=subprocess.DEVNULL)
            time.sleep(0.3)

            def paused() -> float:
                time.sleep(0.3)
                file.seek(0)
                return paused_seconds(file.read())

            try:
                yield paused
            finally:
                process.terminate()
                process.wait()


def paused_seconds(events: str) -> float:
    """Sum the times between events of pausing and of resuming."""
    total, began = 0.0, 0.0
    for line in events.splitlines():
        if "/tasks/paused" in line or "/tasks/resumed" in line:
            date, clock, *_ = line.split()
            whole, _, fraction = clock.partition(".")
            seconds = datetime.fromisoformat(f"{date} {whole}").timestamp() + float(f"0.{fraction or 0}")
            if "/tasks/paused" in line:
                began = seconds
            else:
                total += seconds - began
    return total


def base(directory: Path, count: int) -> Path:
    """Make the archive of the image `base:1`."""
    tree = directory / "tree"
    for name in ("bin", "etc", "tmp", "proc", "dev", "sys", "run", "opt"):
        (tree / name).mkdir(parents=True)
    (tree / "bin/busybox").write_bytes((programs(KIND) / "busybox").read_bytes())
    (tree / "bin/busybox").chmod(0o755)
    for name in ("sh", "sleep"):
        (tree / "bin" / name).symlink_to("busybox")
    for name in ("hosts", "hostname", "resolv.conf"):
        (tree / "etc" / name).touch()
    system(tree, count)
    with Store.open(directory / "store") as store:
        image = store.commit(tree, "base:1", changes=['CMD ["/bin/sleep", "1000000"]'])
        assert image.layer is not None
        print(f"base: {image.layer.added} entries, {image.layer.uncompressed_size / 1e6:.0f} MB of tar", flush=True)
    archive = directory / "base.tar"
    with tarfile.open(archive, "w") as tar:
        for name in ("oci-layout", "index.json", "blobs"):
            tar.add(directory / "store" / name, name)
    return archive


def tools(daemon: Daemon, nerdctl: Nerdctl, docker_: Docker, containers: dict[str, str]) -> list[Tool]:
    def ours(namespace: str) -> list[str | Path]:
        words = ["commit", f"containerd:{containers[namespace]}", IMAGE, "--profile", "containerd", "-q"]
        return [OCIDIFF, *words, "--address", daemon.address, "--namespace", namespace]

    def theirs(engine: ContainerEngine) -> list[str | Path]:
        return [*engine.line, "commit", containers[engine.namespace], "new:1"]

    ctr: list[str | Path] = [daemon.programs / "ctr", "--namespace", NAMESPACE, "snapshots", "diff", containers[NAMESPACE]]
    return [
        Tool("ocidiff commit", NAMESPACE, ours(NAMESPACE)),
        Tool("nerdctl commit", NAMESPACE, theirs(nerdctl), nerdctl.environment),
        Tool("ctr snapshots diff", NAMESPACE, ctr, daemon.environment, has_image=False),
        Tool("ocidiff commit (Docker's)", docker_.namespace, ours(docker_.namespace)),
        Tool("docker commit", docker_.namespace, theirs(docker_), docker_.environment),
    ]


def run(tool: Tool, daemons: Daemons) -> None:
    daemon = daemons.daemon
    with daemons.events() as paused:
        # What was done before is on disk, and not waited for.
        os.sync()
        daemons.forget_peaks()
        cpu = daemons.cpu()
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", LAUNCHER, *tool.command],
            env=tool.environment,
            capture_output=True,
            check=False,
        )
        daemon_cpu, daemon_mib = daemons.cpu() - cpu, daemons.peak_mib()
        assert done.returncode == 0, f"{tool.name}: {done.stderr.decode()}"
        seconds, client_cpu, client_kib = json.loads(done.stdout)
        tool.runs.append(Run(seconds, client_cpu, daemon_cpu, client_kib / KIB_PER_MIB, daemon_mib, paused()))
    if not tool.has_image:
        return
    with Store.containerd(daemon.address, tool.namespace) as store:
        image: Any = store.inspect(IMAGE)
    tool.diff_id = image["config"]["rootfs"]["diff_ids"][-1]
    tool.size_bytes = sum(layer["size"] for layer in image["manifest"]["layers"][1:])
    daemon.ctr("images", "rm", "--sync", IMAGE, namespace=tool.namespace)
    daemon.collect(tool.namespace)


def show(change: str, tool: Tool, own: float) -> None:
    def median(name: str) -> float:
        return float(statistics.median(getattr(one, name) for one in tool.runs))

    taken = sorted(one.seconds for one in tool.runs)
    print(
        f"{change:9} {tool.name:26} {median('seconds'):8.3f} s ({taken[0]:.3f} to {taken[-1]:.3f}) "
        f"{median('seconds') / own:6.1f}x  cpu {median('client_cpu'):7.2f} + {median('daemon_cpu'):7.2f} s  "
        f"peak {median('client_mib'):5.0f} + {median('daemon_mib'):5.0f} MiB  paused {median('paused'):8.3f} s  "
        f"layer {tool.size_bytes / 1e6:8.1f} MB",
        flush=True,
    )


def main(count: str = "60000", size_mib: str = "1300", rounds: str = "5") -> None:
    changes: dict[str, Callable[[Path], None]] = {
        "nothing": lambda _: None,
        "1 %": change_one_percent,
        f"{size_mib} MiB": lambda root: add_packages(root, int(size_mib)),
    }
    with tempfile.TemporaryDirectory() as directory, running(KIND) as daemon:
        archive = base(Path(directory), int(count))
        nerdctl = Nerdctl(daemon, NAMESPACE)
        with docker(daemon) as docker_:
            for engine in (nerdctl, docker_):
                load(daemon, archive, engine.namespace)
            daemons = Daemons(daemon)
            for change, make in changes.items():
                containers = {}
                for engine in (nerdctl, docker_):
                    containers[engine.namespace] = engine.run("base:1")
                    make(daemon.root(engine.namespace, containers[engine.namespace]))
                contenders = tools(daemon, nerdctl, docker_, containers)
                for _ in range(int(rounds)):
                    for tool in contenders:
                        run(tool, daemons)
                ours, theirs, ctr, ours_of_docker, theirs_of_docker = contenders
                ctr.diff_id = Digest.of(layer_of_containerd(daemon, NAMESPACE, containers[NAMESPACE]))
                if change != "nothing":
                    assert ours.diff_id == theirs.diff_id == ctr.diff_id, contenders
                    assert ours_of_docker.diff_id == theirs_of_docker.diff_id, contenders
                for tool in contenders:
                    own = ours if tool.namespace == NAMESPACE else ours_of_docker
                    show(change, tool, statistics.median(one.seconds for one in own.runs))
                for engine in (nerdctl, docker_):
                    engine("rm", "--force", containers[engine.namespace])


if __name__ == "__main__":
    main(*sys.argv[1:])
