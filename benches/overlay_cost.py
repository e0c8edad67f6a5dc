"""What a diff of an overlay costs over a lower of some size: `overlay_cost.py PLACE FILES OCIDIFF [REFDIFF]`, as root.

It makes the lower and an overlay over it with 300 changes, and prints wall times in seconds (median, least, most of five) of
the fast path, of the walk, and of containerd's differ (`tests/interop/refdiff`) on this mount. All come to one diff ID.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from workloads import overlay

RUNS = 5
SECONDS = 1_600_000_000


def make_lower(root: Path, files: int) -> None:
    """`files` small files, a hundred to a directory, with times in whole seconds."""
    for directory in range(files // 100):
        path = root / f"d{directory // 100:02d}" / f"s{directory % 100:02d}"
        path.mkdir(parents=True)
        for number in range(100):
            file = path / f"f{number}"
            file.write_bytes(b"%d %d\n" % (directory, number) * (number * 37 % 200 + 1))
            os.utime(file, (SECONDS, SECONDS))


def change(root: Path) -> None:
    """A hundred files each are changed, removed and added, all over the tree."""
    names = sorted(path for path in root.rglob("*") if path.is_file())
    step = len(names) // 200
    for number in range(100):
        names[2 * number * step].write_text(f"changed {number}\n")
        names[(2 * number + 1) * step].unlink()
        names[2 * number * step].with_name(f"new{number}").write_text(f"new {number}\n")


def measure(what: str, words: list[str]) -> str:
    """Run a command some times and print what it took; the diff ID that it tells in JSON."""
    times = list[float]()
    for _ in range(RUNS):
        started = time.perf_counter()
        told = subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout
        times.append(time.perf_counter() - started)
    print(f"{what}: {statistics.median(times):.2f} ({min(times):.2f} to {max(times):.2f}) s", flush=True)
    return str(json.loads(told)["diffID"])


def main(place: Path, files: int, ocidiff: str, refdiff: str | None = None) -> None:
    """Make the trees in `place`, which must be empty, and measure."""
    lower = place / "lower"
    lower.mkdir(parents=True)
    make_lower(lower, files)
    with overlay(place, lower) as merged:
        change(merged)
        diff = [ocidiff, "diff", str(lower), str(merged), "-o", "/dev/null", "--compression", "none", "--json", "--overlay"]
        found = {measure("fast path", [*diff, "require"]), measure("walk", [*diff, "never"])}
        if refdiff:
            found.add(measure("containerd", [refdiff, "sha", str(lower), str(merged)]))
        assert len(found) == 1, found


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
