"""The name of an entry as a path below the root, and the way down such a path."""

from __future__ import annotations

from typing import Final

from ocidiff.layer.pure import sentences
from ocidiff.layer.pure.faults import unsafe

_MAX_LINKS: Final = 40  # symbolic links in one path, as the kernel counts
# Components that the links of one path may bring in all. The kernel would take 40 times 2048, which short entries could have
# walked again and again.
_MAX_LINK_STEPS: Final = 2048


def clean(name: bytes) -> bytes:
    """The name of an entry as a relative path without `.`, `..` and empty components; nothing climbs over the root."""
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)


class Way:
    """The rest of a path that is walked from the root, and the components that symbolic links have brought in."""

    def __init__(self, path: bytes) -> None:
        self._path = path
        self._pending = _components(path)
        self._links = self._steps = 0

    def next(self) -> bytes | None:
        """Take the next component, which may be `..`; None at the end."""
        return self._pending.pop() if self._pending else None

    @property
    def is_done(self) -> bool:
        """True if there is no component left."""
        return not self._pending

    def follow(self, target: bytes) -> bool:
        """Go on with the target of a symbolic link, and return true if that begins at the root.

        Raises:
            UnsafeLayerError: There are too many links, or too long ones.
        """
        parts = _components(target)
        self._links += 1
        self._steps += len(parts)
        if self._links > _MAX_LINKS or self._steps > _MAX_LINK_STEPS:
            raise unsafe(self._path, sentences.TOO_MANY_LINKS)
        self._pending += parts
        return target.startswith(b"/")


def _components(path: bytes) -> list[bytes]:
    """The components of a path, the last one first."""
    return [part for part in path.split(b"/")[::-1] if part not in (b"", b".")]
