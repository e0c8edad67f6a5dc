"""Verified: the result of reading everything in a store again."""

from __future__ import annotations

from ocidiff.values import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is not as it should be.

    Attributes:
        kind: What it is about: `database`, `index`, `blob`, `image`, `snapshot`, `container` or `leftover`.
        where: Which one.
        problem: What is wrong with it, and what was done, or what that means if it could not be repaired.
        repaired: True if it was repaired, or moved out of the way.
    """

    kind: str
    where: str
    problem: str
    repaired: bool

    def to_dict(self) -> dict[str, object]:
        """Return the object that stands for it in `verify --json`."""
        return {"kind": self.kind, "where": self.where, "problem": self.problem, "repaired": self.repaired}


@dataclass(frozen=True, slots=True)
class Verified:
    """The result of a verification.

    Attributes:
        blobs, blob_bytes: Blobs that were read.
        images: Manifests that names lead to.
        snapshots, containers: How many there are.
        faults: What is wrong, empty when all is well.
        unread: What this process may not read, with the cause: `PATH: CAUSE`. Nothing is known of it.
    """

    blobs: int
    blob_bytes: int
    images: int
    snapshots: int
    containers: int
    faults: tuple[Fault, ...]
    unread: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """Return the object that `verify --json` prints."""
        return {
            "blobs": {"count": self.blobs, "bytes": self.blob_bytes},
            "images": self.images,
            "snapshots": self.snapshots,
            "containers": self.containers,
            "faults": [fault.to_dict() for fault in self.faults],
            "unread": list(self.unread),
        }
