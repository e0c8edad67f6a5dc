"""Layers that containerd writes of containers, and what of them can be compared."""

from __future__ import annotations

import gzip
import io
import subprocess
import tarfile
from collections.abc import Iterator
from typing import Final

from containerd.daemon import Daemon

_BLOCK: Final = 512
_TIME: Final = slice(136, 148)
_CHECKSUM: Final = slice(148, 156)


def layer_of_containerd(daemon: Daemon, namespace: str, name: str) -> bytes:
    """The tar that ctr writes of a container."""
    line = [str(daemon.programs / "ctr"), "-a", daemon.address, "-n", namespace, "snapshots", "diff", name]
    data = subprocess.run(line, capture_output=True, check=True).stdout
    return gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data


def comparable(daemon: Daemon, tar: bytes) -> bytes:
    """A layer as it is, or with the times of whiteouts set to 0, where containerd 1.7 has written the time of the diff."""
    return timeless_whiteouts(tar) if daemon.is_first else tar


def timeless_whiteouts(tar: bytes) -> bytes:
    """A layer whose whiteouts have the time 0, and that is the same otherwise."""
    data = bytearray(tar)
    with tarfile.open(fileobj=io.BytesIO(tar), errors="surrogateescape") as archive:
        for member in archive:
            if member.name.rpartition("/")[2].startswith(".wh."):
                # Whiteouts have no content, so that the header is the block before where it would be.
                header = memoryview(data)[member.offset_data - _BLOCK : member.offset_data]
                header[_TIME] = b"%011o\0" % 0
                header[_CHECKSUM] = b" " * 8
                header[_CHECKSUM] = b"%06o\0 " % sum(header)
    return bytes(data)


def entries(tar: bytes, uid: int = 0, gid: int = 0) -> Iterator[tuple[object, ...]]:
    """What a layer says, entry by entry, with owners that begin at these ids."""
    with tarfile.open(fileobj=io.BytesIO(tar), errors="surrogateescape") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isreg() else None
            yield (
                (member.name, member.type, member.mode, member.uid - uid, member.gid - gid, member.mtime, member.linkname)
                + ((member.devmajor, member.devminor) if member.isdev() else ())
                + (file.read() if file is not None else b"",)
            )
