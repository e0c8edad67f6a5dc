"""Batch: the values of many commits over one base."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from enum import StrEnum
from typing import TYPE_CHECKING

from ocidiff.image.batch_lines import Shard
from ocidiff.image.image import Image
from ocidiff.oci.digest import AnyDigest
from ocidiff.values import dataclass

if TYPE_CHECKING:
    from ocidiff.image.request import Elsewhere
    from ocidiff.layer.limits import Limits
    from ocidiff.layer.monitor import Monitor
    from ocidiff.layer.operand import Tree
    from ocidiff.layer.options import DiffOptions
    from ocidiff.oci.platform import Platform
    from ocidiff.services.bundle import Services


class BatchStatus(StrEnum):
    """The outcome of a line: `present` if the image was made by an earlier run, `stopped` if the run ended before."""

    MADE = "made"
    PRESENT = "present"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The outcome of one line.

    Attributes:
        line: Its number, from 1 on.
        status: What became of it.
        name: Name of the image; empty if the line is not understood.
        digest: Digest of the image's manifest; None if there is no image.
        image: The image that was made; None if it was not made now.
        error: The reason if there is no image, in one line; else empty.
    """

    line: int
    status: BatchStatus
    name: str = ""
    digest: AnyDigest | None = None
    image: Image | None = None
    error: str = ""

    def to_dict(self) -> dict[str, object]:
        """Return the object that `ocidiff batch` prints."""
        told: dict[str, object] = {"line": self.line, "status": self.status, "name": self.name or None}
        if self.image is not None:
            return {**told, **self.image.to_dict()}
        return {**told, **({"error": self.error} if self.digest is None else {"digest": self.digest})}


@dataclass(frozen=True, slots=True)
class BatchSummary:
    """The number of lines by outcome.

    Attributes:
        made: Images that were made.
        present: Images that an earlier run had made of the same input.
        failed: Lines that failed.
        stopped: Lines that were begun, or were the next, when the run was stopped. Lines after them have no outcome.
    """

    made: int = 0
    present: int = 0
    failed: int = 0
    stopped: int = 0

    def __str__(self) -> str:
        words = {status: getattr(self, status) for status in BatchStatus}
        return ", ".join(f"{count} {word}" for word, count in words.items() if count) or "no lines"

    @property
    def is_done(self) -> bool:
        """True if every line of the shard has its image."""
        return not self.failed and not self.stopped


@dataclass(frozen=True, slots=True)
class BatchJob:
    """The request of a batch.

    Attributes:
        file: Descriptor of the lines.
        shard: The part of them that is done.
        base: Name of the base of all; None for none. It is not used for containers.
        lower: Path of the tree of the base, or an index of it; None to unpack the base once.
        platform: Which image of a base for several platforms; None for this machine.
        options: Options of the layers; threads and memory are those of the whole run.
        layers: How many layers each change is written as, at most.
        limits: Limits of the layers of the base if it is unpacked.
        disk_bytes: Most bytes that the run may add to the store; None for what is free, less a reserve.
        find_base: Brings the base from elsewhere; None to look for its name.
        elsewhere: Yields what a commit does in another place than the store, for its name and a monitor; returns None for
            a name in the store.
    """

    file: int
    shard: Shard
    base: str | None
    lower: Tree | None
    platform: Platform | None
    options: DiffOptions
    layers: int
    limits: Limits
    disk_bytes: int | None
    find_base: Callable[[Services], Image] | None
    elsewhere: Callable[[str, Monitor], AbstractContextManager[Elsewhere] | None]
