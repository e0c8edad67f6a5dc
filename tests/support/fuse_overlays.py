"""Layers that the real fuse-overlayfs writes by random steps, for the law that they are read as it shows them.

A seed names a sequence. As a program, `fuse_overlays.py FIRST COUNT` checks some; `unshare --user` makes those of a user.
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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ocidiff.errors import OverlayError
from ocidiff.layer.engine import Engine, select_engine
from ocidiff.layer.options import Profile
from ocidiff.mounts.layers import OverlayLayers
from support import overlays, verbs


@contextmanager
def mounted(point: Path, lowers: list[Path], upper: Path | None = None, *, options: str = "") -> Iterator[Path]:
    """Layers, mounted at `point` by fuse-overlayfs for a while."""
    point.mkdir(exist_ok=True)
    told = "lowerdir=" + ":".join(map(str, lowers)) + options
    if upper is not None:
        work = upper.with_name(upper.name + ".work")
        work.mkdir(exist_ok=True)
        told += f",upperdir={upper},workdir={work}"
    run("fuse-overlayfs", "-o", told, str(point))
    try:
        yield point
    finally:
        run("umount", str(point))


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


def can_mount(options: str = "") -> bool:
    """True if this process may mount with fuse-overlayfs and these options."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        (place / "lower").mkdir()
        (place / "upper").mkdir()
        try:
            with mounted(place / "merged", [place / "lower"], place / "upper", options=options) as root:
                (root / "a").touch()
            return (place / "upper/a").exists()
        except (FileNotFoundError, OSError, subprocess.CalledProcessError):
            return False


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Tell a mount that cannot show what it lists from a copy that cannot be written."""
    try:
        yield
    except OSError as error:
        raise MountIsWrongError(path) from error


def refuse(error: OSError) -> None:
    """Raise what `os.walk` would skip."""
    raise MountIsWrongError(error.filename) from error


class MountIsWrongError(Exception):
    """The mount cannot read a file's metadata; or it gives one inode number to two, copied from one, and mixes them up."""


