"""The directory of a benchmark: made once, and nothing is left behind if that fails."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ocidiff.bench import place


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The directories that were made; the third one is a failure, since a loop would go on for ever."""
    paths, make = list[str](), tempfile.mkdtemp

    def counted(**arguments: str) -> str:
        assert len(paths) < 2
        paths.append(make(**arguments))
        return paths[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", counted)
    return paths


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_mount_may_show_another_owner(tmp_path: Path, made: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As vfat with `uid=` does."""
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with place.private_directory(str(tmp_path)) as path:
        assert made == [path]
    assert os.listdir(tmp_path) == []


def failing(number: int, times: int, real: Callable[..., object]) -> Callable[..., object]:
    left = iter(range(times))

    def call(*arguments: object, **named: object) -> object:
        if next(left, None) is not None:
            raise OSError(number, os.strerror(number))
        return real(*arguments, **named)

    return call


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EINTR])
def test_a_directory_that_cannot_be_locked_is_removed(
    tmp_path: Path, made: list[str], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    before = open_descriptors()
    monkeypatch.setattr(fcntl, "flock", failing(number, 9, fcntl.flock))
    with pytest.raises(OSError, match=os.strerror(number)), place.private_directory(str(tmp_path)):
        pass
    assert len(made) == 1
    assert os.listdir(tmp_path) == []
    assert open_descriptors() == before


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.EACCES])
def test_a_directory_that_cannot_be_opened_is_removed(
    tmp_path: Path, made: list[str], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", failing(number, 9, os.open))
        with pytest.raises(OSError, match=os.strerror(number)), place.private_directory(str(tmp_path)):
            pass
    assert len(made) == 1
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("module", "name", "number"), [(fcntl, "flock", errno.EAGAIN), (os, "open", errno.ENOENT)])
def test_a_lost_race_is_tried_again(
    tmp_path: Path, made: list[str], monkeypatch: pytest.MonkeyPatch, module: object, name: str, number: int
) -> None:
    """Another run locks the directory, or removes it, before this one has locked it."""
    before = open_descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(module, name, failing(number, 1, getattr(module, name)))
        with place.private_directory(str(tmp_path)) as path:
            assert made[1:] == [path]
    assert not os.path.exists(made[1])
    assert open_descriptors() == before
