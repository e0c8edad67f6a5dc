"""All services of a store in memory: the proof that use-cases need nothing else of a store.

Blobs are anonymous files. Trees are plain directories below one temporary directory, since engines read and write trees.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from ocidiff.errors import (
    AlreadyExistsError,
    BusyError,
    DigestMismatchError,
    DocumentError,
    InUseError,
    NotFoundError,
    UsageError,
)
from ocidiff.image.layers import LocalDiffer
from ocidiff.image.reference import spelling
from ocidiff.layer.engine import Engine
from ocidiff.layer.idmap import IdMaps
from ocidiff.mounts.mount import Mount, bind
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import AnyDigest, Digest
from ocidiff.oci.encoding import MAX_DOCUMENT_BYTES
from ocidiff.oci.index import Entry, Index
from ocidiff.services.bundle import Services
from ocidiff.services.containers import Committed, Container
from ocidiff.services.content import Info, Status
from ocidiff.services.leases import CONTENT, Lease, snapshots_of
from ocidiff.services.snapshots import Kind, Snapshot, Usage

MAX_LABEL_BYTES = 4096


def merged(old: Mapping[str, str], new: Mapping[str, str] | None) -> dict[str, str]:
    """Labels with more set; an empty value removes one."""
    both = {**old, **(new or {})}
    for name, value in both.items():
        if not name or len(name) + len(value) > MAX_LABEL_BYTES:
            raise UsageError(f"label {name[:100]!r}: must be 1 to {MAX_LABEL_BYTES} bytes of name and value")
    return {name: value for name, value in both.items() if value}


def check_word(what: str, word: str, longest: int) -> None:
    if not 0 < len(word) <= longest or not word.isprintable():
        raise UsageError(f"{what} {word[:100]!r}: must be 1 to {longest} printable characters")


class MemoryIngest:
    """A blob on its way into a `MemoryContent`."""

    def __init__(self, store: MemoryContent, ref: str | None) -> None:
        self._store, self._ref = store, ref
        self._file = store.unfinished.pop(ref, -1) if ref is not None else -1
        if self._file < 0:
            self._file = os.memfd_create("ingest")
        os.lseek(self._file, 0, os.SEEK_END)
        self._is_done = False
        store.open.add(self._file)

    @property
    def offset(self) -> int:
        return os.fstat(self._file).st_size

    def fileno(self) -> int:
        return self._file

    def write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._file, data) :]

    def restart(self) -> None:
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)

    def commit(
        self,
        size: int,
        digest: Digest,
        labels: Mapping[str, str] | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        check()
        data = os.pread(self._file, self.offset, 0)
        if len(data) != size:
            raise DigestMismatchError(f"blob {digest}: {len(data)} bytes written, expected {size}")
        if Digest.of(data) != digest:
            raise DigestMismatchError(f"blob {digest}: {Digest.of(data)} written")
        self._store.add(data, labels)
        self._is_done = True
        self._store.open.discard(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._store.open.discard(self._file)
        if self._ref is not None:
            self._store.writers.discard(self._ref)
        if self._ref is None or self._is_done:
            os.close(self._file)
        else:
            self._store.unfinished[self._ref] = self._file


@dataclass
class MemoryContent:
    """A `ContentStore`."""

    blobs: dict[Digest, tuple[bytes, Info]] = field(default_factory=dict)
    unfinished: dict[str, int] = field(default_factory=dict)
    writers: set[str] = field(default_factory=set)
    open: set[int] = field(default_factory=set)
    lease: MemoryLease | None = None
    mutex: threading.Lock = field(default_factory=threading.Lock)

    def add(self, data: bytes, labels: Mapping[str, str] | None) -> None:
        digest = Digest.of(data)
        with self.mutex:
            old = self.blobs[digest][1].labels if digest in self.blobs else {}
            self.blobs[digest] = (data, Info(digest, len(data), time.time_ns(), merged(old, labels)))
        if self.lease is not None:
            self.lease.add(CONTENT, digest)

    @property
    def spool(self) -> None:
        return None

    def contains(self, digest: AnyDigest) -> bool:
        return digest in self.blobs

    def info(self, digest: Digest) -> Info:
        return self._find(digest)[1]

    def open_blob(self, descriptor: Descriptor) -> BinaryIO:
        data = self._find(descriptor.digest)[0]
        if len(data) != descriptor.size:
            raise DigestMismatchError(f"blob {descriptor.digest}: has {len(data)} bytes, expected {descriptor.size}")
        file = os.fdopen(os.memfd_create("blob"), "w+b")
        file.write(data)
        file.seek(0)
        return file

    def read(self, descriptor: Descriptor) -> bytes:
        if descriptor.size > MAX_DOCUMENT_BYTES:
            raise DocumentError(f"blob {descriptor.digest}: {descriptor.size} bytes, limit {MAX_DOCUMENT_BYTES}")
        with self.open_blob(descriptor) as blob:
            data = blob.read()
        if Digest.of(data) != descriptor.digest:
            raise DigestMismatchError(f"blob {descriptor.digest}: holds {Digest.of(data)}")
        return data

    def ingest(self, ref: str | None = None) -> MemoryIngest:
        if ref is not None:
            check_word("ref", ref, 4096)
            if ref in self.writers:
                raise BusyError(f"ref {ref!r}: another writer has it")
            self.writers.add(ref)
        return MemoryIngest(self, ref)

    def write(self, data: bytes, media_type: str, labels: Mapping[str, str] | None = None) -> Descriptor:
        self.add(data, labels)
        return Descriptor(media_type, Digest.of(data), len(data))

    def walk(self) -> Iterator[Digest]:
        yield from list(self.blobs)

    reads_blobs = False

    def is_intact(self, descriptor: Descriptor, check: Callable[[], None]) -> bool:
        check()
        return descriptor.digest in self.blobs and len(self.blobs[descriptor.digest][0]) == descriptor.size

    def labelled(self, name: str, value: str) -> list[Digest]:
        return [digest for digest, (_, info) in self.blobs.items() if info.labels.get(name) == value]

    def update_labels(self, digest: Digest, labels: Mapping[str, str]) -> None:
        data, info = self._find(digest)
        self.blobs[digest] = (data, replace(info, labels=merged(info.labels, labels)))

    def label_all(self, labels: Mapping[Digest, Mapping[str, str]]) -> None:
        for digest, added in labels.items():
            self.update_labels(digest, added)

    def delete(self, digest: Digest) -> None:
        self._find(digest)
        del self.blobs[digest]

    def statuses(self) -> list[Status]:
        return [Status(ref, os.fstat(file).st_size, 0, 0) for ref, file in self.unfinished.items()]

    def abort(self, ref: str) -> None:
        if ref in self.writers:
            raise BusyError(f"ref {ref!r}: another writer has it")
        if ref not in self.unfinished:
            raise NotFoundError(f"ref {ref!r}: no such ingest")
        os.close(self.unfinished.pop(ref))

    def _find(self, digest: Digest) -> tuple[bytes, Info]:
        if digest not in self.blobs:
            raise NotFoundError(f"no blob {digest}")
        return self.blobs[digest]


class MemorySnapshots:
    """A `Snapshotter` whose snapshots are whole trees in a directory."""

    name = "memory"
    max_parents = None
    shares_parents = False
    one_for_each_layer = False

    def __init__(self, root: str, lease: MemoryLease | None = None, rows: dict[str, Snapshot] | None = None) -> None:
        self._root, self._lease = root, lease
        self._rows: dict[str, Snapshot] = {} if rows is None else rows
        self._trees: dict[str, str] = {}
        self._mutex = threading.Lock()

    def under(self, lease: MemoryLease) -> MemorySnapshots:
        copy = MemorySnapshots(self._root, lease, self._rows)
        copy._trees, copy._mutex = self._trees, self._mutex
        return copy

    def prepare(self, key: str, parent: str | None, labels: Mapping[str, str] | None = None) -> tuple[Mount, ...]:
        return self._make(Kind.ACTIVE, key, parent, labels)

    def view(self, key: str, parent: str | None, labels: Mapping[str, str] | None = None) -> tuple[Mount, ...]:
        return self._make(Kind.VIEW, key, parent, labels)

    def commit(self, name: str, key: str, labels: Mapping[str, str] | None = None) -> None:
        row = self.stat(key)
        if row.kind is not Kind.ACTIVE:
            raise UsageError(f"snapshot {key}: is {row.kind}, and only an active one is committed")
        with self._mutex:
            if name in self._rows:
                raise AlreadyExistsError(f"snapshot {name} already exists")
            now = time.time_ns()
            del self._rows[key]
            self._rows[name] = replace(row, kind=Kind.COMMITTED, key=name, updated_ns=now, labels=merged(row.labels, labels))
            self._trees[name] = self._trees.pop(key)
        self._keep(name)

    def mounts(self, key: str) -> tuple[Mount, ...]:
        if self.stat(key).kind is Kind.COMMITTED:
            raise UsageError(f"snapshot {key}: is committed; a view of it can be mounted")
        return (bind(self._trees[key], read_only=self.stat(key).kind is Kind.VIEW),)

    @contextmanager
    def reading(self, key: str) -> Iterator[tuple[Mount, ...]]:
        self.stat(key)
        yield (bind(self._trees[key], read_only=True),)

    def stat(self, key: str) -> Snapshot:
        if key not in self._rows:
            raise NotFoundError(f"no snapshot {key}")
        return self._rows[key]

    def usage(self, key: str) -> Usage:
        self.stat(key)
        infos = [os.lstat(self._trees[key])]
        for top, directories, files in os.walk(self._trees[key]):
            infos += [os.lstat(os.path.join(top, name)) for name in (*directories, *files)]
        return Usage(sum(info.st_blocks for info in infos) * 512, len(infos))

    def update_labels(self, key: str, labels: Mapping[str, str]) -> None:
        row = self.stat(key)
        self._rows[key] = replace(row, labels=merged(row.labels, labels), updated_ns=time.time_ns())

    def walk(self) -> Iterator[Snapshot]:
        yield from sorted(self._rows.values(), key=lambda row: row.created_ns)

    def remove(self, key: str) -> None:
        self.stat(key)
        child = next((row.key for row in self._rows.values() if row.parent == key), None)
        if child is not None:
            raise InUseError(f"snapshot {key}: in use as the parent of {child}")
        del self._rows[key]
        shutil.rmtree(self._trees.pop(key))

    def _make(self, kind: Kind, key: str, parent: str | None, labels: Mapping[str, str] | None) -> tuple[Mount, ...]:
        check_word("snapshot", key, 1024)
        if parent is not None and self.stat(parent).kind is not Kind.COMMITTED:
            raise UsageError(f"snapshot {parent}: is {self.stat(parent).kind}, and only a committed one is a parent")
        with self._mutex:
            if key in self._rows:
                raise AlreadyExistsError(f"snapshot {key} already exists")
            now = time.time_ns()
            self._rows[key] = Snapshot(kind, key, parent, now, now, merged({}, labels))
            self._trees[key] = os.path.join(self._root, os.urandom(8).hex())
        if parent is None:
            os.mkdir(self._trees[key], 0o755)
        else:
            subprocess.run(["cp", "-a", "--sparse=always", self._trees[parent], self._trees[key]], check=True)
        self._keep(key)
        return self.mounts(key)

    def _keep(self, key: str) -> None:
        if self._lease is not None:
            self._lease.add(snapshots_of(self.name), key)


@dataclass
class MemoryLease:
    """A `Lease`."""

    id: str
    kept: set[tuple[str, str]] | None = field(default_factory=set)

    def add(self, kind: str, key: str) -> None:
        if self.kept is None:
            raise NotFoundError(f"lease {self.id} has ended")
        self.kept.add((kind, key))


@dataclass
class MemoryLeases:
    """A `LeaseManager`."""

    leases: dict[str, MemoryLease] = field(default_factory=dict)

    @contextmanager
    def hold(self) -> Iterator[MemoryLease]:
        lease = MemoryLease(os.urandom(16).hex())
        self.leases[lease.id] = lease
        try:
            yield lease
        finally:
            lease.kept = None
            del self.leases[lease.id]

    def add(self, lease: Lease, kind: str, key: str) -> None:
        if lease.id not in self.leases:
            raise NotFoundError(f"lease {lease.id} has ended")
        self.leases[lease.id].add(kind, key)

    def resources(self, lease: Lease) -> list[tuple[str, str]]:
        return sorted(self.leases[lease.id].kept or ()) if lease.id in self.leases else []

    def held(self) -> list[str]:
        return list(self.leases)


@dataclass
class MemoryImages:
    """An `ImageStore`."""

    content: MemoryContent
    place: str = "memory"
    index: list[Index] = field(default_factory=lambda: [Index()])

    def list(self) -> Sequence[Entry]:
        return self.index[0].entries

    def entry(self, name: str) -> Entry:
        found = self.index[0].named(name)
        if not found:
            raise NotFoundError(f"no image {name!r}")
        return found[0]

    def spelling(self, name: str) -> str:
        return spelling(name, {entry.name for entry in self.list() if entry.name})

    def put(self, name: str, target: Descriptor) -> None:
        self.content.info(target.digest)
        self.index[0] = self.index[0].with_name(name, target)

    def put_all(self, targets: Mapping[str, Descriptor]) -> None:
        for name, target in targets.items():
            self.put(name, target)

    def drop(self, entry: Entry) -> None:
        self.index[0] = self.index[0].without(entry)


@dataclass(frozen=True)
class MemoryContainer:
    """A `Container`."""

    name: str
    image: str
    manifest: Descriptor
    driver: str
    snapshot: str
    mount_point: str | None = None
    command: tuple[str, ...] = ()
    unseen: str = ""


@dataclass
class MemoryContainers:
    """A `ContainerStore`."""

    rows: dict[str, MemoryContainer] = field(default_factory=dict)
    done: list[Committed] = field(default_factory=list)

    def check(self, name: str) -> None:
        check_word("container", name, 128)
        if name in self.rows:
            raise AlreadyExistsError(f"container {name} already exists")

    def put(
        self,
        name: str,
        image: str,
        manifest: Descriptor,
        config: Digest,
        driver: str,
        snapshot: str,
    ) -> MemoryContainer:
        self.check(name)
        self.rows[name] = MemoryContainer(name, image, manifest, driver, snapshot)
        return self.rows[name]

    def get(self, name: str) -> MemoryContainer:
        if name not in self.rows:
            raise NotFoundError(f"no working container {name!r}")
        return self.rows[name]

    @contextmanager
    def still(self, name: str) -> Iterator[MemoryContainer]:
        yield self.get(name)

    def frozen(self, container: Container) -> AbstractContextManager[bool]:
        return nullcontext(False)

    def ids(self, container: Container, mounts: Sequence[Mount]) -> tuple[IdMaps, bool]:
        return IdMaps(), False

    def committed(self, container: Container, committed: Committed) -> None:
        self.done.append(committed)


def memory_services(root: Path, engine: Engine) -> Services:
    """All services in memory, with trees below the directory `root`."""
    content, leases, snapshots = MemoryContent(), MemoryLeases(), MemorySnapshots(str(root))
    images, containers, differ = MemoryImages(content), MemoryContainers(), LocalDiffer(engine)

    @contextmanager
    def private_directory() -> Iterator[str]:
        with tempfile.TemporaryDirectory(dir=root) as directory:
            yield directory

    def under(lease: Lease | None) -> Services:
        held = None if lease is None else leases.leases[lease.id]
        return Services(
            content=replace(content, lease=held),
            images=images,
            containers=containers,
            leases=leases,
            differ=differ,
            snapshotter=lambda _: snapshots if held is None else snapshots.under(held),
            private_directory=private_directory,
            under=under,
            lease=lease,
        )

    return under(None)
