"""Working containers: an active snapshot over an image, by name, and the directory where it can be changed."""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, Final

from ocidiff import opening
from ocidiff.embedded.drivers.directory import DirectoryDriver
from ocidiff.embedded.drivers.select import snapshotter
from ocidiff.embedded.layout import Layout
from ocidiff.embedded.leases import boot_id
from ocidiff.embedded.snapshotter import LocalSnapshotter, label_of_reference
from ocidiff.embedded.tables import content as records
from ocidiff.embedded.tables import snapshots as rows
from ocidiff.embedded.tables.snapshots import LABEL_OFFERS, LABEL_PARTLY_REMOVED, OFFERS
from ocidiff.embedded.trees import discard_or_restore, tree_of
from ocidiff.errors import AlreadyExistsError, InUseError, NotFoundError, UsageError
from ocidiff.layer.idmap import IdMaps
from ocidiff.mounts.kernel import attach, release
from ocidiff.mounts.mount import Mount
from ocidiff.mounts.mountinfo import mount_points
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import Digest
from ocidiff.oci.timestamp import timestamp
from ocidiff.services import containers as services
from ocidiff.values import dataclass

if TYPE_CHECKING:
    import sqlite3

_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}"
_MOUNTS: Final = "mounts"
# In the note of a mount: somebody may have it until the machine stops, whatever is unmounted here.
_BY_OTHERS: Final = "+"
# As for the snapshots: who may not use all that is in there may not reach it.
_MODE: Final = 0o700
# Of the reason that a label keeps.
_MAX_WHY: Final = 1024
_COLUMNS: Final = f"""
    SELECT container.name, image, manifest, container.created_ns, mounted_boot_id, driver, key, snapshot_id, parent_id, (
        SELECT value FROM snapshot_label WHERE snapshot_label.snapshot_id = snapshot.id AND name = '{LABEL_PARTLY_REMOVED}'
    ) FROM container JOIN snapshot ON snapshot.id = snapshot_id
"""  # noqa: S608 - a constant


@dataclass(frozen=True, slots=True)
class Container:
    """A working container.

    Attributes:
        name: Its name.
        image: Name of the image it was made from.
        manifest: Descriptor of that image's manifest.
        driver: Which snapshot driver holds its tree.
        snapshot: Key of its snapshot.
        snapshot_id: Number of the snapshot's directory.
        created_ns: When it was made, nanoseconds since 1970.
        in_place: True if its tree is a plain directory, which needs no mount and is there always.
        mount_point: Its root directory; None while it is not mounted.
        maybe_mounted: True if somebody may be writing to it, in this or in another mount namespace.
        partly_removed: What could not be removed when it was to be, and why; None for a whole container.
        command, unseen: Empty, since its processes are those of other programs, on this host.
    """

    name: str
    image: str
    manifest: Descriptor
    driver: str
    snapshot: str
    snapshot_id: int
    created_ns: int
    in_place: bool
    mount_point: str | None
    maybe_mounted: bool
    partly_removed: str | None = None
    command: tuple[str, ...] = ()
    unseen: str = ""

    def __repr__(self) -> str:
        return f"<Container {self.name} of {self.image}, {self.driver}, {self.mount_point or 'not mounted'}>"

    def to_dict(self) -> dict[str, object]:
        """Return the object that `ps --json` prints."""
        return {
            "name": self.name,
            "image": self.image,
            "manifestDigest": self.manifest.digest,
            "created": timestamp(self.created_ns),
            "driver": self.driver,
            "snapshot": self.snapshot,
            "mountPoint": self.mount_point,
            "partlyRemoved": self.partly_removed,
        }


Offer = Callable[[LocalSnapshotter, Container, services.Committed], None]


