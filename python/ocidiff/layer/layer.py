"""The values that the verbs give: trees, changes, summaries. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum
from typing import Final

from ocidiff.frozen import FrozenMapping
from ocidiff.layer.xattrs import NOTE
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import DiffID, Digest
from ocidiff.values import dataclass

RECORD: Final = NOTE.decode()
"""The attribute that notes owner, mode and device of a file that could not get them: `UID:GID:0MODE[:KIND-MAJOR-MINOR]`."""

NOTHING_SKIPPED: Final[Mapping[str, int]] = FrozenMapping({})


@dataclass(frozen=True, slots=True)
class IndexPath:
    """An index that stands for the tree that it was made of.

    Attributes:
        path: Path of the file.
    """

    path: bytes


class ChangeKind(StrEnum):
    """The kind of a change from lower to upper."""

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

    def to_dict(self) -> dict[str, object]:
        """Return the object that `changes --json` prints: with reasons and sizes if the change is explained."""
        document: dict[str, object] = {"kind": str(self.kind), "path": self.path}
        if self.reason:
            document["reason"] = list(map(str, self.reason))
            document["upperSize"] = self.upper_bytes
            document["lowerSize"] = self.lower_bytes
            document["layerSize"] = self.layer_bytes
        return document


@dataclass(frozen=True, slots=True)
class LayerSummary:
    """The result of writing a layer.

    Attributes:
        digest: sha256 of the blob as written.
        size: Its length in bytes.
        diff_id: sha256 of the uncompressed tar.
        uncompressed_size: Its length in bytes.
        added, modified, deleted: Changes by kind (sockets included: they are changes, but no entries).
        entries: Tar entries written, parents and link entries included.
        skipped: What was left out, by reason: `sockets`, `mounts`, `excluded`, the paths outside of the scope that seem to
            have changed, and `xattrs.NAMESPACE`, the attributes of what was written that the profile does not store.
        retried: Names that changed while they were read, and were read again.
        vanished: Names that were gone when their turn came, and count as absent.
        reused_bytes: Bytes of the tar whose compressed form was copied from older layers.
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
    reused_bytes: int = 0


@dataclass(frozen=True, slots=True)
class LayerMeasure:
    """The digests and sizes of a layer's blob.

    Attributes:
        digest: sha256 of the blob.
        size: Its length in bytes.
        diff_id: sha256 of the uncompressed tar.
        uncompressed_size: Its length in bytes.
        holes: Bytes of holes in sparse files, which the tar leaves out.
        entries: How many entries it has.
    """

    digest: Digest
    size: int
    diff_id: DiffID
    uncompressed_size: int
    holes: int
    entries: int


@dataclass(frozen=True, slots=True)
class TarSummary:
    """The result of writing the plain tar of a layer.

    Attributes:
        digest: sha256 of the blob.
        size: Its length in bytes.
        diff_id: sha256 of the tar.
        uncompressed_size: Its length in bytes.
    """

    digest: Digest
    size: int
    diff_id: DiffID
    uncompressed_size: int


@dataclass(frozen=True, slots=True)
class IndexSummary:
    """The result of writing an index.

    Attributes:
        digest: sha256 of the file.
        size: Its length in bytes.
        entries: Names in the tree.
        file_bytes: Bytes of all files; one with several names counts for each.
        skipped: What was left out, by reason: `mounts`, and `xattrs.NAMESPACE`, the attributes that no comparison looks at.
    """

    digest: Digest
    size: int
    entries: int
    file_bytes: int
    skipped: Mapping[str, int] = field(default_factory=lambda: NOTHING_SKIPPED)

    def timed(self, seconds: float) -> TreeIndex:
        """Return the finished index, which took this long."""
        return TreeIndex(self.digest, self.size, self.entries, self.file_bytes, seconds, self.skipped)


@dataclass(frozen=True, slots=True)
class TreeIndex:
    """A finished index.

    Attributes:
        digest: sha256 of the file.
        size: Its length in bytes.
        entries: Names in the tree.
        file_bytes: Bytes of all files; one with several names counts for each.
        seconds: Wall time of making it.
        skipped: What was left out, by reason.
    """

    digest: Digest
    size: int
    entries: int
    file_bytes: int
    seconds: float
    skipped: Mapping[str, int] = field(default_factory=lambda: NOTHING_SKIPPED)

    def to_dict(self) -> dict[str, object]:
        """Return the object that `index --json` prints."""
        return {
            "digest": self.digest,
            "size": self.size,
            "entries": self.entries,
            "fileBytes": self.file_bytes,
            "seconds": round(self.seconds, 3),
            **({"skipped": dict(self.skipped)} if self.skipped else {}),
        }


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
        reused_bytes: Bytes of the tar whose compressed form was copied from older layers.
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
    reused_bytes: int = 0

    @property
    def digest(self) -> Digest:
        """The digest of the blob."""
        return self.descriptor.digest

    @property
    def size(self) -> int:
        """Length of the blob in bytes."""
        return self.descriptor.size

    def to_dict(self) -> dict[str, object]:
        """Return the object that `diff --json` prints."""
        return {
            "mediaType": self.descriptor.media_type,
            "digest": self.digest,
            "size": self.size,
            "diffID": self.diff_id,
            "uncompressedSize": self.uncompressed_size,
            "empty": self.empty,
            "changes": {"added": self.added, "modified": self.modified, "deleted": self.deleted},
            "skipped": dict(self.skipped),
            "retried": self.retried,
            "vanished": self.vanished,
            "reusedSize": self.reused_bytes,
            "seconds": round(self.seconds, 6),
        }


@dataclass(frozen=True, slots=True)
class ApplySummary:
    """The result of an apply.

    Attributes:
        digest: sha256 of the blob as read.
        size: Its length in bytes.
        diff_id: sha256 of the uncompressed tar.
        uncompressed_size: Its length in bytes.
        holes: Bytes of holes in sparse files, which the tar leaves out.
        has_root: True if an entry says what the root itself is.
        entries: Tar entries handled.
        whiteouts: How many of them were whiteouts.
        skipped: What could not be kept, by reason (`owners`, `devices`, `xattrs`, `aufs`).
        recorded: How many of the owners and devices among these are noted in an attribute, for a diff to restore.
    """

    digest: Digest
    size: int
    diff_id: DiffID
    uncompressed_size: int
    holes: int
    has_root: bool
    entries: int
    whiteouts: int
    skipped: Mapping[str, int] = field(default_factory=lambda: NOTHING_SKIPPED)
    recorded: int = 0

    def to_dict(self) -> dict[str, object]:
        """Return the object that `apply --json` prints."""
        return {
            "digest": self.digest,
            "size": self.size,
            "diffID": self.diff_id,
            "uncompressedSize": self.uncompressed_size,
            "entries": self.entries,
            "whiteouts": self.whiteouts,
            "skipped": dict(self.skipped),
            "recorded": self.recorded,
        }
