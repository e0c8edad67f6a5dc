"""Named pairs of trees, made the same way each time."""

from __future__ import annotations

import os
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20


@dataclass(frozen=True)
class Workload:
    """A tree, and what became of it."""

    name: str
    lower: Path
    upper: Path


def many_small(place: Path) -> Workload:
    """Five thousand small files in fifty directories; one per cent is rewritten."""
    chance = random.Random(1)
    lower, upper = place / "lower", place / "upper"
    for number in range(5000):
        path = lower / f"{number % 50:02}" / f"{number:04}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text(chance, 2000))
    shutil.copytree(lower, upper)
    for path in sorted(upper.glob("*/*"))[::100]:
        path.write_bytes(text(chance, 2100))
    return Workload("many-small", lower, upper)


def few_large(place: Path) -> Workload:
    """Two large files are added: one that compresses, one that does not."""
    chance = random.Random(2)
    lower, upper = place / "lower", place / "upper"
    lower.mkdir()
    upper.mkdir()
    (upper / "text").write_bytes(text(chance, MIB) * 16)
    (upper / "noise").write_bytes(chance.randbytes(16 * MIB))
    return Workload("few-large", lower, upper)


def deletions(place: Path) -> Workload:
    """Every second of two thousand files is removed, and a deep directory."""
    lower, upper = place / "lower", place / "upper"
    deep = lower / Path(*("deep" for _ in range(40)))
    deep.mkdir(parents=True)
    for number in range(2000):
        (lower / f"{number:04}").touch()
        (deep / f"{number:04}").touch()
    shutil.copytree(lower, upper, symlinks=True)
    for number in range(0, 2000, 2):
        (upper / f"{number:04}").unlink()
    shutil.rmtree(upper / "deep")
    return Workload("deletions", lower, upper)


def text(chance: random.Random, size: int) -> bytes:
    """Bytes that compress about as well as program text."""
    words = [f"{chance.getrandbits(24):06x} ".encode() for _ in range(64)]
    return b"".join(chance.choices(words, k=size // 7))


def shape(tree: Path) -> set[tuple[str, int, int, int]]:
    """Path, mode, size and whole seconds of the modification time of everything in a tree."""
    found = set()
    for directory, directories, files in os.walk(tree):
        for name in directories + files:
            path = os.path.join(directory, name)
            info = os.lstat(path)
            size = 0 if name in directories else info.st_size
            found.add((os.path.relpath(path, tree), info.st_mode, size, info.st_mtime_ns // 1_000_000_000))
    return found


WORKLOADS = {"many-small": many_small, "few-large": few_large, "deletions": deletions}
