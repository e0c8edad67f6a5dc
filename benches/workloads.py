"""Named pairs of trees, made the same way each time."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ocidiff.bench.trees import MIB, Pool, text


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


def system(tree: Path, count: int = 60_000) -> None:
    """Write `count` files as a Debian system with development tools has them: half below 3 KiB, 40 KiB on average."""
    pool = Pool(3)
    for number in range(count):
        directory = tree / f"usr/{number % 23:02}" / f"{number % 7:02}" / f"{number % 31:02}"
        if number < 23 * 7 * 31:
            directory.mkdir(parents=True, exist_ok=True)
        size = int(min(pool.chance.lognormvariate(7.9, 2.2), 64 * MIB))
        pool.write(directory / f"{number:05}", size)
        if number % 11 == 0:
            (directory / f"{number:05}.link").symlink_to(f"{number:05}")


def change_one_percent(root: Path) -> None:
    """Change one per cent of a tree of `system`: content, names, modes, owners, links and directories."""
    pool = Pool(4)
    files = sorted(path for path in (root / "usr").rglob("*") if path.is_file() and not path.is_symlink())
    chosen = pool.chance.sample(files, max(8, len(files) // 100))
    for number, path in enumerate(chosen):
        match number % 8:
            case 0 | 1 | 2:
                pool.write(path, path.stat().st_size + 100)
            case 3:
                path.unlink()
            case 4:
                pool.write(path.with_suffix(".new"), 3000)
            case 5:
                path.chmod(0o4750)
            case 6:
                os.chown(path, 1000, 1000)
            case _:
                os.link(path, path.with_suffix(".hard"))
    for directory in sorted({path.parent for path in chosen})[:: max(8, len(chosen) // 8)]:
        shutil.rmtree(directory)
        directory.mkdir()
        pool.write(directory / "new", 3000)


def add_packages(root: Path, size_mib: int = 1300) -> None:
    """Add packages of `size_mib` MiB in all: a tenth of it in files of 64 MiB, the rest as a system has them."""
    pool = Pool(5)
    left, number = size_mib * MIB, 0
    while left > 0:
        directory = root / f"opt/{number % 400:03}"
        directory.mkdir(parents=True, exist_ok=True)
        size = 64 * MIB if number % 5000 == 4999 else int(min(pool.chance.lognormvariate(9.3, 2.0), 64 * MIB))
        size = min(size, left)
        pool.write(directory / f"{number:05}", size)
        left, number = left - max(size, 1), number + 1


def edit_some(root: Path, seed: int) -> None:
    """Write one per cent of the packages of `add_packages` anew, at least one file, in the size that they had."""
    pool = Pool(seed)
    files = sorted(path for path in (root / "opt").rglob("*") if path.is_file())
    for path in pool.chance.sample(files, max(1, len(files) // 100)):
        pool.write(path, path.stat().st_size)


@contextmanager
def overlay(place: Path, lower: Path) -> Iterator[Path]:
    """Mount an overlay over `lower`; what is changed in it is in `place/upper`, which may be there already."""
    point, upper, work = (place / name for name in ("point", "upper", "work"))
    for directory in (point, upper, work):
        directory.mkdir(parents=True, exist_ok=True)
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, point], check=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", point], check=True)
