"""The values that the verbs take and give: options, changes, summaries. No I/O."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from ocidiff.errors import Cancelled, LimitExceededError, UsageError
from ocidiff.layer.idmap import IdMaps
from ocidiff.layer.scope import Scope
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import DiffID, Digest

RECORD: Final = "user.containers.override_stat"
"""The attribute that notes owner, mode and device of a file that could not get them: `UID:GID:0MODE[:KIND-MAJOR-MINOR]`."""

NOTHING_SKIPPED: Final[Mapping[str, int]] = MappingProxyType({})


class Compression(StrEnum):
    """How the blob of a layer is compressed."""

    GZIP = "gzip"
    ZSTD = "zstd"
    NONE = "none"


class Profile(StrEnum):
    """Which rules decide what a layer says.

    `CONTAINERD` gives byte for byte the tar of containerd's walking differ. `OCI` gives the same bytes, except that `user.*`
    xattrs and POSIX ACLs are compared and stored too, that a real name beginning with `.wh.` is refused, and that two inodes
    of different devices are never taken for hard links.
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


@dataclass(frozen=True, slots=True)
class OverlayLayers:
    """The directories of an overlay, to be read with nothing mounted.

    Attributes:
        upperdir: Path of the directory that takes the changes.
        lowerdirs: Paths of the directories below it, top first, at least one.
        datadirs: Paths of directories that only hold the content of files in the others, top first.
        userxattr: Whether marks are in `user.overlay.*`, as the mount option of this name says; None to find out.
        redirects: Whether redirects of directories are followed, as the mount option `redirect_dir` says.
    """

    upperdir: bytes
    lowerdirs: tuple[bytes, ...]
    datadirs: tuple[bytes, ...] = ()
    userxattr: bool | None = None
    redirects: bool = True


@dataclass(frozen=True, slots=True)
class IndexPath:
    """An index that stands for the tree that it was made of.

    Attributes:
        path: Path of the file.
    """

    path: bytes


class ChangeKind(StrEnum):
    """What happened to a path from lower to upper."""

    ADD = "add"
    MODIFY = "modify"
    DELETE = "delete"


class Reason(StrEnum):
    """Why a path is a change: it is new or gone, or the property in which the trees differ.

    `MTIME` is told as far as the rules look at times (never of a directory), `XATTR` of the attributes that the profile
    compares. Where the type differs nothing else can be compared. A file of another size has other content too.
    """

    NEW = "new"
    DELETED = "deleted"
    TYPE = "type"
    DEVICE = "device"
    MODE = "mode"
    OWNER = "owner"
    MTIME = "mtime"
    XATTR = "xattr"
    SIZE = "size"
    CONTENT = "content"
    LINK = "link"


@dataclass(frozen=True, slots=True)
class Change:
    """One step from lower to upper.

    Attributes:
        kind: What happened.
        path: Absolute path within the tree; bytes that are not UTF-8 are surrogate-escaped.
        reason: All that makes it a change, in the order of `Reason`; empty where no explanation was asked for.
        upper_bytes: Length of the file in the upper tree, 0 for all that is no file; None for what is not there, and
            where no explanation was asked for.
        lower_bytes: The same of the lower tree. A directory that is gone, or no directory any more, has the bytes of all
            files that were below it, a file counted under each of its names.
        layer_bytes: How much content of files a layer gets for this change: of several names of one file the first has
            all.
    """

    kind: ChangeKind
    path: str
    reason: tuple[Reason, ...] = ()
    upper_bytes: int | None = None
    lower_bytes: int | None = None
    layer_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a running call is.

    Attributes:
        entries: Directory entries looked at (diff), or layer entries handled (apply).
        bytes_plain: Bytes of the uncompressed tar.
        bytes_blob: Bytes of the stored blob.
    """

    entries: int
    bytes_plain: int
    bytes_blob: int


class Cancellation:
    """Stops a call from another thread: pass it in, `cancel()` it, and the call raises `Cancelled`."""

    __slots__ = ("_cancelled",)

    def __init__(self) -> None:
        self._cancelled = False

    def cancel(self) -> None:
        """Ask every call that holds this to stop."""
        self._cancelled = True

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._cancelled


ProgressCallback = Callable[[Progress], None]


def check_size(bytes_plain: int, fail_above: int | None) -> None:
    """Refuse a layer whose tar is larger than it may be.

    Raises:
        LimitExceededError: It is.
    """
    # How much larger is not said: a call is stopped as soon as it is too much.
    if fail_above is not None and bytes_plain > fail_above:
        raise LimitExceededError(f"the change takes more than {fail_above} bytes, uncompressed")


@dataclass(frozen=True, slots=True)
class Monitor:
    """What a caller wants to see of a running call, and how it stops it."""

    progress: ProgressCallback | None = None
    cancel: Cancellation | None = None
    fail_above: int | None = None

    def poll(self, entries: int, bytes_plain: int, bytes_blob: int) -> bool:
        """Report the counters; false when the call shall stop.

        Raises:
            LimitExceededError: There are more bytes of tar than `fail_above`.
        """
        check_size(bytes_plain, self.fail_above)
        if self.progress is not None:
            self.progress(Progress(entries, bytes_plain, bytes_blob))
        return self.cancel is None or not self.cancel.cancelled

    def check(self) -> None:
        """Let a call that was cancelled already do nothing: an engine may be done before it asks for the first time.

        Raises:
            Cancelled: The call shall stop.
        """
        if self.cancel is not None and self.cancel.cancelled:
            raise Cancelled("cancelled")


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
        lower_from_layers: The lower tree was unpacked from layers, which keep whole seconds. A time that lost its fraction
            then says nothing, and contents decide; otherwise only two times without fractions say nothing. Times of the
            upper tree are bounded by `source_date_epoch` before they are compared, as those of the layers were.
        ids: What the ids of files are in the container. A lower tree from layers has these already.
        fail_above: Largest uncompressed size in bytes; None for no limit.
        scope: Which paths count.
        on_change: What becomes of files that change while they are read.

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
    ids: IdMaps = field(default_factory=IdMaps)
    fail_above: int | None = None
    scope: Scope = field(default_factory=Scope)
    on_change: OnChange = OnChange.RETRY

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

    def after(self, bytes_plain: int, entries: int) -> Limits:
        """What is left of them once a layer has taken so much."""
        return replace(
            self,
            max_bytes=None if self.max_bytes is None else self.max_bytes - bytes_plain,
            max_entries=None if self.max_entries is None else self.max_entries - entries,
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
    """

    same_owner: bool | None = None
    destination: Destination = Destination.DIRECTORY
    limits: Limits = field(default_factory=Limits)

    @property
    def sets_owners(self) -> bool:
        """Whether every entry gets its recorded owner."""
        return os.geteuid() == 0 if self.same_owner is None else self.same_owner


