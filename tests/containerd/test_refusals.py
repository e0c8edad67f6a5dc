"""What a commit on containerd cannot do is one clear line, and leaves nothing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from containerd.daemon import VERSION, Daemon, running
from containerd.test_commit import changed
from containerd.test_safety import refused, rests
from ocidiff.containerd.channel import Channel
from ocidiff.containerd.messages import types_of
from ocidiff.errors import UnsupportedError
from ocidiff.layer.engine import select_engine
from ocidiff.store import Store

pytestmark = [pytest.mark.interop, pytest.mark.root]

# runc knows containers of all daemons by namespace and name.
SPACE = f"some-{os.urandom(4).hex()}"
MOUNTS = {
    "devmapper": {"type": "ext4", "source": "/dev/mapper/pool-snap-1", "options": []},
    "blockfile": {"type": "ext4", "source": "/var/lib/containerd/blockfile/1", "options": ["loop"]},
    "erofs": {"type": "erofs", "source": "/var/lib/containerd/erofs/1/layer.erofs", "options": ["ro", "loop"]},
    "nydus": {"type": "fuse.nydus-overlayfs", "source": "overlay", "options": ["lowerdir=/a", "extraoption=x"]},
    "elsewhere": {"type": "bind", "source": "/nowhere/snapshots/1/fs", "options": ["rbind", "rw"]},
    "overlay-elsewhere": {
        "type": "overlay",
        "source": "overlay",
        "options": ["upperdir=/nowhere/2/fs", "lowerdir=/nowhere/1/fs"],
    },
}


@pytest.mark.parametrize("name", MOUNTS)
def test_a_snapshot_without_a_directory_is_refused(
    daemon: Daemon, namespace: str, base: str, channel: Channel, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed(daemon, namespace, "c1", script="echo x >/etc/new")
    call = Channel.call

    def mounted(self: Channel, method: str, **fields: Any) -> Any:
        answer = call(self, method, **fields)
        if method.endswith(("/Mounts", "/View")):
            return types_of(method)[1](mounts=[MOUNTS[name]])
        return answer

    why = "run the command in that one" if "elsewhere" in name else "use a snapshotter such as overlayfs"
    with Store.containerd(daemon.address, namespace) as store:
        with monkeypatch.context() as patch:
            patch.setattr(Channel, "call", mounted)
            with pytest.raises(UnsupportedError, match=why) as caught:
                store.commit(store.container("c1"), "app:v1")
            assert "\n" not in str(caught.value)
        assert [one.name for one in store.images()] == ["base:1"]
    rests(daemon, namespace, channel, select_engine(None))


def blockfiles(place: Path) -> str:
    """Configure a snapshotter whose trees are files with a file system."""
    with (place / "scratch").open("wb") as file:
        file.truncate(32 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", place / "scratch"], check=True)
    return f"""
[plugins."io.containerd.snapshotter.v1.blockfile"]
  root_path = "{place}/blockfile"
  scratch_file = "{place}/scratch"
  fs_type = "ext4"
"""


def test_a_container_of_the_blockfile_snapshotter_is_refused(archive: Path) -> None:
    with running(VERSION, blockfiles) as daemon:
        daemon.ctr("namespaces", "create", SPACE)
        daemon.load(archive, SPACE)
        unpack = ("--local",) if not daemon.is_first else ()
        daemon.ctr("images", "import", *unpack, "--snapshotter", "blockfile", archive, namespace=SPACE)
        daemon.run(SPACE, "base:1", "c1", "--snapshotter", "blockfile", script="echo x >/etc/new; sleep 1000")
        words = ("commit", "containerd:c1", "app:v1", "--address", daemon.address, "--namespace", SPACE)
        status, line = refused(*words)
        assert (status, "snapshotter blockfile" in line, "such as overlayfs" in line) == (1, True, True), line
        assert daemon.status(SPACE, "c1") == "RUNNING"
        channel = Channel.open(daemon.address, SPACE)
        try:
            rests(daemon, SPACE, channel, select_engine(None))
        finally:
            channel.close()
        daemon.kill_containers(SPACE)


def test_a_version_that_is_too_old_is_named() -> None:
    with running("1.6") as old:
        old.ctr("namespaces", "create", SPACE)
        status, line = refused("commit", "containerd:c1", "app:v1", "--address", old.address, "--namespace", SPACE)
    assert (status, "containerd 1.6" in line, "1.7 or newer is needed" in line) == (1, True, True), line


@pytest.fixture
def small() -> Iterator[Daemon]:
    """A containerd whose root is a file system of 64 MiB."""
    place = Path(tempfile.mkdtemp(prefix="oci-f-", dir="/tmp"))
    place.chmod(0o755)
    (place / "root").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", place / "root"], check=True)
    daemon = Daemon(VERSION, place)
    try:
        yield daemon
    finally:
        daemon.kill_containers(SPACE)
        daemon.stop()
        for point in [*place.glob("state/*/*/*/rootfs"), place / "root"]:
            subprocess.run(["umount", "-l", point], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(place)


@pytest.mark.parametrize("unit", [None, b"compresses well\n"])
def test_a_disk_that_is_full_is_told_and_nothing_stays(small: Daemon, archive: Path, unit: bytes | None) -> None:
    small.ctr("namespaces", "create", SPACE)
    small.load(archive, SPACE)
    small.run(SPACE, "base:1", "c1")
    (small.root(SPACE, "c1") / "large").write_bytes(os.urandom(16 << 20) if unit is None else unit * (1 << 20))
    small.collect(SPACE)
    place = small.place / "root"
    free = os.statvfs(place).f_bavail * os.statvfs(place).f_frsize
    with (place / "filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free - (6 << 20))
    words = ("commit", "containerd:c1", "app:v1", "--address", small.address, "--namespace", SPACE)
    status, line = refused(*words)
    # The snapshot fills the disk, or what containerd writes.
    assert re.search("snapshotter overlayfs: /large: No space|No space left on device where containerd keeps", line), line
    assert status == 1
    channel = Channel.open(small.address, SPACE)
    try:
        rests(small, SPACE, channel, select_engine(None))
    finally:
        channel.close()
    (place / "filler").unlink()
    with Store.containerd(small.address, SPACE) as store:
        assert store.commit(store.container("c1"), "app:v1").layer is not None
