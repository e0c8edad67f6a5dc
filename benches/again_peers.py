"""Repeated commits beside containerd. Needs root, and Go to build containerd and nerdctl (once, minutes).

`PYTHONPATH=tests python benches/again_peers.py [FILES [MIB [ROUNDS [CONTAINERS [WHEELS_MIB]]]]]`

- **again**: packages of MIB (1300) MiB are added to an image of FILES (60000) files: in a container of containerd, and in an
  overlay of our own. In each of ROUNDS (3) rounds they are committed as they are, cold and again, and after a file of 1 MiB
  was edited, a file was inserted near the beginning, and one per cent of the files was edited. The ways take turns: our own
  store with `--reuse never` and with what it knows, `commit containerd:ID`, and `nerdctl commit` without a plugin.
- **many containers**: CONTAINERS (20) overlays over the image, each with the same packages of WHEELS_MIB (166) MiB and one
  file of 1 MiB of its own, are committed one after the other; three such containers of containerd too.

Printed are medians: how many times faster than `nerdctl commit`; wall time with the least and the most; processor time and
peak memory of client + containerd; and for ours how much tar was read and hashed, what was copied of it and what deflated,
and how much blob was hashed and written. It fails if the ways differ in a digest of the layer. `500 20 1 3 5` takes two
minutes; the full size takes an hour, and 25 GiB below /tmp.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from containerd.daemon import Daemon, running
from containerd.engines import Nerdctl, load
from installed import compiled_command
from measured import KIND, Processes, Taken, base, end_cleanly, figures, median, take, take_with_output
from ocidiff.bench.trees import MIB, Pool
from ocidiff.store import Store
from workloads import add_packages, edit_some, overlay

OCIDIFF = compiled_command()
NAMESPACE = "nerdctl"
IMAGE = "docker.io/library/new:1"
NERDCTL = "nerdctl commit"
NEVER, KNOWN, OF_CONTAINERD = "ocidiff --reuse never", "ocidiff", "ocidiff containerd:"
PEER_CONTAINERS = 3
INSERTED_BYTES = 3000
# Files that changed within the last minute are read in another way; nobody commits all packages in that minute.
REST_SECONDS = 61


@dataclass
class Run(Taken):
    """The cost of one commit, and what it says of the layer."""

    layer: dict[str, Any]


class Own:
    """Stores of our own, in which trees over the image are committed."""

    def __init__(self, place: Path) -> None:
        self._place, self._made = place, 0
        self.store = self.fresh()

    def fresh(self) -> Path:
        """Make a store that has only the image; its blobs are links, because nobody changes them."""
        self._made += 1
        store = self._place / f"stores/{self._made}"
        shutil.copytree(self._place / "store", store, copy_function=_link_blob)
        return store

    def commit(self, store: Path, tree: Path, *options: str) -> Run:
        base: list[str | Path] = ["--base", "base:1", "--lower", self._place / "tree"]
        words: list[str | Path] = ["--store", store, "commit", f"{tree}/", "new:1", *base, "--json", "-q", *options]
        return _run(*take_with_output([OCIDIFF, *words], None, Processes()))

    def commit_anew(self, tree: Path, *options: str) -> Run:
        """Commit in a store that has only the image, and that is gone afterwards."""
        store = self.fresh()
        try:
            return self.commit(store, tree, *options)
        finally:
            shutil.rmtree(store)


class Peer:
    """A containerd with containers of the image, which are committed by ours and by nerdctl."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon, self.nerdctl = daemon, Nerdctl(daemon, NAMESPACE)
        self._processes = Processes(daemon.pid)
        self._caches = 0
        self.forget()

    def forget(self) -> None:
        """Know no layers from now on."""
        self._caches += 1
        self._environment = {**os.environ, "OCIDIFF_CACHE_DIR": str(self.daemon.place / f"cache{self._caches}")}

    def ours(self, container: str) -> Run:
        where: list[str | Path] = ["--address", self.daemon.address, "--namespace", NAMESPACE]
        words = ["commit", f"containerd:{container}", IMAGE, "--profile", "containerd", "--json", "-q", *where]
        run = _run(*take_with_output([OCIDIFF, *words], self._environment, self._processes))
        self._remove()
        return run

    def theirs(self, container: str) -> Run:
        taken = take([*self.nerdctl.line, "commit", container, "new:1"], self.nerdctl.environment, self._processes)
        return Run(**vars(taken), layer={"diffID": self._remove()})

    def _remove(self) -> str:
        """Remove the image that was just made; return the diff ID of its last layer."""
        with Store.containerd(self.daemon.address, NAMESPACE) as store:
            image: Any = store.inspect(IMAGE)
        self.daemon.ctr("images", "rm", "--sync", IMAGE, namespace=NAMESPACE)
        self.daemon.collect(NAMESPACE)
        return str(image["config"]["rootfs"]["diff_ids"][-1])


def _link_blob(source: str, target: str) -> None:
    if "/blobs/" in source:
        os.link(source, target)
    else:
        shutil.copy2(source, target)


def _run(taken: Taken, output: str) -> Run:
    """Return what a commit of ours took, with the layer that its output describes."""
    return Run(**vars(taken), layer=json.loads(output)["layer"])