@contextmanager
def sequence(seed: int, options: str = "") -> Iterator[tuple[Path, Path, OverlayLayers]]:
    """Copies of the lower and of the merged tree, and the layers, after a random sequence of steps in each layer."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        lowers = [place / "lower0"]
        lowers[0].mkdir()
        # What a mount shows of a lower file with several names, of which one was changed, is not what later mounts show.
        # No copy can have a mode that its ACL contradicts, as a mode in an attribute may.
        acls = "xattr_permissions" not in options
        Steps(draw, lowers[0], links=False, acls=acls).take(draw.randrange(5, 60))
        for number in range(1, draw.randrange(1, 4)):
            layer = place / f"lower{number}"
            layer.mkdir()
            with mounted(place / "merged", lowers, layer, options=options) as root:
                Steps(draw, root, links=False, acls=acls).take(draw.randrange(25))
            lowers.insert(0, layer)
        upper = place / "upper"
        upper.mkdir()
        with mounted(place / "merged", lowers, upper, options=options) as root:
            Steps(draw, root, acls=acls).take(draw.randrange(40))
        # What fuse-overlayfs reads back from the layers, not what it remembers.
        with mounted(place / "merged", lowers, upper, options=options) as root:
            copy(root, place / "after", upper)
        with mounted(place / "merged", lowers, options=options) as root:
            copy(root, place / "before", place / "nothing")
        below = tuple(map(os.fsencode, lowers))
        yield place / "before", place / "after", OverlayLayers(os.fsencode(upper), below)


class Steps(overlays.Steps):
    """Random changes of a tree, without new names of files if there shall be no `links`."""

    def __init__(self, draw: random.Random, root: Path, *, links: bool = True, acls: bool = True) -> None:
        super().__init__(draw, root)
        self._links = links
        self._acls = acls

    def _link(self) -> None:
        if self._links:
            super()._link()

    def _attribute(self) -> None:
        """Set none that overlayfs would have set: who wrote the upper directory would be unknown."""
        known = [(key, value) for key, value in overlays.ATTRIBUTES if self._acls or not key.startswith("system.")]
        key, value = self._draw.choice(known)
        os.setxattr(self._any(), key, value, follow_symlinks=False)


def copy(source: Path, target: Path, upper: Path) -> None:
    """Copy a tree. Which names are one file is read from the upper directory, because a mount does not know all of them."""
    target.mkdir()
    copies, shown = dict[int, Path](), dict[int, int]()
    directories = [(source, target)]
    for above, _, _ in os.walk(source, onerror=refuse):
        here = Path(above)
        for path in map(here.joinpath, sorted(os.listdir(here))):
            with reading(path):
                info, new = path.lstat(), target / path.relative_to(source)
            kind = stat.S_IFMT(info.st_mode)
            if kind == stat.S_IFDIR:
                new.mkdir()
                directories.append((path, new))
                continue
            own = number_in(upper / path.relative_to(source), info)
            if shown.setdefault(info.st_ino, own) != own:
                raise MountIsWrongError(path)
            if own in copies:
                os.link(copies[own], new, follow_symlinks=False)
                continue
            copies[own] = new
            if kind == stat.S_IFLNK:
                with reading(path):
                    points_to = path.readlink()
                new.symlink_to(points_to)
            elif kind == stat.S_IFREG:
                shutil.copyfile(path, new)
            else:
                os.mknod(new, kind | 0o600, info.st_rdev)
            describe(path, new, info)
    for path, new in reversed(directories):
        describe(path, new, path.lstat())


def number_in(path: Path, shown: os.stat_result) -> int:
    """The inode number of a file in the upper directory; if it is not there, one that no file has."""
    try:
        return path.lstat().st_ino
    except OSError:
        return -shown.st_ino


def describe(source: Path, target: Path, info: os.stat_result) -> None:
    """Give a copy the metadata of what it is a copy of."""
    os.chown(target, info.st_uid, info.st_gid, follow_symlinks=False)
    with contextlib.suppress(NotImplementedError):
        if not stat.S_ISLNK(info.st_mode):
            target.chmod(stat.S_IMODE(info.st_mode))
    with reading(source):
        keys = os.listxattr(source, follow_symlinks=False)
        found = {key: os.getxattr(source, key, follow_symlinks=False) for key in keys}
    for key, value in found.items():
        os.setxattr(target, key, value, follow_symlinks=False)
    os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns), follow_symlinks=False)


def check(seed: int, engines: list[Engine], options: str = "") -> bool:
    """Fail unless the layers give the bytes of copies of the mounted trees; false if mount or marks tell too little."""
    try:
        with sequence(seed, options) as (before, after, layers):
            for engine, profile in itertools.product(engines, Profile):
                where = f"seed {seed}, options {options!r}, {type(engine).__name__}, {profile}"
                copied = verbs.diff(engine, before, after, profile=profile)
                assert verbs.diff(engine, None, layers, profile=profile) == copied, where
    except MountIsWrongError:
        return False
    except OverlayError as error:
        # In a user namespace nothing may tell that there are no marks of overlayfs.
        if "trusted.* cannot be read here" not in str(error):
            raise
        return False
    return True


OPTIONS = ("", ",xattr_permissions=1", ",xattr_permissions=2")


def main(first: int, count: int, *options: str) -> None:
    """Check sequences with these options, or with all of `OPTIONS` in turn; the pure engine takes every fifth."""
    rust, pure = select_engine("rust"), select_engine("pure")
    known = options or tuple(filter(can_mount, OPTIONS))
    compared = 0
    for seed in range(first, first + count):
        compared += check(seed, [rust] if seed % 5 else [rust, pure], known[seed % len(known)])
    print(f"{compared} of {count} sequences of fuse-overlayfs from {first} on: the layers give the bytes of the merged tree")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
