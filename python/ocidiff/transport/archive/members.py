"""The files in an archive by name, found without unpacking anything, and read from where they are.

Nothing in an archive becomes a path on this machine: a name is looked up among the names of the archive, and so is what a
link leads to.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from ocidiff.errors import DocumentError, LimitExceededError, NotFoundError, OcidiffError, UnsupportedError
from ocidiff.layer.engine import select_engine
from ocidiff.layer.input import open_input
from ocidiff.layer.limits import Limits
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.pure import tar
from ocidiff.layer.pure.tar_reader import TarReader
from ocidiff.layer.tar_file import FileBytes, Part, is_plain_file
from ocidiff.values import dataclass
from ocidiff.workspace import filling, nameless_file

if TYPE_CHECKING:
    from ocidiff.layer.pure.tar_reader import Entry

STDIN: Final = "-"
"""The name of an archive that comes through stdin."""

# A layer takes three files in the oldest form, and an image has 127 layers at most.
_LIMITS: Final = Limits(max_bytes=None, max_entries=100_000, max_ratio=None, max_header_bytes=1 << 16)
_MAX_LINKS: Final = 8
_SHOWN: Final = 100


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of an archive.

    Attributes:
        name: Its name, clean.
        offset: Where its bytes begin.
        size: How many there are.
        type: Type flag of its header.
        target: Name of the member that it links to; empty for anything but a link.
    """

    name: str
    offset: int
    size: int
    type: bytes
    target: str = ""


class Members:
    """The entries of an archive.

    Args:
        file: Descriptor of the plain tar, a regular file; stays open for as long as this is used.
        place: Name of the archive, for messages.

    Raises:
        MalformedLayerError, UnsupportedError: It is no tar, or a broken one.
        DocumentError: A name leads out of the archive, or occurs twice.
        LimitExceededError: There are too many entries.
    """

    def __init__(self, file: int, place: str) -> None:
        self._file, self._place = file, place
        self._members: dict[str, Member] = {}
        reader = FileBytes(file)
        try:
            archive = TarReader(reader, _LIMITS)
            for entry in archive.entries():
                if archive.holes:
                    raise UnsupportedError(f"{os.fsdecode(entry.name)[:_SHOWN]!r} is a sparse file")
                self._add(entry, reader.offset)
        except OcidiffError as error:
            raise type(error)(f"{place}: {error}") from error

    @property
    def place(self) -> str:
        """The name of the archive, for messages."""
        return self._place

    def __contains__(self, name: str) -> bool:
        """True if there is an entry of that name."""
        return name in self._members

    def names(self) -> Iterator[str]:
        """Yield all names."""
        yield from self._members

    def regular(self, name: str) -> Member:
        """Return the file of that name.

        Raises:
            NotFoundError: There is no such entry.
            DocumentError: It is no regular file.
        """
        member = self._members.get(name)
        if member is None:
            raise NotFoundError(f"{self._place}: there is no {name[:_SHOWN]!r} in it")
        if member.type != tar.REGULAR:
            raise DocumentError(f"{self._place}: {name[:_SHOWN]!r} is not a regular file")
        return member

    def followed(self, name: str) -> Member:
        """Return the file that a name leads to, through links within the archive.

        Raises:
            NotFoundError: A link or the name leads to no entry.
            DocumentError: It leads to no regular file, or through too many links.
        """
        try:
            at = _clean(name)
        except DocumentError as error:
            raise DocumentError(f"{self._place}: {error}") from None
        for _ in range(_MAX_LINKS):
            member = self._members.get(at)
            if member is None or not member.target:
                return self.regular(at)
            at = member.target
        raise DocumentError(f"{self._place}: {name[:_SHOWN]!r} leads through more than {_MAX_LINKS} links")

    def open(self, member: Member) -> BinaryIO:
        """Return a reader of a file, which can seek. Several may be read at once."""
        return cast("BinaryIO", io.BufferedReader(Part(self._file, member.offset, [(0, member.size)])))

    def read(self, name: str, limit_bytes: int) -> bytes:
        """Return a small file whole; errors as in `regular`.

        Raises:
            LimitExceededError: It has more bytes than `limit_bytes`.
        """
        member = self.regular(name)
        if member.size > limit_bytes:
            raise LimitExceededError(f"{self._place}: {name[:_SHOWN]!r} has {member.size} bytes, limit {limit_bytes}")
        return os.pread(self._file, member.size, member.offset)

    def _add(self, entry: Entry, offset: int) -> None:
        name = _clean(os.fsdecode(entry.name))
        if not name or (entry.type == tar.DIRECTORY and self._is_directory(name)):
            return
        if name in self._members:
            raise DocumentError(f"{name[:_SHOWN]!r} occurs twice")
        target = ""
        if entry.type == tar.HARD_LINK:
            target = os.fsdecode(entry.linkname)
        elif entry.type == tar.SYMLINK:
            target = os.path.join(os.path.dirname(name), os.fsdecode(entry.linkname))
        self._members[name] = Member(name, offset, entry.size, entry.type, target and _clean(target))

    def _is_directory(self, name: str) -> bool:
        return name in self._members and self._members[name].type == tar.DIRECTORY


def _clean(name: str) -> str:
    """Return a name without `.`, `..` and empty components.

    Raises:
        DocumentError: It leads out of the archive.
    """
    clean = os.path.normpath(name) if name else ""
    if clean.startswith(("/", "../")) or clean == "..":
        raise DocumentError(f"{name[:_SHOWN]!r} leads out of the archive")
    return "" if clean == "." else clean


@contextmanager
def opened(archive: str, limits: Limits, monitor: Monitor) -> Iterator[Members]:
    """Yield the entries of an archive. What comes through a pipe, or is compressed, is kept in a nameless file meanwhile.

    Args:
        archive: Its path; `-` for stdin.
        limits: What it may not pass when it is decompressed.
        monitor: Sees how much was read from a pipe, and stops the call.

    Raises:
        IsADirectoryError: The path is that of a directory.
        MalformedLayerError: It is compressed, and damaged.
        LimitExceededError: It decompresses to more than an archive may.
    """
    is_stdin = archive == STDIN
    place = "stdin" if is_stdin else archive
    with ExitStack() as stack:
        file = stack.enter_context(open_input(_Stdin() if is_stdin else archive))
        if not is_plain_file(file):
            file = stack.enter_context(_spooled(file, place, limits, monitor))
        if not os.fstat(file).st_size:
            raise DocumentError(f"{place}: empty file: not an archive")
        yield Members(file, place)


class _Stdin:
    def fileno(self) -> int:
        """See `HasFileno`."""
        return 0


@contextmanager
def _spooled(source: int, place: str, limits: Limits, monitor: Monitor) -> Iterator[int]:
    """Yield a nameless file with the tar that comes from `source`, decompressed."""
    with nameless_file(None) as file:
        try:
            with filling(None):
                select_engine(None).write_tar(source, file.fileno(), limits, monitor)
        except OcidiffError as error:
            raise type(error)(f"{place}: {error}") from error
        yield file.fileno()
