"""Commit beside other tools, of one change over one image. Needs root, buildah, skopeo and umoci.

`commit_peers.py prepare PLACE LOWER UPPER` makes an image of LOWER, and with every tool two containers over it: one has 300
changed files, in the other LOWER has become UPPER. `commit_peers.py measure PLACE [ROUNDS]` commits each, ours 5 times,
theirs ROUNDS (1) times, and prints the medians; what a commit has made is removed again, untimed. Ours runs as an installed
wheel does, its bytecode compiled before.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from installed import compiled_command
from ocidiff.bench import peers

OWN_ROUNDS = 5
CHANGED_FILES = 300
LARGEST_CHANGED_BYTES = 64 << 10
CHANGES = (f"{CHANGED_FILES} files", "upper tree")
OCIDIFF = compiled_command()


def run(*command: str | Path) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def seconds(*command: str | Path) -> float:
    # What was done before, such as removing what the last one made, is not waited for.
    os.sync()
    start = time.perf_counter()
    run(*command)
    return time.perf_counter() - start


@dataclass(frozen=True)
class Place:
    """Where everything is; all images are named `base:1` or `new:1`."""

    root: Path

    def ocidiff(self, *words: str | Path) -> tuple[str | Path, ...]:
        return (OCIDIFF, "--store", self.root / "store", *words)

    def buildah(self, *words: str) -> tuple[str, ...]:
        return peers.buildah(str(self.root), *words)

    def layout(self, name: str = "base") -> str:
        return f"{self.root / 'umoci'}:{name}"

    def bundle(self, number: int) -> Path:
        return self.root / f"bundle{number}"


def prepare(root: Path, lower: Path, upper: Path) -> None:
    place = Place(root)
    run(*place.ocidiff("commit", lower, "base:1", "-q"))
    run("skopeo", "copy", "-q", f"oci:{root / 'store'}:base:1", f"oci:{place.layout()}")
    changes = [root / f"change{number}.tar" for number in range(len(CHANGES))]
    for number, change in enumerate(changes):
        if number:
            run(*place.ocidiff("diff", lower, upper, "-o", change, "--compression", "none"))
        else:
            change_files(place, lower, change)
        name = f"work{number}"
        run(*place.ocidiff("create", "base:1", name, "-q"))
        run(*place.ocidiff("apply", change, run(*place.ocidiff("mount", name))))
        run(*place.ocidiff("umount", name))
        run(*place.buildah("from", "--name", name, f"oci:{place.layout()}"))
        run(*place.ocidiff("apply", change, run(*place.buildah("mount", name))))
        run(*place.buildah("umount", name))
        run("umoci", "unpack", "--image", place.layout(), place.bundle(number))
        run(*place.ocidiff("apply", change, place.bundle(number) / "rootfs"))


def change_files(place: Place, lower: Path, change: Path) -> None:
    """Writes the layer in which some files have become longer, the same ones each time."""
    tree = Path(run(*place.ocidiff("mount", run(*place.ocidiff("create", "base:1", "scratch", "-q")))))
    files = [path for path in tree.rglob("*") if path.is_file() and not path.is_symlink()]
    small = sorted(path for path in files if path.stat().st_size <= LARGEST_CHANGED_BYTES)
    for path in random.Random(1).sample(small, CHANGED_FILES):
        with path.open("ab") as file:
            file.write(b"changed\n")
    run(*place.ocidiff("diff", lower, tree, "-o", change, "--compression", "none", "--overlay", "never"))
    run(*place.ocidiff("rm", "--force", "scratch"))


def ours(place: Place, number: int, *options: str) -> float:
    taken = seconds(*place.ocidiff("commit", f"work{number}", "new:1", *options))
    assert len(json.loads(run(*place.ocidiff("inspect", "new:1")))["manifest"]["layers"]) == 2
    # Or the next one would find what it is about to make.
    run(*place.ocidiff("rmi", "new:1"))
    run(*place.ocidiff("gc", "-q"))
    return taken


def ours_mounted(place: Place, number: int) -> float:
    run(*place.ocidiff("mount", f"work{number}"))
    try:
        return ours(place, number)
    finally:
        run(*place.ocidiff("umount", f"work{number}"))


def ours_create(place: Place, _: int) -> float:
    taken = seconds(*place.ocidiff("create", "base:1", "made"))
    run(*place.ocidiff("rm", "made"))
    return taken


def ours_create_committed(place: Place, number: int, *, from_layer: bool = False) -> float:
    """The first container over what was committed, from the tree of the committed one, or from the layer."""
    run(*place.ocidiff("commit", f"work{number}", "new:1"))
    if from_layer:
        run(*place.ocidiff("mount", f"work{number}"))
        run(*place.ocidiff("umount", f"work{number}"))
    taken = seconds(*place.ocidiff("create", "new:1", "made"))
    for words in (("rm", "made"), ("rmi", "new:1"), ("gc", "-q")):
        run(*place.ocidiff(*words))
    return taken


def buildah(place: Place, number: int) -> float:
    taken = seconds(*place.buildah("commit", "-q", f"work{number}", "new"))
    described = json.loads(run(*place.buildah("inspect", "--type", "image", "new")))
    assert len(described["OCIv1"]["rootfs"]["diff_ids"]) == 2
    run(*place.buildah("rmi", "new"))
    return taken


def umoci(place: Place, number: int) -> float:
    taken = seconds(*peers.umoci_repack(place.layout("new"), str(place.bundle(number))))
    assert len(json.loads(run("umoci", "stat", "--json", "--image", place.layout("new")))["history"]) == 2
    for command in peers.umoci_forget(place.layout("new")):
        run(*command)
    return taken


Tool = Callable[[Place, int], float]
OWN: dict[str, Tool] = {
    "ocidiff commit": ours,
    "ocidiff commit, mounted": ours_mounted,
    "ocidiff commit, zstd": lambda place, number: ours(place, number, "--compression", "zstd"),
    # As buildah stores it.
    "ocidiff commit, plain": lambda place, number: ours(place, number, "--compression", "none"),
    "ocidiff create": ours_create_committed,
    "ocidiff create, from layer": lambda place, number: ours_create_committed(place, number, from_layer=True),
}
PEERS: dict[str, Tool] = {"buildah commit": buildah, "umoci repack": umoci}


def measure(root: Path, rounds: str = "1") -> None:
    place = Place(root)
    show("second create", "ocidiff create", [ours_create(place, 0) for _ in range(OWN_ROUNDS)], 1)
    for number, change in enumerate(CHANGES):
        own = 1.0
        for name, tool in (OWN | PEERS).items():
            taken = [tool(place, number) for _ in range(OWN_ROUNDS if name in OWN else int(rounds))]
            own = statistics.median(taken) if tool is ours else own
            show(change, name, taken, own)


def show(change: str, name: str, taken: list[float], own: float) -> None:
    median = statistics.median(taken)
    runs = " ".join(f"{one:.3f}" for one in taken)
    print(f"{change:14} {name:26} {median:7.3f} s  {median / own:6.1f}x  ({runs})", flush=True)


if __name__ == "__main__":
    verb, *words = sys.argv[1:]
    if verb == "prepare":
        prepare(*map(Path, words))
    else:
        measure(Path(words[0]), *words[1:])
