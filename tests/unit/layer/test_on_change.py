"""What becomes of files that change while they are read."""

from __future__ import annotations

import os
import select
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ocidiff.errors import SourceChangedError, UsageError
from ocidiff.layer.differ import diff
from ocidiff.layer.engine import Engine, select_engine
from ocidiff.layer.layer import ChangeKind, LayerSummary
from ocidiff.layer.monitor import Monitor, Progress
from ocidiff.layer.options import Compression, LayerOptions, OnChange
from ocidiff.layer.pure.change import Event
from ocidiff.layer.pure.record import Recorder
from ocidiff.layer.pure.tree import Tree
from ocidiff.mounts.layers import OverlayLayers
from support import probes, trees, verbs

Disturb = Callable[[Path], object]
Held = Callable[..., tuple[LayerSummary, dict[str, Any]]]


@pytest.fixture
def tree(tmp_path: Path) -> tuple[Path, Path]:
    """Lower and upper: after much that is new, a directory with two changed files and two new ones."""
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    for root in (lower, upper):
        (root / "d").mkdir(parents=True)
        for name in ("d/changed", "d/linked"):
            (root / name).write_text("old")
    (upper / "a").touch()
    os.truncate(upper / "a", 24 << 20)
    for name in ("d/changed", "d/linked", "d/new"):
        (upper / name).write_text("seen by the walk")
    (upper / "d" / "other").hardlink_to(upper / "d" / "linked")
    return lower, upper


@pytest.fixture
def held(engine: Engine, tree: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Held:
    """A diff that is disturbed between its walk and the moment at which it writes a name of `d`; without `a`."""
    lower, upper = map(os.fsencode, tree)

    def write(sink: int, **options: Any) -> LayerSummary:
        try:
            asked = LayerOptions(compression=Compression.NONE, threads=1, **options)
            return engine.write_layer(lower, upper, sink, asked, Monitor())
        finally:
            os.close(sink)

    def diff_held(name: str, disturb: Disturb, **options: Any) -> tuple[LayerSummary, dict[str, Any]]:
        reader, sink = os.pipe()
        with ThreadPoolExecutor() as pool, open(reader, "rb") as pipe:
            if type(engine).__name__ == "PureEngine":
                record = Recorder.record

                def disturbed(recorder: Recorder, event: Event) -> ChangeKind | None:
                    if event.path == b"d/" + name.encode():
                        disturb(tree[1] / "d")
                    return record(recorder, event)

                monkeypatch.setattr(Recorder, "record", disturbed)
                summary = pool.submit(write, sink, **options)
            else:
                # It walks ahead, and has to wait for this end of the pipe before it comes to `d`.
                summary = pool.submit(write, sink, **options)
                select.select([pipe], [], [])
                time.sleep(0.2)
                disturb(tree[1] / "d")
            tar = pipe.read()
            return summary.result(), {entry["name"]: entry for entry in trees.read_layer(tar) if entry["name"] != "a"}

    return diff_held


def rewrite(name: str, text: str) -> Disturb:
    return lambda directory: (directory / name).write_text(text)


def test_a_file_is_what_it_was_when_it_was_read(held: Held) -> None:
    _, entries = held("new", rewrite("new", "longer than it was"))
    assert entries["d/new"]["size"] == len("longer than it was")
    with pytest.raises(SourceChangedError, match="upper/d/new"):
        held("new", rewrite("new", "shorter"), on_change=OnChange.FAIL)


def test_a_new_one_that_is_gone_is_absent(held: Held) -> None:
    summary, entries = held("new", lambda directory: (directory / "new").unlink())
    assert "d/new" not in entries
    assert (summary.added, summary.modified, summary.deleted, summary.vanished) == (2, 2, 0, 1)


def test_a_changed_one_that_is_gone_is_deleted(held: Held) -> None:
    summary, entries = held("changed", lambda directory: (directory / "changed").unlink())
    assert "d/changed" not in entries
    assert entries["d/.wh.changed"]["size"] == 0
    assert (summary.added, summary.modified, summary.deleted, summary.vanished) == (3, 1, 1, 1)


def test_one_that_became_a_directory_is_absent(held: Held) -> None:
    def disturb(directory: Path) -> None:
        (directory / "new").unlink()
        (directory / "new").mkdir()

    _, entries = held("new", disturb)
    assert "d/new" not in entries


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("x"), os.mkfifo], ids=["link", "fifo"])
def test_what_takes_its_place_is_what_is_written(held: Held, make: Disturb) -> None:
    def disturb(directory: Path) -> None:
        (directory / "new").unlink()
        make(directory / "new")

    _, entries = held("new", disturb)
    assert entries["d/new"]["type"] in {"2", "6"}
    assert entries["d/new"]["size"] == 0


def test_the_names_of_a_changed_file_tell_the_same_of_it(held: Held) -> None:
    def disturb(directory: Path) -> None:
        (directory / "linked").write_text("new")
        (directory / "linked").chmod(0o600)

    _, entries = held("linked", disturb)
    first, second = entries["d/linked"], entries["d/other"]
    assert (first["type"], second["type"], second["linkname"]) == ("0", "1", "d/linked")
    assert (first["mode"], first["mtime"]) == (second["mode"], second["mtime"])
    assert first["size"] == 3


