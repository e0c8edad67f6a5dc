"""One line of a batch: what it commits, and if an earlier run has done that already."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ocidiff.embedded.pending import PendingImage
from ocidiff.errors import DigestMismatchError, NotFoundError, UsageError
from ocidiff.image.batch import BatchJob, BatchResult, BatchStatus
from ocidiff.image.batch_lines import Line
from ocidiff.image.commit import commit
from ocidiff.image.image import Image
from ocidiff.image.reference import name_to_give, spelling
from ocidiff.image.request import Elsewhere, Request
from ocidiff.image.source import CommitSource, Parent, open_source
from ocidiff.image.stamp import Stamp
from ocidiff.layer.differ import engine_options
from ocidiff.layer.engine import Engine
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.operand import may_be_container
from ocidiff.layer.options import OverlayMode
from ocidiff.layer.paths import changed_tree_path, lower_path
from ocidiff.mounts.layers import OverlayLayers
from ocidiff.oci.encoding import compact
from ocidiff.oci.platform import Platform
from ocidiff.values import dataclass

if TYPE_CHECKING:
    from ocidiff.embedded.layout import Layout
    from ocidiff.oci.descriptor import Descriptor
    from ocidiff.oci.digest import AnyDigest, Digest
    from ocidiff.services.bundle import Services

# Before the name of an image, in a label of its manifest: the input that it was made of.
_LABEL: Final = "ocidiff.batch/"
_INPUT_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Done:
    """The outcome of a line.

    Attributes:
        result: The result to tell, once `pending` is published.
        pending: The image that has no name yet; None if nothing is left to do.
    """

    result: BatchResult
    pending: PendingImage | None = None


class LineCommitter:
    """Commits lines. Safe from several threads.

    Args:
        job: The batch.
        services: The store, under a lease.
        layout: Its files, under the same lease.
        base: The base of all lines but those of containers; None for none.
        parent: Returns the base with its tree, opened once for all.
        engine: What reads trees.
        threads: Returns the number of threads that a commit may take now.
        memory_bytes: Memory of a commit; None for the default.
    """

    def __init__(
        self,
        job: BatchJob,
        services: Services,
        layout: Layout,
        *,
        base: Image | None,
        parent: Callable[[], Parent],
        engine: Engine,
        threads: Callable[[], int],
        memory_bytes: int | None,
    ) -> None:
        self._job, self._services, self._layout, self._engine = job, services, layout, engine
        self._base, self._parent, self._threads, self._memory_bytes = base, parent, threads, memory_bytes
        # Names at the start; two lines never share a name.
        self._names: dict[str, Descriptor] = {
            entry.name: entry.descriptor for entry in layout.names.list() if entry.name and entry.descriptor
        }
        told = engine_options(job.options)
        plain = replace(job.options, threads=0, memory_bytes=None, userns=None)
        self._options = repr((plain, told.ids, told.source_date_epoch))
        self._lower_stamp = Stamp.of_lower(lower_path(job.lower))

    def commit(self, line: Line, monitor: Monitor, added: Callable[[int], None]) -> Done:
        """Commit a line, unless an earlier run has; errors as in `Store.commit`.

        Args:
            line: The line.
            monitor: Sees progress, and stops the commit.
            added: Gets the length of each blob that is added to the store at once.
        """
        counted = replace(self._services, content=self._layout.counting(added))
        there = self._job.elsewhere(line.name, monitor)
        if there is not None:
            with there as place:
                image = self._made(line, self._source(line), line.name, place, counted, monitor)
            return Done(_made(line, image))
        name = spelling(name_to_give(line.name), self._names)
        source = self._source(line)
        with self._tree(source, monitor) as (below, tree):
            stamp = Stamp.of(tree)
        labels = {_LABEL + name: self._input(line, below, stamp)}
        if (made := self._names.get(name)) is not None and self._is_made_of(made, labels):
            return Done(BatchResult(line.number, BatchStatus.PRESENT, name, made.digest))
        content, blobs = self._layout.holding()
        # The commit of a container notes at the configuration what a new one may reuse, so it has to be a blob by then.
        is_container = not isinstance(source, str | OverlayLayers)
        services = counted if is_container else replace(self._services, content=content)
        try:
            image = self._made(line, source, name, Elsewhere(publish=_named_later), services, monitor)
        except BaseException:
            blobs.drop()
            raise
        pending = PendingImage(name, image.descriptor, labels if self._settled(stamp) else {}, blobs)
        return Done(_made(line, image), pending)

    def _source(self, line: Line) -> CommitSource:
        if line.source:
            return self._services.containers.get(line.source) if may_be_container(line.source) else line.source
        if self._base is None:
            raise UsageError("upper: needs a base; give --base")
        tree = self._parent().tree
        if not isinstance(tree, bytes):
            raise UsageError("upper: needs the tree of the base, and not an index of it")
        return OverlayLayers(changed_tree_path(line.upper), (tree,))

    def _made(
        self, line: Line, source: CommitSource, name: str, there: Elsewhere, services: Services, monitor: Monitor
    ) -> Image:
        job = self._job
        request = Request.of(source, name, job.options, there, changes=line.changes, limits=job.limits, layers=job.layers)
        options = replace(request.options, threads=self._threads(), memory_bytes=self._memory_bytes)
        parent = self._parent() if isinstance(source, str | OverlayLayers) else None
        request = replace(request, options=options, platform=job.platform, parent=parent)
        return commit(services, request, engine=self._engine, monitor=monitor)

    # Images of earlier runs.

    @contextmanager
    def _tree(self, source: CommitSource, monitor: Monitor) -> Iterator[tuple[Digest | None, bytes]]:
        """Yield the manifest that a source grows on, and the directory with its changes."""
        if isinstance(source, str):
            yield _digest(self._base), os.fsencode(source)
        elif isinstance(source, OverlayLayers):
            yield _digest(self._base), source.upperdir
        else:
            with open_source(
                self._services,
                source,
                base=None,
                lower=None,
                platform=self._job.platform,
                walk=self._job.options.overlay is OverlayMode.NEVER,
                limits=self._job.limits,
                engine=self._engine,
                monitor=monitor,
            ) as found:
                own = found.upper
                yield _digest(found.base), own.upperdir if isinstance(own, OverlayLayers) else own

    def _settled(self, stamp: Stamp) -> bool:
        return stamp.settled and (self._lower_stamp is None or self._lower_stamp.settled)

    def _input(self, line: Line, below: Digest | None, stamp: Stamp) -> str:
        """Return a digest of all that decides an image, but the time."""
        said: Mapping[str, object] = {
            "version": _INPUT_VERSION,
            "upper": line.upper,
            "source": line.source,
            "changes": line.changes,
            "base": below,
            "lower": None if self._lower_stamp is None else self._lower_stamp.digest,
            "platform": str(self._job.platform or Platform.of_machine()),
            "options": self._options,
            "tree": stamp.digest,
            # Left out for one layer, so that images of earlier versions stay known.
            **({} if self._job.layers == 1 else {"layers": self._job.layers}),
        }
        return hashlib.sha256(compact(said)).hexdigest()

    def _is_made_of(self, made: Descriptor, labels: Mapping[str, str]) -> bool:
        """True if a whole image was made of this input."""
        try:
            known = self._layout.info(made.digest).labels
            if any(known.get(label) != value for label, value in labels.items()):
                return False
            return all(map(self._layout.contains, self._layout.names.parts(made)))
        except (NotFoundError, DigestMismatchError):
            return False


def _named_later(services: Services, descriptor: Descriptor) -> None:
    """Give no name: an image gets it together with others."""


def _digest(image: Image | None) -> Digest | None:
    return None if image is None else image.digest


def _made(line: Line, image: Image) -> BatchResult:
    digest: AnyDigest = image.digest
    return BatchResult(line.number, BatchStatus.MADE, image.name, digest, image)
