"""What a caller may ask of diff and apply."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from ocidiff.errors import LimitExceededError, UsageError
from ocidiff.layer.idmap import IdMaps
from ocidiff.layer.scope import Scope
from ocidiff.values import dataclass


class Compression(StrEnum):
    """How the blob of a layer is compressed."""

    GZIP = "gzip"
    ZSTD = "zstd"
    NONE = "none"

    @classmethod
    def of_name(cls, name: str) -> Compression:
        """Return the compression that the name of a file stands for: `.tar`, `.tar.zst`; gzip for every other name."""
        if name.endswith(".tar"):
            return cls.NONE
        return cls.ZSTD if name.endswith((".tar.zst", ".tzst")) else cls.GZIP


class Profile(StrEnum):
    """Which rules decide what a layer says.

    `CONTAINERD` gives byte for byte the tar of containerd's walking differ. `OCI` gives the same bytes, except that `user.*`
    xattrs and POSIX ACLs are compared and stored too, that a real name beginning with `.wh.` is refused, that two inodes of
    different devices are never taken for hard links, and that fractions of a second that an unpacked tree has lost do not
    count.
    """

    OCI = "oci"
    CONTAINERD = "containerd"


class Destination(StrEnum):
    """What kind of tree a layer is written onto.

    `DIRECTORY` is a plain tree, in which whiteouts remove what is there. `OVERLAY` is the upperdir of an overlay, in which
    whiteouts become what overlayfs reads: devices 0/0 and `trusted.overlay.opaque`. `OVERLAY_USERXATTR` is the same for
    mounts with the option `userxattr`, that keep their attributes under `user.overlay.`, as in a user namespace.
    """

    DIRECTORY = "directory"
    OVERLAY = "overlay"
    OVERLAY_USERXATTR = "overlay-userxattr"


class OverlayMode(StrEnum):
    """Whether the layers of an overlay are read instead of what it shows.

    `AUTO` does it where it is known to give the same bytes, and says why where it is not; `REQUIRE` fails there.
    """

    AUTO = "auto"
    NEVER = "never"
    REQUIRE = "require"


class OnChange(StrEnum):
    """What becomes of a file that changes while it is read.

    `RETRY` reads it again until it rests for as long as that takes, and takes what is gone as absent: each file of the layer
    is one that existed. `FAIL` ends the call.
    """

    FAIL = "fail"
    RETRY = "retry"


LEVELS: Final[Mapping[Compression, range]] = MappingProxyType(
    {Compression.GZIP: range(1, 10), Compression.ZSTD: range(1, 20), Compression.NONE: range(0)}
)


@dataclass(frozen=True, slots=True)
class LayerOptions:
    """What a layer shall be.

    Attributes:
        compression: How the blob is compressed.
        level: Level of the compressor (gzip 1-9, zstd 1-19); None for its default (gzip 6, zstd 3).
        threads: Worker threads; 0 for as many as there are cores. The bytes do not depend on it.
        memory_bytes: Memory of the process, kept by fewer threads; None for 128 MiB, or what one thread takes. The pure
            engine has one thread, and no bound.
        profile: Which rules decide.
        source_date_epoch: Later modification times are set to this (seconds since 1970); None for no bound.
        lower_from_layers: True if the lower tree was unpacked from layers. `lower_lacks_fractions` then holds, and times of
            the upper tree are bounded by `source_date_epoch` before they are compared, as those of the layers were.
        lower_lacks_fractions: True if a lower time without a fraction of a second does not decide, and contents do.
            Otherwise only two times without fractions leave it to the contents.
        lower_lacks_owners: The lower tree was unpacked from layers without the right to set owners: what has no note of its
            owner has one of the host.
        ids: What the ids of files are in the container. A lower tree from layers has these already, unless it lacks owners.
        fail_above: Largest uncompressed size in bytes; None for no limit.
        scope: Which paths count.
        on_change: What becomes of files that change while they are read.
        links_by_device: Two inodes of different devices are never one file, in the profile `containerd` too.
        spool: Directory where large files that may change are put aside, in files without a name; None for that of
            temporary files (`$TMPDIR`).

    Raises:
        UsageError: A value is outside its range.
    """

    compression: Compression = Compression.GZIP
    level: int | None = None
    threads: int = 0
    memory_bytes: int | None = None
    profile: Profile = Profile.OCI
    source_date_epoch: int | None = None
    lower_from_layers: bool = False
    lower_lacks_fractions: bool = False
    lower_lacks_owners: bool = False
    ids: IdMaps = field(default_factory=IdMaps)
    fail_above: int | None = None
    scope: Scope = field(default_factory=Scope)
    on_change: OnChange = OnChange.RETRY
    links_by_device: bool = False
    spool: str | None = None

    @property
    def lower_has_ids(self) -> bool:
        """True if the lower tree has ids of the container already."""
        return self.lower_from_layers and not self.lower_lacks_owners

    @property
    def device_in_links(self) -> bool:
        """True if two names are one file only if their device is the same too."""
        return self.links_by_device or self.profile is Profile.OCI

    @property
    def of_lower(self) -> LayerOptions:
        """The options for reading the lower tree, or the lower directories of an overlay."""
        return replace(self, ids=IdMaps()) if self.lower_has_ids else self

    def __post_init__(self) -> None:
        levels = LEVELS[self.compression]
        if self.level is not None and self.level not in levels:
            allowed = f"{levels.start} to {levels.stop - 1}" if levels else "no level"
            raise UsageError(f"level {self.level}: {self.compression} takes {allowed}")
        if not 0 <= self.threads <= 1024:
            raise UsageError(f"threads {self.threads}: takes 1 to 1024, or 0 for all cores")
        if self.memory_bytes is not None and not 0 <= self.memory_bytes < 1 << 64:
            raise UsageError(f"memory {self.memory_bytes}: takes bytes, 0 or more")
        if self.fail_above is not None and self.fail_above < 0:
            raise UsageError(f"fail above {self.fail_above}: takes bytes, 0 or more")
        if self.source_date_epoch is not None and not 0 <= self.source_date_epoch < 1 << 33:
            raise UsageError(f"source date epoch {self.source_date_epoch}: takes seconds from 0 to {(1 << 33) - 1}")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a layer may not pass. The defaults are more than any honest layer takes.

    Attributes:
        max_bytes: Largest uncompressed size; None for no limit.
        max_entries: Largest number of entries; None for no limit.
        max_ratio: Most bytes of tar for each byte of blob, from 64 MiB of tar on; None for no limit. The default is one that
            gzip cannot reach.
        max_depth: Most components in the name of an entry. The default is what a path of 4096 bytes can hold.
        max_header_bytes: Largest PAX or GNU header.

    Raises:
        UsageError: A value is outside its range.
    """

    max_bytes: int | None = 1 << 40
    max_entries: int | None = 10_000_000
    max_ratio: int | None = 1100
    max_depth: int = 2048
    max_header_bytes: int = 1 << 20

    def __post_init__(self) -> None:
        for name, least in (
            ("max_bytes", 0),
            ("max_entries", 0),
            ("max_ratio", 1),
            ("max_depth", 1),
            ("max_header_bytes", 1),
        ):
            value = getattr(self, name)
            if value is not None and not least <= value < 1 << 63:
                raise UsageError(f"{name} {value}: takes {least} or more")

    def less(self, bytes_plain: int, entries: int) -> Limits:
        """Return what is left of them once a layer has taken so much.

        Raises:
            LimitExceededError: It has taken more.
        """
        for name, value, most in (("max_bytes", bytes_plain, self.max_bytes), ("max_entries", entries, self.max_entries)):
            if most is not None and value > most:
                raise LimitExceededError(f"limit {name} exceeded: {value} is more than the {most} left by the layers before")
        return self.after(bytes_plain, entries)

    def after(self, bytes_plain: int, entries: int) -> Limits:
        """What is left of them once a layer has taken so much."""
        return replace(
            self,
            max_bytes=None if self.max_bytes is None else max(0, self.max_bytes - bytes_plain),
            max_entries=None if self.max_entries is None else max(0, self.max_entries - entries),
        )


@dataclass(frozen=True, slots=True)
class ApplyOptions:
    """How a layer is written onto a directory.

    Attributes:
        same_owner: Give every entry its recorded owner and treat failure as an error. False: what may not be set is left
            out and counted, empty files stand for devices, and all is noted in the attribute
            `user.containers.override_stat` where the file system can. None: True for root.
        destination: What kind of tree the directory is.
        limits: What the layer may not pass.
        is_upper: The tar is that of an overlay's upper directory: devices 0/0 are whiteouts, attributes mark opaque
            directories, every directory has an entry before what is in it, and an end mark is needed.
    """

    same_owner: bool | None = None
    destination: Destination = Destination.DIRECTORY
    limits: Limits = field(default_factory=Limits)
    is_upper: bool = False

    @property
    def sets_owners(self) -> bool:
        """Whether every entry gets its recorded owner."""
        return os.geteuid() == 0 if self.same_owner is None else self.same_owner
