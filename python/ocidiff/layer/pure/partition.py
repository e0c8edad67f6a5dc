"""Partition: which layer holds a path, if a change is written as several layers.

Laws: the layer depends on the path, the number of layers and on whether a file is large, so a change touches only the
layers of its paths. The last layer has all directories, with their times. Others have the directories above what they hold
with time 0: a name that comes or goes changes the time of its directory, and would change every layer that has something
below it.
"""

from __future__ import annotations

from typing import Final

import xxhash

LARGE_BYTES: Final = 16 << 20
"""Files of this size or more have a layer of their own choice, so that no layer has most of the large ones."""

_DEPTH: Final = 3  # names of a path that decide: files below one directory of this depth are in one layer
_PACKAGES: Final = frozenset(
    {b"site-packages", b"dist-packages", b"node_modules"}
)  # each directory in them decides by itself


class Partition:
    """The layers of a change.

    Attributes:
        of_directories: Number of the layer that has every directory with its time.
    """

    def __init__(self, layers: int) -> None:
        self.of_directories = layers - 1

    def is_large(self, size: int) -> bool:
        """Return True if a file of `size` bytes has another layer than small ones beside it may have."""
        return self.of_directories > 0 and size >= LARGE_BYTES

    def of(self, path: bytes, size: int) -> int:
        """Return the number of the layer of a path that is no directory; `size` is that of a regular file, and else 0."""
        # Without a second layer there is nothing to choose.
        return xxhash.xxh3_64_intdigest(path if self.is_large(size) else _unit(path)) % max(1, self.of_directories)


def _unit(path: bytes) -> bytes:
    """Return the part of a path that decides: of the directory, up to a package, or so many names."""
    names = path.split(b"/")[:-1]
    in_packages = next((depth + 1 for depth, name in enumerate(names, 1) if name in _PACKAGES), 0)
    # One version of a package, as in module caches of Go and stores of pnpm: `tool@v1.2.0`.
    with_version = next((depth for depth, name in enumerate(names, 1) if depth >= _DEPTH and b"@" in name[1:]), 0)
    return b"/".join(names[: max(in_packages, with_version) or _DEPTH])
