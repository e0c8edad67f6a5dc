"""Leases: what garbage collection must leave alone while somebody works, although nothing refers to it yet.

Law: a lease lasts exactly as long as its owner. The owner holds a file in `leases/` locked, and the kernel drops the lock
when the process dies, however it dies. No clock and no process number is compared, so that a process which is stopped,
suspended, frozen or in another namespace keeps its lease.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from ocidiff import opening, workspace
from ocidiff.errors import NotFoundError, OcidiffError
from ocidiff.log import Logger
from ocidiff.services import leases as services
from ocidiff.values import dataclass

if TYPE_CHECKING:
    import sqlite3

    from ocidiff.embedded.database import Database

_PLACE: Final = "leases"
# Other users of the store look whether the file is locked.
_DIRECTORY_MODE: Final = 0o755
_FILE_MODE: Final = 0o644
_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_log = Logger(__name__)


def boot_id() -> str:
    """Return the id of this boot of the kernel."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


@dataclass(frozen=True, slots=True)
class Lease:
    """A promise to leave some things alone.

    Attributes:
        id: 32 random hex digits; the name of its file too.
        created_ns: When it was made, nanoseconds since 1970.
        path: Path of the file that its owner holds locked.
    """

    id: str
    created_ns: int
    path: str

    def is_over(self) -> bool:
        """True if its owner has ended. False also if its file cannot be looked at."""
        try:
            file = os.open(self.path, _OPEN)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        try:
            # Shared, so that two who look at the same time do not take each other for the owner.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return False
        else:
            return True
        finally:
            os.close(file)


class Leases:
    """The leases of one store, in its database and beside it.

    Args:
        database: Opens the database when it is first needed, and returns it.
    """

    def __init__(self, database: Callable[[], Database]) -> None:
        self._open = database

    @property
    def _database(self) -> Database:
        return self._open()

    @property
    def _place(self) -> str:
        return os.path.join(os.path.dirname(self._database.path), _PLACE)

    @contextmanager
    def hold(self) -> Iterator[Lease]:
        """A lease for as long as the block lasts, or this process."""
        with self._directory() as place:
            name, file = workspace.create_file(place, _FILE_MODE)
        lease = Lease(name, time.time_ns(), os.path.join(self._place, name))
        try:
            with self._database.transaction() as connection:
                connection.execute("INSERT INTO lease VALUES (?, ?)", (lease.id, lease.created_ns))
            yield lease
        finally:
            self._release(lease)
            os.close(file)

    def add(self, lease: services.Lease, kind: str, key: str) -> None:
        """See `LeaseManager.add`."""
        with self._database.transaction() as connection:
            protect(connection, lease.id, kind, key)

    def leases(self) -> list[Lease]:
        """Return all leases, also those that are over and were not swept yet."""
        with self._database.reading() as connection:
            return self.read(connection)

    def held(self) -> list[str]:
        """See `LeaseManager.held`."""
        return [lease.id for lease in self.leases()]

    def resources(self, lease: services.Lease) -> list[tuple[str, str]]:
        """See `LeaseManager.resources`."""
        with self._database.reading() as connection:
            query = "SELECT type, key FROM lease_resource WHERE lease_id = ? ORDER BY type, key"
            return [(str(row[0]), str(row[1])) for row in connection.execute(query, (lease.id,))]

    def read(self, connection: sqlite3.Connection) -> list[Lease]:
        """All leases, within a transaction."""
        found = connection.execute("SELECT id, created_ns FROM lease ORDER BY created_ns")
        return [Lease(lease_id, created, os.path.join(self._place, lease_id)) for lease_id, created in found]

    def end(self, connection: sqlite3.Connection) -> tuple[int, set[str]]:
        """Drop the leases that are over, within a transaction; how many there were, and the ids of the others."""
        leases = self.read(connection)
        over = {lease.id for lease in leases if lease.is_over()}
        connection.executemany("DELETE FROM lease WHERE id = ?", [(lease_id,) for lease_id in over])
        live = {lease.id for lease in leases} - over
        # Also the files of those whose owner died before they had a row. What cannot be removed is in nobody's way.
        with self._directory() as place:
            workspace.sweep(place, keep=live.__contains__, path=self._place)
        return len(over), live

    @contextmanager
    def _directory(self) -> Iterator[int]:
        """Yield a descriptor of `leases/`, which is made if it is missing."""
        with suppress(FileExistsError):
            os.mkdir(self._place)
            os.chmod(self._place, _DIRECTORY_MODE)
        descriptor = os.open(self._place, opening.DIRECTORY)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _release(self, lease: Lease) -> None:
        try:
            with self._database.transaction() as connection:
                connection.execute("DELETE FROM lease WHERE id = ?", (lease.id,))
        except (OSError, OcidiffError) as error:
            # The work is done. A lease without its file has ended, and is swept.
            _log.warning("a lease could not be released: %s", error)
        with suppress(FileNotFoundError, PermissionError):
            os.unlink(lease.path)


def require_lease(connection: sqlite3.Connection, lease_id: str) -> None:
    """Check, within a transaction, that no collection has ended a lease.

    Raises:
        NotFoundError: One has, so that what was written under the lease may be gone.
    """
    if connection.execute("SELECT 1 FROM lease WHERE id = ?", (lease_id,)).fetchone() is None:
        raise NotFoundError(
            f"lease {lease_id} has ended: its file in {_PLACE}/ was removed, so that what this call wrote may be collected: "
            "run it again"
        )


def protect(connection: sqlite3.Connection, lease_id: str, kind: str, key: str) -> None:
    """Put something under a lease, within a transaction.

    Raises:
        NotFoundError: The lease has ended, so that it would protect nothing.
    """
    require_lease(connection, lease_id)
    connection.execute("INSERT OR IGNORE INTO lease_resource VALUES (?, ?, ?)", (lease_id, kind, key))
