"""Partition: which layer holds a path, if a change is written as several layers.

Laws: the layer depends on the path and the number of layers alone, so a change touches only the layers of its paths.
The last layer has all directories, with their times. Others have the directories above what they hold with time 0: a name
that comes or goes changes the time of its directory, and would change every layer that has something below it.
"""

from __future__ import annotations

from typing import Final

import xxhash

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

    def of(self, path: bytes) -> int:
        """Return the number of the layer of a path that is no directory."""
        # Without a second layer there is nothing to choose.
        return xxhash.xxh3_64_intdigest(_unit(path)) % max(1, self.of_directories)


def _unit(path: bytes) -> bytes:
    """Return the part of a path that decides: of the directory, up to a package, or so many names."""
    names = path.split(b"/")[:-1]
    packages = next((depth for depth, name in enumerate(names, 1) if name in _PACKAGES), None)
    return b"/".join(names[: _DEPTH if packages is None else packages + 1])
