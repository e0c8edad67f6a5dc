"""Content: blobs in containerd, streamed through pipes, since engines read and write descriptors."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, BinaryIO, Final, Self, cast

from ocidiff.containerd.channel import Channel
from ocidiff.containerd.convert import check_labels, check_word, label_mask, labels_of, nanoseconds
from ocidiff.errors import (
    AlreadyExistsError,
    BusyError,
    DigestMismatchError,
    DocumentError,
    InUseError,
    NotFoundError,
    OcidiffError,
)
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import AnyDigest, Digest
from ocidiff.oci.encoding import MAX_DOCUMENT_BYTES
from ocidiff.services.content import BLOCK_BYTES, Info, Status
from ocidiff.services.leases import CONTENT

_STAT, _WRITE, _COMMIT = 0, 1, 2
_MAX_REF_BYTES: Final = 4096
_PREFIX: Final = "ocidiff-"


class ContainerdContent:
    """A `ContentStore`."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    @property
    def spool(self) -> None:
        """See `Ingester.spool`."""
        return

    def contains(self, digest: AnyDigest) -> bool:
        """See `Provider.contains`."""
        with contextlib.suppress(NotFoundError):
            self._channel.call("content.v1.Content/Info", digest=digest)
            return True
        return False

    def info(self, digest: Digest) -> Info:
        """See `Provider.info`."""
        found = self._channel.call("content.v1.Content/Info", digest=digest).info
        return Info(digest, found.size, nanoseconds(found.created_at), labels_of(found))

    def open_blob(self, descriptor: Descriptor) -> BinaryIO:
        """See `Provider.open_blob`."""
        size = self.info(descriptor.digest).size
        if size != descriptor.size:
            raise DigestMismatchError(f"blob {descriptor.digest}: has {size} bytes, expected {descriptor.size}")
        return cast("BinaryIO", _Reader(self._chunks(descriptor)))

    def read(self, descriptor: Descriptor) -> bytes:
        """See `Provider.read`."""
        if descriptor.size > MAX_DOCUMENT_BYTES:
            raise DocumentError(f"blob {descriptor.digest}: {descriptor.size} bytes, limit {MAX_DOCUMENT_BYTES}")
        size = self.info(descriptor.digest).size
        if size != descriptor.size:
            raise DigestMismatchError(f"blob {descriptor.digest}: has {size} bytes, expected {descriptor.size}")
        data = b"".join(self._chunks(descriptor))
        if Digest.of(data) != descriptor.digest:
            raise DigestMismatchError(f"blob {descriptor.digest}: holds {Digest.of(data)}")
        return data

    def _chunks(self, descriptor: Descriptor) -> Iterator[bytes]:
        # containerd takes an offset at the end for an error.
        if descriptor.size:
            for answer in self._channel.stream("content.v1.Content/Read", digest=descriptor.digest):
                yield answer.data

    def ingest(self, ref: str | None = None) -> ContainerdIngest:
        """See `Ingester.ingest`."""
        if ref is None:
            return ContainerdIngest(self._channel, _PREFIX + os.urandom(16).hex(), is_kept=False)
        check_word("ref", ref, _MAX_REF_BYTES)
        return ContainerdIngest(self._channel, ref, is_kept=True)

    def write(self, data: bytes, media_type: str, labels: Mapping[str, str] | None = None) -> Descriptor:
        """See `Ingester.write`."""
        digest = Digest.of(data)
        with self.ingest() as ingest:
            ingest.write(data)
            ingest.commit(len(data), digest, labels)
        return Descriptor(media_type, digest, len(data))

    def walk(self) -> Iterator[Digest]:
        """See `Manager.walk`."""
        for answer in self._channel.stream("content.v1.Content/List"):
            yield from (Digest(info.digest) for info in answer.info)

    @property
    def reads_blobs(self) -> bool:
        """See `Manager.reads_blobs`: reading them would send the blob."""
        return False

    def is_intact(self, descriptor: Descriptor, check: Callable[[], None]) -> bool:  # noqa: ARG002 - of the protocol
        """See `Manager.is_intact`."""
        with contextlib.suppress(NotFoundError):
            return self.info(descriptor.digest).size == descriptor.size
        return False

    def labelled(self, name: str, value: str) -> list[Digest]:
        """See `Manager.labelled`."""
        wanted = f'labels."{name}"=="{value}"'
        answers = self._channel.stream("content.v1.Content/List", filters=[wanted])
        return [Digest(info.digest) for answer in answers for info in answer.info]

    def update_labels(self, digest: Digest, labels: Mapping[str, str]) -> None:
        """See `Manager.update_labels`."""
        info = {"digest": digest, "labels": check_labels(labels)}
        self._channel.call("content.v1.Content/Update", info=info, update_mask=label_mask(labels))

    def label_all(self, labels: Mapping[Digest, Mapping[str, str]]) -> None:
        """See `Manager.label_all`; one after another, since containerd knows no other way."""
        for digest, own in labels.items():
            self.update_labels(digest, own)

    def delete(self, digest: Digest) -> None:
        """See `Manager.delete`."""
        self._channel.call("content.v1.Content/Delete", digest=digest)

    def statuses(self) -> list[Status]:
        """See `Manager.statuses`."""
        found = self._channel.call("content.v1.Content/ListStatuses").statuses
        return [Status(one.ref, one.offset, nanoseconds(one.started_at), nanoseconds(one.updated_at)) for one in found]

    def abort(self, ref: str) -> None:
        """See `Manager.abort`."""
        try:
            self._channel.call("content.v1.Content/Status", ref=ref)
        except NotFoundError:
            raise NotFoundError(f"ref {ref!r}: no such ingest") from None
        # containerd would take it from its writer, who cannot be told; a writer has it locked.
        ContainerdIngest(self._channel, ref, is_kept=True).leave()
        self._channel.call("content.v1.Content/Abort", ref=ref)