@dataclass(frozen=True, slots=True)
class LayerSummary:
    """What an engine knows once it has written a layer.

    Attributes:
        digest: sha256 of the blob as written.
        size: Its length in bytes.
        diff_id: sha256 of the uncompressed tar.
        uncompressed_size: Its length in bytes.
        added, modified, deleted: Changes by kind (sockets included: they are changes, but no entries).
        entries: Tar entries written, parents and link entries included.
        skipped: What was left out, by reason: `sockets`, `mounts`, and `excluded`, the paths outside of the scope that
            seem to have changed.
        retried: Names that changed while they were read, and were read again.
        vanished: Names that were gone when their turn came, and count as absent.
    """

    digest: Digest
    size: int
    diff_id: DiffID
    uncompressed_size: int
    added: int
    modified: int
    deleted: int
    entries: int
    skipped: Mapping[str, int] = field(default_factory=lambda: NOTHING_SKIPPED)
    retried: int = 0
    vanished: int = 0


@dataclass(frozen=True, slots=True)
class LayerMeasure:
    """What a blob is.

    Attributes:
        digest: sha256 of the blob.
        size: Its length in bytes.
        diff_id: sha256 of the uncompressed tar.
        uncompressed_size: Its length in bytes.
    """

    digest: Digest
    size: int
    diff_id: DiffID
    uncompressed_size: int


@dataclass(frozen=True, slots=True)
class IndexSummary:
    """What an engine knows once it has written an index.

    Attributes:
        digest: sha256 of the file.
        size: Its length in bytes.
        entries: Names in the tree.
        file_bytes: Bytes of all files; one with several names counts for each.
    """

    digest: Digest
    size: int
    entries: int
    file_bytes: int


@dataclass(frozen=True, slots=True)
class TreeIndex:
    """A finished index.

    Attributes:
        digest: sha256 of the file.
        size: Its length in bytes.
        entries: Names in the tree.
        file_bytes: Bytes of all files; one with several names counts for each.
        seconds: Wall time of making it.
    """

    digest: Digest
    size: int
    entries: int
    file_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Layer:
    """A finished layer.

    Attributes:
        descriptor: Media type, digest and size of the blob.
        diff_id: sha256 of the uncompressed tar.
        uncompressed_size: Length of the uncompressed tar in bytes.
        added, modified, deleted: Changes by kind.
        skipped: What was left out, by reason.
        seconds: Wall time of the diff.
        retried: Names that changed while they were read, and were read again.
        vanished: Names that were gone when their turn came, and count as absent.
    """

    descriptor: Descriptor
    diff_id: DiffID
    uncompressed_size: int
    added: int
    modified: int
    deleted: int
    empty: bool
    skipped: Mapping[str, int]
    seconds: float
    retried: int = 0
    vanished: int = 0


@dataclass(frozen=True, slots=True)
class ApplySummary:
    """What was applied.

    Attributes:
        digest: sha256 of the blob as read.
        size: Its length in bytes.
        diff_id: sha256 of the uncompressed tar.
        uncompressed_size: Its length in bytes.
        entries: Tar entries handled.
        whiteouts: How many of them were whiteouts.
        skipped: What could not be kept, by reason (`owners`, `devices`, `xattrs`, `aufs`).
        recorded: How many of the owners and devices among these are noted in an attribute, for a diff to restore.
    """

    digest: Digest
    size: int
    diff_id: DiffID
    uncompressed_size: int
    entries: int
    whiteouts: int
    skipped: Mapping[str, int] = field(default_factory=lambda: NOTHING_SKIPPED)
    recorded: int = 0
