"""Real overlays for the laws: lower layers and an upperdir, all written through mounts by random steps.

A sequence is told by its seed. As a program, `overlays.py FIRST COUNT [OPTION...]` checks some; a user namespace needs that.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ocidiff.layer.engine import Engine, select_engine
from ocidiff.layer.options import Profile
from ocidiff.layer.scope import Scope
from ocidiff.mounts.behind import layers_behind
from ocidiff.mounts.layers import OverlayLayers
from support import probes, trees, verbs

NAMES = ("a", "b", "c", "d", "e", "a-", "a.d", "\udcff", "x" * 101)
SECONDS = (1_600_000_000, 1_600_000_000, 1_700_000_000)
SCOPE = Scope.of(["a", "/b/*", "!/b/c", "c/", "**/d/e", "!e/a", "@runtime"])
CONTENTS = (b"", b"one", b"two", b"x" * 70_000, b"x" * 69_999 + b"y")


@contextmanager
def mounted(point: Path, lowers: list[Path], upper: Path | None = None, *, options: tuple[str, ...] = ()) -> Iterator[Path]:
    """An overlay, mounted at `point` for a while."""
    point.mkdir(exist_ok=True)
    told = ["lowerdir=" + ":".join(map(str, lowers)), *options]
    if upper is not None:
        work = upper.with_name(upper.name + ".work")
        work.mkdir(exist_ok=True)
        told += [f"upperdir={upper}", f"workdir={work}"]
    run("mount", "-t", "overlay", "overlay", "-o", ",".join(told), str(point))
    try:
        yield point
    finally:
        run("umount", str(point))


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


def can_mount(*options: str) -> bool:
    """Whether this process may mount overlays with these options."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        (place / "lower").mkdir()
        (place / "upper").mkdir()
        try:
            with mounted(place / "merged", [place / "lower"], place / "upper", options=options):
                return True
        except subprocess.CalledProcessError:
            return False


