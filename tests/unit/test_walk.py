"""A walk by handle: every name once, at any depth, with one descriptor, and no error swallowed."""

from __future__ import annotations

import errno
import os
import resource
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ocidiff import workspace
from ocidiff.walk import Cursor, walk


def _deep(top: Path, depth: int, *, name: str = "d" * 100) -> None:
    """A chain of directories with a file in each, longer than any path that the kernel takes."""
    here = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(depth):
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=here))
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


@contextmanager
def _descriptors(limit: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_every_name_is_visited_and_directories_twice(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "file").touch()
    (tmp_path / "link").symlink_to("a")
    with Cursor(str(tmp_path)) as here:
        seen = [(os.fsdecode(here.path(name)), is_left) for name, _, is_left in walk(here)]
    assert sorted(seen) == sorted(
        [("a", False), ("a", True), ("a/b", False), ("a/b", True), ("a/file", False), ("link", False)]
    )
    assert seen.index(("a", False)) < seen.index(("a/b", False)) < seen.index(("a", True))


def test_a_tree_of_any_depth_takes_a_handful_of_descriptors(tmp_path: Path) -> None:
    _deep(tmp_path, 3000)
    used = len(os.listdir("/proc/self/fd"))
    top = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with _descriptors(used + 8):
            with Cursor(str(tmp_path)) as here:
                visits = sum(1 for _ in walk(here))
            assert visits == 3000 * 3
            workspace.clear(top)
    finally:
        os.close(top)
    assert os.listdir(tmp_path) == []


def test_the_cursor_goes_anywhere_and_costs_what_the_way_costs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _deep(tmp_path, 200, name="d")
    for side in ("x", "y"):
        (tmp_path / "d" / side).mkdir()
    opened = 0
    real = os.open

    def count(*arguments: Any, **named: Any) -> int:
        nonlocal opened
        opened += 1
        return real(*arguments, **named)

    monkeypatch.setattr(os, "open", count)
    with Cursor(str(tmp_path)) as here:
        here.go(b"/".join([b"d"] * 200))
        assert opened == 201
        here.go(b"/".join([b"d"] * 199))
        assert opened == 202
        here.go(b"d/x")
        # From the top, not up two hundred levels.
        assert opened == 204
        assert here.path() == b"d/x"
        with pytest.raises(FileNotFoundError):
            here.go(b"d/z")


def test_a_directory_that_was_moved_away_ends_the_walk(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "outside" / "deeper").mkdir(parents=True)

    def lose() -> None:
        with Cursor(str(tmp_path)) as here:
            here.go(b"a/b")
            (tmp_path / "a" / "b").rename(tmp_path / "outside" / "deeper" / "b")
            here.leave()

    with pytest.raises(OSError, match="a/b") as caught:
        lose()
    assert caught.value.errno == errno.ESTALE


def test_a_link_in_the_place_of_a_directory_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/")
    with Cursor(str(tmp_path)) as here, pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        here.enter(b"link")


@pytest.mark.parametrize("call", ["open", "listdir", "lstat"])
def test_every_failure_ends_the_walk_and_names_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").touch()
    real: Callable[..., Any] = getattr(os, call)
    failures = list[OSError]()
    for failing in range(1, 100):
        calls = 0

        def fail(*arguments: Any, failing: int = failing, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == failing:
                raise OSError(errno.EIO, os.strerror(errno.EIO), arguments[0])
            return real(*arguments, **named)

        with monkeypatch.context() as patch:
            patch.setattr(os, call, fail)
            try:
                with Cursor(str(tmp_path)) as here:
                    visits = [visit.name for visit in walk(here)]
            except OSError as error:
                failures.append(error)
                continue
        assert calls < failing
        assert sorted(visits) == [b"a", b"a", b"b", b"b", b"c", b"c", b"file"]
        break
    assert len(failures) >= 3
    assert {failure.errno for failure in failures} == {errno.EIO}
    assert all(str(failure.filename).startswith(str(tmp_path)) for failure in failures)


def test_a_caller_may_remove_what_it_visits(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    _deep(top, 50, name="d")
    with Cursor(str(top)) as here:
        for name, info, is_left in walk(here):
            if not stat.S_ISDIR(info.st_mode):
                os.unlink(name, dir_fd=here.fd)
            elif is_left:
                os.rmdir(name, dir_fd=here.fd)
    assert os.listdir(top) == []
