"""Layers made by hand: tars of chosen entries, also of kinds that no differ writes."""

from __future__ import annotations

import io
import os
import tarfile
from typing import Any

MTIME = 1_600_000_000
Member = tuple[tarfile.TarInfo, bytes]


def member(name: bytes, kind: bytes, data: bytes = b"", **fields: Any) -> Member:
    """One entry; `fields` are those of `tarfile.TarInfo`."""
    info = tarfile.TarInfo(os.fsdecode(name))
    info.type, info.size, info.mtime = kind, len(data), MTIME
    info.uid, info.gid = os.geteuid(), os.getegid()
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def directory(name: bytes, **fields: Any) -> Member:
    return member(name, tarfile.DIRTYPE, **fields)


def file(name: bytes, data: bytes = b"", **fields: Any) -> Member:
    return member(name, tarfile.REGTYPE, data, **fields)


def symlink(name: bytes, target: bytes, **fields: Any) -> Member:
    return member(name, tarfile.SYMTYPE, linkname=os.fsdecode(target), **fields)


def hard_link(name: bytes, target: bytes, **fields: Any) -> Member:
    return member(name, tarfile.LNKTYPE, linkname=os.fsdecode(target), **fields)


def whiteout(name: bytes) -> Member:
    """The entry that hides `name`."""
    parent, slash, last = name.rpartition(b"/")
    return file(parent + slash + b".wh." + last, mode=0, mtime=0)


def tar(*members: Member) -> bytes:
    """The uncompressed layer of these entries."""
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape"
    ) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()
