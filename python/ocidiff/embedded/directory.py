"""The directory of a store: its database, and what is on its way in or out."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from ocidiff import workspace
from ocidiff.embedded import ingest as ingests
from ocidiff.embedded.files import INGEST, Files

if TYPE_CHECKING:
    from ocidiff.embedded.database import Database
    from ocidiff.embedded.renewal import Renewed

_DATABASE: Final = "ocidiff.db"


class Shared:
    """State that all views of a layout share: the database, opened on first use."""

    def __init__(self) -> None:
        self.mutex = threading.Lock()
        self.database: Database | None = None

    def close(self) -> None:
        """Close the database; the caller holds the mutex."""
        if self.database is not None:
            self.database.close()
            self.database = None


class StoreDirectory:
    """A directory with a database, which is opened on first use. Safe from several threads."""

    def __init__(self, files: Files, shared: Shared) -> None:
        self._path = files.path
        self._files = files
        self._shared = shared

    def close(self) -> None:
        """Let go of the directory and of the database."""
        with self._shared.mutex:
            self._shared.close()
        self._files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def path(self) -> str:
        """The directory as it was given."""
        return self._path

    def database(self) -> Database:
        """The database beside the files, made when it is missing."""
        with self._shared.mutex:
            if self._shared.database is None:
                from ocidiff.embedded.database import Database

                refusal = self.refusal
                if refusal is None:
                    self._shared.database = Database.open(self.database_path, self._set_trees_aside)
                else:
                    self._shared.database = Database.open_for_reading(self.database_path, refusal)
            return self._shared.database

    @property
    def refusal(self) -> OSError | None:
        """Why this process may not write to the store; None if it may."""
        return self._files.refusal(_DATABASE)

    def require_writable(self) -> None:
        """Raise why this process may not write to the store, unless it may."""
        if (refusal := self.refusal) is not None:
            raise refusal

    def renew_database(self) -> Renewed:
        """Set a damaged database aside, and make it again with what can still be read of it."""
        from ocidiff.embedded.renewal import renew_database

        # Nobody gives a name meanwhile.
        with self._shared.mutex, self._files.locked():
            self._shared.close()
            return renew_database(self._files, self.database_path)

    @property
    def database_path(self) -> str:
        """Absolute path of the database."""
        return os.path.join(os.path.abspath(self._path), _DATABASE)

    def _set_trees_aside(self, known: frozenset[int]) -> None:
        from ocidiff.embedded.renewal import set_trees_aside

        set_trees_aside(self._files, self.database_path, known)

    def has_database(self) -> bool:
        """Return True if there is a database already."""
        if self._shared.database is not None:
            return True
        try:
            os.stat(_DATABASE, dir_fd=self._files.root)
        except FileNotFoundError:
            return False
        return True

    @property
    def ingest_path(self) -> str:
        """Absolute path of the directory `ingest/`."""
        return os.path.join(os.path.abspath(self._path), INGEST)

    @contextlib.contextmanager
    def temporary_directory(self) -> Iterator[str]:
        """The path of a private directory beside the blobs; removed at the end, whatever happens."""
        with self.ingest_dir() as ingest_dir, workspace.directory(ingest_dir) as name:
            yield os.path.join(self._path, INGEST, name)

    @contextlib.contextmanager
    def ingest_dir(self) -> Iterator[int]:
        """Descriptor of the directory `ingest/`, for what is on its way in or out."""
        with self._files.directory(INGEST) as ingest_dir:
            yield ingest_dir

    @contextlib.contextmanager
    def reading_ingests(self) -> Iterator[int | None]:
        """Yield a descriptor of the directory `ingest/`, or None if nobody ever wrote here."""
        with contextlib.ExitStack() as stack:
            try:
                ingest_dir: int | None = stack.enter_context(self._files.directory(INGEST, create=False))
            except FileNotFoundError:
                ingest_dir = None
            yield ingest_dir

    def sweep(self) -> list[OSError]:
        """Remove what dead processes left in `ingest/`; return why something could not be removed."""
        try:
            with self._files.directory(INGEST, create=False) as ingest_dir:
                return workspace.sweep(ingest_dir, keep=ingests.is_resumable, path=self.ingest_path)
        except FileNotFoundError:
            # Nobody ever wrote here.
            return []

    def _directory(self, *names: str) -> int:
        """Open a directory; the caller closes it."""
        return workspace.open_directory(self._files.root, self._path, *names, create=True)
