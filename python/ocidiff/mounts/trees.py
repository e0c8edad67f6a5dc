"""The trees to compare for the mounts of two snapshots.

Law: the layer of what `trees_to_compare` yields is the layer of the trees that the mounts show. A mount that cannot be read
that way is refused, never guessed. Spec: layer-semantics 6.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from ocidiff.errors import OverlayError
from ocidiff.mounts.behind import parse_layers
from ocidiff.mounts.kernel import directory_of
from ocidiff.mounts.layers import OverlayLayers
from ocidiff.mounts.mount import Mount, bind, lower_directories, only_mount, overlay


@contextmanager
def trees_to_compare(
    lower: Sequence[Mount], upper: Sequence[Mount], *, walk: bool = False
) -> Iterator[tuple[bytes | None, bytes | OverlayLayers]]:
    """Yield the parent tree and the changed tree; if the second is an overlay over the first, its layers and no parent.

    Nothing is mounted where the layers or the directories can be read as they are. Other views end with the block.

    Args:
        lower: Mounts of the parent snapshot; empty for no parent.
        upper: Mounts of the changed snapshot: an active one, or a view of a committed one.
        walk: Yield two trees for an overlay too.

    Raises:
        UnsupportedError: A mount is of a kind that cannot be read as a directory.
    """
    parent = only_mount(lower) if lower else None
    changed = only_mount(upper)
    layers = None if walk or parent is None else layers_over(parent, changed)
    if layers is not None:
        yield None, layers
        return
    with ExitStack() as stack:
        below = None if parent is None else os.fsencode(stack.enter_context(directory_of((_read_only(parent),))))
        yield below, os.fsencode(stack.enter_context(directory_of((_read_only(changed),))))


def layers_over(parent: Mount, changed: Mount) -> OverlayLayers | None:
    """Return the layers of an overlay whose lower directories are what `parent` shows; None if it is no such overlay.

    A read-only overlay has no upper directory: the first of its lower directories is what was changed.
    """
    if changed.type != "overlay":
        return None
    try:
        above = parse_layers(_as_mountinfo(changed))
        below = (os.fsencode(parent.source),) if parent.type == "bind" else parse_layers(_as_mountinfo(parent)).lowerdirs
    except OverlayError:
        # An option may change what the layers mean: what the mount shows is compared instead.
        return None
    if not above.upperdir and above.lowerdirs:
        upper, *lower = above.lowerdirs
        above = OverlayLayers(upper, tuple(lower), above.datadirs, above.userxattr, above.redirects)
    return above if above.lowerdirs == below and not above.datadirs else None


def _read_only(mount: Mount) -> Mount:
    """Return a mount that shows the same and writes nothing, not even while somebody else has it mounted."""
    if mount.type == "bind":
        return bind(mount.source, read_only=True)
    upper = mount.option("upperdir")
    if mount.type != "overlay" or upper is None:
        return mount
    options = [option for option in mount.options if _is_kept(option)]
    return overlay((upper, *lower_directories(mount)), None, None, options)


def _is_kept(option: str) -> bool:
    """True for the options that mean the same in a read-only overlay."""
    name = option.partition("=")[0]
    return name not in {"rw", "ro", "lowerdir", "upperdir", "workdir", "volatile"}


def _as_mountinfo(mount: Mount) -> bytes:
    """Return the options of a mount in the form that the kernel lists them in."""
    return b",".join(_octal(os.fsencode(option)) for option in mount.options)


def _octal(option: bytes) -> bytes:
    # Commas separate options there; a backslash escapes.
    return option.replace(b"\\", rb"\134").replace(b",", rb"\054")
