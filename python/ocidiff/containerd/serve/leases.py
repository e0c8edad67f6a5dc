"""Leases for what callers have not taken yet.

containerd does not tell a differ under which lease its caller works, so that a new layer would be garbage until an image has
it. A lease of the server keeps layers for ten minutes at least. One lease serves all calls in a namespace for five minutes,
since making one costs a transaction of containerd's database, and ends by itself ten minutes later.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from ocidiff.containerd.channel import Channel
from ocidiff.containerd.leases import ContainerdLeases
from ocidiff.containerd.owner import labels_of_lease
from ocidiff.errors import NotFoundError, OcidiffError
from ocidiff.log import Logger
from ocidiff.services.leases import INGESTS

USED_SECONDS: Final = 300.0
KEPT_SECONDS: Final = 600.0
_log = Logger(__name__)


class ServerLease:
    """A `Lease` of the server in one namespace, whose id changes every few minutes."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._lock = threading.Lock()
        self._ends = 0.0
        self.id = ""
        self.calls = 0

    def renew(self) -> None:
        """Replace the lease if it has served its time; what is being written goes over to the new one."""
        with self._lock:
            if time.monotonic() < self._ends:
                return
            number = f"ocidiff-{os.urandom(16).hex()}"
            labels = labels_of_lease(USED_SECONDS + KEPT_SECONDS)
            self._channel.call("leases.v1.Leases/Create", id=number, labels=labels)
            if self.calls and self.id:
                with suppress(NotFoundError):
                    self._move_ingests(number)
            self.id, self._ends = number, time.monotonic() + USED_SECONDS

    def _move_ingests(self, number: str) -> None:
        for one in self._channel.call("leases.v1.Leases/ListResources", id=self.id).resources:
            if one.type == INGESTS:
                self._channel.call("leases.v1.Leases/AddResource", id=number, resource={"id": one.id, "type": INGESTS})


class ServerLeases:
    """The leases of the server, one in each namespace that was called. Safe from several threads."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._lock = threading.Lock()
        self._leases: dict[str, ServerLease] = {}

    @contextmanager
    def under(self, namespace: str) -> Iterator[Channel]:
        """Yield the connection for a call in a namespace, under a lease that keeps what it writes after its end too."""
        channel = self._channel.within(namespace)
        with self._lock:
            lease = self._leases.setdefault(namespace, ServerLease(channel))
            lease.calls += 1
        try:
            lease.renew()
            yield channel.under(lease)
        finally:
            with self._lock:
                lease.calls -= 1

    def renew(self) -> None:
        """Replace the leases of calls that take long, before they end."""
        with self._lock:
            busy = [lease for lease in self._leases.values() if lease.calls]
        for lease in busy:
            try:
                lease.renew()
            except (OcidiffError, OSError) as error:
                _log.warning("lease %s: could not be renewed: %s", lease.id, error)

    def sweep(self) -> None:
        """Release the leases of servers that are dead, in every namespace."""
        for one in self._channel.call("namespaces.v1.Namespaces/List").namespaces:
            ContainerdLeases(self._channel.within(one.name)).sweep()
