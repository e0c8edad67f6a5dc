"""What this machine and process can do, and what becomes of a test that needs more."""

from __future__ import annotations

import codecs
import functools
import importlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from ocidiff.layer.engine import Engine
from ocidiff.layer.options import Compression

CAPABILITY_VALUE = bytes.fromhex("0100000200040000000000000000000000000000")  # v2, cap_net_bind_service
# version 2; user::rwx, user:1000:r--, group::r-x, mask::r-x, other::r--
ACL_VALUE = bytes.fromhex("02000000 01000700ffffffff 02000400e8030000 04000500ffffffff 10000500ffffffff 20000400ffffffff")


def missing(what: str) -> NoReturn:
    """Skip the test for lack of `what`; fail where everything is required."""
    if os.environ.get("OCIDIFF_REQUIRE") == "all":
        pytest.fail(f"OCIDIFF_REQUIRE=all, but: {what}")
    pytest.skip(what)


def is_root() -> bool:
    return os.geteuid() == 0


@contextmanager
def as_user(uid: int = 1000) -> Iterator[None]:
    """Be a plain user for the block, in all threads; needs root."""
    codecs.lookup("ascii")  # what is imported lazily may be out of reach of a user
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(uid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


@contextmanager
def as_root() -> Iterator[None]:
    """Stay root for the block."""
    yield


@contextmanager
def bound(source: Path, point: Path) -> Iterator[None]:
    done = subprocess.run(["mount", "--bind", str(source), str(point)], capture_output=True, check=False)
    if done.returncode:
        missing("needs mounts")
    try:
        yield
    finally:
        subprocess.run(["umount", str(point)], check=True)


@functools.cache
def has_rust() -> bool:
    return importlib.util.find_spec("ocidiff._core") is not None


@functools.cache
def has_zstd_module() -> bool:
    for name in ("compression.zstd", "zstandard"):
        try:
            importlib.import_module(name)
        except ImportError:
            continue
        return True
    return False


def require_compression(engine: Engine, compression: Compression) -> None:
    """The pure engine finds zstd only where Python or a package brings it."""
    if compression is Compression.ZSTD and type(engine).__name__ == "PureEngine" and not has_zstd_module():
        missing("needs Python 3.14 or the package zstandard")


@functools.cache
def can_make_devices() -> bool:
    with tempfile.TemporaryDirectory() as directory:
        try:
            os.mknod(os.path.join(directory, "null"), 0o20600, os.makedev(1, 3))
        except OSError:
            return False
        return True


@functools.cache
def can_set_xattr(key: str, *, value: bytes = b"x", on_directory: bool = False) -> bool:
    with tempfile.TemporaryDirectory() as directory:
        path = directory if on_directory else os.path.join(directory, "file")
        if not on_directory:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        try:
            os.setxattr(path, key, value)
        except OSError:
            return False
        return True


@functools.cache
def can_store_time(seconds: int) -> bool:
    with tempfile.TemporaryDirectory() as directory:
        os.utime(directory, (seconds, seconds))
        return os.stat(directory).st_mtime == seconds


@functools.cache
def abilities() -> dict[str, bool]:
    """Every ability that the generated trees use, by name."""
    return {
        "root": is_root(),
        "devices": can_make_devices(),
        "user xattrs": can_set_xattr("user.probe"),
        "capabilities": can_set_xattr("security.capability", value=CAPABILITY_VALUE),
        "ACLs": can_set_xattr("system.posix_acl_access", value=ACL_VALUE),
        "times before 1970": can_store_time(-1),
        "times after 2242": can_store_time(1 << 33),
    }


@functools.cache
def can_mount_overlay() -> bool:
    from ocidiff.embedded.drivers.overlay import can_mount_overlay

    with tempfile.TemporaryDirectory() as directory:
        return can_mount_overlay(directory)


@functools.cache
def can_use_user_namespaces() -> bool:
    """Whether a process without privileges may have overlay mounts of its own."""
    words = ["unshare", "--user", "--map-root-user", "--mount", "true"]
    return shutil.which("unshare") is not None and subprocess.run(words, check=False, capture_output=True).returncode == 0
