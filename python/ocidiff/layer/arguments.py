"""The keyword arguments of the verbs: the fields of `DiffOptions`, and the words that stand for their values."""

from __future__ import annotations

from typing import Literal, TypeAlias, TypedDict

from ocidiff.layer.options import Compression, EngineName, OnChange, OverlayMode, Profile

CompressionName: TypeAlias = Compression | Literal["gzip", "zstd", "none"]
ProfileName: TypeAlias = Profile | Literal["oci", "containerd"]
OverlayName: TypeAlias = OverlayMode | Literal["auto", "never", "require"]
OnChangeName: TypeAlias = OnChange | Literal["fail", "retry"]
# No `Sequence[str]`, which a text is too.
Texts: TypeAlias = list[str] | tuple[str, ...]


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
