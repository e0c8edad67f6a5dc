"""Copy: the one loop that brings an image from one place to another.

Blobs come in parallel and in pieces, then the documents, children first and byte for byte, then the name. Nothing is copied
that is there. What an interrupted call has brought of a blob is kept, and the next call goes on from there.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import replace
from typing import BinaryIO, Final

from ocidiff.errors import BusyError, DigestMismatchError, NotFoundError
from ocidiff.layer.monitor import SECONDS_BETWEEN_CHECKS, BlobState, Monitor
from ocidiff.oci import media_type
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.platform import Platform
from ocidiff.services.content import BLOCK_BYTES, Ingest
from ocidiff.transport.place import ORIGIN, BrokenTransferError, Source, Target
from ocidiff.transport.plan import Plan, Remembering, plan
from ocidiff.transport.progress import Tracker
from ocidiff.values import dataclass

_SECONDS_WHILE_BUSY: Final = 0.2
# Without a byte in between.
_MOST_ATTEMPTS: Final = 6
_FIRST_DELAY_SECONDS: Final = 0.5
_LONGEST_DELAY_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Copied:
    """The result of a copy.

    Attributes:
        source, target: The places, as users name them.
        descriptor: What the name stands for now: a manifest or an index.
        copied, skipped, mounted: Blobs that were copied, were there, or were taken from another repository.
        copied_bytes, skipped_bytes, mounted_bytes: Their sizes.
        kept_bytes: Bytes of the copied blobs that an interrupted call had brought.
        seconds: Wall time of the call.
    """

    source: str
    target: str
    descriptor: Descriptor
    copied: int
    skipped: int
    mounted: int
    copied_bytes: int
    skipped_bytes: int
    mounted_bytes: int
    kept_bytes: int
    seconds: float

    def again(self, target: str) -> Copied:
        """Return the result of copying the same image once more: everything is there."""
        blobs = self.copied + self.skipped + self.mounted
        size = self.copied_bytes + self.skipped_bytes + self.mounted_bytes
        return Copied(
            self.source,
            target,
            self.descriptor,
            copied=0,
            skipped=blobs,
            mounted=0,
            copied_bytes=0,
            skipped_bytes=size,
            mounted_bytes=0,
            kept_bytes=0,
            seconds=0.0,
        )

    def to_dict(self) -> dict[str, object]:
        """Return the object that `save --json` and `load --json` print."""
        return {
            "source": self.source,
            "target": self.target,
            "descriptor": self.descriptor.document(),
            "copied": {"blobs": self.copied, "bytes": self.copied_bytes, "kept": self.kept_bytes},
            "skipped": {"blobs": self.skipped, "bytes": self.skipped_bytes},
            "mounted": {"blobs": self.mounted, "bytes": self.mounted_bytes},
            "seconds": round(self.seconds, 3),
        }


def copy(
    source: Source,
    target: Target,
    *,
    platform: Platform | None = None,
    everything: bool = False,
    with_layers: bool = True,
    monitor: Monitor,
) -> Copied:
    """Copy an image. A failure leaves the name in the target as it was.

    Args:
        source: Where the image is.
        target: Where it goes.
        platform: Which image of several platforms; None for this machine's.
        everything: Copy the images of all platforms, and what refers to them, such as signatures.
        with_layers: Copy more than the documents and the configuration, which name an image but do not hold it.
        monitor: Sees progress, and stops the call.

    Raises:
        NotFoundError: There is no such image, or a part of it is neither in the source nor in the target.
        DigestMismatchError: A blob is not the one that is named.
    """
    started = time.monotonic()
    content = Remembering(source.content)
    todo = plan(source, content, platform=platform, everything=everything, in_parts=target.accepts_parts)
    if not with_layers:
        todo = replace(todo, blobs=tuple(blob for blob in todo.blobs if blob.media_type in media_type.CONFIGS))
    target.check(todo.root)
    tracker = Tracker(monitor, todo.blobs)
    job = _Job(source, target, content, tracker)
    job.blobs(todo)
    for document in todo.documents:
        tracker.check()
        job.document(document)
        subject = todo.subjects.get(document.digest)
        if subject is not None:
            target.attach(document, subject)
    tracker.check()
    target.put(todo.root)
    if target.origin is not None:
        source.remember([blob.digest for blob in todo.blobs], *target.origin)
    counts, sizes, kept = dict.fromkeys(BlobState, 0), dict.fromkeys(BlobState, 0), 0
    for blob in tracker.blobs():
        counts[blob.state] += 1
        sizes[blob.state] += blob.size
        kept += blob.kept
    return Copied(
        source.place,
        target.place,
        todo.root,
        copied=counts[BlobState.COPIED],
        skipped=counts[BlobState.SKIPPED],
        mounted=counts[BlobState.MOUNTED],
        copied_bytes=sizes[BlobState.COPIED],
        skipped_bytes=sizes[BlobState.SKIPPED],
        mounted_bytes=sizes[BlobState.MOUNTED],
        kept_bytes=kept,
        seconds=time.monotonic() - started,
    )


class _Job:
    def __init__(self, source: Source, target: Target, content: Remembering, tracker: Tracker) -> None:
        self._source, self._target, self._content, self._tracker = source, target, content, tracker

    def blobs(self, todo: Plan) -> None:
        """Bring all blobs; the first error stops the rest."""
        if self._target.streams == 1:
            for descriptor in todo.blobs:
                self._blob(descriptor)
            return
        with ThreadPoolExecutor(self._target.streams, "ocidiff-copy") as threads:
            running: list[Future[None]] = [threads.submit(self._blob, descriptor) for descriptor in todo.blobs]
            try:
                waiting = set(running)
                while waiting:
                    done, waiting = wait(waiting, SECONDS_BETWEEN_CHECKS, FIRST_EXCEPTION)
                    for one in done:
                        one.result()
                    self._tracker.check()
            except BaseException:
                self._tracker.stop()
                for one in running:
                    one.cancel()
                self._source.stop()
                self._target.stop()
                raise

    def document(self, descriptor: Descriptor) -> None:
        """Bring a document, byte for byte."""
        if not self._target.contains(descriptor, self._tracker.check):
            self._target.write(descriptor, self._content.read(descriptor), self._labels(descriptor))

    def _labels(self, descriptor: Descriptor) -> Mapping[str, str]:
        """Return the labels that tell where a blob came from."""
        with suppress(NotFoundError):
            labels = self._content.info(descriptor.digest).labels
            return {name: value for name, value in labels.items() if name.startswith(ORIGIN)}
        return {}

    def _blob(self, descriptor: Descriptor) -> None:
        self._tracker.check()
        digest = descriptor.digest
        if self._target.contains(descriptor, self._tracker.check):
            self._tracker.finish(digest, BlobState.SKIPPED)
            return
        labels = self._labels(descriptor)
        if self._target.borrow(descriptor, labels):
            self._tracker.finish(digest, BlobState.MOUNTED)
            return
        known = self._content.known(digest)
        if known is not None and len(known) == descriptor.size:
            self._tracker.begin(digest, 0)
            self._target.write(descriptor, known, labels)
            state = BlobState.COPIED
        else:
            state = self._stream(descriptor, labels)
        self._tracker.finish(digest, state)

    def _stream(self, descriptor: Descriptor, labels: Mapping[str, str]) -> BlobState:
        """Bring a large blob, again from where it broke off."""
        attempt, reached, is_fresh = 1, 0, False
        while True:
            ingest = self._begin(descriptor)
            if ingest is None:
                return BlobState.SKIPPED
            offset = ingest.offset
            try:
                with ingest:
                    try:
                        self._fill(ingest, descriptor, labels)
                    finally:
                        has_bytes = ingest.offset > 0
                return BlobState.COPIED
            except BrokenTransferError:
                attempt = attempt + 1 if offset <= reached else 1
                reached = max(reached, offset)
                if attempt > _MOST_ATTEMPTS:
                    raise
                self._tracker.wait(delay_seconds(attempt))
            except DigestMismatchError:
                # Bytes that were kept of an earlier call may be damaged, so the blob is copied anew.
                self._target.abort(descriptor)
                if is_fresh or not offset:
                    raise
                is_fresh = True
            except BaseException:
                # There is nothing in it for a later call to go on with.
                if not has_bytes:
                    self._target.abort(descriptor)
                raise

    def _begin(self, descriptor: Descriptor) -> Ingest | None:
        """Return the ingest of a blob; None if another process has brought it meanwhile."""
        while True:
            try:
                return self._target.ingest(descriptor)
            except BusyError:
                self._tracker.wait(_SECONDS_WHILE_BUSY)
                if self._target.contains(descriptor, self._tracker.check):
                    return None

    def _fill(self, ingest: Ingest, descriptor: Descriptor, labels: Mapping[str, str]) -> None:
        offset = ingest.offset
        if offset > descriptor.size:
            ingest.restart()
            offset = 0
        self._tracker.begin(descriptor.digest, offset)
        with self._content.open_blob(descriptor) as blob:
            _skip(blob, offset)
            while data := blob.read(BLOCK_BYTES):
                offset += len(data)
                if offset > descriptor.size:
                    raise DigestMismatchError(f"blob {descriptor.digest}: is longer than {descriptor.size} bytes")
                ingest.write(data)
                self._tracker.advance(descriptor.digest, len(data))
        ingest.commit(descriptor.size, descriptor.digest, labels, self._tracker.check)


def _skip(blob: BinaryIO, count: int) -> None:
    """Go on from an offset."""
    if blob.seekable():
        blob.seek(count)
        return
    while count and (data := blob.read(min(count, BLOCK_BYTES))):
        count -= len(data)


def delay_seconds(attempt: int) -> float:
    """Return how long to wait before an attempt: longer each time, and another time for each of many callers."""
    longest = min(_LONGEST_DELAY_SECONDS, _FIRST_DELAY_SECONDS * 2.0**attempt)
    return random.uniform(longest / 2, longest)  # noqa: S311 - no secret
