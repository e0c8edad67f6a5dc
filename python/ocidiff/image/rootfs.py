"""The files of an image as a tree to read, without unpacking it.

Opening it reads the headers of all layers, and verifies every digest; memory is taken for every name. A compressed layer is
decompressed once into a nameless file, which takes as much disk as its tar until the tree is closed; a plain layer is
read where it is. After that a read costs what it costs in a file: no other file is read, nothing is decompressed again.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.resources.abc import Traversable
from typing import IO, TYPE_CHECKING, Any

from ocidiff.errors import UnsafeLayerError
from ocidiff.image.image import Image
from ocidiff.image.unpack import check_layers
from ocidiff.layer.engine import Engine
from ocidiff.layer.limits import Limits
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.pure.path import Way
from ocidiff.layer.pure.sketch import Inode, Sketch
from ocidiff.layer.pure.tar_reader import TarReader
from ocidiff.layer.tar_file import FileBytes, Part, plain_tar
from ocidiff.oci.timestamp import NS_PER_SECOND
from ocidiff.services.content import Provider
from ocidiff.services.damage import reading_stored
from ocidiff.values import dataclass

if TYPE_CHECKING:
    from _typeshed import StrPath

    from ocidiff.layer.pure.tar_reader import Entry


@dataclass(frozen=True, slots=True)
class Stored:
    """The place of a file's content.

    Attributes:
        layer: Number of the layer, from 1 on.
        file: Descriptor of the layer's tar.
        offset: Where the bytes begin in it.
        segments: See `Part`.
    """

    layer: int
    file: int
    offset: int
    segments: tuple[tuple[int, int], ...]


Seen = Callable[[int, "Entry", Inode | None], None]


@contextmanager
def open_rootfs(
    content: Provider,
    image: Image,
    spool: str | None,
    *,
    engine: Engine,
    limits: Limits,
    monitor: Monitor,
    seen: Seen = lambda _layer, _entry, _file: None,
) -> Iterator[ImagePath]:
    """Yield the root of an image, which can be read until the block ends.

    Args:
        content: Where the layers are.
        image: The image.
        spool: Directory for the tars of compressed layers; None for `TMPDIR`, else /var/tmp.
        engine: What decompresses them.
        limits: What all layers together may not pass.
        monitor: Sees progress over all layers, and stops the call.
        seen: Called for each entry with the number of its layer, and the file that it made, if it made one.

    Raises:
        NotFoundError: A layer is missing.
        DigestMismatchError: A layer is not the one that the manifest or the configuration names.
    """
    check_layers(content, image)
    sketch = Sketch(for_layer=True)
    layers = list(zip(image.manifest.layers, image.config.rootfs.diff_ids, strict=True))
    monitor = monitor.of("index", sum(layer.size for layer, _ in layers))
    entries = plain = done = 0
    with ExitStack() as stack:
        for number, (descriptor, diff_id) in enumerate(layers, 1):
            monitor.check()
            watching = monitor.working_on(descriptor.digest, entries, plain, done)
            with reading_stored(descriptor.digest):
                blob = stack.enter_context(content.open_blob(descriptor))
                file, summary = stack.enter_context(
                    plain_tar(blob, descriptor.digest, diff_id, spool, engine=engine, limits=limits, monitor=watching)
                )
            archive = _apply(sketch, file, number, limits, watching, seen)
            entries, plain, done = entries + archive.count, plain + summary.uncompressed_size, done + descriptor.size
            limits = limits.after(summary.uncompressed_size + archive.holes, archive.count)
        yield ImagePath(sketch.root, "/")


def model_of(root: ImagePath) -> Inode:
    """Return the model that the root of an image is read from."""
    return root._root  # noqa: SLF001 - a friend of the class


def _apply(sketch: Sketch, file: int, number: int, limits: Limits, monitor: Monitor, seen: Seen) -> TarReader:
    """Do to the model what a layer says."""
    sketch.next_layer()
    source = FileBytes(file)
    archive = TarReader(source, limits)
    for entry in archive.entries():
        monitor.check()
        made = sketch.apply(entry)
        if made is not None and entry.size:
            made.stored = Stored(number, file, source.offset, archive.segments())
        seen(number, entry, made)
    sketch.end_layer()
    return archive


class ImagePath(Traversable):
    """A path in an image: a `Traversable` that can be `stat`ed too. Made by `Store.rootfs`, and read while that is open.

    Symbolic links are followed as if the root of the image were `/`: nothing outside the image is ever read. Names that are
    not UTF-8 are surrogate-escaped, as `os.fsdecode` does.
    """

    __slots__ = ("_found", "_path", "_root")

    def __init__(self, root: Inode, path: str, found: Inode | None = None) -> None:
        # What a listing has found at the path, where a link is not followed: no need to look for it from the root.
        self._root, self._path, self._found = root, path, found

    def __str__(self) -> str:
        """Return the absolute path within the image."""
        return self._path

    def __repr__(self) -> str:
        return f"ImagePath({self._path!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ImagePath) and self._root is other._root and self._path == other._path

    def __hash__(self) -> int:
        return hash((id(self._root), self._path))

    @property
    def name(self) -> str:
        """The last component; empty for the root."""
        return os.path.basename(self._path)

    @property
    def layer(self) -> int:
        """Number of the layer that wrote the content of a file, from 1 on; 0 for anything without content."""
        stored = self._inode(follow=False).stored
        return stored.layer if isinstance(stored, Stored) else 0

    def joinpath(self, *descendants: StrPath) -> ImagePath:
        """Return the path with these appended. `..` is resolved when the path is used; an absolute path replaces it."""
        return ImagePath(self._root, os.path.join(self._path, *descendants))

    def __truediv__(self, child: StrPath) -> ImagePath:
        """Return `joinpath(child)`."""
        return self.joinpath(child)

    def iterdir(self) -> Iterator[ImagePath]:
        """Yield what is in a directory, sorted by name.

        Raises:
            NotADirectoryError, FileNotFoundError: It is no directory.
        """
        for name, child in sorted(self._directory().children.items()):
            yield ImagePath(self._root, os.path.join(self._path, os.fsdecode(name)), child.inode)

    def walk(self) -> Iterator[ImagePath]:
        """Yield all below a directory, each directory before what is in it. Symbolic links are not followed."""
        todo = [(self._path, iter(sorted(self._directory().children.items())))]
        while todo:
            parent, children = todo[-1]
            name, child = next(children, (b"", None))
            if child is None:
                todo.pop()
                continue
            path = os.path.join(parent, os.fsdecode(name))
            yield ImagePath(self._root, path, child.inode)
            if child.inode.is_dir:
                todo.append((path, iter(sorted(child.inode.children.items()))))

    def exists(self) -> bool:
        """True if the path leads to something."""
        return self._kind(follow=True) is not None

    def is_dir(self) -> bool:
        """True if it leads to a directory."""
        return self._kind(follow=True) == stat.S_IFDIR

    def is_file(self) -> bool:
        """True if it leads to a regular file."""
        return self._kind(follow=True) == stat.S_IFREG

    def is_symlink(self) -> bool:
        """True for a symbolic link."""
        return self._kind(follow=False) == stat.S_IFLNK

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Return mode, owner, size, modification time and device number; the other fields are 0. Layers keep no more.

        Raises:
            FileNotFoundError, NotADirectoryError: There is no such file.
        """
        inode = self._inode(follow=follow_symlinks)
        seconds, ns = divmod(inode.mtime_ns, NS_PER_SECOND)
        times = {"st_atime_ns": 0, "st_mtime_ns": inode.mtime_ns, "st_ctime_ns": 0, "st_rdev": inode.rdev}
        size = 0 if inode.is_dir else inode.size
        values = (inode.kind | inode.mode, 0, 0, 0, inode.uid, inode.gid, size, 0, seconds, 0)
        return os.stat_result(values, {**times, "st_mtime": seconds + ns / NS_PER_SECOND})

    def readlink(self) -> str:
        """Return the target of a symbolic link.

        Raises:
            OSError: It is none.
        """
        inode = self._inode(follow=False)
        if inode.kind != stat.S_IFLNK:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), self._path)
        return os.fsdecode(inode.target)

    def open(self, mode: str = "r", *args: Any, **kwargs: Any) -> IO[Any]:  # noqa: ANN401 - of `Traversable`
        """Open a file to read, as `pathlib.Path.open` does; the file can seek.

        Args:
            mode: `r` or `rb`.
            *args: Those of `io.TextIOWrapper`: `encoding`, `errors`, `newline`.
            **kwargs: The same by name.

        Raises:
            FileNotFoundError, IsADirectoryError: There is no such file.
            OSError: It is a device, a pipe or a socket.
        """
        if mode not in {"r", "rb", "rt"}:
            raise io.UnsupportedOperation(f"{self._path}: mode {mode!r}: an image is read only")
        inode = self._inode(follow=True)
        if inode.kind != stat.S_IFREG:
            cause = errno.EISDIR if inode.is_dir else errno.EINVAL
            raise OSError(cause, os.strerror(cause), self._path)
        stored = inode.stored
        part = Part(stored.file, stored.offset, stored.segments) if isinstance(stored, Stored) else Part(-1, 0, ())
        buffered = io.BufferedReader(part)
        return buffered if mode == "rb" else io.TextIOWrapper(buffered, *args, **kwargs)

    def read_bytes(self) -> bytes:
        """Return the content of a file; errors as in `open`."""
        with self.open("rb") as file:
            data: bytes = file.read()
        return data

    def read_text(self, encoding: str | None = None) -> str:
        """Return the content of a file as text; errors as in `open`."""
        with self.open("r", encoding=encoding) as file:
            text: str = file.read()
        return text

    def _directory(self) -> Inode:
        inode = self._inode(follow=True)
        if not inode.is_dir:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), self._path)
        return inode

    def _kind(self, *, follow: bool) -> int | None:
        try:
            return self._inode(follow=follow).kind
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _inode(self, *, follow: bool) -> Inode:
        """Return what the path leads to."""
        if self._found is not None and not (follow and self._found.kind == stat.S_IFLNK):
            return self._found
        try:
            return _resolve(self._root, os.fsencode(self._path), follow=follow)
        except UnsafeLayerError:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), self._path) from None


def _resolve(root: Inode, path: bytes, *, follow: bool) -> Inode:
    """Return what a path leads to, with links followed as if the root were `/`.

    Raises:
        FileNotFoundError, NotADirectoryError: There is no such file.
        UnsafeLayerError: There are too many links.
    """
    here, above, way = root, list[Inode](), Way(path)
    while (name := way.next()) is not None:
        if not here.is_dir:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), os.fsdecode(path))
        if name == b"..":
            here = above.pop() if above else root
            continue
        child = here.children.get(name)
        if child is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fsdecode(path))
        if child.inode.kind == stat.S_IFLNK and (follow or not way.is_done):
            if way.follow(child.inode.target):
                here = root
                above.clear()
            continue
        above.append(here)
        here = child.inode
    return here
