"""Tars of upper directories, in the form of `runsc tar rootfs-upper`: names with `./`, in no order within a directory."""

from __future__ import annotations

import io
import os
import random
import stat
import tarfile

_TYPES = {
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
}


def archive(upper: str | os.PathLike[str], seed: int = 0) -> bytes:
    """The tar of an upper directory, with times to the nanosecond. Sockets are left out, as by runsc and tar(1)."""
    draw, seen, buffer = random.Random(seed), dict[int, str](), io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape"
    ) as tar:

        def add(path: str, name: str) -> None:
            facts = os.lstat(path)
            kind = _TYPES.get(stat.S_IFMT(facts.st_mode))
            if kind is None:
                return
            info = tarfile.TarInfo(name)
            info.type, info.mode = kind, stat.S_IMODE(facts.st_mode)
            info.uid, info.gid = facts.st_uid, facts.st_gid
            info.pax_headers = {"mtime": time(facts.st_mtime_ns)}
            data = b""
            if kind != tarfile.DIRTYPE and facts.st_ino in seen:
                info.type, info.linkname = tarfile.LNKTYPE, seen[facts.st_ino]
            else:
                seen[facts.st_ino] = name
                for key in os.listxattr(path, follow_symlinks=False):
                    value = os.getxattr(path, key, follow_symlinks=False)
                    info.pax_headers[f"SCHILY.xattr.{key}"] = value.decode("utf-8", "surrogateescape")
            if info.type == tarfile.REGTYPE:
                with open(path, "rb") as file:
                    data = file.read()
                info.size = len(data)
            elif info.type == tarfile.SYMTYPE:
                info.linkname = os.readlink(path)
            elif info.type in (tarfile.CHRTYPE, tarfile.BLKTYPE):
                info.devmajor, info.devminor = os.major(facts.st_rdev), os.minor(facts.st_rdev)
            tar.addfile(info, io.BytesIO(data))
            if info.type == tarfile.DIRTYPE:
                names = sorted(os.listdir(path), key=os.fsencode)
                draw.shuffle(names)
                for child in names:
                    add(os.path.join(path, child), f"{name}/{child}")

        add(os.fspath(upper), ".")
    return buffer.getvalue()


def time(nanoseconds: int) -> str:
    """A time as PAX writes it."""
    sign, nanoseconds = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    return f"{sign}{nanoseconds // 10**9}.{nanoseconds % 10**9:09}"
