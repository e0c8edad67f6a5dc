"""Diff: the changes from one tree to another, listed or written as a layer."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeVar

from ocidiff.errors import OverlayError, UsageError
from ocidiff.layer.engine import Engine, Lower, Upper, select_engine
from ocidiff.layer.layer import NOTHING_SKIPPED, Change, IndexPath, Layer, LayerSummary
from ocidiff.layer.monitor import Cancellation, Monitor, ProgressCallback, check_size
from ocidiff.layer.operand import Tree
from ocidiff.layer.options import Compression, DiffOptions, LayerOptions, OverlayMode
from ocidiff.layer.paths import changed_tree_path, index_path, lower_path, tree_path
from ocidiff.layer.unseen import refuse_unseen
from ocidiff.log import Logger
from ocidiff.mounts.layers import OverlayLayers
from ocidiff.oci import media_type
from ocidiff.oci.descriptor import Descriptor
from ocidiff.output import Output, directory_of_output, open_output

if TYPE_CHECKING:
    from typing import Unpack

    from ocidiff.layer.arguments import DiffArguments
    from ocidiff.layer.input import UpperTar

_MEDIA_TYPES: Final = {
    Compression.GZIP: media_type.LAYER_GZIP,
    Compression.ZSTD: media_type.LAYER_ZSTD,
    Compression.NONE: media_type.LAYER,
}

_Summary = TypeVar("_Summary")

_log = Logger(__name__)


class Changes:
    """Changes in layer order, one after the other.

    Attributes:
        skipped: Once they have ended, what is left out, by reason: `mounts`, `excluded`, and `xattrs.NAMESPACE`, the
            attributes of changed entries that the profile does not compare.
    """

    def __init__(self, found: Generator[Change, None, Mapping[str, int]]) -> None:
        self._found = found
        self.skipped: Mapping[str, int] = NOTHING_SKIPPED

    def __iter__(self) -> Changes:
        return self

    def __next__(self) -> Change:
        try:
            return next(self._found)
        except StopIteration as end:
            self.skipped = end.value or self.skipped
            raise

    def close(self) -> None:
        """Stop looking for changes."""
        self._found.close()


def diff(
    lower: Tree | None,
    upper: Tree | OverlayLayers | UpperTar,
    output: Output,
    *,
    options: DiffOptions | None = None,
    progress: ProgressCallback | None = None,
    cancel: Cancellation | None = None,
    **arguments: Unpack[DiffArguments],
) -> Layer:
    """Write the layer that turns `lower` into `upper`.

    Args:
        lower: Directory of the parent tree, or `index:` and the path of an index of it (see `index`); None or the word
            `scratch` for no parent. `./scratch` and path objects are always directories.
        upper: Directory of the changed tree; or the layers of an overlay (see `overlay_layers`), which need not be mounted.
            Then the lowerdirs are the parent tree, and `lower` is None. Or the tar of an overlay's upper directory over
            `lower`, which is unpacked beside `output` for the time of the call.
        output: Path of the layer, which appears whole or not at all; or an open file, written from its position on.
        options: What the layer shall be; None for the defaults.
        progress: Called with the counters a few times a second.
        cancel: Stops the call.
        **arguments: The fields of `DiffOptions` by name, in place of `options`.

    Raises:
        UsageError: An option is out of range.
        FileNotFoundError, NotADirectoryError: A tree is missing, or is no directory.
        UnrepresentableError: The tree holds what the format cannot say, or an owner outside the id maps, or is not whole.
        SourceChangedError: A file changed while it was read, and that is an error; or it never rested.
        OverlayError: The upperdir has to be read, and cannot.
        UnsupportedError: gVisor keeps the changes elsewhere: see `UpperTar`.
        ChangeTooLargeError: The layer is larger than `fail_above`.
        IndexFileError: The index is none, or a broken one.
        Cancelled: `cancel` was used.
    """
    asked = DiffOptions.of(options, arguments)
    told = replace(engine_options(asked, _compression_of(output)), spool=directory_of_output(output))
    selected, monitor = select_engine(asked.engine), Monitor(progress, cancel)
    with ExitStack() as stack:
        if not isinstance(upper, str | os.PathLike | OverlayLayers):
            from ocidiff.layer.upper_tar import options_for, private_directory, unpacked

            below = lower_path(lower)
            monitor.check()
            place = stack.enter_context(private_directory(told.spool or _temporary_files()))
            upper = stack.enter_context(unpacked(upper, below, place, engine=selected, monitor=monitor))
            lower, monitor, told = None, monitor.of("diff"), options_for(upper, told)
        lower_tree, upper_tree = _trees(lower, upper)
        if asked.ignore_file:
            told = with_ignore_file(told, upper_tree)
        told = _with_lower_times(told, lower_tree, upper_tree)
        sink = stack.enter_context(open_output(output))
        return write_layer(selected, lower_tree, upper_tree, sink, options=told, monitor=monitor, overlay=asked.overlay)


def _temporary_files() -> str:
    import tempfile

    return tempfile.gettempdir()


def changes(
    lower: Tree | None,
    upper: Tree | OverlayLayers,
    *,
    explain: bool = True,
    options: DiffOptions | None = None,
    **arguments: Unpack[DiffArguments],
) -> Changes:
    """Return the changes from `lower` to `upper`, lazily, in layer order; errors as in `diff`.

    Args:
        lower: See `diff`.
        upper: See `diff`; it may be an index too.
        explain: Give the reason and the sizes of each change. That compares contents which need not be compared else, those
            of files whose metadata changed.
        options: How the trees are compared; None for the defaults. What concerns the blob has no effect.
        **arguments: The fields of `DiffOptions` by name, in place of `options`.
    """
    asked = DiffOptions.of(options, arguments)
    told = asked.compared()
    selected = select_engine(asked.engine)
    lower_tree, upper_tree = _trees(lower, upper, may_be_index=True)
    if asked.ignore_file:
        told = with_ignore_file(told, upper_tree)
    told = _with_lower_times(told, lower_tree, upper_tree)
    return Changes(list_changes(selected, lower_tree, upper_tree, told, asked.overlay, explain=explain))


def _with_lower_times(options: LayerOptions, lower: Lower | None, upper: Upper) -> LayerOptions:
    """Return the options with what the times of the parent tree tell, if there is one."""
    if lower is None and not isinstance(upper, OverlayLayers):
        return options
    from ocidiff.layer.fractions import with_lower_times

    return with_lower_times(options, lower, upper)


def list_changes(
    engine: Engine,
    lower: Lower | None,
    upper: Upper,
    options: LayerOptions,
    mode: OverlayMode,
    *,
    explain: bool,
) -> Generator[Change, None, Mapping[str, int]]:
    """Yield the changes of two trees, in layer order; return what is left out, by reason."""
    layers = _layers(lower, upper, mode)
    if layers is not None:
        found, told = Changes(engine.changes(None, layers, options, explain=explain)), 0
        try:
            for change in found:
                told += 1
                yield change
        except OverlayError as error:
            if told:
                raise
            _walk_instead(upper, mode, error)
        else:
            return found.skipped
        finally:
            found.close()
    return (yield from engine.changes(lower, upper, options, explain=explain))


def write_layer(
    engine: Engine,
    lower: Lower | None,
    upper: Upper,
    sink: int,
    *,
    options: LayerOptions,
    monitor: Monitor,
    overlay: OverlayMode = OverlayMode.AUTO,
) -> Layer:
    """Write a layer to a file descriptor in one pass, and describe it; arguments and errors as in `diff`."""
    started = time.monotonic()

    def write(lower: Lower | None, upper: Upper, monitor: Monitor) -> LayerSummary:
        return engine.write_layer(lower, upper, sink, options, monitor)

    summary = write_trees(lower, upper, write, options, monitor, overlay)
    # The engine may have been done before the monitor was asked.
    check_size(summary.uncompressed_size, options.fail_above)
    return describe(summary, options, time.monotonic() - started)


def write_trees(
    lower: Lower | None,
    upper: Upper,
    write: Callable[[Lower | None, Upper, Monitor], _Summary],
    options: LayerOptions,
    monitor: Monitor,
    overlay: OverlayMode,
) -> _Summary:
    """Call `write` with the layers of an overlay if they can be read, else with both trees, and return its result."""
    monitor.check()
    monitor = replace(monitor, fail_above=options.fail_above)
    layers = _layers(lower, upper, overlay)
    if layers is not None:
        try:
            return write(None, layers, monitor)
        except OverlayError as error:
            _walk_instead(upper, overlay, error)
    return write(lower, upper, monitor)


def describe(summary: LayerSummary, options: LayerOptions, seconds: float) -> Layer:
    """Return the layer of a summary."""
    return Layer(
        descriptor=Descriptor(layer_media_type(options.compression), summary.digest, summary.size),
        diff_id=summary.diff_id,
        uncompressed_size=summary.uncompressed_size,
        added=summary.added,
        modified=summary.modified,
        deleted=summary.deleted,
        empty=summary.entries == 0,
        skipped=summary.skipped,
        seconds=seconds,
        retried=summary.retried,
        vanished=summary.vanished,
        reused_bytes=summary.reused_bytes,
    )


def layer_media_type(compression: Compression) -> str:
    """Return the media type of a layer with this compression."""
    return _MEDIA_TYPES[compression]


def overlay_layers(
    upperdir: Tree, lowerdirs: Sequence[Tree], *, datadirs: Sequence[Tree] = (), userxattr: bool | None = None
) -> OverlayLayers:
    """Return the layers of an overlay, to be diffed with nothing mounted.

    Args:
        upperdir: Directory that takes the changes.
        lowerdirs: Directories below it, top first.
        datadirs: Directories that only hold the content of files in the others, top first.
        userxattr: Whether it is marked in `user.overlay.*`, as with the mount option of this name; None to find out.

    Raises:
        UsageError: There is no lowerdir.
        FileNotFoundError, NotADirectoryError: A directory is missing, or is none.
    """
    if not lowerdirs:
        raise UsageError("overlay: takes one lowerdir or more")
    below, apart = tuple(map(tree_path, lowerdirs)), tuple(map(tree_path, datadirs))
    return OverlayLayers(tree_path(upperdir), below, apart, userxattr)


def _trees(lower: Tree | None, upper: Tree | OverlayLayers, *, may_be_index: bool = False) -> tuple[Lower | None, Upper]:
    if not isinstance(upper, OverlayLayers):
        index = index_path(upper) if may_be_index else None
        return lower_path(lower), index or changed_tree_path(upper)
    if lower is not None:
        raise UsageError("lower: the parent tree of an overlay is its lowerdirs")
    refuse_unseen(upper.upperdir)
    return None, upper


def _layers(lower: Lower | None, upper: Upper, mode: OverlayMode) -> OverlayLayers | None:
    """Return the layers to read instead of both trees; None if the trees are to be compared.

    Raises:
        OverlayError: The layers have to be read, and cannot.
    """
    if isinstance(upper, OverlayLayers):
        return upper
    if mode is OverlayMode.NEVER:
        return None
    from ocidiff.mounts.behind import layers_behind

    layers = None
    try:
        layers = layers_behind(lower, upper) if isinstance(lower, bytes) and isinstance(upper, bytes) else None
    except OverlayError as error:
        _walk_instead(upper, mode, OverlayError(f"overlay {_shown(upper)}: {error}"))
    else:
        if layers is None and mode is OverlayMode.REQUIRE:
            raise OverlayError(f"overlay {_shown(upper)}: UPPER is no overlay mount, or LOWER is no tree below it")
    return layers


def _shown(upper: bytes | IndexPath) -> str:
    return os.fsdecode(upper.path if isinstance(upper, IndexPath) else upper)


def _walk_instead(upper: Upper, mode: OverlayMode, error: OverlayError) -> None:
    """Say why the trees are compared after all, or fail where that cannot be."""
    if mode is OverlayMode.REQUIRE or isinstance(upper, OverlayLayers):
        raise error
    _log.warning("%s; both trees are read", error)


def engine_options(asked: DiffOptions, output_compression: Compression = Compression.GZIP) -> LayerOptions:
    """Return what an engine is told of a call that writes a layer; the environment may bound the times.

    Raises:
        UsageError: An option is not understood, or `SOURCE_DATE_EPOCH` is not.
    """
    if asked.source_date_epoch is None:
        asked = replace(asked, source_date_epoch=_environment_epoch())
    return asked.compared(output_compression)


def with_ignore_file(options: LayerOptions, upper: Upper) -> LayerOptions:
    """Return the options with the patterns in the changed tree; an index has the contents of no file.

    Raises:
        UsageError: Its ignore file is not understood.
    """
    if isinstance(upper, IndexPath):
        return options
    layers = (upper.upperdir, *upper.lowerdirs) if isinstance(upper, OverlayLayers) else upper
    return replace(options, scope=options.scope.within(layers))


def _compression_of(output: Output) -> Compression:
    return Compression.of_name(os.fsdecode(output)) if isinstance(output, str | bytes | os.PathLike) else Compression.GZIP


def _environment_epoch() -> int | None:
    """Return the value of `SOURCE_DATE_EPOCH`; empty counts as unset. Spec: reproducible-builds.org, SOURCE_DATE_EPOCH."""
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return None
    # More digits than an int64 has are out of range at any rate, and slow to convert.
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise UsageError(f"SOURCE_DATE_EPOCH {text[:100]!r}: takes seconds since 1970")
    return int(text)
