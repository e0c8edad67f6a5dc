"""Leases: what garbage collection must leave alone while somebody works, although nothing refers to it yet.

Law: a lease ends with its owner. It is released on success, failure and interrupt alike; one whose owner died ends when the
next process looks, and where that cannot be seen (another pid namespace), by time.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol, Self

from ocidiff.errors import BusyError, NotFoundError, UsageError
from ocidiff.log import Logger
from ocidiff.values import dataclass

if TYPE_CHECKING:
    import sqlite3

    from ocidiff.metadata import Database

DEFAULT_LEASE_SECONDS: Final = 3600
CONTENT: Final = "content"

_NS_PER_SECOND: Final = 10**9
_RENEWALS_PER_TERM: Final = 3
_log = Logger(__name__)


def snapshots_of(driver: str) -> str:
    """The resource type of the snapshots of a driver, as containerd names it."""
    return f"snapshots/{driver}"


@dataclass(frozen=True, slots=True)
class Owner:
    """A process, told apart from all that had or will have its number.

    Attributes:
        boot_id: Of the running kernel.
        pid_namespace: Inode number of the namespace that the number counts in.
        pid: Its number.
        started_ticks: When it began, in clock ticks since boot.
    """

    boot_id: str
    pid_namespace: int
    pid: int
    started_ticks: int

    @classmethod
    def of_this_process(cls) -> Self:
        """This process."""
        return cls(boot_id(), _pid_namespace(), os.getpid(), _started_ticks("self") or 0)

    def is_dead(self) -> bool:
        """Whether it has surely ended. False also where that cannot be seen from here."""
        if self.boot_id != boot_id():
            return True
        return self.pid_namespace == _pid_namespace() and _started_ticks(str(self.pid)) != self.started_ticks


def boot_id() -> str:
    """What names this run of the kernel."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def _pid_namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino


def _started_ticks(pid: str) -> int | None:
    """When a process began; None when there is none, or only its remains. Spec: proc_pid_stat(5), field 22."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name in parentheses may hold anything.
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in {b"Z", b"X"} else int(fields[19])


@dataclass(frozen=True, slots=True)
class Lease:
    """A promise to leave some things alone.

    Attributes:
        id: 32 random hex digits.
        created_ns: When it was made, nanoseconds since 1970.
        expires_ns: When it ends unless it is renewed.
        owner: Who works under it.
    """

    id: str
    created_ns: int
    expires_ns: int
    owner: Owner

    def is_over(self) -> bool:
        """Whether it protects nothing any more."""
        return self.expires_ns <= time.time_ns() or self.owner.is_dead()


class LeaseManager(Protocol):
    """Who makes leases and lets go of them."""

    def create(self, expires_seconds: float) -> Lease:
        """A new lease of this process."""
        ...

    def renew(self, lease_id: str, expires_seconds: float) -> None:
        """Let it end so many seconds from now.

        Raises:
            NotFoundError: It has ended already.
        """
        ...

    def release(self, lease_id: str) -> None:
        """End it; one that has ended already is a success."""
        ...

    def leases(self) -> list[Lease]:
        """All there are, also those that are over and were not swept yet."""
        ...

    def resources(self, lease_id: str) -> list[tuple[str, str]]:
        """Type and key of all it protects."""
        ...


class Leases:
    """The leases of one store: a `LeaseManager` in its database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @contextmanager
    def hold(self, expires_seconds: float = DEFAULT_LEASE_SECONDS) -> Iterator[Lease]:
        """A lease for as long as the block lasts, renewed however long that is."""
        lease = self.create(expires_seconds)
        ended = threading.Event()
        renewal = threading.Thread(target=self._keep, args=(lease.id, expires_seconds, ended), daemon=True)
        try:
            renewal.start()
            yield lease
        finally:
            ended.set()
            if renewal.ident is not None:
                renewal.join()
            try:
                self.release(lease.id)
            except (OSError, BusyError) as error:
                # What was done is done; the lease ends with this process.
                _log.warning("a lease could not be released: %s", error)

    def create(self, expires_seconds: float) -> Lease:
        """See `LeaseManager.create`."""
        if not 1 <= expires_seconds <= 1 << 31:
            raise UsageError(f"lease of {expires_seconds} s: takes at least 1 second")
        now = time.time_ns()
        lease = Lease(os.urandom(16).hex(), now, now + round(expires_seconds * _NS_PER_SECOND), Owner.of_this_process())
        owner = lease.owner
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO lease VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    lease.id,
                    lease.created_ns,
                    lease.expires_ns,
                    owner.boot_id,
                    owner.pid_namespace,
                    owner.pid,
                    owner.started_ticks,
                ),
            )
        return lease

    def renew(self, lease_id: str, expires_seconds: float) -> None:
        """See `LeaseManager.renew`."""
        expires_ns = time.time_ns() + round(expires_seconds * _NS_PER_SECOND)
        with self._database.transaction() as connection:
            done = connection.execute("UPDATE lease SET expires_ns = ? WHERE id = ?", (expires_ns, lease_id))
            if done.rowcount == 0:
                raise NotFoundError(f"{self._database.path}: no lease {lease_id}")

    def release(self, lease_id: str) -> None:
        """See `LeaseManager.release`."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM lease WHERE id = ?", (lease_id,))

    def leases(self) -> list[Lease]:
        """See `LeaseManager.leases`."""
        with self._database.reading() as connection:
            return read_leases(connection)

    def resources(self, lease_id: str) -> list[tuple[str, str]]:
        """See `LeaseManager.resources`."""
        with self._database.reading() as connection:
            query = "SELECT type, key FROM lease_resource WHERE lease_id = ? ORDER BY type, key"
            return [(str(row[0]), str(row[1])) for row in connection.execute(query, (lease_id,))]

    def _keep(self, lease_id: str, expires_seconds: float, ended: threading.Event) -> None:
        while not ended.wait(expires_seconds / _RENEWALS_PER_TERM):
            try:
                self.renew(lease_id, expires_seconds)
            except (OSError, BusyError, NotFoundError) as error:
                # The next turn tries again; while the owner lives, others can see that too.
                _log.warning("a lease could not be renewed: %s", error)


def read_leases(connection: sqlite3.Connection) -> list[Lease]:
    """All leases, within a transaction."""
    query = "SELECT id, created_ns, expires_ns, boot_id, pid_namespace, pid, started_ticks FROM lease ORDER BY created_ns"
    return [
        Lease(lease_id, created, expires, Owner(boot, namespace, pid, ticks))
        for lease_id, created, expires, boot, namespace, pid, ticks in connection.execute(query)
    ]


def protect(connection: sqlite3.Connection, lease_id: str, kind: str, key: str) -> None:
    """Put something under a lease, within a transaction.

    Raises:
        NotFoundError: The lease has ended, so that it would protect nothing.
    """
    if connection.execute("SELECT 1 FROM lease WHERE id = ?", (lease_id,)).fetchone() is None:
        raise NotFoundError(f"lease {lease_id} has ended")
    connection.execute("INSERT OR IGNORE INTO lease_resource VALUES (?, ?, ?)", (lease_id, kind, key))


def end_leases(connection: sqlite3.Connection) -> int:
    """Drop the leases that are over, within a transaction; how many there were."""
    over = [(lease.id,) for lease in read_leases(connection) if lease.is_over()]
    connection.executemany("DELETE FROM lease WHERE id = ?", over)
    return len(over)
