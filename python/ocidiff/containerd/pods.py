"""Pods: containers that a kubelet made, found by the labels that it gives them.

Spec: Kubernetes, pkg/kubelet/types/labels.go.
"""

from __future__ import annotations

import errno
import os
from typing import Final

from ocidiff.containerd.channel import Channel
from ocidiff.containerd.guard import thaw
from ocidiff.containerd.snapshots import ContainerdSnapshotter
from ocidiff.containerd.tasks import PAUSED, PAUSING, RUNNING, status_of
from ocidiff.errors import NotFoundError
from ocidiff.values import dataclass

NAMESPACE: Final = "k8s.io"
"""Namespace of containerd that a kubelet's containers are in."""

_POD: Final = "io.kubernetes.pod.name"
_POD_NAMESPACE: Final = "io.kubernetes.pod.namespace"
_CONTAINER: Final = "io.kubernetes.container.name"
_KIND: Final = "io.cri-containerd.kind"
# The layer, and what is compressed and not yet stored; the same factor as OpenKruise's committer.
_SPACE: Final = 1.5


@dataclass(frozen=True, slots=True)
class PodContainer:
    """A container of a pod.

    Attributes:
        name: Its name in the pod.
        id: Its id in containerd.
        driver: Its snapshotter.
        snapshot: Key of its snapshot.
    """

    name: str
    id: str
    driver: str
    snapshot: str


def container_of(channel: Channel, pod: str, namespace: str, name: str) -> PodContainer:
    """Return a container of a pod: the one that runs, among those that were restarted.

    Raises:
        NotFoundError: There is none, or none of several runs.
    """
    wanted = {_POD: pod, _POD_NAMESPACE: namespace, _CONTAINER: name}
    found = [
        PodContainer(name, one.id, one.snapshotter, one.snapshot_key)
        for one in channel.call("containers.v1.Containers/List").containers
        if wanted.items() <= dict(one.labels).items() and one.labels.get(_KIND) != "sandbox"
    ]
    if len(found) > 1:
        found = [one for one in found if status_of(channel, one.id) in {RUNNING, PAUSED, PAUSING}]
    if len(found) != 1:
        raise NotFoundError(
            f"pod {namespace}/{pod}: {'no' if not found else 'more than one'} container {name!r} is on this node, "
            f"in containerd's namespace {channel.namespace!r}"
        )
    return found[0]


def resume(channel: Channel, container: PodContainer) -> None:
    """Let the processes of a container run on, if it is paused."""
    thaw(channel, container.id)


def check_space(channel: Channel, container: PodContainer) -> None:
    """Refuse a commit that containerd's disk has no room for.

    Raises:
        OSError: There is less than one and a half times what the container has written.
    """
    snapshots = ContainerdSnapshotter(channel, container.driver)
    mount = snapshots.mounts(container.snapshot)[-1]
    place = mount.option("upperdir") or mount.source
    disk = os.statvfs(place)
    free, needed = disk.f_bavail * disk.f_frsize, int(snapshots.usage(container.snapshot).bytes * _SPACE)
    if free < needed:
        raise OSError(
            errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {needed} bytes are needed to be safe, {free} are free", place
        )
