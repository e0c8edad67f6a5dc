"""Files of the host that a commit adds to an image, in a layer of their own on top.

They are written as the tar of an upper directory over the changed tree, so that their layer is that of any change: with the
directories above as the tree has them, and nothing for what is there already.
"""

from __future__ import annotations

import os
import stat
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Final, Self

from ocidiff import opening
from ocidiff.errors import UnrepresentableError, UsageError
from ocidiff.layer.apply_options import ApplyOptions
from ocidiff.layer.engine import Engine
from ocidiff.layer.idmap import IdMaps, IdRange
from ocidiff.layer.input import UpperTar
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.options import LayerOptions
from ocidiff.layer.pure.overlay import OverlayTree
from ocidiff.layer.pure.pace import Pace
from ocidiff.layer.pure.tree import Node, Tree
from ocidiff.layer.upper_tar import unpacked
from ocidiff.mounts.layers import OverlayLayers
from ocidiff.oci.timestamp import NS_PER_SECOND
from ocidiff.values import dataclass
from ocidiff.walk import Cursor, walk

_DIRECTORY_MODE: Final = 0o755


@dataclass(frozen=True, slots=True)
class Addition:
    """A file or directory of the host, and where the image has it.

    Attributes:
        source: Path of the file or directory.
        destination: Path in the image, relative to its root and clean.
    """

    source: str
    destination: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what `SRC:DEST` says; a DEST that ends in a slash gets the last name of SRC.

        Raises:
            UsageError: It says nothing, or names the root of the image.
        """
        source, colon, destination = text.rpartition(":")
        if not colon or not source or not destination:
            raise UsageError(f"add {text[:100]!r}: must be SRC:DEST")
        if destination.endswith("/"):
            destination += os.path.basename(source.rstrip("/"))
        path = os.path.normpath(b"/" + os.fsencode(destination)).lstrip(b"/")
        if not path:
            raise UsageError(f"add {text[:100]!r}: DEST must not be the root of the image")
        os.stat(source)
        return cls(source, path)


@contextmanager
def added(
    additions: Sequence[Addition],
    tree: bytes | OverlayLayers,
    directory: str,
    options: LayerOptions,
    *,
    engine: Engine,
    monitor: Monitor,
) -> Iterator[OverlayLayers]:
    """Yield an overlay over the changed tree whose upper directory holds the additions.

    Args:
        additions: What to add; a later file replaces an earlier one of its name, directories are merged.
        tree: The changed tree.
        directory: Path of an empty private directory.
        options: How the tree is read: ids and profile.
        engine: What writes the upper directory.
        monitor: Sees progress, and stops the call.

    Raises:
        UsageError: One addition makes a directory what another makes a file.
        UnrepresentableError: A directory above a destination is something else in the tree, or a source is no file,
            directory or symbolic link.
    """
    with tempfile.TemporaryFile(dir=directory) as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as archive:
            if isinstance(tree, OverlayLayers):
                with OverlayTree(tree, 0, options, Pace(monitor)) as below:
                    _Writer(archive, below, options.ids).add_all(additions)
            else:
                with Tree(tree, options, Pace(monitor)) as below:
                    _Writer(archive, below, options.ids).add_all(additions)
        file.seek(0)
        with unpacked(UpperTar(file), tree, directory, engine=engine, monitor=monitor) as layers:
            yield layers


class _Writer:
    """Writes the tar of an upper directory over a tree."""

    def __init__(self, archive: tarfile.TarFile, tree: Tree | OverlayTree, ids: IdMaps) -> None:
        self._archive = archive
        self._tree = tree
        # Root gives files the ids of the host, which the walk maps; others note those of the container.
        self._is_mapped = bool(ids) and ApplyOptions().restores_owners
        self._root = (_host_root(ids.users), _host_root(ids.groups)) if self._is_mapped else (0, 0)
        self._directories = {b""}

    def add_all(self, additions: Sequence[Addition]) -> None:
        for addition in additions:
            info = os.stat(addition.source)
            self._add_parents(addition.destination, info)
            if stat.S_ISDIR(info.st_mode):
                self._add_directory(addition, info)
            elif stat.S_ISREG(info.st_mode):
                with open(addition.source, "rb") as file:
                    self._add(addition.destination, os.fstat(file.fileno()), file.fileno())
            else:
                # Opening a FIFO would wait for its other end.
                self._add(addition.destination, info)

    def _add_directory(self, addition: Addition, info: os.stat_result) -> None:
        self._add(addition.destination, info)
        handle = os.open(addition.source, opening.ROOT)
        try:
            with Cursor(handle, shown=addition.source) as here:
                for name, found, is_left in walk(here):
                    path = b"/".join([addition.destination, here.path(name)])
                    if is_left:
                        continue
                    if stat.S_ISLNK(found.st_mode):
                        self._add(path, found, target=os.fsdecode(os.readlink(name, dir_fd=here.fd)))
                    elif stat.S_ISREG(found.st_mode):
                        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here.fd)
                        try:
                            self._add(path, os.fstat(file), file)
                        finally:
                            os.close(file)
                    else:
                        self._add(path, found)
        finally:
            os.close(handle)

    def _add_parents(self, path: bytes, source: os.stat_result) -> None:
        """Add the directories above, as the tree has them; what it lacks is made, with the time of the source."""
        names = path.split(b"/")[:-1]
        above: Node | None = None
        is_there = True
        for depth, name in enumerate(names, 1):
            parent = b"/".join(names[:depth])
            is_there = is_there and name in self._tree.children(above)
            above = self._tree.node(parent) if is_there else None
            if parent in self._directories:
                continue
            if above is None:
                header = _header(parent, tarfile.DIRTYPE, _DIRECTORY_MODE, self._root, source.st_mtime_ns)
            elif above.is_dir:
                facts = above.stat
                owner = (facts.st_uid, facts.st_gid) if self._is_mapped else (above.uid, above.gid)
                header = _header(parent, tarfile.DIRTYPE, stat.S_IMODE(facts.st_mode), owner, facts.st_mtime_ns)
                xattrs = self._tree.xattrs(above).items()
                records = {f"SCHILY.xattr.{os.fsdecode(key)}": os.fsdecode(value) for key, value in xattrs}
                header.pax_headers = {**header.pax_headers, **records}
            else:
                raise UnrepresentableError(
                    f"add /{os.fsdecode(path)}: /{os.fsdecode(parent)} is not a directory in the tree"
                )
            self._archive.addfile(header)
            self._directories.add(parent)

    def _add(self, path: bytes, info: os.stat_result, file: int | None = None, target: str = "") -> None:
        mode, kind = stat.S_IMODE(info.st_mode), tarfile.REGTYPE
        if stat.S_ISDIR(info.st_mode):
            kind = tarfile.DIRTYPE
            self._directories.add(path)
        elif stat.S_ISLNK(info.st_mode):
            kind = tarfile.SYMTYPE
        elif not stat.S_ISREG(info.st_mode):
            raise UnrepresentableError(f"add /{os.fsdecode(path)}: must be a file, a directory or a symbolic link")
        if kind != tarfile.DIRTYPE and path in self._directories:
            raise UsageError(f"add /{os.fsdecode(path)}: another addition makes it a directory")
        header = _header(path, kind, mode, self._root, info.st_mtime_ns)
        header.linkname = target
        if file is None:
            self._archive.addfile(header, BytesIO())
            return
        header.size = info.st_size
        with open(file, "rb", closefd=False) as content:
            self._archive.addfile(header, content)


def _header(path: bytes, kind: bytes, mode: int, owner: tuple[int, int], mtime_ns: int) -> tarfile.TarInfo:
    header = tarfile.TarInfo(os.fsdecode(path))
    header.type, header.mode, (header.uid, header.gid) = kind, mode, owner
    seconds, rest = divmod(abs(mtime_ns), NS_PER_SECOND)
    header.pax_headers = {"mtime": f"{'-' if mtime_ns < 0 else ''}{seconds}.{rest:09}"}
    return header


def _host_root(ranges: Sequence[IdRange]) -> int:
    """Return the id of the host that root of the container has.

    Raises:
        UsageError: The map has none.
    """
    if not ranges:
        return 0
    for one in ranges:
        if one.container <= 0 < one.container + one.count:
            return one.host - one.container
    raise UsageError("add: the id map has no root, which owns added files")
