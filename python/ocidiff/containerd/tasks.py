"""Tasks: the processes of containers, as containerd sees them."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from ocidiff.containerd.channel import Channel
from ocidiff.errors import NotFoundError

RUNNING: Final = 2
PAUSED: Final = 4
PAUSING: Final = 5
"""Status of a task."""


def status_of(channel: Channel, container: str) -> int:
    """Return the status of a container's task; 0 for none."""
    with suppress(NotFoundError):
        return int(channel.call("tasks.v1.Tasks/Get", is_cleanup=True, container_id=container).process.status)
    return 0
