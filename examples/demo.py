"""The main job, end to end: a file system becomes an image, changes, becomes an image on top, and comes back the same.

Needs no root and no network. Works in a directory of its own in `demo/`, and removes it unless the environment says KEEP=1.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import random
import shlex
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

GOAL_BYTES = 200_000_000
# Small files first, so that there are many; larger ones where small ones are not enough.
FILE_SIZE_LIMITS = (1_000_000, 1 << 40)
SOURCES = (sysconfig.get_path("stdlib"), "/usr/bin", "/usr/share", "/usr/lib", "/usr/sbin", "/usr/local", sys.prefix)
SHOWN_CHANGES = 12

Fact = tuple[object, ...]


def main() -> None:
    room = Path(__file__).parents[1] / "demo"
    room.mkdir(exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix="run-", dir=room))
    started = time.monotonic()
    try:
        os.chdir(place)
        os.environ["OCIDIFF_STORE"] = "store"
        rootfs = Path("rootfs")

        say("A root file system out of what is on this machine")
        files = make_root_file_system(rootfs)
        say("It becomes an image")
        ocidiff_command("commit", "./rootfs", "demo:v1", "-v", "-m", "Everything")
        say("About one per cent of it changes, in every way")
        change(rootfs, files)
        say("The change becomes a second layer; ocidiff unpacks the first image itself to compare with it")
        ocidiff_command("commit", "./rootfs", "demo:v2", "--base", "demo:v1", "-v", "-m", "One per cent", "-a", "the demo")
        ocidiff_command("images")
        ocidiff_command("history", "demo:v2")
        say("What changed")
        show_changes("demo:v1", "demo:v2")
        say("The image gives the same tree back")
        ocidiff_command("unpack", "demo:v2", "./unpacked", "-v")
        prove_equal(rootfs, Path("unpacked"))
        print(f"\nDone in {time.monotonic() - started:.1f} s.")
    finally:
        os.chdir(room.parent)
        if os.environ.get("KEEP") == "1":
            print(f"Kept: {place}")
        else:
            shutil.rmtree(place)
            room.rmdir()


def say(text: str) -> None:
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


def ocidiff_command(*arguments: str) -> None:
    """Print a command line, and what it prints."""
    print("$ ocidiff", *map(shlex.quote, arguments), flush=True)
    status = subprocess.run([sys.executable, "-m", "ocidiff", *arguments], check=False).returncode
    if status:
        sys.exit(f"demo: the command ended with status {status}")


# ---------------------------------------------------------------- making a tree


def make_root_file_system(root: Path) -> list[Path]:
    """Copy files from all sources in turn until there is enough; the regular files that were copied."""
    copied: list[Path] = []
    first_names: dict[tuple[int, int], Path] = {}
    total = skipped = 0
    walks = (take_turns([walk(source, limit) for source in SOURCES if os.path.isdir(source)]) for limit in FILE_SIZE_LIMITS)
    for source in itertools.chain.from_iterable(walks):
        target = root / source.relative_to("/")
        if os.path.lexists(target):
            continue
        try:
            info = source.lstat()
            make_parents(root, source)
            first = first_names.setdefault((info.st_dev, info.st_ino), target)
            if first != target and os.path.lexists(first):
                target.hardlink_to(first)
            else:
                shutil.copy2(source, target, follow_symlinks=False)
        except OSError as error:
            skipped += error.errno != errno.ENOENT
            target.unlink(missing_ok=True)
            continue
        if stat.S_ISREG(info.st_mode) and first == target:
            copied.append(target)
            total += info.st_size
        if total >= GOAL_BYTES:
            break
    else:
        sys.exit(f"demo: only {total / 1e6:.0f} MB of readable files found, {GOAL_BYTES / 1e6:.0f} MB are needed")
    settle_directories(root)
    unreadable = f", {skipped} unreadable files skipped" if skipped else ""
    print(f"  {len(copied):,} files, {total / 1e6:.0f} MB{unreadable}")
    return copied


def walk(source: str, limit: int) -> Iterator[Path]:
    """Regular files up to a size, and symlinks, below a directory."""
    for directory, directories, names in os.walk(source):
        directories.sort()
        for name in sorted(names):
            path = Path(directory, name)
            if path.is_symlink() or (path.is_file() and path.stat().st_size <= limit):
                yield path


def take_turns(walks: list[Iterator[Path]]) -> Iterator[Path]:
    for turn in itertools.zip_longest(*walks):
        yield from (path for path in turn if path is not None)


def make_parents(root: Path, source: Path) -> None:
    for parent in reversed(source.parents):
        target = root / parent.relative_to("/")
        if not target.is_dir():
            target.mkdir()
            # Writable for us, or the tree could not be filled, changed and removed.
            target.chmod(stat.S_IMODE(parent.stat().st_mode) | stat.S_IRWXU)


def settle_directories(root: Path) -> None:
    """Give directories the times of those they are copies of."""
    for directory, _, _ in os.walk(root):
        original = Path("/", Path(directory).relative_to(root)).stat()
        os.utime(directory, ns=(original.st_atime_ns, original.st_mtime_ns))


# ---------------------------------------------------------------- changing it


def change(root: Path, files: list[Path]) -> None:
    """Change about one file in a hundred, and do once what is rare."""
    chosen = random.Random(1).sample(files, max(len(files) // 100, 12))
    for number, path in enumerate(chosen):
        match number % 6:
            case 0:
                with path.open("ab") as file:
                    file.write(b"changed\n")
            case 1:
                path.unlink()
            case 2:
                path.chmod(stat.S_IMODE(path.stat().st_mode) ^ stat.S_IXOTH)
            case 3:
                path.with_name(path.name + ".added").write_bytes(os.urandom(2000))
            case 4:
                path.with_name(path.name + ".linked").hardlink_to(path)
            case 5:
                path.unlink()
                path.symlink_to("/etc/hostname")
    directories = [path for path in sorted(root.rglob("*")) if path.is_dir() and not path.is_symlink()]
    leaves = [path for path in directories if not any(inner.is_dir() for inner in path.iterdir())]
    replaced, removed = leaves[len(leaves) // 3], leaves[len(leaves) // 2]
    shutil.rmtree(replaced)
    replaced.write_text("a file where a directory was\n")
    shutil.rmtree(removed)
    (root / "new/empty").mkdir(parents=True)
    os.mkfifo(root / "new/fifo")
    (root / "new/Grüße").write_text("not all names are ASCII\n")
    print(f"  {len(chosen):,} files changed; a directory became a file: /{replaced.relative_to(root)}")


# ---------------------------------------------------------------- showing it


def show_changes(lower: str, upper: str) -> None:
    """Print the first changes between two images, as the command line with `head` prints them."""
    print(f"$ ocidiff changes {lower} {upper} | head -n {SHOWN_CHANGES}", flush=True)
    command = [sys.executable, "-m", "ocidiff", "changes", lower, upper]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as changes:
        assert changes.stdout is not None
        print("".join(itertools.islice(changes.stdout, SHOWN_CHANGES)), end="", flush=True)
        changes.stdout.close()


def prove_equal(expected: Path, actual: Path) -> None:
    """Compare two trees in all that a layer holds, or end."""
    wanted, found = facts(expected), facts(actual)
    different = sorted(path for path in wanted.keys() | found.keys() if wanted.get(path) != found.get(path))
    for path in different[:20]:
        print(f"  differs: {path}: {wanted.get(path)} became {found.get(path)}")
    if different:
        sys.exit(f"demo: {len(different)} paths differ")
    print(f"  equal: {len(wanted):,} paths, compared by type, mode, ids, size, content, links and time")


def facts(root: Path) -> dict[str, Fact]:
    """What each path is; hard links by the names they share."""
    found: dict[str, Fact] = {}
    names: dict[int, list[str]] = defaultdict(list)
    inodes: dict[str, int] = {}
    for path in root.rglob("*"):
        info, name = path.lstat(), str(path.relative_to(root))
        content = ""
        if stat.S_ISREG(info.st_mode):
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
        elif stat.S_ISLNK(info.st_mode):
            content = os.readlink(path)
        size = 0 if stat.S_ISDIR(info.st_mode) else info.st_size
        found[name] = (stat.filemode(info.st_mode), info.st_uid, info.st_gid, size, content, info.st_mtime_ns // 10**9)
        if not stat.S_ISDIR(info.st_mode):
            names[info.st_ino].append(name)
            inodes[name] = info.st_ino
    return {name: (*fact, *sorted(names[inodes[name]])) if name in inodes else fact for name, fact in found.items()}


if __name__ == "__main__":
    main()
