"""Which directories are behind an overlay mount, and whether reading them gives what a walk of the mount would.

Law: `layers_behind` gives layers only where every name that the mount shows, and every one that it hides, can be told from
them. Where that is not known it says why not. Spec: layer-semantics 6.
"""

from __future__ import annotations

import os
import re
import stat
from typing import Final

from ocidiff.errors import OverlayError
from ocidiff.layer.layer import OverlayLayers
from ocidiff.values import dataclass

_OCTAL: Final = rb"\\([0-7]{3})"
# Options that change nothing of what a name leads to; all others are not known well enough.
_HARMLESS: Final = frozenset(
    {
        "rw",
        "ro",
        "workdir",
        "uuid",
        "xino",
        "volatile",
        "fsync",
        "seclabel",
        "metacopy",
        "override_creds",
        "nooverride_creds",
    }
)
_FOLLOWED: Final = frozenset({"on", "follow"})


@dataclass(frozen=True, slots=True)
class MountPoint:
    """A line of mountinfo.

    Attributes:
        id: Number of the mount.
        root: The directory of the file system that is mounted.
        path: Where it is mounted.
        kind: Type of the file system.
        options: Those of the file system, still escaped.
    """

    id: int
    root: bytes
    path: bytes
    kind: bytes
    options: bytes


def parse_mountinfo(text: bytes) -> list[MountPoint]:
    """The mounts that the kernel lists. Spec: proc_pid_mountinfo(5)."""
    mounts = []
    for line in text.splitlines():
        fixed, separator, rest = line.partition(b" - ")
        fields, kinds = fixed.split(b" "), rest.split(b" ")
        if separator and len(fields) >= 5 and len(kinds) == 3:
            root, path = _unescape(fields[3]), _unescape(fields[4])
            mounts.append(MountPoint(int(fields[0]), root, path, kinds[0], kinds[2]))
    return mounts


def parse_layers(options: bytes) -> OverlayLayers:
    """The layers that the options of an overlay mount name, as mountinfo shows them; the upperdir is empty if there is none.

    Raises:
        OverlayError: They name something that is not known to leave the rest as it is.
    """
    upper, lowers, data, userxattr, redirects = b"", list[bytes](), list[bytes](), False, True
    for option in options.split(b","):
        name, _, value = option.partition(b"=")
        key, setting = name.decode("ascii", "replace"), value.decode("ascii", "replace")
        match key:
            case "upperdir":
                upper = _unescape(value)
            case "lowerdir":
                below, apart = split_lowerdir(value, octal=True)
                lowers += below
                data += apart
            case "lowerdir+":
                lowers.append(_unescape(value))
            case "datadir+":
                data.append(_unescape(value))
            case "userxattr":
                userxattr = True
            case "redirect_dir":
                redirects = setting in _FOLLOWED
            case "index" | "nfs_export" | "verity" if setting == "off":
                pass
            case _ if key not in _HARMLESS:
                raise OverlayError(f"mount option {os.fsdecode(option)!r}")
    return OverlayLayers(upper, tuple(lowers), tuple(data), userxattr, redirects)


def layers_behind(lower: bytes, upper: bytes) -> OverlayLayers | None:
    """The layers to read instead of comparing `lower` with `upper`; None where `upper` is no overlay mount.

    Args:
        lower: Path of the parent tree: the overlay's only lowerdir, or a mount of all of them.
        upper: Path of the changed tree.

    Raises:
        OverlayError: `upper` is an overlay mount, but its layers cannot be known, or are not those of `lower`.
    """
    mounts = _mounts()
    found = _mounted_at(upper, mounts)
    if found is None:
        return None
    layers = parse_layers(found.options)
    if not layers.upperdir:
        raise OverlayError("it is mounted without upperdir")
    directories = (layers.upperdir, *layers.lowerdirs, *layers.datadirs)
    _refuse_unclear_paths(directories)
    _refuse_mounts_inside((upper, lower, *directories), mounts)
    if not _are_below(lower, layers, mounts):
        raise OverlayError("LOWER is not what it is mounted over")
    _refuse_replaced(upper, layers)
    return layers


def _mounts() -> list[MountPoint]:
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            return parse_mountinfo(file.read())
    except OSError:
        return []


def mount_id(handle: int) -> int | None:
    """The number of the mount that an open file is in; None where the kernel does not tell."""
    try:
        with open(f"/proc/self/fdinfo/{handle}", encoding="ascii") as file:
            return next((int(line.split()[1]) for line in file if line.startswith("mnt_id:")), None)
    except OSError:
        return None