class ContainerdIngest:
    """An `Ingest`: a call that stays open while a blob is written. A small blob is one message, at the end."""

    def __init__(self, channel: Channel, ref: str, *, is_kept: bool) -> None:
        self._channel, self._ref, self._is_kept = channel, ref, is_kept
        self._pipe: _Pump | None = None
        self._is_open = self._is_done = False
        self._offset = 0
        self._small = bytearray()
        if is_kept:
            self._open()

    def _begin(self) -> None:
        self._lease = self._channel.metadata()
        self._requests: queue.SimpleQueue[dict[str, object] | None] = queue.SimpleQueue()
        self._answer = self._channel.exchange("content.v1.Content/Write", iter(self._requests.get, None))
        self._is_open = True

    def _open(self) -> None:
        self._begin()
        try:
            self._offset = self._ask(action=_STAT, ref=self._ref).offset
        except BusyError:
            raise BusyError(f"ref {self._ref!r}: another writer has it") from None

    def _ask(self, **fields: object) -> Any:  # noqa: ANN401 - a message
        self._requests.put(fields)
        answer = self._answer()
        if answer is None:
            raise ConnectionError(f"containerd at {self._channel.address} ended a write")
        return answer

    @property
    def offset(self) -> int:
        """See `Ingest.offset`."""
        return int(self._offset) + len(self._small)

    def fileno(self) -> int:
        """See `Ingest.fileno`; the descriptor is a pipe, which a thread reads."""
        if self._pipe is None:
            self._pipe = _Pump(self.write)
        return self._pipe.fileno()

    def write(self, data: bytes) -> None:
        """See `Ingest.write`."""
        if not self._is_open:
            self._small += data
            if len(self._small) <= BLOCK_BYTES:
                return
            data, self._small = bytes(self._small), bytearray()
            self._open()
        for start in range(0, len(data), BLOCK_BYTES):
            chunk = data[start : start + BLOCK_BYTES]
            self._offset = self._ask(action=_WRITE, ref=self._ref, offset=self._offset, data=chunk).offset

    def restart(self) -> None:
        """See `Ingest.restart`."""
        self._finish_pipe()
        self._small.clear()
        if self._offset:
            # A write at offset 0 truncates.
            self._ask(action=_WRITE, ref=self._ref)
            self._offset = 0

    def commit(
        self,
        size: int,
        digest: Digest,
        labels: Mapping[str, str] | None = None,
        check: Callable[[], None] = lambda: None,  # noqa: ARG002 - of the protocol
    ) -> None:
        """See `Ingest.commit`."""
        self._finish_pipe()
        if self.offset != size:
            raise DigestMismatchError(f"blob {digest}: {self.offset} bytes written, expected {size}")
        fields = {"total": size, "expected": digest, "labels": check_labels(labels)}
        if not self._is_open:
            # containerd puts a blob under the lease that it has already when a writer begins with its digest.
            self._begin()
            fields |= {"offset": 0, "data": bytes(self._small)}
        else:
            if self._lease != self._channel.metadata():
                # The lease was replaced meanwhile, and a blob goes under the one that the call began with.
                self.leave()
                self._open()
            if self._channel.lease is not None:
                # A blob that exists already does not get under the lease by itself, and could be collected at any time.
                resource = {"id": digest, "type": CONTENT}
                self._channel.call("leases.v1.Leases/AddResource", id=self._channel.lease.id, resource=resource)
            fields |= {"offset": size}
        try:
            self._ask(action=_COMMIT, ref=self._ref, **fields)
        except AlreadyExistsError:
            self._label(digest, labels or {})
        except InUseError as error:
            raise DigestMismatchError(f"blob {digest}: {_found(str(error), digest)} written") from None
        self._is_done = True

    def _label(self, digest: Digest, labels: Mapping[str, str]) -> None:
        """Set labels of a blob that exists, if it lacks them: looking is cheaper than writing."""
        content = ContainerdContent(self._channel)
        if not labels.items() <= content.info(digest).labels.items():
            content.update_labels(digest, labels)

    def leave(self) -> None:
        """End the call, so that another writer may go on."""
        if not self._is_open:
            return
        self._requests.put(None)
        while self._answer() is not None:
            pass

    def _finish_pipe(self) -> None:
        if self._pipe is not None:
            pipe, self._pipe = self._pipe, None
            pipe.finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            # Why the pipe broke says more than that it broke.
            self._finish_pipe()
        finally:
            # The rest of a broken connection is under the lease, and goes with it.
            with contextlib.suppress(OcidiffError, OSError):
                self.leave()
            if self._is_open and not self._is_done and not self._is_kept:
                with contextlib.suppress(OcidiffError, OSError):
                    self._channel.call("content.v1.Content/Abort", is_cleanup=True, ref=self._ref)


