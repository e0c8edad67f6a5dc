"""The umask of the caller decides the mode of no tree, blob, database or lock, only of output files."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ocidiff.walk import Cursor, walk
from support import probes

UMASKS = (0o000, 0o022, 0o077)
# Made under the umask, as every tool does.
OUTPUTS = {"layer.tar", "tree.index", "image.index", "unpacked.index", "id", "store", "stdout"}


def _ocidiff(place: Path, umask: int, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "ocidiff", *words, "--store", str(place / "store")]
        if words[0] != "diff"
        else [sys.executable, "-m", "ocidiff", *words],
        cwd=place,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "SOURCE_DATE_EPOCH": "1700000000"},
        umask=umask,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _modes(place: Path) -> dict[str, str]:
    """The mode of everything below a directory."""
    found = {}
    with Cursor(str(place)) as here:
        for name, info, is_left in walk(here):
            if not is_left:
                found[os.fsdecode(here.path(name))] = stat.filemode(info.st_mode)
    return found


def _rootfs(place: Path) -> None:
    """A tree with modes of its own, and a root of another mode than the one that is implied."""
    tree = place / "rootfs"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc" / "plain").write_text("x")
    (tree / "etc" / "open").write_text("x")
    (tree / "etc" / "open").chmod(0o666)
    (tree / "etc" / "shut").write_text("x")
    (tree / "etc" / "shut").chmod(0o600)
    (tree / "tmp").mkdir()
    (tree / "tmp").chmod(0o1777)
    os.mkfifo(tree / "fifo")
    (tree / "fifo").chmod(0o666)
    (tree / "link").symlink_to("etc")
    tree.chmod(0o711)


def _everything(place: Path, umask: int, engine: str, driver: str) -> dict[str, str]:
    """Run every command that makes something; the modes of all there is at the end, and of what was there in between."""
    place.mkdir()
    _rootfs(place)
    (place / "applied").mkdir(mode=0o755)

    def run(*words: str) -> str:
        return _ocidiff(place, umask, *words)

    run("diff", "scratch", "./rootfs", "-o", "layer.tar", "--engine", engine)
    run("apply", "layer.tar", "applied", "--engine", engine)
    run("index", "./rootfs", "-o", "tree.index", "--engine", engine)
    run("commit", "./rootfs", "base:1", "--engine", engine, "--iidfile", "id")
    run("index", "base:1", "-o", "image.index", "--engine", engine)
    run("unpack", "base:1", "unpacked", "--index", "unpacked.index", "--engine", engine)
    # What unpacks the base for the time of the call.
    run("commit", "./rootfs", "again:1", "--base", "base:1", "--engine", engine)
    run("create", "base:1", "work", "--driver", driver, "--engine", engine)
    root = Path(run("mount", "work"))
    modes = {"mounted root": stat.filemode(root.stat().st_mode)}
    modes |= {f"mounted {name}": mode for name, mode in _modes(root).items()}
    (root / "new").write_text("n")
    (root / "new").chmod(0o640)
    run("umount", "work")
    run("commit", "work", "base:2", "--engine", engine)
    run("create", "base:2", "second", "--driver", driver, "--engine", engine)
    run("mount", "second")
    modes |= {f"then {name}": mode for name, mode in _modes(place).items() if "/work/work" not in name}
    run("umount", "second")
    run("tag", "base:2", "other")
    run("rm", "second")
    run("rmi", "other")
    run("gc")
    # A writer that is still there keeps the files beside the database.
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(place / "store")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        umask=umask,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as held:
        assert held.stdout is not None
        assert held.stdout.readline() == "ready\n"
        modes |= {f"held {name}": mode for name, mode in _modes(place / "store").items()}
        held.communicate("")
    blob = next((place / "store" / "blobs" / "sha256").iterdir())
    blob.chmod(0o644)
    blob.write_bytes(b"damaged")
    (place / "store" / "index.json").write_text("{")
    subprocess.run(
        [sys.executable, "-m", "ocidiff", "verify", "--repair", "--store", str(place / "store")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        umask=umask,
        capture_output=True,
        check=False,
    )
    assert (place / "store" / "damaged").is_dir()
    modes |= _modes(place)
    run("rm", "work")
    return modes


_HOLD = """
import sys
from ocidiff.embedded.layout import Layout
with Layout.open(sys.argv[1], create=False) as layout:
    with layout.ingest("resumed") as ingest:
        ingest.write(b"x")
        layout.update_labels(next(layout.walk()), {"name": "value"})
        print("ready", flush=True)
        sys.stdin.read()
"""


def _comparable(modes: dict[str, str]) -> set[tuple[str, str]]:
    """Names without what is made by chance, but for outputs."""
    names = [name for name in modes if name.rpartition(" ")[2].split("/")[-1] not in OUTPUTS]
    return {(re.sub(r"[0-9a-f]{32,}|(?<=index\.json\.)\d+", "*", name), modes[name]) for name in names}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("driver", ["overlay", "directory"])
def test_no_mode_depends_on_the_umask(tmp_path: Path, driver: str, engine_of: Callable[[str], str]) -> None:
    if driver == "overlay" and not probes.can_mount_overlay():
        probes.missing("needs overlay mounts")
    engine = engine_of(driver)
    found = {umask: _everything(tmp_path / f"{umask:o}", umask, engine, driver) for umask in UMASKS}
    one, *others = (_comparable(modes) for modes in found.values())
    for other in others:
        assert one == other
    for umask, modes in found.items():
        assert modes["unpacked"] == modes["mounted root"] == "drwxr-xr-x"
        assert (
            modes["held store/ocidiff.db-wal" if "held store/ocidiff.db-wal" in modes else "held ocidiff.db-wal"]
            == "-rw-r--r--"
        )
        assert modes["store"] == stat.filemode(stat.S_IFDIR | 0o755 & ~umask)
        for output in OUTPUTS - {"store", "stdout"}:
            assert modes[output] == stat.filemode(stat.S_IFREG | 0o666 & ~umask)


@pytest.fixture
def engine_of() -> Callable[[str], str]:
    """Each engine with one of the drivers, which have nothing to do with one another."""

    def chosen(driver: str) -> str:
        return "rust" if driver == "overlay" and probes.has_rust() else "pure"

    return chosen


@pytest.mark.parametrize("umask", UMASKS)
@pytest.mark.parametrize("engine", ["rust", "pure"])
def test_the_root_of_a_tree_inherits_nothing(tmp_path: Path, umask: int, engine: str) -> None:
    if engine == "rust" and not probes.has_rust():
        probes.missing("ocidiff._core is not built")
    _rootfs(tmp_path)
    _ocidiff(tmp_path, umask, "commit", "./rootfs", "base:1")
    around = tmp_path / "around"
    around.mkdir()
    around.chmod(0o2777)
    try:
        os.setxattr(around, "system.posix_acl_default", probes.ACL_VALUE)
    except OSError:
        probes.missing("needs ACLs")
    _ocidiff(tmp_path, umask, "unpack", "base:1", str(around / "unpacked"), "--engine", engine)
    made = around / "unpacked"
    assert stat.filemode(made.stat().st_mode) == "drwxr-xr-x"
    assert os.listxattr(made) == []
    assert os.listxattr(made / "etc") == []
    assert stat.filemode((made / "etc" / "open").stat().st_mode) == "-rw-rw-rw-"
