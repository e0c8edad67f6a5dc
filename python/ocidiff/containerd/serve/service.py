"""The Diff service of containerd: messages in, one layer between mounts and content, messages out.

Spec: containerd, api/services/diff/v1/diff.proto; core/diff/walking and core/diff/apply say what callers expect.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ocidiff.containerd.blobs import BlobFiles
from ocidiff.containerd.channel import Channel
from ocidiff.containerd.content import ContainerdContent
from ocidiff.containerd.convert import descriptor_fields, descriptor_of, id_maps_of, mounts_of
from ocidiff.containerd.serve.calls import Call
from ocidiff.containerd.serve.leases import ServerLeases
from ocidiff.containerd.serve.namespaces import Namespaces
from ocidiff.errors import OverlayError, UnrepresentableError, UnsupportedError
from ocidiff.image.layers import LocalDiffer
from ocidiff.layer.apply_options import ApplyOptions
from ocidiff.layer.engine import Engine
from ocidiff.layer.idmap import IdMaps
from ocidiff.layer.incomplete import refuse_incomplete
from ocidiff.layer.layer import Layer
from ocidiff.layer.options import Compression, LayerOptions, Profile
from ocidiff.layer.unseen import refuse_unseen
from ocidiff.mounts.kernel import sync_file_system, unsynced_mounts
from ocidiff.mounts.layers import OverlayLayers
from ocidiff.mounts.mount import Mount, unmapped
from ocidiff.mounts.trees import trees_to_compare
from ocidiff.oci import media_type
from ocidiff.oci.descriptor import Descriptor
from ocidiff.services.content import ContentStore
from ocidiff.services.segments import SegmentTables

NAME: Final = "containerd.services.diff.v1.Diff"
_LAST_SECOND: Final = (1 << 33) - 1
# Longest wait for a containerd that is being restarted, before the work of a call begins and for what it must undo.
PATIENCE_SECONDS: Final = 5.0


class DiffService:
    """Diff writes layers, Apply reads them."""

    def __init__(
        self,
        engine: Engine,
        channel: Channel,
        namespaces: Namespaces,
        leases: ServerLeases,
        segments: SegmentTables | None = None,
    ) -> None:
        self._engine, self._channel, self._namespaces, self._leases = engine, channel, namespaces, leases
        self._blobs, self._segments = BlobFiles(channel), segments

    def diff(self, request: Any, call: Call) -> dict[str, object]:  # noqa: ANN401 - a message
        """Store the layer that turns the tree of the left mounts into that of the right ones."""
        wanted = request.media_type or media_type.LAYER_GZIP
        lower, upper = mounts_of(request.left), mounts_of(request.right)
        options = _options(request, call, id_maps_of(upper))
        differ = LocalDiffer(
            self._engine, ref=request.ref or None, layer_labels=dict(request.labels), tables=lambda: self._segments
        )
        with call.phase("prepare"):
            self._channel.wait(PATIENCE_SECONDS)
            call.namespace = call.namespace or self._namespaces.with_mounts(upper)
        with self._leases.under(call.namespace) as channel, call.phase("work"):
            content = ContainerdContent(channel)
            try:
                layer = _compare(differ, lower, upper, content, options, call, walk=False)
            except OverlayError as error:
                call.told["walked"] = str(error)
                layer = _compare(differ, lower, upper, content, options, call, walk=True)
        call.passed(layer.descriptor.size, layer.uncompressed_size)
        call.reused(layer.reused_bytes)
        call.told |= {"layer": layer.descriptor.digest, "bytes": layer.descriptor.size, "diff_id": layer.diff_id}
        call.told |= {"tar_bytes": layer.uncompressed_size, "reused_bytes": layer.reused_bytes}
        return {"diff": {**descriptor_fields(layer.descriptor), "media_type": wanted}}

    def apply(self, request: Any, call: Call) -> dict[str, object]:  # noqa: ANN401 - a message
        """Apply a layer to the tree of the mounts, and answer what its tar is."""
        layer, mounts = descriptor_of(request.diff), _for_a_layer(mounts_of(request.mounts))
        if layer.media_type not in media_type.LAYERS:
            raise UnsupportedError(f"layer {layer.digest}: media type {layer.media_type!r} is not a tar that is known here")
        with call.phase("prepare"):
            self._channel.wait(PATIENCE_SECONDS)
            call.namespace = call.namespace or self._namespaces.with_blob(layer.digest)
            content = self._blobs.content(call.namespace)
        options = ApplyOptions(same_owner=True, threads=call.share.threads)
        with call.phase("work"), unsynced_mounts(mounts) as written:
            done = LocalDiffer(self._engine).apply(layer, None, written, content, options, call.monitor)
        if request.sync_fs:
            with call.phase("sync"):
                sync_file_system(_directory(mounts[-1]))
        call.passed(done.size, done.uncompressed_size)
        call.told |= {"layer": layer.digest, "bytes": done.size, "diff_id": done.diff_id, "entries": done.entries}
        return {"applied": descriptor_fields(Descriptor(media_type.LAYER, done.diff_id, done.uncompressed_size))}


def _options(request: Any, call: Call, ids: IdMaps) -> LayerOptions:  # noqa: ANN401 - a message
    """Return what the engine is told: the bytes of containerd's own differ, within the share of the call.

    Raises:
        UnsupportedError: The media type or the time is one that another differ may know.
    """
    epoch = request.source_date_epoch if request.HasField("source_date_epoch") else None
    if epoch is not None and (epoch.nanos or not 0 <= epoch.seconds <= _LAST_SECOND):
        raise UnsupportedError(f"source_date_epoch: must be whole seconds from 0 to {_LAST_SECOND}")
    return LayerOptions(
        compression=_compression(request.media_type),
        profile=Profile.CONTAINERD,
        threads=call.share.threads,
        memory_bytes=call.share.memory_bytes,
        source_date_epoch=None if epoch is None else epoch.seconds,
        ids=ids,
        # Lower directories of an id-mapped overlay have the ids of the image.
        lower_has_layer_times=bool(ids),
    )


def _compression(wanted: str) -> Compression:
    """Return how a blob of this media type is compressed; an empty one, as Docker sends it, means gzip."""
    if wanted and wanted not in media_type.LAYERS:
        raise UnsupportedError(f"media type {wanted!r}: no layer that is written here")
    if not wanted or wanted.endswith("gzip"):
        return Compression.GZIP
    return Compression.ZSTD if wanted.endswith("zstd") else Compression.NONE


def _compare(
    differ: LocalDiffer,
    lower: Sequence[Mount],
    upper: Sequence[Mount],
    content: ContentStore,
    options: LayerOptions,
    call: Call,
    *,
    walk: bool,
) -> Layer:
    """Store the layer of two trees; errors as in `trees_to_compare` and `Differ.compare`.

    Raises:
        UnrepresentableError: The tree is not whole, or its changes are where no differ sees them.
    """
    with trees_to_compare(lower, unmapped(upper), walk=walk) as (below, own):
        layers = (own.upperdir, *own.lowerdirs) if isinstance(own, OverlayLayers) else (own,)
        if options.ids and not isinstance(own, OverlayLayers):
            # The mount would show files of both kinds of owners.
            raise UnsupportedError("an id-mapped snapshot: only its overlay can be read")
        refuse_incomplete(*layers)
        try:
            refuse_unseen(layers[0])
        except UnsupportedError as error:
            # Another differ would write an empty layer without a word.
            raise UnrepresentableError(str(error)) from None
        call.told |= {"overlay": isinstance(own, OverlayLayers), "threads": options.threads}
        return differ.store(below, own, content, options, call.monitor)


def _for_a_layer(mounts: Sequence[Mount]) -> tuple[Mount, ...]:
    """Return the mounts through which a layer gets the ids that it says.

    An id-mapped overlay of containerd maps the ids of its lower directories when it is mounted, so that a layer below it has
    the ids of the image on disk.
    """
    return unmapped(mounts) if all(mount.type == "overlay" for mount in mounts) else tuple(mounts)


def _directory(mount: Mount) -> str:
    """Return a directory in the file system that the mount writes to."""
    return mount.option("upperdir") or mount.source
