"""Find the directories behind an overlay mount, if reading them gives what a walk of the mount would.

Law: `layers_behind` returns layers only if every name that the mount shows, and every name that it hides, can be told from
them. Otherwise the error says why not. Spec: layer-semantics 6.
"""

from __future__ import annotations

import os
import stat
from typing import Final

from ocidiff import opening
from ocidiff.errors import OverlayError
from ocidiff.mounts.layers import OverlayLayers
from ocidiff.mounts.mount import split_lowerdir, unescape_octal
from ocidiff.mounts.mountinfo import MountPoint, mount_id, mounts_here

# Options that do not change what a name leads to. All others are refused, since nobody knows what they do.
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


def parse_layers(options: bytes) -> OverlayLayers:
    """Return the layers that the options of an overlay mount name, as mountinfo lists them; without upperdir it is empty.

    Raises:
        OverlayError: An option may change what the layers mean.
    """
    upper, lowers, data, userxattr = b"", list[bytes](), list[bytes](), False
    redirects: bool | None = None
    for option in options.split(b","):
        name, _, value = option.partition(b"=")
        key, setting = name.decode("ascii", "replace"), value.decode("ascii", "replace")
        match key:
            case "upperdir":
                upper = unescape_octal(value)
            case "lowerdir":
                below, apart = split_lowerdir(value, octal=True)
                lowers += below
                data += apart
            case "lowerdir+":
                lowers.append(unescape_octal(value))
            case "datadir+":
                data.append(unescape_octal(value))
            case "userxattr":
                userxattr = True
            case "redirect_dir":
                redirects = setting in _FOLLOWED
            case "index" | "nfs_export" | "verity" if setting == "off":
                pass
            case _ if key not in _HARMLESS:
                raise OverlayError(f"mount option {os.fsdecode(option)!r}")
    # The kernel follows no redirects in a mount with `userxattr`, since anybody may set that attribute.
    return OverlayLayers(upper, tuple(lowers), tuple(data), userxattr, not userxattr if redirects is None else redirects)


def layers_behind(lower: bytes, upper: bytes) -> OverlayLayers | None:
    """Return the layers to read instead of comparing `lower` with `upper`; None if `upper` is no overlay mount.

    Args:
        lower: Path of the parent tree: the overlay's only lowerdir, or a mount of all of them.
        upper: Path of the changed tree.

    Raises:
        OverlayError: `upper` is an overlay mount, but its layers cannot be known, or are not those of `lower`.
    """
    mounts = mounts_here()
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
        raise OverlayError("UPPER is not mounted over LOWER")
    _refuse_replaced(upper, layers)
    return layers


def _mounted_at(path: bytes, mounts: list[MountPoint]) -> MountPoint | None:
    """Return the overlay whose root is `path`."""
    handle = os.open(path, opening.ROOT_HANDLE)
    try:
        number = mount_id(handle)
    finally:
        os.close(handle)
    found = next((mount for mount in mounts if mount.id == number and mount.kind == b"overlay"), None)
    # A directory inside an overlay, or a part of it mounted elsewhere, is compared as an ordinary tree.
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
    """Refuse layers whose paths no longer lead to what is mounted: names in the roots must have the same metadata."""
    if os.stat(upper).st_ino != os.stat(layers.upperdir).st_ino:
        raise OverlayError(f"upperdir {os.fsdecode(layers.upperdir)!r} is not the one that is mounted")
    for name in os.listdir(upper):
        shown, real = _facts(upper, name), None
        for layer in (layers.upperdir, *layers.lowerdirs):
            real = _facts(layer, name)
            if real is not None:
                break
        # The upper directory may be written to meanwhile; the lower layers may not.
        if shown != real and shown is not None and real is not None and layer != layers.upperdir:
            raise OverlayError(f"lowerdir {os.fsdecode(layer)!r} is not the one that is mounted")


def _facts(directory: bytes, name: bytes) -> tuple[int, ...] | None:
    try:
        found = os.lstat(os.path.join(directory, name))
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_mode, found.st_uid, found.st_gid, found.st_mtime_ns, found.st_ctime_ns


def _identity(path: bytes) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISDIR(found.st_mode) else None
