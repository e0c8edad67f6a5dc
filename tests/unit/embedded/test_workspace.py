"""The workspace removes everything it made, whatever it has become."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from ocidiff import workspace


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def test_a_tree_of_any_depth_and_mode_is_removed(parent: int, tmp_path: Path) -> None:
    with workspace.directory(parent) as name:
        here = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=parent)
        for depth in range(3000):
            os.mkdir("d" * 100, dir_fd=here)
            os.close(os.open(f"file{depth}", os.O_CREAT | os.O_WRONLY, 0, dir_fd=here))
            below = os.open("d" * 100, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
            os.fchmod(here, 0)
            os.close(here)
            here = below
        os.close(here)
    assert os.listdir(tmp_path) == []


def test_symlinks_are_removed_and_not_followed(parent: int, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "kept").mkdir(parents=True)
    with workspace.directory(parent) as name:
        (tmp_path / name / "link").symlink_to(outside)
        (tmp_path / name / "below").mkdir()
        (tmp_path / name / "below" / "link").symlink_to(outside)
    assert os.listdir(tmp_path) == ["outside"]
    assert os.listdir(outside) == ["kept"]


def test_special_files_and_odd_names_are_removed(parent: int, tmp_path: Path) -> None:
    with workspace.directory(parent) as name:
        os.mkfifo(tmp_path / name / "fifo")
        Path(os.fsdecode(os.fsencode(tmp_path / name) + b"/\xff\n")).mkdir()
        (tmp_path / name / ("n" * 255)).mkdir()
    assert os.listdir(tmp_path) == []


def test_an_interrupt_removes_the_directory(parent: int, tmp_path: Path) -> None:
    def interrupt() -> None:
        with workspace.directory(parent) as name:
            (tmp_path / name / "file").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert os.listdir(tmp_path) == []


def test_a_directory_is_private(parent: int, tmp_path: Path) -> None:
    with workspace.directory(parent) as name:
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o700


def test_what_is_in_use_is_not_swept(parent: int, tmp_path: Path) -> None:
    (tmp_path / "left").touch()
    (tmp_path / "left-directory" / "below").mkdir(parents=True)
    file_name, file = workspace.create_file(parent)
    with workspace.directory(parent) as name:
        workspace.sweep(parent)
        assert sorted(os.listdir(tmp_path)) == sorted([file_name, name])
    os.close(file)
    workspace.sweep(parent)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("module", "name"), [(fcntl, "flock"), (os, "open")])
def test_a_directory_that_cannot_be_locked_is_removed(
    parent: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: object, name: str
) -> None:
    before = os.listdir("/proc/self/fd")

    def fail(*_: object, **__: object) -> NoReturn:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    with monkeypatch.context() as patch:
        patch.setattr(module, name, fail)
        for make in (workspace.create_file, workspace.create_directory):
            with pytest.raises(OSError, match=os.strerror(errno.ENOLCK)):
                make(parent)
    assert os.listdir(tmp_path) == []
    assert os.listdir("/proc/self/fd") == before
