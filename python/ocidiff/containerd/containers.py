"""Containers and their tasks, as containerd has them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

from ocidiff.containerd.channel import Channel
from ocidiff.containerd.convert import check_word, id_maps_of
from ocidiff.containerd.guard import PAUSED_PREFIX, Guard
from ocidiff.containerd.images import ContainerdImages
from ocidiff.containerd.leases import ContainerdLease
from ocidiff.containerd.snapshots import ContainerdSnapshotter
from ocidiff.containerd.tasks import RUNNING, status_of
from ocidiff.errors import AlreadyExistsError, BusyError, NotFoundError, UnsupportedError
from ocidiff.layer.idmap import IdMaps
from ocidiff.mounts.mount import Mount
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import Digest
from ocidiff.services.containers import Committed, Container
from ocidiff.services.images import understood
from ocidiff.values import dataclass

_MAX_NAME_BYTES: Final = 76
# Longest wait for another commit that reads the container.
_PATIENCE_SECONDS: Final = 600.0
_PAUSE_SECONDS: Final = 0.05
_RUNTIME: Final = "io.containerd.runc.v2"
_SPEC_TYPE: Final = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
# Of nerdctl: the name of a container, whose id is made of random digits.
_NAME_LABEL: Final = "nerdctl/name"
_UID_LABEL: Final = "containerd.io/snapshot/uidmapping"
_GID_LABEL: Final = "containerd.io/snapshot/gidmapping"
# Runtimes whose containers change files where the host does not see them, and what to do about it.
_HIDDEN: Final = {
    "runsc": "gVisor keeps the changes in the sandbox; write them with `runsc tar rootfs-upper` and commit with --upper-tar",
    "kata": "a virtual machine keeps the changes; copy them out of it and commit a directory",
}


@dataclass(frozen=True, slots=True)
class ContainerdContainer:
    """A `Container`."""

    name: str
    image: str
    manifest: Descriptor
    driver: str
    snapshot: str
    mount_point: str | None = None
    command: tuple[str, ...] = ()
    unseen: str = ""


class ContainerdContainers:
    """A `ContainerStore`."""

    def __init__(self, channel: Channel, snapshotter: str) -> None:
        self._channel, self._snapshotter = channel, snapshotter

    def check(self, name: str) -> None:
        """See `ContainerStore.check`."""
        check_word("container", name, _MAX_NAME_BYTES)
        with suppress(NotFoundError):
            self._channel.call("containers.v1.Containers/Get", id=name)
            raise AlreadyExistsError(f"container {name} already exists")

    def put(
        self,
        name: str,
        image: str,
        manifest: Descriptor,
        config: Digest,  # noqa: ARG002 - containerd finds it through the image
        driver: str,
        snapshot: str,
    ) -> ContainerdContainer:
        """See `ContainerStore.put`. The container has a tree, and no process until somebody gives it one."""
        self.check(name)
        container = {
            "id": name,
            "image": image,
            "runtime": {"name": _RUNTIME},
            "spec": {
                "type_url": _SPEC_TYPE,
                "value": json.dumps({"ociVersion": "1.1.0", "root": {"path": "rootfs"}}).encode(),
            },
            "snapshotter": driver,
            "snapshot_key": snapshot,
        }
        self._channel.call("containers.v1.Containers/Create", container=container)
        return ContainerdContainer(name, image, manifest, driver, snapshot)

    def get(self, name: str) -> ContainerdContainer:
        """See `ContainerStore.get`: the container of that id, of that name of nerdctl, or whose id begins so.

        Raises:
            UnsupportedError: containerd knows no snapshot of it.
        """
        found = self._find(name)
        driver, snapshot = found.snapshotter, found.snapshot_key
        if not snapshot and found.image and self._has_snapshot(found.id):
            # Docker names the snapshot as the container, and does not tell containerd.
            driver, snapshot = self._snapshotter, found.id
        if not snapshot or not found.image:
            raise UnsupportedError(
                f"container {found.id}: containerd knows no snapshot or image of it; name its snapshotter with "
                "--snapshotter, or commit the directory of its root file system"
            )
        try:
            manifest = understood(ContainerdImages(self._channel).entry(found.image))
        except NotFoundError:
            raise NotFoundError(
                f"container {found.id}: its image {found.image!r} was removed; pull or tag it again under this name"
            ) from None
        runtime, command = found.runtime.name, _command(found.spec.value)
        unseen = next((f"runtime {runtime}: {why}" for kind, why in _HIDDEN.items() if kind in runtime), "")
        return ContainerdContainer(found.id, found.image, manifest, driver, snapshot, command=command, unseen=unseen)

    def _has_snapshot(self, key: str) -> bool:
        with suppress(NotFoundError):
            ContainerdSnapshotter(self._channel, self._snapshotter).stat(key)
            return True
        return False

    def _find(self, name: str) -> Any:  # noqa: ANN401 - a message
        with suppress(NotFoundError):
            return self._channel.call("containers.v1.Containers/Get", id=name).container
        every = self._channel.call("containers.v1.Containers/List").containers
        named = [one for one in every if one.labels.get(_NAME_LABEL) == name]
        found = named or [one for one in every if len(name) >= 4 and one.id.startswith(name)]
        if len(found) == 1:
            return found[0]
        if found:
            raise NotFoundError(f"container {name}: {len(found)} ids begin with it; give more characters")
        others = [one.name for one in self._channel.call("namespaces.v1.Namespaces/List").namespaces]
        elsewhere = ", ".join(sorted(set(others) - {self._channel.namespace}))
        hint = f"; other namespaces: {elsewhere}" if elsewhere else ""
        raise NotFoundError(f"no container {name!r} in containerd's namespace {self._channel.namespace!r}{hint}")

    @contextmanager
    def still(self, name: str) -> Iterator[ContainerdContainer]:
        """See `ContainerStore.still`. Its snapshot cannot go while the lease has it."""
        container = self.get(name)
        lease = self._channel.lease
        if isinstance(lease, ContainerdLease):
            lease.guard.prepare(container.name)
        if lease is not None:
            resource = {"id": container.snapshot, "type": f"snapshots/{container.driver}"}
            self._channel.call("leases.v1.Leases/AddResource", id=lease.id, resource=resource)
        yield container

    @contextmanager
    def frozen(self, container: Container) -> Iterator[bool]:
        """See `ContainerStore.frozen`. One that somebody has paused stays paused; another commit is waited for.

        Raises:
            BusyError: Another commit takes too long.
        """
        lease = self._channel.lease
        if not isinstance(lease, ContainerdLease):
            yield False
            return
        try:
            yield self._freeze(container.name, lease.guard)
        finally:
            lease.guard.thaw(container.name)

    def _freeze(self, name: str, guard: Guard) -> bool:
        """Pause a container that runs, when no other commit has paused it; return False for one that does not run."""
        ends = time.monotonic() + _PATIENCE_SECONDS
        while status_of(self._channel, name) != RUNNING or not guard.freeze(name):
            leases = self._channel.call("leases.v1.Leases/List", filters=[f"id=={PAUSED_PREFIX}{name}"]).leases
            # Asked again, since that commit may have ended in between.
            if not leases and status_of(self._channel, name) != RUNNING:
                return False
            if time.monotonic() > ends:
                raise BusyError(f"container {name}: another commit has paused it for {_PATIENCE_SECONDS:.0f} seconds")
            time.sleep(_PAUSE_SECONDS)
        return True

    def committed(self, container: Container, committed: Committed) -> None:
        """See `ContainerStore.committed`: a snapshotter of containerd shares no trees."""

    def ids(self, container: Container, mounts: Sequence[Mount]) -> tuple[IdMaps, bool]:
        """See `ContainerStore.ids`: containerd 2 maps the mount, 1.7 has a copy of the image with other owners."""
        if mapped := id_maps_of(mounts):
            return mapped, True
        labels = ContainerdSnapshotter(self._channel, container.driver).stat(container.snapshot).labels
        ranges = [[labels[name]] if name in labels else [] for name in (_UID_LABEL, _GID_LABEL)]
        return IdMaps.of(ranges[0], ranges[1], None), False


def _command(spec: bytes) -> tuple[str, ...]:
    """Return the arguments of a container's process; none if its specification has none."""
    try:
        words = json.loads(spec, parse_int=str)["process"]["args"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ()
    return tuple(map(str, words)) if isinstance(words, list) else ()
