"""Ways in which a container's tree changes, as functions of the path of its root."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from support.probes import ACL_VALUE, CAPABILITY_VALUE


def nothing(root: Path) -> None:
    assert root.is_dir()


def added(root: Path) -> None:
    (root / "etc/new").write_text("new\n")
    (root / "new/deep").mkdir(parents=True)
    (root / "new/deep/file").write_text("x\n")
    (root / "new/empty").touch()
    (root / "new/link").symlink_to("nowhere")


def removed(root: Path) -> None:
    (root / "etc/gone").unlink()
    shutil.rmtree(root / "dir/sub")


def replaced(root: Path) -> None:
    (root / "etc/changed").write_text("other\n")
    (root / "dir/one").unlink()
    (root / "dir/one").mkdir()
    (root / "etc/other").write_text("renamed over\n")
    (root / "etc/other").rename(root / "etc/kept")
    (root / "bin/true").unlink()
    (root / "bin/true").symlink_to("/etc/kept")


def directory_to_file(root: Path) -> None:
    shutil.rmtree(root / "dir")
    (root / "dir").write_text("x\n")


def opaque_directories(root: Path) -> None:
    shutil.rmtree(root / "opaque")
    (root / "opaque").mkdir()
    (root / "opaque/new").write_text("new\n")
    shutil.rmtree(root / "dir")
    (root / "dir").mkdir()
    (root / "dir/one").write_text("dir/one\n")


def new_hard_links(root: Path) -> None:
    (root / "links/third").write_text("x\n")
    os.link(root / "links/third", root / "etc/fourth")
    os.link(root / "links/third", root / "links/fifth")


def hard_links_to_old_files(root: Path) -> None:
    os.link(root / "links/first", root / "links/sixth")
    os.link(root / "etc/kept", root / "etc/kept-too")
    (root / "links/second").unlink()


def modes_and_owners(root: Path) -> None:
    (root / "etc/kept").chmod(0o4755)
    (root / "dir").chmod(0o1777)
    (root / "etc/set").touch()
    os.chown(root / "etc/set", 1000, 1000)
    (root / "etc/set").chmod(0o6711)
    os.chown(root / "etc/changed", 12, 34)
    os.chown(root / "links", 70000, 3_000_000)


def capabilities(root: Path) -> None:
    os.setxattr(root / "bin/busybox", "security.capability", CAPABILITY_VALUE)
    (root / "bin/other").write_text("x\n")
    (root / "bin/other").chmod(0o755)
    os.setxattr(root / "bin/other", "security.capability", CAPABILITY_VALUE)


def extended_attributes(root: Path) -> None:
    os.setxattr(root / "etc/kept", "user.note", b"a\0b")
    os.setxattr(root / "etc/changed", "security.note", b"kept from others")
    os.setxattr(root / "dir", "user.note", b"of a directory")
    (root / "etc/with").write_text("x\n")
    os.setxattr(root / "etc/with", "user.note", b"c")
    os.setxattr(root / "etc/with", "trusted.note", b"d")


def access_control_lists(root: Path) -> None:
    os.setxattr(root / "etc/kept", "system.posix_acl_access", ACL_VALUE)
    os.setxattr(root / "dir", "system.posix_acl_default", ACL_VALUE)
    (root / "dir/inherits").write_text("x\n")


def devices(root: Path) -> None:
    os.mknod(root / "etc/null", 0o20666, os.makedev(1, 3))
    os.mknod(root / "etc/loop", 0o60660, os.makedev(7, 250))
    os.mkfifo(root / "etc/fifo")
    os.mknod(root / "etc/socket", 0o140755)


def times(root: Path) -> None:
    os.utime(root / "etc/kept", ns=(981173106 * 10**9, 981173106 * 10**9 + 123456789))
    os.utime(root / "etc/changed", (0, 0))
    (root / "etc/before").write_text("x\n")
    os.utime(root / "etc/before", (-5, -5))
    (root / "etc/late").write_text("x\n")
    os.utime(root / "etc/late", (1 << 33, 1 << 33))
    os.utime(root / "dir", (1, 1))


def deep_names(root: Path) -> None:
    directory = root / "deep"
    for _ in range(6):
        directory /= "a-component-of-a-path-that-needs-an-extended-header"
    directory.mkdir(parents=True)
    (directory / "file").write_text("x\n")
    (directory / ("n" * 255)).write_text("x\n")
    (directory / "link").symlink_to("t" * 300)


def strange_names(root: Path) -> None:
    base = os.fsencode(root)
    for name in (b"\xc3\xa4\xff", b" a b", b"new\nline", b"tab\t=", "ü".encode(), b"\x01"):
        with open(os.path.join(base, b"etc", name), "wb") as file:
            file.write(b"x\n")
    os.rename(os.path.join(base, b"dir/one"), os.path.join(base, b"dir/\xe9"))


def renamed(root: Path) -> None:
    # The kernel renames no directory of a lower layer, so that programs copy it.
    shutil.move(root / "dir", root / "moved")
    (root / "etc/kept").rename(root / "etc/renamed")


def large(root: Path) -> None:
    with (root / "large").open("wb") as file:
        file.write(os.urandom(1 << 20) * 5)
        file.truncate(40 << 20)


CHANGES: dict[str, Callable[[Path], None]] = {
    change.__name__: change
    for change in (
        nothing,
        added,
        removed,
        replaced,
        directory_to_file,
        opaque_directories,
        new_hard_links,
        hard_links_to_old_files,
        modes_and_owners,
        capabilities,
        extended_attributes,
        access_control_lists,
        devices,
        times,
        deep_names,
        strange_names,
        renamed,
        large,
    )
}
"""The ways, by name. Id-mapped containers are apart: only they see their own ids."""