class Containers:
    """The working containers of a store.

    Args:
        layout: The store; under a lease, if containers are made or committed.
        offer: Called with what a container was committed as; None if nobody reuses its tree.
    """

    def __init__(self, layout: Layout, offer: Offer | None = None) -> None:
        self._layout = layout
        self._offer = offer

    def check(self, name: str) -> None:
        """See `ContainerStore.check`."""
        if not re.fullmatch(_NAME, name):
            raise UsageError(
                f"container {name[:100]!r}: must be a letter or digit, then up to 127 letters, digits, '_', '.' or '-'"
            )
        with self._layout.database().reading() as connection:
            _refuse_taken(connection, name)

    def put(self, name: str, image: str, manifest: Descriptor, config: Digest, driver: str, snapshot: str) -> Container:
        """See `ContainerStore.put`."""
        with self._layout.database().transaction(durable=True) as connection:
            _refuse_taken(connection, name)
            row = rows.require(connection, driver, snapshot)
            self._layout.names.require(connection, f"container {name}", [manifest.digest, config])
            connection.execute(
                "INSERT INTO container VALUES (?, ?, ?, ?, ?, NULL)",
                (name, row.id, image, json.dumps(manifest.document()), time.time_ns()),
            )
        return self.get(name)

    def get(self, name: str) -> Container:
        """The container of that name.

        Raises:
            NotFoundError: There is none.
        """
        row = None
        if self._layout.has_database():
            with self._layout.database().reading() as connection:
                row = connection.execute(_COLUMNS + "WHERE container.name = ?", (name,)).fetchone()
        if row is None:
            raise NotFoundError(f"no working container {name!r} in {self._layout.path}")
        return self._container(row, mount_points())

    def __iter__(self) -> Iterator[Container]:
        return iter(self.list())

    def __len__(self) -> int:
        return len(self.list())

    def __repr__(self) -> str:
        return f"<Containers of {self._layout.path}>"

    def list(self) -> list[Container]:
        """All of them, by name."""
        if not self._layout.has_database():
            return []
        with self._layout.database().reading() as connection:
            found = connection.execute(_COLUMNS + "ORDER BY container.name").fetchall()
        points = mount_points()
        return [self._container(row, points) for row in found]

    def mount(self, name: str) -> str:
        """The root directory of a container, mounted if it was not.

        Raises:
            NotFoundError: There is no such container.
            OSError: The system refuses the mount.
        """
        with self.locked(name) as container:
            from ocidiff.embedded.share import unshare

            _refuse_partial(container)
            if container.mount_point is not None:
                return container.mount_point
            snapshots = self.snapshots(container)
            unshare(snapshots.directory(container.snapshot))
            mounts = snapshots.mounts(container.snapshot)
            place = self._mount_point(name)
            for directory in (os.path.dirname(place), place):
                with suppress(FileExistsError):
                    os.mkdir(directory, _MODE)
            # Noted first: it may be mounted and not noted at no time.
            self._note_mounted(container, by_others=container.maybe_mounted)
            try:
                attach(mounts, place)
            except BaseException:
                self._note_unmounted(container)
                with suppress(OSError):
                    os.rmdir(place)
                raise
            return place

    def umount(self, name: str, *, lazily: bool = False) -> None:
        """Take the mount of a container away; one that is not mounted is a success.

        Args:
            name: Of the container.
            lazily: Also while files in it are open.

        Raises:
            NotFoundError: There is no such container.
            OSError: Files in it are open.
        """
        with self.locked(name) as container:
            self._umount(container, lazily=lazily)

    def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a container with all that was changed in it; what it offers stays for as long as an image may need it.

        Args:
            name: Of the container.
            force: Also while it is mounted.

        Raises:
            NotFoundError: There is no such container.
            InUseError: It is mounted.
            OSError: Something in it cannot be removed. It stays listed, and can only be removed again.
        """
        with self.locked(name) as container:
            if container.mount_point is not None and not container.in_place and not force:
                raise InUseError(f"container {name}: is mounted at {container.mount_point}")
            self._umount(container, lazily=True)
            with self._layout.database().transaction(durable=True) as connection:
                found = connection.execute("SELECT * FROM container WHERE name = ?", (name,)).fetchone()
                connection.execute("DELETE FROM container WHERE name = ?", (name,))
                row = rows.require(connection, container.driver, container.snapshot)
                stays = _is_offered(connection, row)
                if not stays:
                    rows.delete(connection, row)
        # Not while its directory is locked, which would be in use.
        if stays:
            return

        def restore(connection: sqlite3.Connection, why: str) -> bool:
            if not rows.restore(connection, row, {LABEL_PARTLY_REMOVED: why[:_MAX_WHY]}):
                return False
            # Unless another container has got its name.
            connection.execute("INSERT OR IGNORE INTO container VALUES (?, ?, ?, ?, ?, ?)", found)
            return True

        discard_or_restore(self._layout, container.snapshot_id, restore)

    def snapshots(self, container: Container) -> LocalSnapshotter:
        """The snapshotter that holds a container's tree."""
        return snapshotter(self._layout, container.driver)

    @contextmanager
    def still(self, name: str) -> Iterator[Container]:
        """See `ContainerStore.still`."""
        with self.locked(name) as container:
            _refuse_partial(container)
            yield container

    def frozen(self, container: services.Container) -> AbstractContextManager[bool]:  # noqa: ARG002 - as others need it
        """See `ContainerStore.frozen`: nothing runs here."""
        return nullcontext(False)

    def ids(self, container: services.Container, mounts: Sequence[Mount]) -> tuple[IdMaps, bool]:  # noqa: ARG002 - likewise
        """See `ContainerStore.ids`: notes say what an id stands for, where one was set that is not meant."""
        return IdMaps(), False

    def committed(self, container: services.Container, committed: services.Committed) -> None:
        """See `ContainerStore.committed`."""
        if self._offer is not None:
            own = self.get(container.name)
            self._offer(self.snapshots(own), own, committed)

    @contextmanager
    def locked(self, name: str) -> Iterator[Container]:
        """The container of that name, which nobody mounts, unmounts, commits or removes meanwhile; errors as in `get`."""
        while True:
            container = self.get(name)
            try:
                descriptor = os.open(self.snapshots(container).directory(container.snapshot), opening.ROOT)
            except (FileNotFoundError, NotFoundError):
                if self.get(name).snapshot_id != container.snapshot_id:
                    continue
                raise
            except PermissionError as error:
                # Others may not reach the trees of a store that they may read.
                raise self._layout.refusal or error from None
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                # The container may have changed while this process waited.
                now = self.get(name)
                if now.snapshot_id == container.snapshot_id:
                    yield now
                    return
            finally:
                os.close(descriptor)

    def _umount(self, container: Container, *, lazily: bool) -> None:
        if container.in_place:
            return
        # One that is noted and not here may be in another mount namespace.
        is_over = not container.maybe_mounted
        if container.mount_point is not None:
            is_over = release(container.mount_point, lazily=lazily)
        with suppress(FileNotFoundError):
            os.rmdir(self._mount_point(container.name))
        if is_over:
            self._note_unmounted(container)
        else:
            self._note_mounted(container, by_others=True)

    def _note_mounted(self, container: Container, *, by_others: bool) -> None:
        """Note it, and withdraw what the container offers: it will not be what was committed."""
        note = boot_id() + _BY_OTHERS if by_others else boot_id()
        with self._layout.database().transaction() as connection:
            connection.execute("UPDATE container SET mounted_boot_id = ? WHERE name = ?", (note, container.name))
            rows.set_labels(connection, container.snapshot_id, dict.fromkeys(OFFERS, ""))

    def _note_unmounted(self, container: Container) -> None:
        with self._layout.database().transaction() as connection:
            connection.execute(
                "UPDATE container SET mounted_boot_id = NULL WHERE name = ? AND mounted_boot_id IS NOT ?",
                (container.name, boot_id() + _BY_OTHERS),
            )

    def _mount_point(self, name: str) -> str:
        return os.path.join(os.path.realpath(self._layout.path), _MOUNTS, name)

    def _container(self, row: tuple[Any, ...], points: set[str]) -> Container:
        name, image, manifest, created_ns, boot, driver, key, snapshot_id, parent_id, partly_removed = row
        in_place = driver == DirectoryDriver.name or parent_id is None
        place = self._mount_point(name)
        point = place if place in points else None
        return Container(
            name,
            image,
            Descriptor.parse(json.loads(manifest), f"container {name}"),
            driver,
            key,
            snapshot_id,
            created_ns,
            in_place,
            tree_of(self._layout, snapshot_id) if in_place else point,
            in_place or point is not None or boot in (boot_id(), boot_id() + _BY_OTHERS),
            partly_removed,
        )


def _refuse_taken(connection: sqlite3.Connection, name: str) -> None:
    if connection.execute("SELECT 1 FROM container WHERE name = ?", (name,)).fetchone() is not None:
        raise AlreadyExistsError(f"container {name}: already exists")


def _refuse_partial(container: Container) -> None:
    if container.partly_removed is not None:
        raise InUseError(f"container {container.name}: partly removed: {container.partly_removed}; remove it again")


def _is_offered(connection: sqlite3.Connection, row: rows.Row) -> bool:
    """Return True if what a snapshot offers may still be needed: nobody has taken it, and an image refers to it."""
    offered = rows.labels(connection, row.id).get(LABEL_OFFERS)
    if offered is None or rows.find(connection, row.driver, offered) is not None:
        return False
    return records.is_referred_to(connection, label_of_reference(row.driver), row.key)
