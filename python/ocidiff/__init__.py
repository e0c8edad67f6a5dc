"""Turns a changed file system into an OCI image.

    layer = ocidiff.diff("lower", "upper", "layer.tar.gz")
    for change in ocidiff.changes("lower", "upper"): ...
    ocidiff.apply("layer.tar.gz", "target", diff_id=layer.diff_id)

    with ocidiff.Store.open("store") as store:
        image = store.commit("rootfs", "app:v2", base="app:v1", message="...")

Names are imported when they are first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

# As type checkers understand it; `typing` and all that it imports would be most of the time.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from ocidiff.embedded.containers import Container
    from ocidiff.embedded.gc import Collected
    from ocidiff.embedded.verified import Fault, Verified
    from ocidiff.errors import (
        AlreadyExistsError,
        BusyError,
        Cancelled,
        ChangeTooLargeError,
        DeniedError,
        DigestMismatchError,
        DocumentError,
        ForbiddenContentError,
        IndexFileError,
        InUseError,
        LayerError,
        LimitExceededError,
        MalformedLayerError,
        NotFoundError,
        OcidiffError,
        OverlayError,
        OverloadedError,
        RegistryError,
        SourceChangedError,
        UnrepresentableError,
        UnsafeLayerError,
        UnsupportedError,
        UsageError,
    )
    from ocidiff.image.arguments import CommitArguments
    from ocidiff.image.batch import BatchResult, BatchStatus, BatchSummary
    from ocidiff.image.changes import ConfigChanges
    from ocidiff.image.image import Image, ImageRecord
    from ocidiff.layer.applier import apply
    from ocidiff.layer.apply_options import Destination
    from ocidiff.layer.arguments import CallArguments, DiffArguments
    from ocidiff.layer.differ import Changes, changes, diff, overlay_layers
    from ocidiff.layer.indexer import index
    from ocidiff.layer.input import UpperTar
    from ocidiff.layer.layer import ApplySummary, Change, ChangeKind, Layer, Reason, TreeIndex
    from ocidiff.layer.limits import Limits
    from ocidiff.layer.monitor import BlobProgress, BlobState, Cancellation, Progress
    from ocidiff.layer.options import Compression, DiffOptions, OnChange, OverlayMode, Profile
    from ocidiff.mounts.layers import OverlayLayers
    from ocidiff.oci.descriptor import Descriptor
    from ocidiff.oci.digest import ChainID, DiffID, Digest, chain_id
    from ocidiff.store import Store
    from ocidiff.store.copy import CopyArguments, TransportArguments, copy
    from ocidiff.store.embedded import EmbeddedStore
    from ocidiff.transport.copy import Copied
    from ocidiff.transport.scheme import Registry

if TYPE_CHECKING:
    from typing import Final

# The workspace's, which a test compares; asking the installed package would take longer than all else at start-up.
__version__: Final = "0.1.0"

__all__ = [
    "AlreadyExistsError",
    "ApplySummary",
    "BatchResult",
    "BatchStatus",
    "BatchSummary",
    "BlobProgress",
    "BlobState",
    "BusyError",
    "CallArguments",
    "Cancellation",
    "Cancelled",
    "ChainID",
    "Change",
    "ChangeKind",
    "ChangeTooLargeError",
    "Changes",
    "Collected",
    "CommitArguments",
    "Compression",
    "ConfigChanges",
    "Container",
    "Copied",
    "CopyArguments",
    "DeniedError",
    "Descriptor",
    "Destination",
    "DiffArguments",
    "DiffID",
    "DiffOptions",
    "Digest",
    "DigestMismatchError",
    "DocumentError",
    "EmbeddedStore",
    "Fault",
    "ForbiddenContentError",
    "Image",
    "ImageRecord",
    "InUseError",
    "IndexFileError",
    "Layer",
    "LayerError",
    "LimitExceededError",
    "Limits",
    "MalformedLayerError",
    "NotFoundError",
    "OcidiffError",
    "OnChange",
    "OverlayError",
    "OverlayLayers",
    "OverlayMode",
    "OverloadedError",
    "Profile",
    "Progress",
    "Reason",
    "Registry",
    "RegistryError",
    "SourceChangedError",
    "Store",
    "TransportArguments",
    "TreeIndex",
    "UnrepresentableError",
    "UnsafeLayerError",
    "UnsupportedError",
    "UpperTar",
    "UsageError",
    "Verified",
    "__version__",
    "apply",
    "chain_id",
    "changes",
    "copy",
    "diff",
    "index",
    "overlay_layers",
]

_HOMES: Final = {
    "errors": (
        "AlreadyExistsError BusyError Cancelled ChangeTooLargeError DeniedError DigestMismatchError DocumentError "
        "ForbiddenContentError IndexFileError InUseError LayerError LimitExceededError MalformedLayerError NotFoundError "
        "OcidiffError "
        "OverlayError OverloadedError RegistryError SourceChangedError UnrepresentableError UnsafeLayerError "
        "UnsupportedError UsageError"
    ),
    "embedded.gc": "Collected",
    "image.arguments": "CommitArguments",
    "image.batch": "BatchResult BatchStatus BatchSummary",
    "image.changes": "ConfigChanges",
    "embedded.containers": "Container",
    "image.image": "Image ImageRecord",
    "store": "Store",
    "store.copy": "CopyArguments TransportArguments copy",
    "store.embedded": "EmbeddedStore",
    "embedded.verified": "Fault Verified",
    "layer.applier": "apply",
    "layer.apply_options": "Destination",
    "layer.arguments": "CallArguments DiffArguments",
    "layer.differ": "Changes changes diff overlay_layers",
    "layer.indexer": "index",
    "layer.input": "UpperTar",
    "layer.layer": "ApplySummary Change ChangeKind Layer Reason TreeIndex",
    "layer.limits": "Limits",
    "layer.monitor": "BlobProgress BlobState Cancellation Progress",
    "layer.options": "Compression DiffOptions OnChange OverlayMode Profile",
    "mounts.layers": "OverlayLayers",
    "oci.descriptor": "Descriptor",
    "oci.digest": "ChainID DiffID Digest chain_id",
    "transport.copy": "Copied",
    "transport.scheme": "Registry",
}
_HOME_OF: Final = {name: home for home, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'ocidiff' has no attribute {name!r}")
    import importlib

    value: object = getattr(importlib.import_module(f"ocidiff.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