def _found(text: str, digest: Digest) -> str:
    """Return the digest that an error names beside the expected one."""
    words = (word.strip(",:") for word in text.split())
    return next((word for word in words if word.startswith("sha256:") and word != digest), text)


class _Pump:
    """A pipe whose bytes a thread takes away."""

    def __init__(self, write: Any) -> None:  # noqa: ANN401 - a function
        self._write = write
        self._error: BaseException | None = None
        self._source, self._sink = os.pipe2(os.O_CLOEXEC)
        _widen(self._sink)
        self._thread = threading.Thread(target=self._run, name="ocidiff-ingest", daemon=True)
        self._thread.start()

    def fileno(self) -> int:
        return self._sink

    def finish(self) -> None:
        """Wait until all bytes are written; raise why one was not."""
        os.close(self._sink)
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        # A writer gets EPIPE once the source is closed.
        with open(self._source, "rb", buffering=BLOCK_BYTES) as source:
            try:
                while data := source.read(BLOCK_BYTES):
                    self._write(data)
            except BaseException as error:  # noqa: BLE001 - told by `finish`
                self._error = error


class _Reader(io.FileIO):
    """A pipe that a thread feeds with the chunks of a blob."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        source, self._sink = os.pipe2(os.O_CLOEXEC)
        super().__init__(source, "rb")
        _widen(source)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(chunks,), name="ocidiff-blob", daemon=True)
        self._thread.start()

    def _run(self, chunks: Iterator[bytes]) -> None:
        with open(self._sink, "wb", buffering=0) as sink:
            try:
                for chunk in chunks:
                    rest = memoryview(chunk)
                    while rest:
                        rest = rest[sink.write(rest) :]
            except BrokenPipeError:
                pass
            except BaseException as error:  # noqa: BLE001 - told at the end of the block
                self._error = error
            finally:
                cast("Any", chunks).close()

    def close(self) -> None:
        is_open = not self.closed
        super().close()
        if is_open:
            self._thread.join()

    def __exit__(self, *exc: object) -> None:
        self.close()
        # An early end looks like a broken blob to its reader.
        if self._error is not None:
            raise self._error


def _widen(pipe: int) -> None:
    # A user may have used up what pipes may take.
    with contextlib.suppress(OSError):
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, BLOCK_BYTES)
