"""Apply: a layer, written onto a directory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from ocidiff import opening
from ocidiff.errors import DigestMismatchError, DocumentError, UsageError
from ocidiff.layer.apply_options import ApplyOptions, Destination
from ocidiff.layer.engine import select_engine
from ocidiff.layer.input import Input, bytes_left, empty_file, open_input
from ocidiff.layer.layer import ApplySummary, LayerMeasure, TarSummary
from ocidiff.layer.limits import Limits
from ocidiff.layer.monitor import Cancellation, Monitor, ProgressCallback
from ocidiff.layer.operand import Tree
from ocidiff.layer.options import EngineName
from ocidiff.layer.paths import tree_path
from ocidiff.oci.digest import DiffID, Digest

if TYPE_CHECKING:
    from ocidiff.layer.arguments import DestinationName

_Kind = TypeVar("_Kind", bound=Digest)


def apply(
    layer: Input,
    target: Tree,
    *,
    diff_id: str | None = None,
    digest: str | None = None,
    same_owner: bool | None = None,
    destination: DestinationName = Destination.DIRECTORY,
    limits: Limits | None = None,
    engine: EngineName | None = None,
    progress: ProgressCallback | None = None,
    cancel: Cancellation | None = None,
) -> ApplySummary:
    """Write a layer onto a directory; compression is detected.

    An error may leave the directory half written, which its notes then say: apply onto one that can be dropped.

    Args:
        layer: Path of the blob, or an open file, read from its position on.
        target: The directory, which exists.
        diff_id: What the uncompressed tar must hash to; verified once everything is read.
        digest: What the blob must hash to; verified once everything is read.
        same_owner: Give every entry its recorded owner, and fail where that may not be. False: what may not be set is left
            out, counted, and noted for a diff to restore. None: true for root.
        destination: `directory`: a plain tree. `overlay`: the upperdir of an overlay, whose whiteouts shall hide what is in
            the lower directories; nothing there is read, so a layer that goes through their links or hard-links their
            files must be applied onto the mounted tree instead. `overlay-userxattr`: the same for mounts with `userxattr`.
        limits: What the layer may not pass; None for the defaults.
        engine: `rust` or `pure`; None for what `OCIDIFF_ENGINE` says, or the best there is.
        progress: Called with the counters a few times a second.
        cancel: Stops the call.

    Raises:
        FileNotFoundError, NotADirectoryError: The layer or the target is missing, or the target is no directory.
        UnrepresentableError: An unpack has left the target half written.
        MalformedLayerError, UnsafeLayerError, LimitExceededError: See the classes; a file of no bytes is malformed.
        UnsupportedError: The layer is compressed with something else than gzip and zstd.
        DigestMismatchError: The layer is another than the one named.
        Cancelled: `cancel` was used.
    """
    expected_diff_id = None if diff_id is None else _digest(DiffID, diff_id)
    expected_digest = None if digest is None else _digest(Digest, digest)
    options = ApplyOptions(same_owner, _destination(destination), limits or Limits())
    selected = select_engine(engine)
    directory = tree_path(target)
    monitor = Monitor(progress, cancel)
    monitor.check()
    with open_input(layer) as source:
        # A failure up to here has changed nothing.
        os.close(os.open(directory, opening.ROOT_HANDLE))
        monitor = monitor.of("apply", bytes_left(source))
        with _incomplete_on_failure(directory):
            summary = selected.apply_layer(source, directory, options, monitor)
            verify(summary, expected_digest, expected_diff_id)
    if not summary.uncompressed_size:
        raise empty_file(layer)
    return summary


def verify(summary: ApplySummary | LayerMeasure | TarSummary, digest: Digest | None, diff_id: DiffID | None) -> None:
    """Check that the layer that was read is the one that was named.

    Raises:
        DigestMismatchError: It is another.
    """
    if digest is not None and summary.digest != digest:
        raise DigestMismatchError(f"layer {digest}: the blob is {summary.digest}")
    if diff_id is not None and summary.diff_id != diff_id:
        raise DigestMismatchError(f"layer {summary.digest}: its tar is {summary.diff_id}, expected {diff_id}")


@contextmanager
def _incomplete_on_failure(directory: bytes) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        error.add_note(f"{os.fsdecode(directory)} is incomplete")
        raise


def _destination(text: str) -> Destination:
    try:
        return Destination(text)
    except ValueError:
        known = ", ".join(Destination)
        raise UsageError(f"destination {text!r}: there are {known}") from None


def _digest(kind: type[_Kind], text: str) -> _Kind:
    try:
        return kind(text)
    except DocumentError as error:
        raise UsageError(str(error)) from None
