"""Diff: the changes from one tree to another, listed or written as a layer."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from typing import Final, TypeVar

from ocidiff.errors import UsageError
from ocidiff.layer.engine import Engine, select_engine
from ocidiff.layer.layer import (
    Cancellation,
    Change,
    Compression,
    Layer,
    LayerOptions,
    Monitor,
    Profile,
    ProgressCallback,
)
from ocidiff.layer.output import Output, open_output
from ocidiff.oci import media_type
from ocidiff.oci.descriptor import Descriptor

Tree = str | os.PathLike[str]

SCRATCH: Final = "scratch"

_MEDIA_TYPES: Final = {
    Compression.GZIP: media_type.LAYER_GZIP,
    Compression.ZSTD: media_type.LAYER_ZSTD,
    Compression.NONE: media_type.LAYER,
}

_Choice = TypeVar("_Choice", Compression, Profile)


def diff(
    lower: Tree | None,
    upper: Tree,
    output: Output,
    *,
    compression: str = Compression.GZIP,
    level: int | None = None,
    threads: int = 0,
    profile: str = Profile.OCI,
    source_date_epoch: int | None = None,
    engine: str | None = None,
    progress: ProgressCallback | None = None,
    cancel: Cancellation | None = None,
) -> Layer:
    """Write the layer that turns `lower` into `upper`.

    Args:
        lower: Directory of the parent tree; None or the word `scratch` for no parent (`./scratch` is a directory).
        upper: Directory of the changed tree.
        output: Path of the layer, which appears whole or not at all; or an open file, written from its position on.
        compression: `gzip`, `zstd` or `none`.
        level: Level of the compressor (gzip 1-9, zstd 1-19); None for its default.
        threads: Worker threads; 0 for as many as there are cores. The bytes do not depend on it.
        profile: `oci` or `containerd`.
        source_date_epoch: Later modification times are set to this (seconds since 1970); None for what the environment
            variable `SOURCE_DATE_EPOCH` says.
        engine: `rust` or `pure`; None for what `OCIDIFF_ENGINE` says, or the best there is.
        progress: Called with the counters a few times a second.
        cancel: Stops the call.

    Raises:
        UsageError: An option is out of range.
        FileNotFoundError, NotADirectoryError: A tree is missing, or is no directory.
        UnsupportedError: The tree holds what the format cannot say.
        SourceChangedError: A file changed while it was read.
        Cancelled: `cancel` was used.
    """
    options = layer_options(compression, level, threads, profile, source_date_epoch)
    selected = select_engine(engine)
    lower_tree, upper_tree = lower_path(lower), tree_path(upper)
    with open_output(output) as sink:
        return write_layer(selected, lower_tree, upper_tree, sink, options=options, monitor=Monitor(progress, cancel))


def changes(
    lower: Tree | None, upper: Tree, *, profile: str = Profile.OCI, threads: int = 0, engine: str | None = None
) -> Iterator[Change]:
    """The changes from `lower` to `upper`, lazily, in layer order; arguments and errors as in `diff`."""
    options = LayerOptions(profile=_choice(Profile, "profile", profile), threads=threads)
    return select_engine(engine).changes(lower_path(lower), tree_path(upper), options)


def write_layer(
    engine: Engine, lower: bytes | None, upper: bytes, sink: int, *, options: LayerOptions, monitor: Monitor
) -> Layer:
    """Write a layer to a file descriptor in one pass, and describe it."""
    monitor.check()
    started = time.monotonic()
    summary = engine.write_layer(lower, upper, sink, options, monitor)
    return Layer(
        descriptor=Descriptor(_MEDIA_TYPES[options.compression], summary.digest, summary.size),
        diff_id=summary.diff_id,
        uncompressed_size=summary.uncompressed_size,
        added=summary.added,
        modified=summary.modified,
        deleted=summary.deleted,
        empty=summary.entries == 0,
        skipped=summary.skipped,
        seconds=time.monotonic() - started,
    )


def layer_options(
    compression: str, level: int | None, threads: int, profile: str, source_date_epoch: int | None
) -> LayerOptions:
    """The options that loose arguments and the environment give.

    Raises:
        UsageError: One is out of range.
    """
    return LayerOptions(
        compression=_choice(Compression, "compression", compression),
        level=level,
        threads=threads,
        profile=_choice(Profile, "profile", profile),
        source_date_epoch=_environment_epoch() if source_date_epoch is None else source_date_epoch,
    )


def lower_path(lower: Tree | None) -> bytes | None:
    """The path of the parent tree; None for no parent. A path object is always a directory, also `Path("scratch")`."""
    if lower is None or (isinstance(lower, str) and lower == SCRATCH):
        return None
    return tree_path(lower)


def tree_path(tree: Tree) -> bytes:
    """The path of a tree.

    Raises:
        FileNotFoundError, NotADirectoryError: It is missing, or is no directory.
    """
    path = os.fspath(tree)
    if not stat.S_ISDIR(os.stat(path).st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    return os.fsencode(path)


def _choice(kind: type[_Choice], what: str, value: str) -> _Choice:
    try:
        return kind(value)
    except ValueError:
        raise UsageError(f"{what} {value!r}: takes {', '.join(kind)}") from None


def _environment_epoch() -> int | None:
    """What `SOURCE_DATE_EPOCH` says; empty counts as unset. Spec: reproducible-builds.org, SOURCE_DATE_EPOCH."""
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return None
    # More digits than an int64 has are out of range at any rate, and slow to convert.
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise UsageError(f"SOURCE_DATE_EPOCH {text[:100]!r}: takes seconds since 1970")
    return int(text)
