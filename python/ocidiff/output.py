"""Output: where a layer goes. A path gets the whole file at the end, or keeps what it had."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
from collections.abc import Iterator
from typing import Final, Protocol

from ocidiff import opening
from ocidiff.errors import UsageError

_FILE_MODE: Final = 0o666
# Errors of file systems without unnamed files.
_NO_UNNAMED_FILES: Final = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT})


class HasFileno(Protocol):
    """An open file, such as `sys.stdout.buffer`."""

    def fileno(self) -> int:
        """Return its file descriptor."""
        ...


class HasWrite(Protocol):
    """A binary file object that may have no descriptor, such as `io.BytesIO`."""

    def write(self, data: bytes, /) -> object:
        """Write bytes, all of them or as many as it returns."""
        ...


Output = str | bytes | os.PathLike[str] | os.PathLike[bytes] | HasFileno | HasWrite
_COPY_BYTES: Final = 1 << 20


@contextlib.contextmanager
def open_output(output: Output) -> Iterator[int]:
    """A file descriptor to write to. Leaving without an exception makes the file durable and visible under its name.

    A name that stands for a device, a pipe or a terminal, and an open file, are written directly. A file object without a
    descriptor is written once all is done.

    Raises:
        FileNotFoundError: The directory is missing.
        IsADirectoryError: The path is a directory.
        UsageError: It is neither a path nor a binary file object, or a file of a store.
    """
    if not isinstance(output, str | bytes | os.PathLike):
        descriptor = descriptor_of(output)
        if descriptor is None:
            yield from _write_object(output)
            return
        flush = getattr(output, "flush", None)
        if flush is not None:
            flush()
        yield descriptor
        return
    path = os.fsdecode(output)
    _refuse_documents(os.path.realpath(path))
    if not _replaceable(path):
        with open(path, "wb", buffering=0) as file:
            yield file.fileno()
        return
    # A symlink keeps its place; what it points to is replaced.
    with _new_file(os.path.realpath(path)) as descriptor:
        yield descriptor


def descriptor_of(file: object) -> int | None:
    """Return the descriptor of an open file; None for a file object whose bytes are not those of a descriptor.

    `io.BytesIO` has none; that of `gzip.GzipFile` leads to other bytes.
    """
    binary = getattr(file, "buffer", file)
    if isinstance(binary, io.IOBase) and not isinstance(getattr(binary, "raw", binary), io.FileIO):
        return None
    fileno = getattr(binary, "fileno", None)
    return None if fileno is None else int(fileno())


def _write_object(output: object) -> Iterator[int]:
    write = getattr(output, "write", None)
    if write is None or isinstance(output, io.TextIOBase):
        raise UsageError(f"output {type(output).__name__}: must be a path or a file object opened in binary mode")
    import tempfile

    with tempfile.TemporaryFile() as file:
        yield file.fileno()
        file.seek(0)
        while block := file.read(_COPY_BYTES):
            rest = memoryview(block)
            while rest:
                # Raw file objects write a part, buffered ones all.
                written = write(rest)
                rest = rest[written if isinstance(written, int) else len(rest) :]


@contextlib.contextmanager
def naming(output: Output) -> Iterator[None]:
    """Name `output` in a failure of the system that comes without a name, as one of writing to an open file does."""
    try:
        yield
    except OSError as error:
        # Errors without errno carry their own text.
        if error.errno is not None and error.filename is None and isinstance(output, str | bytes | os.PathLike):
            error.filename = os.fsdecode(output)
        raise


def write_all(descriptor: int, data: bytes | bytearray | memoryview) -> None:
    """Write all of `data`: on a nearly full disk the system takes a part of it, and says so only to the next call."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _refuse_documents(path: str) -> None:
    """Refuse to replace a file beside the `oci-layout` of a store: all names of images would be lost.

    Raises:
        UsageError: It is such a file.
    """
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for there in (path, os.path.join(os.path.dirname(path), "oci-layout")):
            os.lstat(there)
        raise UsageError(f"output {path!r}: belongs to a store or an OCI layout; choose another file")


def _replaceable(path: str) -> bool:
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return True
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    return stat.S_ISREG(mode)


def directory_of_output(output: Output) -> str | None:
    """Return the directory that the file of an output gets its name in; None for an open file, a device or a pipe.

    Raises:
        IsADirectoryError: The path is a directory.
    """
    if not isinstance(output, str | bytes | os.PathLike):
        return None
    path = os.fsdecode(output)
    return os.path.dirname(os.path.realpath(path)) if _replaceable(path) else None


@contextlib.contextmanager
def _new_file(path: str) -> Iterator[int]:
    parent, name = os.path.split(path)
    directory = os.open(parent, opening.ROOT)
    try:
        with _instead(parent):
            file = _open_unnamed(directory)
        if file is None:
            yield from _write_named(directory, path)
        else:
            try:
                yield file
                os.fsync(file)
                with _instead(path):
                    _give_name(file, directory, name)
            finally:
                os.close(file)
        os.fsync(directory)
    finally:
        os.close(directory)


def _open_unnamed(directory: int) -> int | None:
    """A file without a name, which vanishes with its descriptor; None where there are none."""
    try:
        file = os.open(".", os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, _FILE_MODE, dir_fd=directory)
    except OSError as error:
        if error.errno in _NO_UNNAMED_FILES:
            return None
        raise
    if os.path.exists(_link_source(file)):
        return file
    os.close(file)
    return None


def _give_name(file: int, directory: int, name: str) -> None:
    """Link an unnamed file; linkat cannot replace, therefore a taken name is replaced by rename."""
    try:
        os.link(_link_source(file), name, dst_dir_fd=directory, follow_symlinks=True)
    except FileExistsError:
        temporary = _temporary_name()
        os.link(_link_source(file), temporary, dst_dir_fd=directory, follow_symlinks=True)
        _rename_or_remove(directory, temporary, name)


def _write_named(directory: int, path: str) -> Iterator[int]:
    temporary = _temporary_name()
    with _instead(path):
        file = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE, dir_fd=directory)
    try:
        try:
            yield file
            os.fsync(file)
        finally:
            os.close(file)
    except BaseException:
        os.unlink(temporary, dir_fd=directory)
        raise
    with _instead(path):
        _rename_or_remove(directory, temporary, os.path.basename(path))


@contextlib.contextmanager
def _instead(path: str) -> Iterator[None]:
    """Name `path` in failures, which tell of names within an open directory."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error


def _rename_or_remove(directory: int, temporary: str, name: str) -> None:
    try:
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        os.unlink(temporary, dir_fd=directory)
        raise


def _temporary_name() -> str:
    return ".ocidiff-" + os.urandom(16).hex()


def _link_source(file: int) -> str:
    return f"/proc/self/fd/{file}"
