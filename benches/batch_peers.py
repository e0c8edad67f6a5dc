"""Many uppers over one base: `ocidiff batch` beside single commands and beside buildah. Needs root, buildah and skopeo.

`batch_peers.py PLACE [COUNT]` makes a base of 2,000 files and COUNT (100) uppers of 20 changed files each in PLACE.
It commits all by `batch`, then again (all are present), then by single commands from mounted overlays, at most 100, and a
sample by `buildah commit`, and prints milliseconds an image, how many times as fast `batch` is, and the peak of its memory.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from installed import compiled_command

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


def seconds(*words: str | Path) -> float:
    os.sync()
    start = time.perf_counter()
    run(*words)
    return time.perf_counter() - start


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
                write(place / f"uppers/{number}", draw.randrange(BASE_DIRECTORIES), draw.randrange(FILES_IN_EACH))
            lines.write(json.dumps({"upper": str(place / f"uppers/{number}"), "name": f"app:{number}"}) + "\n")
    run(OCIDIFF, "--store", place / "store", "commit", place / "lower", "base:1", "-q")
    # A tree that has just changed would be committed again.
    time.sleep(SETTLED_SECONDS)


def batch(place: Path, status: str, count: int) -> tuple[float, int]:
    """Seconds of one run, and its peak of memory in bytes; all lines must have the status."""
    os.sync()
    words: list[str | Path] = [OCIDIFF, "--store", place / "store", "batch", place / "lines", "--base", "base:1", "-q"]
    start = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        statuses = [json.loads(line)["status"] for line in process.stdout]
    _, ended, usage = os.wait4(process.pid, 0)
    taken = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(ended)
    assert process.returncode == 0
    assert statuses == [status] * count
    return taken, usage.ru_maxrss << 10


@contextmanager
def mounted(place: Path, number: int) -> Iterator[Path]:
    point, work = place / f"mounts/{number}", place / f"work/{number}"
    point.mkdir(parents=True)
    work.mkdir(parents=True)
    options = f"lowerdir={place}/lower,upperdir={place}/uppers/{number},workdir={work}"
    run("mount", "-t", "overlay", "overlay", "-o", options, point)
    try:
        yield point
    finally:
        run("umount", point)


def single(place: Path, count: int) -> float:
    """Seconds an image of single commands, which read the upper directory of a mounted overlay."""
    total = 0.0
    for number in range(count):
        with mounted(place, number) as point:
            words = ("commit", f"{point}/", f"single:{number}", "--base", "base:1", "--lower", place / "lower", "-q")
            total += seconds(OCIDIFF, "--store", place / "store", *words)
    return total / count


def buildah(place: Path, count: int) -> float:
    """Seconds an image of `buildah commit`."""
    storage = ("--root", place / "buildah", "--runroot", place / "run", "--storage-driver", "overlay")
    run("skopeo", "copy", "-q", f"oci:{place / 'store'}:base:1", f"oci:{place / 'layout'}:base")
    total = 0.0
    for number in range(count):
        name = f"work{number}"
        run("buildah", *storage, "from", "--name", name, f"oci:{place / 'layout'}:base")
        tree = run("buildah", *storage, "mount", name).strip()
        shutil.copytree(place / f"uppers/{number}", tree, dirs_exist_ok=True)
        run("buildah", *storage, "umount", name)
        total += seconds("buildah", *storage, "commit", "-q", name, f"app{number}")
    run("buildah", *storage, "rm", "--all")
    return total / count


def main(place: Path, count: int) -> None:
    place.mkdir(parents=True)
    prepare(place, count)
    taken, memory = batch(place, "made", count)
    again, _ = batch(place, "present", count)
    one = single(place, min(count, MOST_SINGLE))
    sample = buildah(place, min(count, BUILDAH_SAMPLE))
    each = taken / count
    print(f"{count} uppers of {CHANGED_FILES} files over {BASE_DIRECTORIES * FILES_IN_EACH} files, {os.cpu_count()} cores")
    print(f"ocidiff batch   {1000 * each:8.1f} ms an image, {taken:.2f} s, peak {memory / 1e6:.0f} MB")
    print(f"the same again  {1000 * again / count:8.1f} ms an image: all are present")
    for name, other, sampled in (("single commands", one, MOST_SINGLE), ("buildah commit", sample, BUILDAH_SAMPLE)):
        print(f"{name:15} {1000 * other:8.1f} ms an image, {other / each:.1f} times as long, {min(count, sampled)} of them")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), int(sys.argv[2]) if len(sys.argv) > 2 else 100)
