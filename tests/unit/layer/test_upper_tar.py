"""The tar of an overlay's upper directory in place of the changed tree."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pytest

import ocidiff
from ocidiff.errors import (
    LimitExceededError,
    MalformedLayerError,
    OcidiffError,
    UnsafeLayerError,
    UnsupportedError,
    UsageError,
)
from ocidiff.layer.options import EngineName
from support import archives, probes
from support.archives import directory, file, hard_link, member, symlink, tar

Names = Callable[..., list[str]]

USER = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
TRUSTED, BY_USER = "SCHILY.xattr.trusted.overlay.", "SCHILY.xattr.user.overlay."


def device(name: bytes, major: int = 0, minor: int = 0, **fields: Any) -> archives.Member:
    return member(name, tarfile.CHRTYPE, devmajor=major, devminor=minor, **fields)


def marked(name: bytes, mark: str, value: str = "y") -> archives.Member:
    return directory(name, pax_headers={mark: value})


@pytest.fixture
def lower(tmp_path: Path) -> Path:
    """A tree with `d/a`, `d/b`, `e/c` and `f`."""
    place = tmp_path / "lower"
    for name in ("d/a", "d/b", "e/c", "f"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(name)
    return place


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The directory that layers are written into."""
    place = tmp_path / "home"
    place.mkdir()
    return place


@pytest.fixture
def names(home: Path, engine_name: EngineName) -> Iterator[Names]:
    """Return the names in the layer of an upper tar, which comes through a pipe and leaves nothing beside the layer."""
    with ExitStack() as stack:

        def write(lower: Path | str | None, data: bytes, **limits: int) -> list[str]:
            source = stack.enter_context(pipe(data))
            upper = ocidiff.UpperTar(source, ocidiff.Limits(**limits))
            try:
                ocidiff.diff(lower, upper, home / "layer.tar", engine=engine_name)
            except OcidiffError:
                assert os.listdir(home) == []
                raise
            assert os.listdir(home) == ["layer.tar"]
            with tarfile.open(home / "layer.tar") as layer:
                found = layer.getnames()
            (home / "layer.tar").unlink()
            return found

        yield write


@contextmanager
def pipe(data: bytes) -> Iterator[BinaryIO]:
    assert len(data) < 64 << 10, "more than a pipe holds"
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as source:
        with os.fdopen(writing, "wb") as sink:
            sink.write(data)
        yield source


def test_devices_and_links_to_them_are_whiteouts(lower: Path, names: Names) -> None:
    data = tar(directory(b"./"), directory(b"./d/"), device(b"./d/a"), hard_link(b"./d/b", b"./d/a"), file(b"./new"))
    assert names(lower, data) == ["d", "d/.wh.a", "d/.wh.b", "new"]


@pytest.mark.parametrize("mark", [TRUSTED, BY_USER])
def test_an_opaque_directory_hides_what_is_below(lower: Path, names: Names, mark: str) -> None:
    data = tar(directory(b"./"), marked(b"./d/", mark + "opaque"), file(b"./d/b", b"new"))
    assert names(lower, data) == ["d", "d/.wh.a", "d/b"]
    # A directory that holds whiteouts in another form is none.
    assert names(lower, tar(marked(b"d", mark + "opaque", "x"))) == []


def test_marks_of_users_mean_nothing_beside_those_of_root(lower: Path, names: Names) -> None:
    data = tar(marked(b"e", BY_USER + "opaque"), marked(b"d", TRUSTED + "opaque"), file(b"e/n"))
    assert names(lower, data) == ["d", "d/.wh.a", "d/.wh.b", "e", "e/n"]
    data = tar(marked(b"e", BY_USER + "opaque"), marked(b"d", TRUSTED + "overlay.opaque"), file(b"e/n"))
    assert names(lower, data) == ["e", "e/.wh.c", "e/n"]


def test_no_parent_and_compression(tmp_path: Path, names: Names, engine_name: EngineName) -> None:
    data = gzip.compress(tar(directory(b"./"), directory(b"./d"), file(b"./d/a"), device(b"./gone")))
    assert names(None, data) == ["d", "d/a"]
    assert names("scratch", data) == ["d", "d/a"]
    (tmp_path / "upper.tar.gz").write_bytes(data)
    layer = ocidiff.diff(None, ocidiff.UpperTar(tmp_path / "upper.tar.gz"), tmp_path / "layer.tar", engine=engine_name)
    assert layer.added == 2


def test_times_are_those_of_the_tar(lower: Path, names: Names) -> None:
    facts = (lower / "f").stat()
    times = {"mtime": f"{facts.st_mtime_ns // 10**9}.{facts.st_mtime_ns % 10**9:09}"}
    same = file(b"f", b"f", mode=facts.st_mode & 0o7777, pax_headers=times)
    assert names(lower, tar(same)) == []