def edit_file(root: Path, seed: int) -> None:
    Pool(seed).write(root / "opt/edited", MIB)


def insert_file(root: Path, seed: int) -> None:
    Pool(seed).write(root / f"opt/000/0.{seed}", INSERTED_BYTES)


def again(own: Own, tree: Path, peer: Peer, container: str, rounds: int) -> None:
    """Commit packages, cold and then again after small changes."""
    changes: dict[str, Callable[[Path, int], None]] = {
        "cold": lambda _root, _seed: None,
        "the same again": lambda _root, _seed: None,
        "1 MiB edited": edit_file,
        "one inserted early": insert_file,
        "1 % edited": edit_some,
    }
    runs = {change: {way: list[Run]() for way in (NEVER, KNOWN, OF_CONTAINERD, NERDCTL)} for change in changes}
    for number in range(rounds):
        for change, make in changes.items():
            for root in (tree, peer.daemon.root(NAMESPACE, container)):
                make(root, 100 + number)
            if change == "cold":
                shutil.rmtree(own.store)
                own.store = own.fresh()
                peer.forget()
            ways: dict[str, Callable[[], Run]] = {
                NEVER: partial(own.commit_anew, tree, "--reuse", "never"),
                KNOWN: partial(own.commit, own.store, tree),
                OF_CONTAINERD: partial(peer.ours, container),
                NERDCTL: partial(peer.theirs, container),
            }
            for way, commit in ways.items():
                runs[change][way].append(commit())
            never, known, ours, theirs = (found[-1].layer for found in runs[change].values())
            assert never["digest"] == known["digest"], (change, never, known)
            assert ours["diffID"] == theirs["diffID"], (change, ours, theirs)
    for change, found in runs.items():
        for way, taken in found.items():
            show(change, way, taken, found[NERDCTL])


def many_containers(own: Own, trees: Sequence[Path], peer: Peer, containers: Sequence[str]) -> None:
    """Commit containers that have the same packages."""
    first, *others = trees
    store = own.fresh()
    runs = {
        NEVER: [own.commit_anew(first, "--reuse", "never")],
        f"{KNOWN}, the first": [own.commit(store, first)],
        f"{KNOWN}, the others": [own.commit(store, tree) for tree in others],
    }
    peer.forget()
    ours = [peer.ours(container) for container in containers]
    theirs = [peer.theirs(container) for container in containers]
    for one, other in zip(ours, theirs, strict=True):
        assert one.layer["diffID"] == other.layer["diffID"], (one, other)
    runs |= {f"{OF_CONTAINERD} the first": ours[:1], f"{OF_CONTAINERD} the others": ours[1:], NERDCTL: theirs}
    for way, taken in runs.items():
        show(f"{len(trees)} containers", way, taken, theirs)


def show(change: str, way: str, runs: Sequence[Run], theirs: Sequence[Run]) -> None:
    gain = median(theirs, "seconds") / median(runs, "seconds")
    print(f"{change:18} {way:32} {gain:6.1f}x {figures(runs)}{sizes(runs[-1].layer)}", flush=True)


def sizes(layer: dict[str, Any]) -> str:
    """Return a text of what was read, copied, deflated and written of a layer; empty if the commit does not say so."""
    if "reusedSize" not in layer:
        return ""
    tar, copied, blob = (layer[name] / 1e6 for name in ("uncompressedSize", "reusedSize", "size"))
    return f"  tar {tar:.1f} MB: {copied:.1f} copied, {tar - copied:.1f} deflated; blob {blob:.1f} MB"


@contextmanager
def overlays(place: Path, count: int) -> Iterator[list[Path]]:
    """Mount overlays over the tree of the image."""
    with ExitStack() as stack:
        yield [stack.enter_context(overlay(place / f"overlays/{number}", place / "tree")) for number in range(count)]


def add_wheels(root: Path, size_mib: int, number: int) -> None:
    """Add the packages that all containers have, and a file that is of this one."""
    add_packages(root, size_mib)
    Pool(1000 + number).write(root / "opt/own", MIB)


def main(
    count: str = "60000", size_mib: str = "1300", rounds: str = "3", containers: str = "20", wheels_mib: str = "166"
) -> None:
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="again-peers-")))
        daemon = stack.enter_context(running(KIND))
        load(daemon, base(place, int(count)), NAMESPACE)
        own, peer = Own(place), Peer(daemon)
        tree, *trees = stack.enter_context(overlays(place, 1 + int(containers)))
        container, *others = (peer.nerdctl.run("base:1") for _ in range(1 + PEER_CONTAINERS))
        for root in (tree, daemon.root(NAMESPACE, container)):
            add_packages(root, int(size_mib))
            edit_file(root, 1)
        for number, root in enumerate([*trees, *(daemon.root(NAMESPACE, other) for other in others)]):
            add_wheels(root, int(wheels_mib), number)
        time.sleep(REST_SECONDS)
        again(own, tree, peer, container, int(rounds))
        many_containers(own, trees, peer, others)


if __name__ == "__main__":
    end_cleanly()
    main(*sys.argv[1:])
