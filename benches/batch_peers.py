"""Many uppers over one base: `ocidiff batch` beside single commands and beside buildah. Needs root, buildah and skopeo.

`batch_peers.py PLACE [COUNT]` makes a base of 2,000 files and COUNT (100) uppers of 20 changed files each in PLACE.
It commits all by `batch`, then again (all are present), then by single commands from mounted overlays, at most 100, and a
sample by `buildah commit`, and prints milliseconds an image, on the clock and of processors, and the peak of memory.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from installed import compiled_command
from workloads import overlay

OCIDIFF = compiled_command()
WORDS = 4000
BASE_DIRECTORIES, FILES_IN_EACH = 40, 50
CHANGED_FILES = 20
WORDS_IN_FILE = 300
MOST_SINGLE = 100
BUILDAH_SAMPLE = 5
SETTLED_SECONDS = 2.1


def run(*words: str | Path) -> str:
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout


@dataclass(frozen=True)
class Cost:
    """Seconds on the clock, and of processors, which depend less on what else the machine does."""

    wall: float = 0.0
    processor: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.wall + other.wall, self.processor + other.processor)

    def __truediv__(self, count: int) -> Cost:
        return Cost(self.wall / count, self.processor / count)


@contextmanager
def cost_of(into: list[Cost]) -> Iterator[None]:
    """Append what the processes that end within the block cost."""
    os.sync()
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    yield
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    into.append(Cost(time.perf_counter() - start, processor))


def prepare(place: Path, count: int) -> None:
    draw = random.Random(1)
    words = [f"{draw.getrandbits(40):x}" for _ in range(WORDS)]

    def write(tree: Path, directory: int, file: int) -> None:
        path = tree / f"lib/d{directory}/f{file}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(" ".join(draw.choices(words, k=WORDS_IN_FILE)))

    for directory in range(BASE_DIRECTORIES):
        for file in range(FILES_IN_EACH):
            write(place / "lower", directory, file)
    with (place / "lines").open("w") as lines:
        for number in range(count):
            for _ in range(CHANGED_FILES):
                write(place / f"uppers/{number}/upper", draw.randrange(BASE_DIRECTORIES), draw.randrange(FILES_IN_EACH))
            lines.write(json.dumps({"upper": str(place / f"uppers/{number}/upper"), "name": f"app:{number}"}) + "\n")
    run(OCIDIFF, "--store", place / "store", "commit", place / "lower", "base:1", "-q")
    # A tree that has just changed would be committed again.
    time.sleep(SETTLED_SECONDS)


def batch(place: Path, status: str, count: int) -> tuple[Cost, int]:
    """Cost of one run, and its peak of memory in bytes; all lines must have the status."""
    words: list[str | Path] = [OCIDIFF, "--store", place / "store", "batch", place / "lines", "--base", "base:1", "-q"]
    taken: list[Cost] = []
    with cost_of(taken):
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        with process.stdout:
            statuses = [json.loads(line)["status"] for line in process.stdout]
        _, ended, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(ended)
    assert process.returncode == 0
    assert statuses == [status] * count
    return taken[0], usage.ru_maxrss << 10


def single(place: Path, count: int) -> Cost:
    """Cost of an image by single commands, which read the upper directory of a mounted overlay."""
    taken: list[Cost] = []
    for number in range(count):
        with overlay(place / f"uppers/{number}", place / "lower") as point:
            words = ("commit", f"{point}/", f"single:{number}", "--base", "base:1", "--lower", place / "lower", "-q")
            with cost_of(taken):
                run(OCIDIFF, "--store", place / "store", *words)
    return sum(taken, Cost()) / count


def buildah(place: Path, count: int) -> Cost:
    """Cost of an image by `buildah commit`."""
    storage = ("--root", place / "buildah", "--runroot", place / "run", "--storage-driver", "overlay")
    run("skopeo", "copy", "-q", f"oci:{place / 'store'}:base:1", f"oci:{place / 'layout'}:base")
    taken: list[Cost] = []
    for number in range(count):
        name = f"work{number}"
        run("buildah", *storage, "from", "--name", name, f"oci:{place / 'layout'}:base")
        tree = run("buildah", *storage, "mount", name).strip()
        shutil.copytree(place / f"uppers/{number}/upper", tree, dirs_exist_ok=True)
        run("buildah", *storage, "umount", name)
        with cost_of(taken):
            run("buildah", *storage, "commit", "-q", name, f"app{number}")
    run("buildah", *storage, "rm", "--all")
    return sum(taken, Cost()) / count


def main(place: Path, count: int) -> None:
    place.mkdir(parents=True)
    prepare(place, count)
    taken, memory = batch(place, "made", count)
    again, _ = batch(place, "present", count)
    one = single(place, min(count, MOST_SINGLE))
    sample = buildah(place, min(count, BUILDAH_SAMPLE))
    each = taken / count
    print(f"{count} uppers of {CHANGED_FILES} files over {BASE_DIRECTORIES * FILES_IN_EACH} files, {os.cpu_count()} cores")
    print(f"{'milliseconds an image':22} {'wall':>8} {'':>7} {'processor':>10}")
    rows = (("ocidiff batch", each), ("the same again", again / count), ("single commands", one), ("buildah commit", sample))
    for name, cost in rows:
        times = f"{cost.wall / each.wall:6.1f}x {1000 * cost.processor:10.1f} {cost.processor / each.processor:6.1f}x"
        print(f"{name:22} {1000 * cost.wall:8.1f} {times}")
    print(f"peak memory of the batch: {memory / 1e6:.0f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), int(sys.argv[2]) if len(sys.argv) > 2 else 100)
