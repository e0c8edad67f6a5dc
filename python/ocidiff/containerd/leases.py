"""Leases: what containerd's garbage collector must keep while a call works.

A lease is released on every way out. If the client is killed, its guard releases it (`guard`). If that is killed too, the
lease expires. containerd cannot renew a lease, so that a second one takes over its resources well before.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from ocidiff.containerd.channel import Channel
from ocidiff.containerd.guard import PAUSED_PREFIX, Guard, thaw
from ocidiff.containerd.owner import is_left_behind, labels_of_lease
from ocidiff.errors import NotFoundError, OcidiffError
from ocidiff.log import Logger
from ocidiff.services.leases import Lease

LIFETIME_SECONDS: Final = 3600.0
_RENEWALS: Final = 3
_log = Logger(__name__)


class ContainerdLease:
    """A `Lease`, with the guard that releases it if this process is killed."""

    def __init__(self, id_: str, guard: Guard) -> None:
        self.id = id_
        self.guard = guard


class ContainerdLeases:
    """A `LeaseManager`."""

    def __init__(self, channel: Channel, lifetime: float = LIFETIME_SECONDS) -> None:
        self._channel, self._lifetime = channel, lifetime

    @contextmanager
    def hold(self) -> Iterator[ContainerdLease]:
        """See `LeaseManager.hold`."""
        with Guard(self._channel) as guard:
            lease = ContainerdLease(self._create(guard), guard)
            ended = threading.Event()
            renewer = threading.Thread(target=self._renew, args=(lease, ended), name="ocidiff-lease", daemon=True)
            renewer.start()
            try:
                yield lease
            finally:
                ended.set()
                renewer.join()
                self._delete(lease.id, guard)

    def _create(self, guard: Guard) -> str:
        number = f"ocidiff-{os.urandom(16).hex()}"
        # The guard knows it first, so that no moment is left in which nobody would release it.
        guard.keep(number)
        self._channel.call("leases.v1.Leases/Create", id=number, labels=labels_of_lease(self._lifetime))
        return number

    def _delete(self, number: str, guard: Guard | None = None) -> None:
        with suppress(NotFoundError):
            self._channel.call("leases.v1.Leases/Delete", is_cleanup=True, id=number)
        if guard is not None:
            guard.released(number)

    def _renew(self, lease: ContainerdLease, ended: threading.Event) -> None:
        while not ended.wait(self._lifetime / _RENEWALS):
            # The next attempt may succeed: the lease lasts for several.
            try:
                old, new = lease.id, self._create(lease.guard)
                moved = set[tuple[str, str]]()
                lease_is_new = False
                # The second round moves resources that were added to the old lease during the first.
                for _ in range(2):
                    for kind, key in set(self._resources(old)) - moved:
                        with suppress(NotFoundError):
                            self._add(new, kind, key)
                        moved.add((kind, key))
                    if not lease_is_new:
                        lease.id, lease_is_new = new, True
                        # Calls that began under the old one end soon; a write asks at its end which lease is there.
                        time.sleep(min(1.0, self._lifetime / 10))
                self._delete(old, lease.guard)
            except (OcidiffError, OSError) as error:
                _log.warning("lease %s: could not be renewed: %s", lease.id, error)

    def add(self, lease: Lease, kind: str, key: str) -> None:
        """See `LeaseManager.add`."""
        try:
            self._add(lease.id, kind, key)
        except NotFoundError:
            raise NotFoundError(f"lease {lease.id} has ended") from None

    def _add(self, number: str, kind: str, key: str) -> None:
        self._channel.call("leases.v1.Leases/AddResource", id=number, resource={"id": key, "type": kind})

    def resources(self, lease: Lease) -> list[tuple[str, str]]:
        """See `LeaseManager.resources`."""
        with suppress(NotFoundError):
            return sorted(self._resources(lease.id))
        return []

    def _resources(self, number: str) -> list[tuple[str, str]]:
        found = self._channel.call("leases.v1.Leases/ListResources", id=number).resources
        return [(one.type, one.id) for one in found]

    def held(self) -> list[str]:
        """See `LeaseManager.held`."""
        return [one.id for one in self._channel.call("leases.v1.Leases/List").leases]

    def sweep(self) -> None:
        """Release the leases of processes that are dead, and whose guards died with them; let run what they have paused."""
        for one in self._channel.call("leases.v1.Leases/List").leases:
            if is_left_behind(one.labels):
                if one.id.startswith(PAUSED_PREFIX):
                    thaw(self._channel, one.id.removeprefix(PAUSED_PREFIX))
                else:
                    self._delete(one.id)