def test_a_name_that_lost_its_file_is_no_source_of_links(held: Held) -> None:
    def disturb(directory: Path) -> None:
        (directory / "linked").unlink()
        (directory / "linked").write_text("another file")

    _, entries = held("linked", disturb)
    assert (entries["d/linked"]["type"], entries["d/other"]["type"]) == ("0", "0")
    assert (entries["d/linked"]["size"], entries["d/other"]["size"]) == (len("another file"), len("seen by the walk"))


@pytest.mark.parametrize(
    "disturb",
    [lambda path: os.truncate(path, 10), lambda path: os.utime(path, (1, 1)), lambda path: path.chmod(0o600)],
    ids=["shorter", "written", "chmod"],
)
def test_a_large_file_is_put_aside_until_it_rests(engine: Engine, tmp_path: Path, disturb: Disturb) -> None:
    upper, calls = tmp_path / "upper", list[Progress]()
    upper.mkdir()

    def progress(now: Progress) -> None:
        calls.append(now)
        if len(calls) == 2:
            disturb(upper / "f")

    def write(monitor: Monitor) -> LayerSummary:
        with (tmp_path / "layer").open("wb") as sink:
            asked = LayerOptions(compression=Compression.NONE)
            return engine.write_layer(None, os.fsencode(upper), sink.fileno(), asked, monitor)

    # On a busy machine the second call may come when the file has been read.
    for _ in range(10):
        calls.clear()
        with (upper / "f").open("wb") as file:
            file.truncate(64 << 20)
        summary = write(Monitor(progress))
        if summary.retried:
            break
    assert (summary.retried, summary.entries) == (1, 1)
    assert summary == replace(write(Monitor()), retried=1)


def test_what_was_put_aside_is_all_of_it(engine: Engine, tmp_path: Path) -> None:
    for name, head, size in (("small", b"x", 700_000), ("large", b"x", 6 << 20), ("zeros", b"", 5 << 20), ("one", b"x", 1)):
        (tmp_path / name).write_bytes(head)
        os.truncate(tmp_path / name, size)
    with (tmp_path / "large").open("ab") as file:
        file.write(b"end")
    _, tar = verbs.diff(engine, None, tmp_path)
    assert tar == verbs.diff(engine, None, tmp_path, on_change=OnChange.FAIL)[1]


@pytest.mark.root
def test_a_full_temporary_directory_is_told_by_its_name(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upper, full = tmp_path / "upper", tmp_path / "full"
    upper.mkdir()
    full.mkdir()
    (upper / "f").write_bytes(b"x" * (6 << 20))
    monkeypatch.setenv("TMPDIR", str(full))
    monkeypatch.setattr(tempfile, "tempdir", None)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", full], check=False, capture_output=True).returncode:
        probes.missing("needs tmpfs mounts")
    try:
        with pytest.raises(OSError, match=f"No space left on device.*{full}"), open("/dev/null", "wb") as sink:
            engine.write_layer(None, os.fsencode(upper), sink.fileno(), LayerOptions(), Monitor())
        assert os.listdir(full) == []
    finally:
        subprocess.run(["umount", full], check=True)


@pytest.mark.root
def test_a_directory_that_goes_while_the_root_of_an_overlay_is_listed_is_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lower" / "d").mkdir(parents=True)
    shutil.copytree(tmp_path / "lower", tmp_path / "upper")
    layers = OverlayLayers(os.fsencode(tmp_path / "upper"), (os.fsencode(tmp_path / "lower"),), userxattr=False)
    xattr, gone = Tree.xattr, list[bytes]()

    def disturbed(tree: Tree, path: bytes, key: bytes) -> bytes | None:
        if path == b"d" and not gone:
            gone.append(path)
            (tmp_path / "upper" / "d").rmdir()
            try:
                return xattr(tree, path, key)
            finally:
                os.mknod(tmp_path / "upper" / "d", stat.S_IFCHR, os.makedev(0, 0))
        return xattr(tree, path, key)

    monkeypatch.setattr(Tree, "xattr", disturbed)
    summary, _ = verbs.diff(select_engine("pure"), None, layers)
    assert gone
    assert (summary.deleted, summary.vanished) == (1, 1)


def test_a_file_that_never_rests_is_an_error(engine: Engine, tmp_path: Path) -> None:
    upper = tmp_path / "upper"
    upper.mkdir()
    with (upper / "f").open("wb") as file:
        file.truncate(128 << 20)
    touching = "import os, time, itertools\nfor n in itertools.count(): os.utime('f', (n, n)); time.sleep(0.001)"
    with subprocess.Popen([sys.executable, "-c", touching], cwd=upper) as process:
        while (upper / "f").stat().st_mtime > 1e6:
            time.sleep(0.01)
        try:
            with pytest.raises(SourceChangedError, match=r"upper/f.*never rested"):
                verbs.diff(engine, None, upper)
        finally:
            process.kill()


def test_there_are_two_ways(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"on_change 'wait': takes fail, retry"):
        diff(None, tmp_path, tmp_path / "layer", on_change="wait")  # type: ignore[arg-type]
