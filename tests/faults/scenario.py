"""What the fault tests have in common: a store with something of everything, the calls that change it, and what must hold
after each, however it ended."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ocidiff.embedded.drivers.select import DriverName
from ocidiff.embedded.leases import Leases
from ocidiff.errors import NotFoundError
from ocidiff.mounts import mountinfo
from ocidiff.store import Store
from support import probes

# System calls that change something, or that the next ones depend on.
CHANGING: Final = (
    "openat,write,pwrite64,writev,copy_file_range,fsync,fdatasync,syncfs,ftruncate,rename,renameat,renameat2,link,linkat,"
    "unlink,unlinkat,mkdir,mkdirat,rmdir,mknodat,symlinkat,fchmod,fchmodat,fchownat,utimensat,flock,fsopen,fsconfig,fsmount,"
    "move_mount,umount2"
)
_OCIDIFF: Final = (sys.executable, "-m", "ocidiff")


@dataclass(frozen=True)
class Call:
    """One call of the command line.

    Attributes:
        words: What is called.
        again: The exit status that a second try may have, when the first one was done before it died.
        threads: True if its threads change the store too, so that their system calls count.
    """

    words: tuple[str, ...]
    again: int = 0
    threads: bool = False


CALLS: Final[Mapping[str, Call]] = {
    "commit": Call(("commit", "./tree", "new:1", "--base", "base:1", "-q")),
    "batch": Call(("batch", "lines", "--base", "base:1", "-q"), threads=True),
    "commit-container": Call(("commit", "work", "new:2", "-q")),
    "create": Call(("create", "other:1", "made"), again=1),
    "create-again": Call(("create", "base:1", "made"), again=1),
    "create-committed": Call(("create", "committed:1", "made"), again=1),
    "unpack": Call(("unpack", "base:1", "out", "-q")),
    "gc": Call(("gc", "-q")),
    "tag": Call(("tag", "base:1", "tagged")),
    "rmi": Call(("rmi", "other:1"), again=1),
    "rm": Call(("rm", "work"), again=1),
    "mount": Call(("mount", "work")),
}


def driver() -> DriverName:
    return "overlay" if probes.can_mount_overlay() else "directory"


def make_template(place: Path) -> None:
    """A directory with a store in it: two images of two layers, one of them unpacked, a committed container, and rubbish."""
    tree = place / "tree"
    (tree / "etc").mkdir(parents=True)
    for number in range(20):
        (tree / "etc" / f"file{number}").write_text(str(number) * 2000)
    with Store.open(place / "store") as store:
        store.commit(tree, "zero:1")
        (tree / "etc" / "second").write_text("2")
        store.commit(tree, "base:1", base="zero:1")
        (tree / "etc" / "third").write_text("3")
        store.commit(tree, "other:1", base="zero:1")
        (tree / "etc" / "rubbish").write_text("4" * 50_000)
        store.commit(tree, "rubbish:1", base="zero:1")
        store.create("rubbish:1", "rubbish", driver=driver())
        store.create("base:1", "work", driver=driver())
        root = Path(store.containers.mount("work"))
        (root / "etc" / "new").write_text("n" * 10_000)
        (root / "etc" / "file0").unlink()
        store.containers.umount("work")
        store.commit(store.containers.get("work"), "committed:1")
        store.containers.remove("rubbish")
        store.untag("rubbish:1")
    with (place / "lines").open("w") as lines:
        for number in range(8):
            upper = place / "uppers" / str(number) / "etc"
            upper.mkdir(parents=True)
            (upper / "upper").write_text(str(number) * 20_000)
            lines.write(json.dumps({"upper": f"uppers/{number}", "name": f"batch:{number}"}) + "\n")
    (tree / "etc" / "file1").unlink()
    (tree / "etc" / "changed").write_text("c" * 30_000)


class Scenario:
    """One copy of the template, in which one call is disturbed."""

    def __init__(self, template: Path, place: Path) -> None:
        self.place = place
        if place.exists():
            shutil.rmtree(place)
        # Attributes of overlayfs included.
        subprocess.run(["cp", "-a", template, place], check=True)

    @property
    def store(self) -> Path:
        return self.place / "store"

    def run(self, call: Call, *, strace: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Run the call, under strace with these options if there are any."""
        with self.start(call, strace=strace) as process:
            out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def start(self, call: Call, *, strace: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        """Begin the call."""
        around = ("strace", "-f", "-qq", "--seccomp-bpf", "-o", str(self.place / "strace.log"), *strace) if strace else ()
        environment = {**os.environ, "OCIDIFF_STORE": str(self.store), "PYTHONPATH": os.pathsep.join(sys.path)}
        environment |= {"PYTHONDONTWRITEBYTECODE": "1", "SOURCE_DATE_EPOCH": "1700000000"}
        return subprocess.Popen(
            (*around, *_OCIDIFF, *call.words),
            cwd=self.place,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def steps(self, call: Call) -> list[tuple[str, int]]:
        """The changing system calls from when the store is first touched: name, and how many of its name came before it in
        its thread and are it."""
        done = self.run(call, strace=("-e", f"trace={CHANGING}"))
        assert done.returncode == 0, done.stderr
        self._umount_all()
        lines = (self.place / "strace.log").read_text().splitlines()
        main = lines[0].split()[0]
        counts: dict[tuple[str, str], int] = {}
        found: dict[tuple[str, int], None] = {}
        touched = False
        for line in lines:
            match = re.match(r"(\d+) +(\w+)\((.*)", line)
            # strace cannot disturb a system call that it does not know.
            if match is None or match[2].startswith("syscall_") or not (call.threads or match[1] == main):
                continue
            thread, name, arguments = match.groups()
            counts[thread, name] = counts.get((thread, name), 0) + 1
            touched = touched or "oci-layout" in arguments
            # Python's own hashlib tells of a module that it cannot load by a traceback.
            if touched and '.so"' not in arguments:
                found[name, counts[thread, name]] = None
        return list(found)

    def check(self, call: Call, done: subprocess.CompletedProcess[str]) -> None:
        """Whatever became of the call: the store is sound, what was told is there, and a second try succeeds."""
        assert "Traceback" not in done.stderr, done.stderr
        self._sound()
        if done.stdout.strip():
            self._is_there(call, done.stdout.strip())
        shutil.rmtree(self.place / "out", ignore_errors=True)
        again = self.run(call)
        assert again.returncode in {0, call.again}, again.stderr
        self._sound()
        self._umount_all()
        with Store.open(self.store, create=False) as store:
            store.collect()
        self._sound()
        assert os.listdir(self.store / "ingest") == []

    def _umount_all(self) -> None:
        with Store.open(self.store, create=False) as store:
            for container in store.containers.list():
                store.containers.umount(container.name)

    def _sound(self) -> None:
        with Store.open(self.store, create=False) as store:
            # These were done before, and no call may take them away, but for the one that says so.
            names = {record.name for record in store.images()}
            assert {"zero:1", "base:1"} <= names
            assert store.verify().faults == ()
            leases = [lease for lease in Leases(store._layout.database).leases() if lease.is_over()]
            assert leases == []
        here = [point for point in mountinfo.mount_points() if point.startswith(str(self.place))]
        assert all("/mounts/" in point for point in here)

    def _is_there(self, call: Call, told: str) -> None:
        with Store.open(self.store, create=False) as store:
            match call.words[0]:
                case "commit" | "tag":
                    assert store.resolve(told).digest == told
                    assert store.resolve(call.words[2]).digest == told
                case "batch":
                    for line in told.splitlines():
                        result = json.loads(line)
                        # A disk without power fails lines.
                        if result["status"] in {"made", "present"}:
                            assert store.resolve(result["name"]).digest == result["digest"]
                case "create":
                    root = Path(store.containers.mount(told))
                    assert (root / "etc" / "file5").read_text() == "5" * 2000
                    assert (root / "etc" / "new").exists() == (call.words[1] == "committed:1")
                    store.containers.umount(told)
                case "rm":
                    assert told not in {container.name for container in store.containers.list()}
                case "rmi":
                    try:
                        store.resolve(call.words[1])
                    except NotFoundError:
                        return
                    raise AssertionError(f"{call.words[1]} is still there")
                case _:
                    pass


def evenly(items: list[tuple[str, int]], count: int) -> list[tuple[str, int]]:
    """As many of them as asked for, from the first to the last."""
    if count >= len(items):
        return items
    return [items[round(number * (len(items) - 1) / max(count - 1, 1))] for number in range(count)]
