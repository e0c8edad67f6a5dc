"""Namespaces: in which namespace of containerd the caller works.

containerd 2 says so in the header `containerd-namespace`. 1.7 forwards no header. Then the namespace is, in this order:
the one that the server was given; for Apply, any in which the layer is, since its bytes are the same in all; for Diff, the
one that has an active snapshot or a view with the very mounts of the call.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, Final

from ocidiff.containerd.channel import Channel
from ocidiff.containerd.content import ContainerdContent
from ocidiff.containerd.convert import mounts_of
from ocidiff.errors import NotFoundError, OcidiffError
from ocidiff.mounts.mount import Mount
from ocidiff.oci.digest import Digest

HEADER: Final = "containerd-namespace"
_COMMITTED: Final = 3
_REMEMBERED: Final = 256
# The name of a snapshotter is not in a mount, but in the path of its snapshots.
_PLUGIN: Final = "io.containerd.snapshotter.v1."


class Namespaces:
    """Finds namespaces of calls that do not say theirs. Safe from several threads."""

    def __init__(self, channel: Channel, fixed: str | None) -> None:
        self.channel, self._fixed = channel, fixed
        self._lock = threading.Lock()
        self._known: dict[tuple[Mount, ...], str] = {}

    def of_header(self, metadata: Iterable[Any]) -> str | None:
        """Return the namespace that the caller names, else that of the server; None if neither does."""
        return next((str(pair[1]) for pair in metadata if pair[0] == HEADER), None) or self._fixed

    def with_blob(self, digest: Digest) -> str:
        """Return a namespace that has this blob.

        Raises:
            NotFoundError: None has it.
        """
        for name in self._names():
            if ContainerdContent(self.channel.within(name)).contains(digest):
                return name
        raise NotFoundError(f"blob {digest}: not found in any namespace of containerd")

    def with_mounts(self, mounts: Sequence[Mount]) -> str:
        """Return the namespace whose snapshot has these mounts.

        Raises:
            NotFoundError: No snapshot has them.
        """
        wanted = tuple(mounts)
        with self._lock:
            # The paths of a snapshot have a number that is never given again.
            known = self._known.get(wanted)
        if known is not None:
            return known
        names = self._names()
        found = names[0] if len(names) == 1 else next((name for name in names if self._has(name, wanted)), None)
        if found is None:
            raise NotFoundError(
                "this containerd does not say in which namespace the caller works, and no snapshot has these mounts; "
                "start the plugin with --namespace"
            )
        with self._lock:
            while len(self._known) >= _REMEMBERED:
                del self._known[next(iter(self._known))]
            self._known[wanted] = found
        return found

    def _names(self) -> list[str]:
        return [one.name for one in self.channel.call("namespaces.v1.Namespaces/List").namespaces]

    def _has(self, name: str, wanted: tuple[Mount, ...]) -> bool:
        channel = self.channel.within(name)
        for snapshotter in _snapshotters(wanted):
            try:
                keys = [
                    info.name
                    for answer in channel.stream("snapshots.v1.Snapshots/List", snapshotter=snapshotter)
                    for info in answer.info
                    if info.kind != _COMMITTED
                ]
            except OcidiffError:
                # A snapshotter that only its path has this name of.
                continue
            # The newest is the likeliest.
            for key in reversed(keys):
                with suppress(NotFoundError):
                    found = channel.call("snapshots.v1.Snapshots/Mounts", snapshotter=snapshotter, key=key)
                    if mounts_of(found.mounts) == wanted:
                        return True
        return False


def _snapshotters(mounts: Sequence[Mount]) -> list[str]:
    """Return the names of the snapshotters that the paths of mounts lie in."""
    found = []
    for mount in mounts:
        for text in (mount.source, *mount.options):
            _, is_there, rest = text.partition(_PLUGIN)
            if is_there:
                found.append(rest.partition("/")[0])
    return list(dict.fromkeys(found)) or ["overlayfs"]
