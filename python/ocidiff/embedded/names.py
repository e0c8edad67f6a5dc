"""Names: which image a name in `index.json` means, and the one place where a name is given.

Law: a name is written only while the lease of its writer is alive and every blob of the image is there. Both are checked
in a transaction that collections wait for, so that no name ever leads to what was collected.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from ocidiff.embedded.files import DAMAGED, INDEX, Files
from ocidiff.embedded.leases import require_lease
from ocidiff.errors import DocumentError, NotFoundError
from ocidiff.image.reference import spelling
from ocidiff.oci import media_type
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import AnyDigest
from ocidiff.oci.encoding import MAX_DOCUMENT_BYTES
from ocidiff.oci.index import Entry, Index
from ocidiff.oci.references import parts

if TYPE_CHECKING:
    import sqlite3

    from ocidiff.embedded.layout import Layout


class Names:
    """The names of the images in a layout.

    Args:
        layout: Where the blobs are; under the lease of whoever gives names.
        files: Its files.
    """

    def __init__(self, layout: Layout, files: Files) -> None:
        self._layout = layout
        self._files = files
        # Reparse only if another process changed the index.
        self._parsed: tuple[bytes, Index] | None = None

    @property
    def place(self) -> str:
        """See `ImageStore.place`."""
        return self._files.path

    def list(self) -> Sequence[Entry]:
        """See `ImageStore.list`."""
        return self.index().entries

    def index(self) -> Index:
        """Return what `index.json` holds now."""
        data, known = self._files.read(INDEX), self._parsed
        if known is None or known[0] != data:
            known = self._parsed = data, Index.parse(data, media_type.INDEX, f"{self._files.path}/{INDEX}")
        return known[1]

    def entry(self, name: str) -> Entry:
        """See `ImageStore.entry`."""
        found = self.index().named(name)
        if not found:
            raise NotFoundError(f"no image {name!r} in {self._files.path}")
        if len(found) > 1:
            raise DocumentError(f"{len(found)} images are named {name!r} in {self._files.path}")
        return found[0]

    def spelling(self, name: str) -> str:
        """See `ImageStore.spelling`."""
        return spelling(name, {entry.name for entry in self.list() if entry.name})

    def put(self, name: str, target: Descriptor) -> None:
        """See `ImageStore.put`."""
        self.put_all({name: target})

    def put_all(self, names: Mapping[str, Descriptor]) -> None:
        """Let each name stand for its descriptor and nothing else, all of them or none; errors as in `put`."""
        # Documents never change, so they are read before anybody has to wait.
        needed: dict[AnyDigest, str] = {}
        for name, target in names.items():
            for digest in self.parts(target):
                needed.setdefault(digest, name)

        def check(connection: sqlite3.Connection) -> None:
            self._require_lease(connection)
            if (missing := self._layout.missing(list(needed))) is not None:
                raise self._missing(f"image {needed[missing]!r}", missing)

        self._update(lambda index: index.with_names(names), check)

    def drop(self, entry: Entry) -> None:
        """See `ImageStore.drop`. On disk when this returns."""
        self._update(lambda index: index.without(entry), lambda _: None)

    def parts(self, descriptor: Descriptor) -> Sequence[AnyDigest]:
        """Return the blobs without which an image is not whole: manifests, configurations and layers.

        Raises:
            NotFoundError: A manifest is missing.
        """
        needed: dict[AnyDigest, None] = {}
        pending: list[AnyDigest] = [descriptor.digest]
        while pending:
            digest = pending.pop()
            if digest in needed:
                continue
            needed[digest] = None
            document = self._layout.document(digest)
            required, optional = parts(document) if document is not None else ([], [])
            needed |= dict.fromkeys(part for part in required if part not in needed)
            pending += [part for part in optional if self._layout.contains(part)]
        return list(needed)

    def require(self, connection: sqlite3.Connection, what: str, needed: Sequence[AnyDigest]) -> None:
        """Check, within a transaction, that the lease is alive and that blobs are there.

        Raises:
            NotFoundError: The lease has ended, or a blob is missing.
        """
        self._require_lease(connection)
        if (missing := self._layout.missing(needed)) is not None:
            raise self._missing(what, missing)

    def _require_lease(self, connection: sqlite3.Connection) -> None:
        if self._layout.lease_id is not None:
            require_lease(connection, self._layout.lease_id)

    def _missing(self, what: str, digest: AnyDigest) -> NotFoundError:
        return NotFoundError(f"{what}: blob {digest} is missing in {self._files.path}; no name was given")

    def mirror(self) -> None:
        """Note in the database what other tools have written into the index.

        Raises:
            DocumentError, FileNotFoundError: The index is damaged or missing.
        """
        database = self._layout.database()
        with self._files.locked(), database.transaction() as connection:
            _mirror(connection, self.index())

    def restore(self) -> None:
        """Make the index anew from what the database has of it; a damaged one is kept in `damaged/`."""
        database = self._layout.database()
        with self._files.locked():
            with database.reading() as connection:
                rows = connection.execute("SELECT descriptor FROM image ORDER BY position").fetchall()
            entries = tuple(Entry.parse(str(row[0]), f"{self._files.path}/{INDEX}") for row in rows)
            with self._files.directory(DAMAGED) as damaged, contextlib.suppress(FileNotFoundError):
                os.link(INDEX, f"{INDEX}.{time.time_ns()}", src_dir_fd=self._files.root, dst_dir_fd=damaged)
            self._files.replace(INDEX, Index(entries).encode())

    def _update(self, change: Callable[[Index], Index], check: Callable[[sqlite3.Connection], None]) -> None:
        database = self._layout.database()
        with self._files.locked():
            before = self.index()
            after = change(before)
            data = after.encode()
            if len(data) > MAX_DOCUMENT_BYTES:
                raise DocumentError(f"{self._files.path}/{INDEX}: {len(data)} bytes of JSON, limit {MAX_DOCUMENT_BYTES}")
            with database.transaction() as connection:
                check(connection)
                _mirror(connection, after)
            if after != before:
                # A transaction that writes nothing cannot fail after the name is there; collections wait for it.
                with database.transaction() as connection:
                    check(connection)
                    self._files.replace(INDEX, data)
                    self._parsed = data, after


def _mirror(connection: sqlite3.Connection, index: Index) -> None:
    """Keep the entries of the index in the database too, from which a damaged index can be made again."""
    rows = [(position, _storable(entry.name), _storable(entry.text)) for position, entry in enumerate(index.entries)]
    known = connection.execute("SELECT * FROM image ORDER BY position").fetchall()
    # New names come last.
    same = next(
        (at for at, (old, new) in enumerate(zip(known, rows, strict=False)) if old != new), min(len(known), len(rows))
    )
    if same < max(len(known), len(rows)):
        connection.execute("DELETE FROM image WHERE position >= ?", (same,))
        connection.executemany("INSERT INTO image VALUES (?, ?, ?)", rows[same:])


def _storable(text: str | None) -> str | None:
    # A text of the database is UTF-8.
    return text and text.encode(errors="replace").decode()