@contextmanager
def sequence(seed: int, options: tuple[str, ...]) -> Iterator[tuple[Path, Path, OverlayLayers]]:
    """Lower tree, mounted overlay and its layers, after a random sequence of steps in each layer."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        lowers = [place / "lower0"]
        lowers[0].mkdir()
        Steps(draw, lowers[0]).take(draw.randrange(5, 60))
        for number in range(1, draw.randrange(1, 6)):
            layer = place / f"lower{number}"
            layer.mkdir()
            with mounted(place / "merged", lowers, layer, options=options) as root:
                Steps(draw, root).take(draw.randrange(25))
            lowers.insert(0, layer)
        upper = place / "upper"
        upper.mkdir()
        with contextlib.ExitStack() as stack:
            quiet = tuple(option for option in options if option in ("userxattr", "metacopy=on"))
            below = lowers[0]
            if len(lowers) > 1:
                below = stack.enter_context(mounted(place / "below", lowers, options=quiet))
            # Where nothing notes what a copied file is from, as under userxattr, the kernel may remember two inode numbers
            # for two names of it, which neither are in the layers nor outlive the mount.
            again = draw.random() < 0.5 or "userxattr" in options
            with mounted(place / "merged", lowers, upper, options=options) as root:
                Steps(draw, root).take(draw.randrange(40))
                if not again:
                    yield below, root, _layers(below, root)
            if again:
                # What the kernel reads back from the layers, not what it remembers.
                root = stack.enter_context(mounted(place / "merged", lowers, upper, options=options))
                yield below, root, _layers(below, root)


def _layers(below: Path, root: Path) -> OverlayLayers:
    layers = layers_behind(os.fsencode(below), os.fsencode(root))
    assert layers is not None
    return layers


ATTRIBUTES: tuple[tuple[str, bytes], ...] = (
    ("user.a", b"1"),
    ("user.a", b"2"),
    ("security.capability", probes.CAPABILITY_VALUE),
    ("system.posix_acl_access", probes.ACL_VALUE),
)


class Steps:
    """Random changes of a tree, some of them impossible."""

    def __init__(self, draw: random.Random, root: Path) -> None:
        self._draw = draw
        self._root = root

    def take(self, count: int) -> None:
        """Take `count` steps."""
        steps: list[Callable[[], None]] = [
            *(self._write, self._write, self._write, self._make_directory, self._make_directory, self._remove, self._remove),
            *(self._link, self._link, self._symlink, self._special, self._rename, self._rename, self._rename),
            *(self._mode, self._owner, self._times, self._times, self._attribute, self._open, self._truncate),
            *(self._again, self._swap_type),
        ]
        for _ in range(count):
            # A step may meet a directory that is not empty, or one that cannot be moved without redirects.
            with contextlib.suppress(OSError, shutil.Error):
                self._draw.choice(steps)()

    def _paths(self) -> list[Path]:
        found = [Path(top) / name for top, below, files in os.walk(self._root) for name in (*below, *files)]
        return sorted(found, key=os.fsencode)

    def _any(self) -> Path:
        return self._draw.choice(self._paths() or [self._root / "a"])

    def _new(self) -> Path:
        directories = [self._root, *(path for path in self._paths() if path.is_dir() and not path.is_symlink())]
        return self._draw.choice(directories) / self._draw.choice(NAMES)

    def _file(self) -> Path:
        files = [path for path in self._paths() if stat.S_ISREG(path.lstat().st_mode)]
        return self._draw.choice(files or [self._root / "a"])

    def _write(self) -> None:
        path = self._new()
        if not os.path.lexists(path) or stat.S_ISREG(path.lstat().st_mode):
            path.write_bytes(self._draw.choice(CONTENTS))
            self._set_times(path)

    def _make_directory(self) -> None:
        self._new().mkdir()

    def _remove(self) -> None:
        path = self._any()
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()

    def _again(self) -> None:
        """A directory, removed and made again, maybe with some of its names."""
        path = self._any()
        if path.is_dir() and not path.is_symlink():
            names = os.listdir(path)
            shutil.rmtree(path)
            path.mkdir()
            for name in self._draw.sample(names, min(len(names), 2)):
                (path / name).write_bytes(self._draw.choice(CONTENTS))
                self._set_times(path / name)

    def _swap_type(self) -> None:
        path = self._any()
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
            path.write_bytes(b"was a directory")
        else:
            path.unlink()
            path.mkdir()

    def _link(self) -> None:
        path = self._any()
        os.link(path, self._new(), follow_symlinks=False)

    def _symlink(self) -> None:
        path = self._new()
        path.symlink_to(self._draw.choice(NAMES))
        self._set_times(path)

    def _special(self) -> None:
        kind = self._draw.choice([stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR])
        os.mknod(self._new(), kind | 0o600, os.makedev(1, 3) if kind == stat.S_IFCHR else 0)

    def _rename(self) -> None:
        old, new = self._any(), self._new()
        os.rename(old, new)
        if self._draw.random() < 0.2:
            os.rename(new, old)

    def _mode(self) -> None:
        path = self._any()
        if not path.is_symlink():
            mode = stat.S_IMODE(path.stat().st_mode)
            path.chmod(self._draw.choice([0o644, 0o755, 0o4755]))
            if self._draw.random() < 0.5:
                path.chmod(mode)

    def _owner(self) -> None:
        os.chown(self._any(), self._draw.choice([0, 1000]), 0, follow_symlinks=False)

    def _times(self) -> None:
        self._set_times(self._any())

    def _set_times(self, path: Path) -> None:
        time = self._draw.choice(SECONDS) * 10**9 + self._draw.choice([0, 0, 0, 5])
        os.utime(path, ns=(time, time), follow_symlinks=False)

    def _attribute(self) -> None:
        path = self._any()
        key, value = self._draw.choice((*ATTRIBUTES, ("user.overlay.origin", b"mine"), ("user.overlay.opaque", b"y")))
        os.setxattr(path, key, value, follow_symlinks=False)

    def _open(self) -> None:
        """Copied up, and nothing changed."""
        with open(self._file(), "r+b"):
            pass

    def _truncate(self) -> None:
        path = self._file()
        facts = path.stat()
        os.truncate(path, self._draw.choice([0, 3, facts.st_size]))
        os.utime(path, ns=(facts.st_mtime_ns, facts.st_mtime_ns))


def check(seed: int, options: tuple[str, ...], engines: list[Engine]) -> None:
    """Fail unless the layers give the bytes that the walk of both mounts gives, by each of the engines."""
    with sequence(seed, options) as (below, root, layers):
        for engine, profile in itertools.product(engines, Profile):
            where = f"seed {seed}, options {options}, {type(engine).__name__}, {profile}"
            walked, tar = verbs.diff(engine, below, root, profile=profile)
            read, same_tar = verbs.diff(engine, None, layers, profile=profile)
            told = verbs.explained(engine, below, root, profile=profile)
            assert told == verbs.explained(engine, None, layers, profile=profile), where
            assert sum(change.layer_bytes for change in told) == trees.file_bytes(tar), where
            assert (walked, tar) == (read, same_tar), where
        for engine in engines:
            assert verbs.diff(engine, below, root, scope=SCOPE) == verbs.diff(engine, None, layers, scope=SCOPE), seed


OPTIONS = ((), ("redirect_dir=on",), ("metacopy=on", "redirect_dir=on"), ("userxattr",), ("xino=on",))


def main(first: int, count: int, *options: str) -> None:
    """Check sequences with these options, or with all of `OPTIONS` in turn; the pure engine takes every fifth."""
    rust, pure = select_engine("rust"), select_engine("pure")
    for seed in range(first, first + count):
        check(seed, options or OPTIONS[seed % len(OPTIONS)], [rust] if seed % 5 else [rust, pure])
    print(f"{count} sequences from {first} on, options {options or 'of all kinds'}: the layers give the bytes of the walk")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