@pytest.mark.parametrize(
    ("members", "error", "words"),
    [
        ([file(b"d/n")], MalformedLayerError, "no entry before it is its directory"),
        ([symlink(b"l", b"/etc"), file(b"l/passwd")], MalformedLayerError, "no entry before it is its directory"),
        ([file(b"d/../../up/x")], MalformedLayerError, "no entry before it is its directory"),
        ([directory(b"d"), file(b"d")], MalformedLayerError, "an entry before it is a directory of this name"),
        ([file(b".wh.d")], UnsupportedError, "is no name of an upper directory"),
        ([marked(b"d", TRUSTED + "redirect", "/e")], UnsupportedError, "trusted.overlay.redirect is not read from a tar"),
        ([marked(b"d", BY_USER + "redirect", "/e")], UnsupportedError, "user.overlay.redirect is not read from a tar"),
        ([file(b"f", pax_headers={TRUSTED + "metacopy": ""})], UnsupportedError, "metacopy is not read from a tar"),
        ([file(b"f", pax_headers={BY_USER + "whiteout": "y"})], UnsupportedError, "whiteout is not read from a tar"),
        ([device(b"d", 1 << 20, 0)], UnsafeLayerError, "device number 1048576:0 is out of range"),
        ([file(b"f", uid=-1)], UnsafeLayerError, "owner -1"),
        ([file(b".")], UnsafeLayerError, "the root can only be a directory"),
        ([hard_link(b"a", b"nothing")], MalformedLayerError, "it does not exist"),
        ([hard_link(b"a", b"../f")], MalformedLayerError, "it does not exist"),
    ],
)
def test_what_is_no_upper_directory_is_refused(
    lower: Path, names: Names, members: list[archives.Member], error: type[OcidiffError], words: str
) -> None:
    with pytest.raises(error, match=words):
        names(lower, tar(*members))


def test_names_stay_below_the_root(lower: Path, names: Names) -> None:
    data = tar(file(b"/etc"), file(b"../../up"), directory(b"/d"), file(b"d/../../../x"))
    assert names(lower, data) == ["etc", "up", "x"]


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max_entries": 3}, "limit max_entries exceeded by three"),
        ({"max_bytes": 3000}, "limit max_bytes exceeded"),
        ({"max_depth": 1}, "limit max_depth exceeded by d/e"),
    ],
)
def test_the_limits_hold(lower: Path, names: Names, limits: dict[str, int], words: str) -> None:
    members = [device(b"one"), directory(b"d"), directory(b"d/e"), device(b"three"), file(b"large", b"x" * 2000)]
    with pytest.raises(LimitExceededError, match=words):
        names(lower, tar(*members), **limits)


def test_a_stream_that_is_cut_off_anywhere_leaves_nothing(lower: Path, names: Names) -> None:
    data = tar(directory(b"d"), file(b"d/n", b"x" * 600), device(b"f")).rstrip(b"\0")
    whole = -(-len(data) // 512) * 512
    data = data.ljust(whole + 1024, b"\0")
    assert names(lower, data) == ["d", "d/n", ".wh.f"]
    for length in range(0, len(data), 256):
        with pytest.raises(MalformedLayerError, match=r"unexpected end|empty file"):
            names(lower, data[:length])


def test_an_index_has_no_directory_to_lay_a_tar_over(lower: Path, tmp_path: Path, names: Names) -> None:
    ocidiff.index(lower, tmp_path / "index")
    with pytest.raises(UsageError, match="takes a directory as lower tree, not an index"):
        names(f"index:{tmp_path}/index", tar())


@pytest.mark.root
def test_a_user_gets_the_layer_that_root_gets(lower: Path, home: Path, tmp_path: Path, engine_name: EngineName) -> None:
    if subprocess.run([*USER, "true"], capture_output=True, check=False).returncode:
        probes.missing("needs user namespaces")
    root: dict[str, Any] = {"uid": 0, "gid": 0}
    members = [
        directory(b"./", **root),
        directory(b"./d/", uid=33, gid=33, mode=0o2750),
        file(b"./d/a", b"new", uid=33, gid=1000, mode=0o4711),
        file(b"./d/closed", b"new", uid=1000, gid=1000, mode=0),
        device(b"./d/b"),
        device(b"./null", 1, 3, uid=0, gid=6, mode=0o660),
        symlink(b"./link", b"d", **root),
        member(b"./fifo", tarfile.FIFOTYPE, **root),
        directory(b"./e/", pax_headers={TRUSTED + "opaque": "y"}, **root),
    ]
    lower.chmod(0o755)
    (tmp_path / "upper.tar").write_bytes(tar(*members))
    by_root = ocidiff.diff(lower, ocidiff.UpperTar(tmp_path / "upper.tar"), tmp_path / "layer.tar", engine=engine_name)
    command: list[str | Path] = [*USER, sys.executable, "-m", "ocidiff"]
    command += ["diff", lower, "--upper-tar", tmp_path / "upper.tar"]
    command += ["--engine", engine_name, "-o"]
    done = subprocess.run([*command, home / "layer.tar"], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == (by_root.descriptor.digest, "")
    capability = {"SCHILY.xattr.security.capability": os.fsdecode(probes.CAPABILITY_VALUE)}
    (tmp_path / "upper.tar").write_bytes(tar(file(b"./ping", pax_headers=capability)))
    done = subprocess.run([*command, home / "other.tar"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.endswith("/upper/ping: Operation not permitted\n")
    (tmp_path / "upper.tar").write_bytes(tar(symlink(b"./link", b"d", uid=33, gid=33)))
    done = subprocess.run([*command, home / "other.tar"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "ocidiff: diff: link: its owner 33:33 can only be kept by root\n")
    assert os.listdir(home) == ["layer.tar"]


def test_a_call_that_is_stopped_leaves_nothing(lower: Path, home: Path, engine_name: str) -> None:
    command: list[str | Path] = [sys.executable, "-m", "ocidiff", "diff", lower, "--upper-tar", "-"]
    command += ["-o", home / "layer.tar"]
    with subprocess.Popen([*command, "--engine", engine_name], stdin=subprocess.PIPE) as running:
        assert running.stdin is not None
        running.stdin.write(tar(directory(b"d"), file(b"d/n", bytes(200_000)))[:150_000])
        running.stdin.flush()
        deadline = time.monotonic() + 30
        while not os.listdir(home) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert os.listdir(home)
        running.terminate()
        assert running.wait(30) == 128 + signal.SIGTERM
    assert os.listdir(home) == []
