"""Apply takes memory and work in proportion to the tar, whatever its entries: twice the entries take twice as much."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support import probes
from support.archives import Member, directory, file, symlink, tar, whiteout

ENGINES = ["rust", "pure"]
DESTINATIONS = ["directory", pytest.param("overlay", marks=pytest.mark.root)]
OPAQUE = file(b"d/.wh..wh..opq")

# In a process of its own, which tells its peak.
MEASURED = """
import pathlib, sys, ocidiff
layer, target, engine, destination = sys.argv[1:]
ocidiff.apply(layer, target, engine=engine, destination=destination)
print(next(line.split()[1] for line in pathlib.Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line))
"""


def deep(name: bytes, count: int, width: int) -> list[Member]:
    """A directory `count` levels down, and a link `s` to it."""
    path = b"/".join([name * width] * count)
    return [directory(path), symlink(b"s", path)]


def opaque_marks(count: int) -> list[Member]:
    return [directory(b"d"), *[entry for number in range(count) for entry in (file(b"d/%d" % number), OPAQUE)]]


def whiteouts_of_a_written_directory(count: int) -> list[Member]:
    files = [file(b"d/%d" % number) for number in range(count)]
    return [directory(b"d"), *[entry for one in files for entry in (one, whiteout(b"d"))]]


def marks_that_are_taken_back(count: int) -> list[Member]:
    files = [file(b"d/%d/f" % number) for number in range(count)]
    marks = [entry for number in range(count) for entry in (whiteout(b"d/%d/x" % number), OPAQUE)]
    return [directory(b"d"), *files, *marks]


def whiteouts_far_down(count: int) -> list[Member]:
    # Short names, or the tar would grow with the square of the depth.
    return [*deep(b"d", 300, 1), *[whiteout(b"s/%d" % number) for number in range(count)]]


def directories_far_down(count: int) -> list[Member]:
    return [*deep(b"d", 300, 1), *[directory(b"s/%d" % number, mode=0o500) for number in range(count)]]


def links_in_turn(count: int) -> list[Member]:
    return [
        *deep(b"d", 300, 1),
        symlink(b"t", b"s"),
        *[file(b"%b/%d" % ((b"s", b"t")[number % 2], number)) for number in range(count)],
    ]


WORK: list[Callable[[int], list[Member]]] = [
    opaque_marks,
    whiteouts_of_a_written_directory,
    marks_that_are_taken_back,
    whiteouts_far_down,
    directories_far_down,
    links_in_turn,
]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("destination", DESTINATIONS)
@pytest.mark.parametrize("members", WORK, ids=lambda make: make.__name__)
def test_system_calls_grow_with_the_entries(
    tmp_path: Path, engine: str, destination: str, members: Callable[[int], list[Member]]
) -> None:
    if shutil.which("strace") is None:
        probes.missing("needs strace")
    calls = [system_calls(tar(*members(count)), tmp_path / str(count), engine, destination) for count in (0, 100, 200)]
    assert calls[2] - calls[0] < 2.2 * (calls[1] - calls[0]), calls


def system_calls(layer: bytes, place: Path, engine: str, destination: str) -> int:
    """How many calls on names and descriptors an apply makes."""
    place.mkdir()
    (place / "layer").write_bytes(layer)
    (place / "target").mkdir()
    counted: list[str | Path] = ["strace", "-f", "-c", "-e", "trace=%file,%desc,getdents64", "-o", place / "calls"]
    counted += [sys.executable, "-c", MEASURED, place / "layer", place / "target", engine, destination]
    subprocess.run(counted, check=True, stdout=subprocess.DEVNULL)
    total = (place / "calls").read_text().splitlines()[-1].split()
    return int(total[3])


def far_down_with_long_names(count: int) -> list[Member]:
    # Some ten links, as long as links can be: the real path is of 38 KB.
    steps = [b"/".join([b"d" * 250] * 15)] * 10
    way = [entry for number, step in enumerate(steps) for entry in (symlink(b"s/" * number + b"s", step),)]
    return [directory(b"/".join(steps)), *way, *[directory(b"s/" * 10 + b"%d" % number) for number in range(count)]]


def whiteouts_with_long_names(count: int) -> list[Member]:
    return [
        *far_down_with_long_names(0),
        *[
            entry
            for number in range(count)
            for entry in (file(b"s/" * 10 + b"%d" % number), whiteout(b"s/" * 10 + b"x%d" % number))
        ],
    ]


def long_headers(count: int) -> list[Member]:
    # What is queued for other threads, with names that are long only as they stand.
    return [directory(b"d"), *[file(b"d/" + b"./" * 200_000 + b"%d" % number) for number in range(count // 40)]]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("destination", DESTINATIONS)
@pytest.mark.parametrize(
    "members", [far_down_with_long_names, whiteouts_with_long_names, long_headers], ids=lambda make: make.__name__
)
def test_memory_is_that_of_the_tar(
    tmp_path: Path, engine: str, destination: str, members: Callable[[int], list[Member]]
) -> None:
    peaks = [peak_kib(tar(*members(count)), tmp_path / str(count), engine, destination) for count in (2000, 4000)]
    # A path of 38 KB for each of 2000 entries would be 76 MB more; 50 headers of 400 KB would be 20 MB more.
    assert peaks[1] - peaks[0] < 12 << 10, peaks
    assert peaks[1] < 120 << 10, peaks


def peak_kib(layer: bytes, place: Path, engine: str, destination: str) -> int:
    place.mkdir()
    (place / "layer").write_bytes(gzip.compress(layer, 1))
    (place / "target").mkdir()
    words: list[str | Path] = [sys.executable, "-c", MEASURED, place / "layer", place / "target", engine, destination]
    peak = int(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    # Deeper than what pytest can remove.
    subprocess.run(["rm", "-rf", place], check=True)
    return peak
