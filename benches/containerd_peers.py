"""Commit on containerd beside nerdctl, Docker and ctr. Needs root, and Go to build them (once, minutes).

`PYTHONPATH=tests python benches/containerd_peers.py [FILES [MIB [ROUNDS]]]` makes an image of FILES (60000) files and starts
containers of it with nerdctl and with Docker. Some are left as they are, in some one per cent of everything is changed, and
in some packages of MIB (1300) are added. All tools take turns ROUNDS (5) times on the same containers; what a commit made is
removed again, untimed. Printed are medians: wall time with the least and the most; processor time and peak memory of client
+ daemons; how long the container stood still, by containerd's events; and the size of the layer. It fails if the diff IDs
differ. Needs about 12 GiB below /tmp for the full size.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from containerd.daemon import Daemon, running
from containerd.engines import ContainerEngine, Docker, Nerdctl, docker, load
from containerd.layers import layer_of_containerd
from installed import compiled_command
from measured import KIND, Processes, Taken, base, figures, median, take
from ocidiff.oci.digest import Digest
from ocidiff.store import Store
from workloads import add_packages, change_one_percent

OCIDIFF = compiled_command()
NAMESPACE = "nerdctl"
IMAGE = "docker.io/library/new:1"


@dataclass
class Run(Taken):
    """The cost of one commit, and how long the container stood still."""

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


class Daemons(Processes):
    """The processes of containerd and Docker, as they are measured, and containerd's events."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        super().__init__(daemon.pid, int((daemon.place / "docker.pid").read_text()))

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
        taken = take(tool.command, tool.environment, daemons)
        tool.runs.append(Run(**vars(taken), paused=paused()))
    if not tool.has_image:
        return
    with Store.containerd(daemon.address, tool.namespace) as store:
        image: Any = store.inspect(IMAGE)
    tool.diff_id = image["config"]["rootfs"]["diff_ids"][-1]
    tool.size_bytes = sum(layer["size"] for layer in image["manifest"]["layers"][1:])
    daemon.ctr("images", "rm", "--sync", IMAGE, namespace=tool.namespace)
    daemon.collect(tool.namespace)


def show(change: str, tool: Tool, own: float) -> None:
    print(
        f"{change:9} {tool.name:26} {median(tool.runs, 'seconds') / own:6.1f}x {figures(tool.runs)}  "
        f"paused {median(tool.runs, 'paused'):8.3f} s  layer {tool.size_bytes / 1e6:8.1f} MB",
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
                    show(change, tool, median(own.runs, "seconds"))
                for engine in (nerdctl, docker_):
                    engine("rm", "--force", containers[engine.namespace])


if __name__ == "__main__":
    main(*sys.argv[1:])
