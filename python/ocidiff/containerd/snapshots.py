"""Snapshots: trees that containerd's snapshotters keep."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

from ocidiff.containerd.channel import Channel
from ocidiff.containerd.convert import check_labels, check_word, label_mask, mounts_of, snapshot_of
from ocidiff.errors import InUseError, NotFoundError, UnsupportedError, UsageError
from ocidiff.mounts.kernel import max_lower_directories, sync_file_system
from ocidiff.mounts.mount import Mount
from ocidiff.services.snapshots import Kind, Snapshot, Usage

VIEW_PREFIX: Final = "ocidiff-view-"
_OVERLAYS: Final = frozenset({"overlayfs", "fuse-overlayfs", "stargz", "soci", "nydus"})
_READABLE: Final = frozenset({"bind", "overlay"})
_MAX_KEY_BYTES: Final = 1024


class ContainerdSnapshotter:
    """A `Snapshotter` of containerd, by its name there."""

    def __init__(self, channel: Channel, name: str) -> None:
        self._channel, self._name = channel, name

    @property
    def name(self) -> str:
        """See `Snapshotter.name`."""
        return self._name

    @property
    def max_parents(self) -> int | None:
        """See `Snapshotter.max_parents`."""
        return max_lower_directories() if self._name in _OVERLAYS else None

    @property
    def shares_parents(self) -> bool:
        """See `Snapshotter.shares_parents`."""
        return self._name != "native"

    @property
    def one_for_each_layer(self) -> bool:
        """See `Snapshotter.one_for_each_layer`: containerd itself looks for a snapshot of every chain ID."""
        return True

    def prepare(self, key: str, parent: str | None, labels: Mapping[str, str] | None = None) -> tuple[Mount, ...]:
        """See `Snapshotter.prepare`."""
        return self._make("Prepare", key, parent, labels)

    def view(self, key: str, parent: str | None, labels: Mapping[str, str] | None = None) -> tuple[Mount, ...]:
        """See `Snapshotter.view`."""
        return self._make("View", key, parent, labels)

    def _make(self, method: str, key: str, parent: str | None, labels: Mapping[str, str] | None) -> tuple[Mount, ...]:
        check_word("snapshot", key, _MAX_KEY_BYTES)
        fields: dict[str, Any] = {"key": key, "parent": parent or "", "labels": check_labels(labels)}
        try:
            made = self._channel.call(f"snapshots.v1.Snapshots/{method}", snapshotter=self._name, **fields)
        except UsageError:
            if parent is not None and (kind := self.stat(parent).kind) is not Kind.COMMITTED:
                raise UsageError(f"snapshot {parent}: is {kind}, and only a committed one is a parent") from None
            raise
        return self._readable(mounts_of(made.mounts))

    def commit(self, name: str, key: str, labels: Mapping[str, str] | None = None) -> None:
        """See `Snapshotter.commit`. What was written is on disk before the name is there."""
        active = self.stat(key)
        if active.kind is not Kind.ACTIVE:
            raise UsageError(f"snapshot {key}: is {active.kind}, and only an active one is committed")
        mount = self.mounts(key)[-1]
        sync_file_system(mount.option("upperdir") or mount.source)
        # containerd forgets those of the active snapshot.
        fields: dict[str, Any] = {"name": name, "key": key, "labels": check_labels({**active.labels, **(labels or {})})}
        self._channel.call("snapshots.v1.Snapshots/Commit", snapshotter=self._name, **fields)

    def mounts(self, key: str) -> tuple[Mount, ...]:
        """See `Snapshotter.mounts`."""
        try:
            found = self._channel.call("snapshots.v1.Snapshots/Mounts", snapshotter=self._name, key=key)
        except InUseError:
            raise UsageError(f"snapshot {key}: is committed; a view of it can be mounted") from None
        return self._readable(mounts_of(found.mounts))

    def _readable(self, mounts: tuple[Mount, ...]) -> tuple[Mount, ...]:
        """Refuse mounts that only a kernel of a virtual machine, or a block device, or another mount namespace shows."""
        kind = next((mount.type for mount in mounts if mount.type not in _READABLE), None)
        if kind is not None:
            raise UnsupportedError(
                f"snapshotter {self._name}: gives {kind} mounts, which are no directories that could be read; "
                "copy the changed files out and commit a directory, or use a snapshotter such as overlayfs"
            )
        for place in (mount.option("upperdir") or mount.source for mount in mounts):
            if os.path.isabs(place):
                try:
                    os.stat(place)
                except FileNotFoundError:
                    raise UnsupportedError(
                        f"snapshotter {self._name}: its directory {place} is not here, as if containerd ran in another "
                        "mount namespace; run the command in that one"
                    ) from None
        return mounts

    @contextmanager
    def reading(self, key: str) -> Iterator[tuple[Mount, ...]]:
        """See `Snapshotter.reading`; the view of a committed snapshot is removed on every way out."""
        if self.stat(key).kind is not Kind.COMMITTED:
            yield self.mounts(key)
            return
        view = VIEW_PREFIX + os.urandom(16).hex()
        try:
            yield self.view(view, key)
        finally:
            with suppress(NotFoundError):
                self._channel.call("snapshots.v1.Snapshots/Remove", is_cleanup=True, snapshotter=self._name, key=view)

    def stat(self, key: str) -> Snapshot:
        """See `Snapshotter.stat`."""
        return snapshot_of(self._channel.call("snapshots.v1.Snapshots/Stat", snapshotter=self._name, key=key).info)

    def usage(self, key: str) -> Usage:
        """See `Snapshotter.usage`."""
        found = self._channel.call("snapshots.v1.Snapshots/Usage", snapshotter=self._name, key=key)
        return Usage(found.size, found.inodes)

    def update_labels(self, key: str, labels: Mapping[str, str]) -> None:
        """See `Snapshotter.update_labels`."""
        fields: dict[str, Any] = {"info": {"name": key, "labels": check_labels(labels)}, "update_mask": label_mask(labels)}
        self._channel.call("snapshots.v1.Snapshots/Update", snapshotter=self._name, **fields)

    def walk(self) -> Iterator[Snapshot]:
        """See `Snapshotter.walk`."""
        left = {
            info.name: snapshot_of(info)
            for answer in self._channel.stream("snapshots.v1.Snapshots/List", snapshotter=self._name)
            for info in answer.info
        }
        while left:
            ready = [one for one in left.values() if one.parent not in left]
            # Parents that were removed meanwhile leave no circle.
            for one in sorted(ready, key=lambda one: one.created_ns):
                yield left.pop(one.key)

    def remove(self, key: str) -> None:
        """See `Snapshotter.remove`."""
        try:
            self._channel.call("snapshots.v1.Snapshots/Remove", is_cleanup=True, snapshotter=self._name, key=key)
        except InUseError:
            child = next((one.key for one in self.walk() if one.parent == key), "another snapshot")
            raise InUseError(f"snapshot {key}: in use as the parent of {child}") from None