def has_mounts_below(handle: int) -> bool:
    """Whether something may be mounted below an open directory."""
    mounts, path = _mounts(), os.fsencode(os.readlink(f"/proc/self/fd/{handle}")).rstrip(b"/")
    # Of a directory in another namespace the list of this one says nothing.
    is_here = mount_id(handle) in {mount.id for mount in mounts}
    return not is_here or any(mount.path.startswith(path + b"/") for mount in mounts)


def _mounted_at(path: bytes, mounts: list[MountPoint]) -> MountPoint | None:
    """The overlay whose root is `path`."""
    handle = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        number = mount_id(handle)
    finally:
        os.close(handle)
    found = next((mount for mount in mounts if mount.id == number and mount.kind == b"overlay"), None)
    # A part of an overlay is an ordinary tree, whether it is a directory in it or mounted elsewhere.
    return found if found and found.root == b"/" and _identity(found.path) == _identity(path) else None


def _are_below(lower: bytes, layers: OverlayLayers, mounts: list[MountPoint]) -> bool:
    if len(layers.lowerdirs) == 1 and not layers.datadirs and _identity(lower) == _identity(layers.lowerdirs[0]):
        return True
    found = _mounted_at(lower, mounts)
    if found is None:
        return False
    below = parse_layers(found.options)
    _refuse_unclear_paths((*below.lowerdirs, *below.datadirs))
    return (
        not below.upperdir
        and below.userxattr == layers.userxattr
        and list(map(_identity, below.lowerdirs)) == list(map(_identity, layers.lowerdirs))
        and list(map(_identity, below.datadirs)) == list(map(_identity, layers.datadirs))
    )


def _refuse_unclear_paths(directories: tuple[bytes, ...]) -> None:
    for path in directories:
        if not path.startswith(b"/"):
            raise OverlayError(f"layer {os.fsdecode(path)!r} is relative to the directory of who mounted it")
        if not os.path.isdir(path):
            raise OverlayError(f"layer {os.fsdecode(path)!r} is not to be found here")


def _refuse_mounts_inside(directories: tuple[bytes, ...], mounts: list[MountPoint]) -> None:
    tops = [os.path.realpath(path).rstrip(b"/") + b"/" for path in directories]
    for mount in mounts:
        if any(mount.path.startswith(top) for top in tops):
            raise OverlayError(f"something is mounted in it, at {os.fsdecode(mount.path)!r}")


def _refuse_replaced(upper: bytes, layers: OverlayLayers) -> None:
    """Make sure that the paths still lead to what is mounted: the root of the mount has the marks of its layers' roots."""
    if os.stat(upper).st_ino != os.stat(layers.upperdir).st_ino:
        raise OverlayError(f"upperdir {os.fsdecode(layers.upperdir)!r} is not the one that is mounted")
    for name in os.listdir(upper):
        shown, real = _facts(upper, name), None
        for layer in (layers.upperdir, *layers.lowerdirs):
            real = _facts(layer, name)
            if real is not None:
                break
        # What is being written may differ by now; what is in lower layers may not.
        if shown != real and shown is not None and real is not None and layer != layers.upperdir:
            raise OverlayError(f"lowerdir {os.fsdecode(layer)!r} is not the one that is mounted")


def _facts(directory: bytes, name: bytes) -> tuple[int, ...] | None:
    try:
        found = os.lstat(os.path.join(directory, name))
    except OSError:
        return None
    return found.st_mode, found.st_uid, found.st_gid, found.st_mtime_ns, found.st_ctime_ns


def _identity(path: bytes) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISDIR(found.st_mode) else None


def _unescape(text: bytes) -> bytes:
    return re.sub(_OCTAL, lambda digits: bytes([int(digits[1], 8)]), text)


def split_lowerdir(value: bytes, *, octal: bool = False) -> tuple[list[bytes], list[bytes]]:
    """The directories that the mount option `lowerdir` names, and those for data alone, which follow `::`.

    Args:
        value: Directories parted by colons; a backslash keeps the byte after it.
        octal: Whether bytes are escaped as mountinfo does. A colon that is so escaped parts nothing.

    Spec: Linux, Documentation/filesystems/overlayfs.rst.
    """
    groups, name, rest = [list[bytes]()], bytearray(), value

    def take() -> tuple[bytes, bool]:
        nonlocal rest
        digits = re.match(_OCTAL, rest) if octal else None
        rest, byte = (rest[4:], bytes([int(digits[1], 8)])) if digits else (rest[1:], rest[:1])
        return byte, digits is not None

    while rest:
        byte, is_escaped = take()
        if byte == b"\\":
            name += take()[0]
        elif byte == b":" and not is_escaped:
            groups[-1].append(bytes(name))
            name.clear()
            if rest.startswith(b":"):
                groups.append([])
                rest = rest[1:]
        else:
            name += byte
    groups[-1].append(bytes(name))
    return groups[0], [layer for group in groups[1:] for layer in group]
