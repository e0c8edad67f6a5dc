"""A failure of power at any moment: what was told is there, the store is sound, and what may be torn is made again.

A file system on a loop device is shut down without writing its log or its data, as the kernel does it on request; what was
not synced is gone.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.scenario import CALLS, Scenario, make_template
from support import probes

# For each call; `make soak-power` asks for more.
MOMENTS = int(os.environ.get("OCIDIFF_POWER_FAILURES", "2"))

# linux/fs.h: _IOR('X', 125, __u32), and the flag that drops what is not on disk.
_SHUTDOWN = 0x8004587D
_NO_LOG_FLUSH = 2
_SIZE_BYTES = 192 << 20


class Disk:
    """A file system that can lose its power."""

    def __init__(self, place: Path) -> None:
        self._image = place / "disk"
        self.root = place / "root"
        self.root.mkdir()
        with self._image.open("wb") as file:
            file.truncate(_SIZE_BYTES)
        subprocess.run(["mkfs.ext4", "-q", "-F", self._image], check=True)

    def mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", self._image, self.root], check=True)

    def umount(self) -> None:
        subprocess.run(["umount", self.root], check=True)
        # Another mount namespace may have a copy of the mount, which would be mounted again as it is, without power.
        while subprocess.run(["losetup", "-j", self._image], check=True, stdout=subprocess.PIPE).stdout:
            time.sleep(0.05)

    def fail(self) -> None:
        descriptor = os.open(self.root, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(descriptor)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    if shutil.which("mkfs.ext4") is None or not os.path.exists("/dev/loop-control"):
        probes.missing("needs mkfs.ext4 and loop devices")
    disk = Disk(tmp_path)
    disk.mount()
    yield disk
    disk.umount()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("template")
    make_template(place)
    return place


def _another_boot(store: Path) -> None:
    """Let all that was noted be of a boot before this one."""
    connection = sqlite3.connect(store / "ocidiff.db")
    connection.execute("UPDATE snapshot SET unsynced_boot_id = 'before' WHERE unsynced_boot_id IS NOT NULL")
    connection.execute("UPDATE container SET mounted_boot_id = NULL")
    connection.commit()
    connection.close()


@pytest.mark.root
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "name", ["commit", "batch", "commit-container", "create", "create-committed", "create-again", "gc", "rm", "tag", "rmi"]
)
def test_power(name: str, disk: Disk, template: Path) -> None:
    call = CALLS[name]
    scenario = Scenario(template, disk.root / "place")
    started = time.monotonic()
    assert scenario.run(call).returncode == 0
    longest = time.monotonic() - started
    for moment in range(MOMENTS):
        scenario = Scenario(template, disk.root / "place")
        os.sync()
        # Somebody else has the database open, so that nobody is the last to close it, which would sync it.
        watcher = sqlite3.connect(scenario.store / "ocidiff.db")
        watcher.execute("SELECT * FROM lease").fetchall()
        with scenario.start(call) as process:
            # The first third is starting up; the last moment is after the end.
            time.sleep(longest * (0.35 + 0.75 * moment / max(MOMENTS - 1, 1)))
            disk.fail()
            out, err = process.communicate()
        watcher.close()
        disk.umount()
        disk.mount()
        _another_boot(scenario.store)
        assert "Traceback" not in err, err
        done = subprocess.CompletedProcess(call.words, process.returncode, out, "")
        try:
            scenario.check(call, done)
        except BaseException as failure:
            failure.add_note(f"moment {moment} of {MOMENTS}, {longest:.2f} s: {out} {err}")
            raise
