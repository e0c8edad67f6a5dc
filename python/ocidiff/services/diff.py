"""Diff: one layer between trees and content."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from ocidiff.layer.apply_options import ApplyOptions
from ocidiff.layer.engine import Lower
from ocidiff.layer.layer import ApplySummary, Layer
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.options import LayerOptions
from ocidiff.mounts.layers import OverlayLayers
from ocidiff.mounts.mount import Mount
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import DiffID
from ocidiff.services.content import ContentStore, Ingester

if TYPE_CHECKING:
    from ocidiff.layer.split import Split


class Differ(Protocol):
    """Turns trees into layers, and layers into trees."""

    def compare(
        self,
        lower: Lower | None,
        upper: bytes | OverlayLayers,
        content: Ingester,
        options: LayerOptions,
        monitor: Monitor,
    ) -> Layer | None:
        """Store the layer that turns `lower` into `upper`, while it is written; None, and nothing stored, if it is empty.

        Args:
            lower: Path of the parent tree, or an index of it; None for no parent tree.
            upper: Path of the changed tree; or an overlay, whose lower directories are then the parent tree.
            content: Where the layer goes, with its diff ID as label.
            options: What the layer shall be.
            monitor: Sees progress, and stops the call.
        """
        ...

    def measure(
        self, lower: Lower | None, upper: bytes | OverlayLayers, count: int, options: LayerOptions, monitor: Monitor
    ) -> Split:
        """Return the `count` layers that hold the change from `lower` to `upper` together, uncompressed. Nothing is stored.

        Arguments as in `compare`.
        """
        ...

    def split(
        self,
        lower: Lower | None,
        upper: bytes | OverlayLayers,
        wanted: Sequence[bool],
        content: Ingester,
        options: LayerOptions,
        monitor: Monitor,
    ) -> Split:
        """Store layers that hold the change from `lower` to `upper` together, except for empty ones.

        Args:
            lower: See `compare`.
            upper: See `compare`.
            wanted: For each layer, false to leave it out. Their number says which layer a path is in.
            content: See `compare`.
            options: See `compare`.
            monitor: See `compare`.
        """
        ...

    def apply(
        self,
        layer: Descriptor,
        diff_id: DiffID | None,
        mounts: Sequence[Mount],
        content: ContentStore,
        options: ApplyOptions,
        monitor: Monitor,
    ) -> ApplySummary:
        """Apply a layer to the tree that the mounts show, and verify it.

        Args:
            layer: Descriptor of the layer.
            diff_id: Digest of its tar; None if the digest of the blob says enough.
            mounts: What shows the tree.
            content: Where the layer is.
            options: How it is applied.
            monitor: Sees progress, and stops the call.

        Raises:
            NotFoundError: The layer is missing.
            DigestMismatchError: The layer is not the one that is named; the tree is not to be used.
        """
        ...
