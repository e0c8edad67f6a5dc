"""Unpack: the layers of an image, applied in order and verified, as a plain tree."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from ocidiff import opening, workspace
from ocidiff.errors import AlreadyExistsError, DigestMismatchError, NotFoundError, UnsupportedError
from ocidiff.image.image import Image
from ocidiff.layer.applier import verify
from ocidiff.layer.apply_options import ApplyOptions, IndexOptions
from ocidiff.layer.engine import Engine
from ocidiff.layer.incomplete import INCOMPLETE
from ocidiff.layer.layer import ApplySummary, IndexSummary
from ocidiff.layer.limits import Limits
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.xattrs import class_of
from ocidiff.oci import media_type
from ocidiff.oci.digest import ChainID, Digest, chain_id
from ocidiff.output import Output, naming, open_output
from ocidiff.services.content import Provider
from ocidiff.services.damage import reading_stored
from ocidiff.values import dataclass


def unpack(
    content: Provider,
    image: Image,
    directory: str,
    *,
    index: Output | None,
    engine: Engine,
    options: ApplyOptions,
    monitor: Monitor,
) -> None:
    """Write the tree of an image into a directory, which is empty or made; on failure it is left as it was found.

    Args:
        content: Where the layers are.
        image: What to unpack.
        directory: Path of the directory.
        index: Where the index of the tree goes; None for none. It tells of the layers if the tree keeps all they say.
        engine: What applies the layers.
        options: How they are applied; the limits are for all layers together.
        monitor: Sees progress over all layers, and stops the call.

    Raises:
        AlreadyExistsError: The directory is not empty.
        DigestMismatchError: A layer is not the one that the manifest or the configuration names.
    """
    check_layers(content, image)
    with _target(directory) as target, ExitStack() as stack:
        # Opened first: a place that cannot be written to shall not be found out at the end.
        sink = None if index is None else stack.enter_context(open_output(index))
        done = apply_layers(content, image, target.tree, engine=engine, options=options, monitor=monitor)
        target.has_root = done.has_root
        if index is not None and sink is not None:
            with naming(index):
                how = IndexOptions(_chain_id(image) if done.is_whole and options.restores_owners else None)
                engine.write_index(os.fsencode(target.tree), sink, how, replace(monitor, progress=None))


@reading_stored()
def check_layers(content: Provider, image: Image, start: int = 0) -> None:
    """Check, before anything is written, that every layer from number `start` on is there and is one.

    Raises:
        UnsupportedError: A layer is of a kind that cannot be applied.
        NotFoundError, DigestMismatchError: Layers are missing, or one has another length.
    """
    missing = []
    for layer in image.manifest.layers[start:]:
        if layer.media_type not in media_type.LAYERS:
            raise UnsupportedError(f"{image.name}: layer {layer.digest} has media type {layer.media_type!r}")
        try:
            size_bytes = content.info(layer.digest).size
        except NotFoundError:
            missing.append(layer.digest)
            continue
        if size_bytes != layer.size:
            raise DigestMismatchError(f"blob {layer.digest}: has {size_bytes} bytes, expected {layer.size}")
    if missing:
        raise NotFoundError(f"{image.name}: layers are not in the store; pull the image again: {', '.join(missing)}")


def apply_layers(
    content: Provider, image: Image, directory: str, *, engine: Engine, options: ApplyOptions, monitor: Monitor
) -> Done:
    """Apply the layers of an image, base first, each verified; arguments and errors as in `unpack`."""
    done = Done()
    monitor = monitor.of("unpack", sum(layer.size for layer in image.manifest.layers))
    for descriptor, diff_id in zip(image.manifest.layers, image.config.rootfs.diff_ids, strict=True):
        monitor.check()
        with reading_stored(descriptor.digest):
            with content.open_blob(descriptor) as blob:
                summary = engine.apply_layer(
                    blob.fileno(),
                    os.fsencode(directory),
                    done.remaining(options),
                    done.continued(monitor, descriptor.digest),
                )
            verify(summary, descriptor.digest, diff_id)
        done = done.plus(summary)
    return done


def index_layers(
    content: Provider,
    image: Image,
    sink: int,
    *,
    engine: Engine,
    sha256: bool,
    limits: Limits,
    monitor: Monitor,
) -> IndexSummary:
    """Write the index of the tree that the layers of an image unpack to, each verified; errors as in `unpack`.

    Args:
        content: Where the layers are.
        image: What to index.
        sink: File descriptor that takes the index.
        engine: What reads the layers.
        sha256: True if contents get a sha256.
        limits: What all layers together may not pass.
        monitor: Sees progress over all layers, and stops the call.
    """
    check_layers(content, image)
    diff_ids = image.config.rootfs.diff_ids
    monitor = monitor.of("index", sum(layer.size for layer in image.manifest.layers))
    monitor.check()
    with reading_stored(), ExitStack() as stack:
        blobs = [stack.enter_context(content.open_blob(layer)).fileno() for layer in image.manifest.layers]
        how = IndexOptions(_chain_id(image), sha256=sha256)
        summary, measures = engine.write_index_of_layers(blobs, sink, how, limits, monitor)
        for measure, descriptor, diff_id in zip(measures, image.manifest.layers, diff_ids, strict=True):
            verify(measure, descriptor.digest, diff_id)
    return summary


def _chain_id(image: Image) -> ChainID | None:
    """Return the chain ID of all layers of an image; None for no layers."""
    diff_ids = image.config.rootfs.diff_ids
    return chain_id(diff_ids) if diff_ids else None


@dataclass(frozen=True, slots=True)
class Done:
    """Results of the layers so far.

    Attributes:
        entries: How many there were.
        bytes_plain: Length of the tars.
        bytes_blob: Length of the blobs.
        holes: Bytes of holes in sparse files, which the tars leave out.
        has_root: True if an entry says what the root itself is.
        is_whole: True if nothing that an entry says was left out.
    """

    entries: int = 0
    bytes_plain: int = 0
    bytes_blob: int = 0
    holes: int = 0
    has_root: bool = False
    is_whole: bool = True

    def plus(self, summary: ApplySummary) -> Done:
        """With one layer more."""
        return Done(
            self.entries + summary.entries,
            self.bytes_plain + summary.uncompressed_size,
            self.bytes_blob + summary.size,
            self.holes + summary.holes,
            self.has_root or summary.has_root,
            self.is_whole and not set(summary.skipped) - {"aufs"},
        )

    def remaining(self, options: ApplyOptions) -> ApplyOptions:
        """The options with what is left of their limits."""
        return replace(options, limits=options.limits.after(self.bytes_plain + self.holes, self.entries))

    def continued(self, monitor: Monitor, layer: Digest) -> Monitor:
        """Return the monitor for the next layer, whose counters go on from here."""
        return monitor.working_on(layer, self.entries, self.bytes_plain, self.bytes_blob)


class _Target:
    """The directory that an image is unpacked into.

    Attributes:
        tree: Path of the tree, which becomes the content of the directory.
        has_root: True if a layer says what the root is, so that the directory takes over what the root of the tree has.
    """

    def __init__(self, tree: str) -> None:
        self.tree = tree
        self.has_root = False


@contextmanager
def _target(directory: str) -> Iterator[_Target]:
    """Have what is written become the content of `directory` all at once: a process that is killed leaves the mark."""
    try:
        workspace.make_root(directory)
        made = True
    except FileExistsError:
        made = False
    descriptor = os.open(directory, opening.ROOT)
    try:
        mark = _begin(directory, descriptor)
        target = _Target(os.path.join(directory, INCOMPLETE))
        try:
            yield target
            root = os.fstat(mark)
            # A layer may have closed it to its owner.
            os.fchmod(mark, stat.S_IRWXU)
            if target.has_root:
                _copy_attributes(mark, descriptor, root)
            names = workspace.names_in(mark)
            if INCOMPLETE in names:
                raise UnsupportedError(f"{directory}: the image has a file {INCOMPLETE}, which marks an incomplete tree")
            for name in names:
                _move(name, mark, descriptor)
        except BaseException:
            os.fchmod(mark, stat.S_IRWXU)
            _clear(mark, descriptor)
            os.rmdir(INCOMPLETE, dir_fd=descriptor)
            if made:
                os.rmdir(directory)
            raise
        else:
            os.rmdir(INCOMPLETE, dir_fd=descriptor)
            if target.has_root:
                # Last: moving changes the times, and the mode may forbid it.
                os.fchmod(descriptor, stat.S_IMODE(root.st_mode))
                os.utime(descriptor, ns=(root.st_atime_ns, root.st_mtime_ns))
        finally:
            os.close(mark)
    finally:
        os.close(descriptor)


def _copy_attributes(source: int, target: int, info: os.stat_result) -> None:
    """Give the directory `target` the owner and the extended attributes of `source`, and a mode to go on with."""
    if (info.st_uid, info.st_gid) != (os.fstat(target).st_uid, os.fstat(target).st_gid):
        os.fchown(target, info.st_uid, info.st_gid)
    wanted = {name: os.getxattr(source, name) for name in os.listxattr(source)}
    there = {name: os.getxattr(target, name) for name in os.listxattr(target)}
    for name in there.keys() - wanted.keys():
        found = class_of(os.fsencode(name))
        if found.is_stored() or found.owner == "ocidiff":
            os.removexattr(target, name)
    for name, value in wanted.items():
        if there.get(name) != value:
            os.setxattr(target, name, value)
    os.fchmod(target, stat.S_IMODE(info.st_mode) | stat.S_IRWXU)


def _begin(directory: str, descriptor: int) -> int:
    """The locked and empty mark of an empty directory, or of one whose unpacking was killed."""
    names = workspace.names_in(descriptor)
    if names and INCOMPLETE not in names:
        raise _not_empty(directory)
    try:
        os.mkdir(INCOMPLETE, 0o700, dir_fd=descriptor)
        is_new = True
    except FileExistsError:
        is_new = False
    mark = _lock(directory, descriptor)
    try:
        if is_new and workspace.names_in(descriptor) != [INCOMPLETE]:
            # Another process was done since we looked.
            os.rmdir(INCOMPLETE, dir_fd=descriptor)
            raise _not_empty(directory)
        _clear(mark, descriptor)
    except BaseException:
        os.close(mark)
        raise
    return mark


def _not_empty(directory: str) -> AlreadyExistsError:
    return AlreadyExistsError(f"{directory}: {os.strerror(errno.ENOTEMPTY)}")


def _lock(directory: str, descriptor: int) -> int:
    mark = -1
    try:
        mark = _open_mark(descriptor)
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # One that is locked, but gone, is that of a process which was done meanwhile: what is there is whole.
        if os.path.samestat(os.fstat(mark), os.stat(INCOMPLETE, dir_fd=descriptor, follow_symlinks=False)):
            return mark
    except (BlockingIOError, FileNotFoundError):
        pass
    if mark >= 0:
        os.close(mark)
    raise AlreadyExistsError(f"{directory}: another process unpacks into it")


def _open_mark(descriptor: int) -> int:
    try:
        return os.open(INCOMPLETE, opening.DIRECTORY, dir_fd=descriptor)
    except PermissionError:
        # A layer said so of the root, before the process was killed.
        pinned = os.open(INCOMPLETE, opening.DIRECTORY_HANDLE, dir_fd=descriptor)
        try:
            os.chmod(f"/proc/self/fd/{pinned}", stat.S_IRWXU)
        finally:
            os.close(pinned)
        return os.open(INCOMPLETE, opening.DIRECTORY, dir_fd=descriptor)


def _clear(mark: int, descriptor: int) -> None:
    """Remove all but the mark, from below it, so that whoever is killed while doing so leaves the mark as well."""
    for name in workspace.names_in(descriptor):
        if name != INCOMPLETE:
            _move(name, descriptor, mark)
    workspace.clear(mark)


def _move(name: str, source: int, destination: int) -> None:
    try:
        os.rename(name, name, src_dir_fd=source, dst_dir_fd=destination)
    except PermissionError:
        # Moving a directory needs the right to write to it.
        mode = stat.S_IMODE(os.stat(name, dir_fd=source, follow_symlinks=False).st_mode)
        os.chmod(name, mode | stat.S_IWUSR, dir_fd=source)
        os.rename(name, name, src_dir_fd=source, dst_dir_fd=destination)
        os.chmod(name, mode, dir_fd=destination)
