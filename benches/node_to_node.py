"""From a commit on one node to its container's first output on another: the plugin beside containerd's own differ.

`PYTHONPATH=tests python benches/node_to_node.py [FILES [MIB [ROUNDS]]]` runs two containerds and a registry on loopback.
Both nodes have the image of FILES (60000) files; on the first a container of it gets packages of MIB (1300) MiB. Then, in
ROUNDS (3) turns with and without the plugin on both nodes: `nerdctl commit`, `ctr images push`, `ctr images pull`, which
unpacks, and `ctr run` until the container has written its first line. Before each turn one more file is added, so that
nothing is there already; what the second node has unpacked stays, because ext4 looks for long for inodes that were not
deleted a short while ago. Printed are the medians of each phase and of their sum. Needs root, docker-registry, and Go to
build containerd and nerdctl (once, minutes); about 26 GiB below /tmp for the full size.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from containerd.daemon import Daemon
from containerd.engines import BASE, Nerdctl, load
from measured import base, end_cleanly
from nodes import PLUGIN, STOCK, Mode, Node, node
from ocidiff.bench.measure import launch
from support import registry_software
from workloads import add_packages

NAMESPACE = "nerdctl"
IMAGE = "docker.io/library/new:1"
PHASES = ("commit", "push", "pull and unpack", "first output")


def first_output(daemon: Daemon, image: str) -> float:
    """Run a container; return the seconds until its first line is here."""
    words = ["--namespace", NAMESPACE, "run", "--rm", image, "first", "/bin/sh", "-c", "echo ready; exit"]
    began = time.perf_counter()
    line: list[str | Path] = [daemon.programs / "ctr", *words]
    with subprocess.Popen(line, env=daemon.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        written = process.stdout.readline()
        seconds = time.perf_counter() - began
        assert written == b"ready\n", process.stderr.read().decode()
    return seconds


def turn(one: Node, other: Node, nerdctl: Nerdctl, container: str, repository: str) -> dict[str, float]:
    """Move a container from one node to another; return the seconds of each phase."""
    name = f"{repository}:1"
    ctr: list[list[str | Path]] = [[on.daemon.programs / "ctr", "--namespace", NAMESPACE] for on in (one, other)]
    took = {}
    took["commit"] = launch([*nerdctl.line, "commit", container, "new:1"], nerdctl.environment)[0].seconds
    push = [*ctr[0], "images", "push", "--plain-http", name, IMAGE]
    took["push"] = launch(push, one.daemon.environment)[0].seconds
    pull = [*ctr[1], "images", "pull", "--plain-http", name]
    took["pull and unpack"] = launch(pull, other.daemon.environment)[0].seconds
    took["first output"] = first_output(other.daemon, name)
    one.daemon.ctr("images", "rm", "--sync", IMAGE, namespace=NAMESPACE)
    one.daemon.collect(NAMESPACE)
    return took


def show(found: dict[Mode, list[dict[str, float]]]) -> None:
    def middle(mode: Mode, phase: str) -> float:
        return statistics.median(one[phase] if phase in one else sum(one.values()) for one in found[mode])

    for phase in (*PHASES, "in all"):
        stock, plugin = middle(STOCK, phase), middle(PLUGIN, phase)
        print(f"{phase:16} containerd {stock:8.2f} s   the plugin {plugin:8.2f} s   {stock / plugin:5.2f}x", flush=True)


def main(count: str = "60000", size_mib: str = "1300", rounds: str = "3") -> None:
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="node-to-node-")))
        host = stack.enter_context(registry_software.running(place))
        one, other = stack.enter_context(node()), stack.enter_context(node())
        load(one.daemon, base(place, int(count)), NAMESPACE)
        one.daemon.ctr("images", "push", "--plain-http", f"{host}/base:1", BASE, namespace=NAMESPACE)
        for on in (one, other):
            # Only what was pulled is known to be in the registry, and not pushed again.
            on.daemon.ctr("images", "pull", "--plain-http", f"{host}/base:1", namespace=NAMESPACE)
        nerdctl = Nerdctl(one.daemon, NAMESPACE)
        container = nerdctl.run("base:1")
        add_packages(one.daemon.root(NAMESPACE, container), int(size_mib))
        found: dict[Mode, list[dict[str, float]]] = {STOCK: [], PLUGIN: []}
        for number in range(int(rounds)):
            for mode, runs in found.items():
                (one.daemon.root(NAMESPACE, container) / f"opt/{mode.is_stock}-{number}").touch()
                with one.within(mode), other.within(mode):
                    # A registry that has a blob already is sent nothing.
                    repository = f"{host}/{'stock' if mode.is_stock else 'plugin'}-{number}"
                    runs.append(turn(one, other, nerdctl, container, repository))
                phases = ", ".join(f"{phase} {seconds:.2f} s" for phase, seconds in runs[-1].items())
                print(f"turn {number}, {mode.name}: {phases}", flush=True)
        show(found)
        nerdctl("rm", "--force", container)


if __name__ == "__main__":
    end_cleanly()
    main(*sys.argv[1:])
