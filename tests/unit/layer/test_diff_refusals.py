"""What a diff cannot say or read: a typed error that names the path, in both engines, and nothing left open."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ocidiff.errors import Cancelled, SourceChangedError, UnrepresentableError
from ocidiff.layer.engine import Engine
from ocidiff.layer.monitor import Cancellation, Monitor, Progress
from ocidiff.layer.options import Compression, LayerOptions, OnChange, Profile
from support import probes, trees, verbs


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    root = tmp_path / "upper"
    root.mkdir()
    return root


@pytest.fixture(autouse=True)
def _nothing_stays_open() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


def write(engine: Engine, lower: Path | None, upper: Path, monitor: Monitor, **options: Any) -> None:
    below = None if lower is None else os.fsencode(lower)
    with tempfile.TemporaryFile() as sink:
        engine.write_layer(below, os.fsencode(upper), sink.fileno(), LayerOptions(**options), monitor)


class TestMissing:
    def test_a_missing_directory_is_named(self, engine: Engine, tmp_path: Path, upper: Path) -> None:
        missing = tmp_path / "missing"
        for lower, above in ((missing, upper), (None, missing), (upper, missing)):
            with pytest.raises(FileNotFoundError) as caught:
                verbs.diff(engine, lower, above)
            assert caught.value.filename == os.fspath(missing)
            with pytest.raises(FileNotFoundError):
                verbs.changes(engine, lower, above, Profile.OCI)

    def test_a_file_is_no_tree(self, engine: Engine, tmp_path: Path, upper: Path) -> None:
        plain = tmp_path / "file"
        plain.touch()
        for lower, above in ((plain, upper), (None, plain)):
            with pytest.raises(NotADirectoryError) as caught:
                verbs.diff(engine, lower, above)
            assert caught.value.filename == os.fspath(plain)

    def test_a_full_disk_is_an_os_error(self, engine: Engine, upper: Path) -> None:
        (upper / "f").write_bytes(os.urandom(1 << 20))
        sink = os.open("/dev/full", os.O_WRONLY)
        try:
            with pytest.raises(OSError, match=r"(?i)no space") as caught:
                engine.write_layer(None, os.fsencode(upper), sink, LayerOptions(), Monitor())
        finally:
            os.close(sink)
        assert caught.value.errno == errno.ENOSPC

    def test_a_root_may_be_a_link(self, engine: Engine, tmp_path: Path, upper: Path) -> None:
        (upper / "f").touch()
        (tmp_path / "link").symlink_to(upper)
        assert verbs.diff(engine, None, tmp_path / "link") == verbs.diff(engine, None, upper)


class TestWhiteoutNames:
    @pytest.mark.parametrize("name", [".wh.x", ".wh.", ".wh..wh..opq"])
    @pytest.mark.parametrize("make", [Path.touch, Path.mkdir], ids=["file", "directory"])
    def test_the_profile_oci_refuses_a_name_that_would_read_as_a_deletion(
        self, engine: Engine, upper: Path, name: str, make: Callable[[Path], None]
    ) -> None:
        (upper / "d").mkdir()
        make(upper / "d" / name)
        with pytest.raises(UnrepresentableError, match=r"d/\.wh\."):
            verbs.diff(engine, None, upper, profile=Profile.OCI)

    def test_the_profile_containerd_writes_it_as_it_is(self, engine: Engine, upper: Path) -> None:
        (upper / ".wh.x").touch()
        _, tar = verbs.diff(engine, None, upper, profile=Profile.CONTAINERD)
        assert [entry["name"] for entry in trees.read_layer(tar)] == [".wh.x"]

    def test_one_that_is_not_written_is_no_fault(self, engine: Engine, tmp_path: Path, upper: Path) -> None:
        lower = tmp_path / "lower"
        lower.mkdir()
        for root in (lower, upper):
            (root / ".wh.d").mkdir()
            (root / ".wh.d" / ".wh.f").touch()
            os.utime(root / ".wh.d" / ".wh.f", (1, 1))
        (upper / "new").touch()
        summary, _ = verbs.diff(engine, lower, upper, profile=Profile.OCI)
        assert summary.entries == 1

    def test_an_unchanged_parent_that_must_be_written_is_refused(self, engine: Engine, tmp_path: Path, upper: Path) -> None:
        lower = tmp_path / "lower"
        (lower / ".wh.d").mkdir(parents=True)
        (upper / ".wh.d").mkdir()
        (upper / ".wh.d" / "new").touch()
        with pytest.raises(UnrepresentableError, match=r"\.wh\.d"):
            verbs.diff(engine, lower, upper, profile=Profile.OCI)


def test_an_xattr_whose_name_no_pax_header_holds_is_refused(engine: Engine, upper: Path) -> None:
    if not probes.can_set_xattr("user.probe"):
        probes.missing("the file system has no user xattrs")
    (upper / "f").touch()
    os.setxattr(upper / "f", "user.a=b", b"x")
    with pytest.raises(UnrepresentableError, match=r"f: .*xattr|f: .*extended attribute"):
        verbs.diff(engine, None, upper, profile=Profile.OCI)
    assert verbs.diff(engine, None, upper, profile=Profile.CONTAINERD)[0].entries == 1


def test_sockets_are_changes_without_entries(engine: Engine, tmp_path: Path, upper: Path) -> None:
    lower = tmp_path / "lower"
    lower.mkdir()
    (lower / "was-file").touch()
    (upper / "d").mkdir()
    (lower / "d").mkdir()
    for name in ("was-file", "d/new"):
        os.mknod(upper / name, 0o140600)
    summary, _ = verbs.diff(engine, lower, upper)
    assert (summary.added, summary.modified, summary.entries, dict(summary.skipped)) == (1, 1, 0, {"sockets": 2})


def test_a_fifo_is_never_opened(engine: Engine, tmp_path: Path, upper: Path) -> None:
    lower = tmp_path / "lower"
    lower.mkdir()
    for root, time in ((lower, 1), (upper, 1)):
        os.mkfifo(root / "same", 0o600)
        os.utime(root / "same", (time, time))
    os.mkfifo(upper / "new")
    summary, _ = verbs.diff(engine, lower, upper)
    assert (summary.added, summary.modified, summary.entries) == (1, 0, 1)


def test_a_deep_tree_needs_neither_stack_nor_descriptors(engine: Engine, tmp_path: Path) -> None:
    depth, name = 1100, "name"  # more than Python calls within calls, and than a path may have bytes
    upper, target, nothing = (tmp_path / tree for tree in ("upper", "target", "nothing"))
    for tree in (upper, target, nothing):
        tree.mkdir()
    here = os.open(upper, os.O_PATH)
    for _ in range(depth):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_PATH, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("leaf", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        summary, tar = verbs.diff(engine, None, upper)
        verbs.apply(engine, tar, target)
        again, _ = verbs.diff(engine, target, upper)
        gone, removal = verbs.diff(engine, upper, nothing)
        verbs.apply(engine, removal, target)
        left = list(target.iterdir())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        subprocess.run(["rm", "-rf", upper, target], check=True)
    assert (summary.entries, again.deleted, gone.deleted) == (depth + 1, 0, 1)
    assert left == []


class TestSourceChanges:
    """The monitor is called while a large file is read: it plays the program that writes to it."""

    @pytest.mark.parametrize(
        "disturb",
        [
            lambda path: os.truncate(path, 10),
            lambda path: os.truncate(path, 500 << 20),
            lambda path: os.utime(path, (1, 1)),
            lambda path: path.chmod(0o600),
        ],
        ids=["shorter", "longer", "written", "chmod"],
    )
    def test_a_file_that_changes_while_it_is_read_fails_the_diff(
        self, engine: Engine, upper: Path, disturb: Callable[[Path], object]
    ) -> None:
        victim = upper / "f"
        with victim.open("wb") as file:
            file.truncate(400 << 20)
        victim.chmod(0o644)
        done: list[object] = []

        def progress(now: Progress) -> None:
            if now.bytes_plain > 1 << 20 and not done:
                done.append(disturb(victim))

        with pytest.raises(SourceChangedError, match=r"upper/f: changed while it was read: it"):
            write(engine, None, upper, Monitor(progress), compression=Compression.NONE, on_change=OnChange.FAIL)
        assert done


class TestCancellation:
    def test_a_call_that_is_cancelled_beforehand_stops(self, pure: Engine, upper: Path) -> None:
        cancel = Cancellation()
        cancel.cancel()
        with pytest.raises(Cancelled):
            write(pure, None, upper, Monitor(cancel=cancel))

    def test_a_large_file_does_not_delay_it(self, engine: Engine, upper: Path) -> None:
        with (upper / "f").open("wb") as file:
            file.truncate(2 << 30)
        cancel = Cancellation()
        seen: list[Progress] = []

        def progress(now: Progress) -> None:
            seen.append(now)
            if now.bytes_plain:
                cancel.cancel()

        with pytest.raises(Cancelled):
            write(engine, None, upper, Monitor(progress, cancel))
        assert seen[-1].bytes_plain <= 2 << 30  # the whole tar has more

    def test_an_exception_of_the_callback_comes_through(self, engine: Engine, upper: Path) -> None:
        with (upper / "f").open("wb") as file:
            file.truncate(2 << 30)

        def progress(_: Progress) -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            write(engine, None, upper, Monitor(progress))

    def test_an_abandoned_change_list_closes_its_trees(self, engine: Engine, upper: Path) -> None:
        for number in range(5000):
            (upper / str(number)).touch()
        changes = engine.changes(None, os.fsencode(upper), LayerOptions())
        assert next(changes).path == "/0"
        changes.close()
