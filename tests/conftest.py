"""Fixtures and markers that all tests share."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocidiff.layer.engine import Engine, select_engine
from ocidiff.layer.options import ENGINES
from ocidiff.mounts.kernel import detach
from ocidiff.mounts.mountinfo import mount_points
from support import probes

# xfs takes no less.
_SIZE_BYTES = 320 << 20


def pytest_configure() -> None:
    # What a shell runs in the background ignores SIGINT, and so would every program that a test starts and interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("root") and not probes.is_root():
        probes.missing("needs root")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell how many examples each law has seen."""
    examples: Counter[str] = Counter()
    for report in terminalreporter.getreports("passed"):
        examples.update(dict(report.user_properties))
    for law, count in sorted(examples.items()):
        terminalreporter.write_line(f"{count} examples: {law}")


@pytest.fixture(autouse=True)
def _no_mount_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Take away what a test has mounted and left, which else nobody could remove, and fail it."""
    yield
    left = sorted(point for point in mount_points() if point.startswith(str(tmp_path_factory.getbasetemp())))
    # What is mounted within another one first.
    for point in reversed(left):
        detach(point, lazily=True)
    assert left == []


@pytest.fixture(params=["xfs", "btrfs"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """The root of an empty file system."""
    if shutil.which(f"mkfs.{request.param}") is None or not os.path.exists("/dev/loop-control"):
        probes.missing(f"needs mkfs.{request.param} and loop devices")
    with (tmp_path / "disk").open("wb") as file:
        file.truncate(_SIZE_BYTES)
    subprocess.run([f"mkfs.{request.param}", "-q", tmp_path / "disk"], check=True, stderr=subprocess.DEVNULL)
    root = tmp_path / "root"
    root.mkdir()
    subprocess.run(["mount", "-o", "loop", tmp_path / "disk", root], check=True)
    yield root
    # With the containers that a failure has left.
    subprocess.run(["umount", "-R", root], check=True)


@pytest.fixture(scope="session", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each of the two engines."""
    if request.param == "rust" and not probes.has_rust():
        probes.missing("ocidiff._core is not built")
    return select_engine(request.param)


@pytest.fixture(scope="session")
def rust() -> Engine:
    if not probes.has_rust():
        probes.missing("ocidiff._core is not built")
    return select_engine("rust")


@pytest.fixture(scope="session")
def pure() -> Engine:
    return select_engine("pure")
