"""The keyword arguments of the verbs: the fields of `DiffOptions`, and the words that stand for their values."""

from __future__ import annotations

from typing import Literal, TypeAlias, TypedDict

from ocidiff.layer.apply_options import Destination
from ocidiff.layer.limits import Limits
from ocidiff.layer.monitor import Cancellation, ProgressCallback
from ocidiff.layer.options import Compression, EngineName, OnChange, OverlayMode, Profile

CompressionName: TypeAlias = Compression | Literal["gzip", "zstd", "none"]
ProfileName: TypeAlias = Profile | Literal["oci", "containerd"]
OverlayName: TypeAlias = OverlayMode | Literal["auto", "never", "require"]
DestinationName: TypeAlias = Destination | Literal["directory", "overlay", "overlay-userxattr"]
OnChangeName: TypeAlias = OnChange | Literal["fail", "retry"]
# No `Sequence[str]`, which a text is too.
Texts: TypeAlias = list[str] | tuple[str, ...]


class CallArguments(TypedDict, total=False):
    """The arguments of every long call that reads layers.

    Attributes:
        limits: Limits of the layers: bytes and entries of all of them together; None for the defaults.
        engine: `rust` or `pure`; None for `OCIDIFF_ENGINE`, or the best one that works here.
        progress: Called with the counters over all layers a few times a second.
        cancel: Stops the call.
    """

    limits: Limits | None
    engine: EngineName | None
    progress: ProgressCallback | None
    cancel: Cancellation | None


class TreeArguments(TypedDict, total=False):
    """The options that concern a tree alone: what `index` takes. See `DiffOptions`."""

    threads: int
    uid_map: Texts
    gid_map: Texts
    userns: int | None
    cross_mounts: bool
    engine: EngineName | None


class DiffArguments(TreeArguments, total=False):
    """The options that `diff`, `changes` and `Store.commit` take by name. See `DiffOptions`."""

    compression: CompressionName | None
    level: int | None
    memory_bytes: int | None
    profile: ProfileName
    overlay: OverlayName
    source_date_epoch: int | None
    exclude: Texts
    ignore_file: bool
    fail_above: int | None
    on_change: OnChangeName
