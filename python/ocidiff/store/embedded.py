"""The store in a directory: what only it can do."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import IO, TYPE_CHECKING

from ocidiff.embedded.open import Embedded
from ocidiff.services.home import working
from ocidiff.store import Store
from ocidiff.store.call import call, platform_of

if TYPE_CHECKING:
    from typing import Unpack

    from ocidiff.embedded.containers import Container, Containers
    from ocidiff.embedded.drivers.select import DriverName
    from ocidiff.embedded.gc import Collected
    from ocidiff.embedded.layout import Layout
    from ocidiff.embedded.verified import Verified
    from ocidiff.image.batch import BatchResult, BatchSummary
    from ocidiff.layer.arguments import CallArguments, DiffArguments
    from ocidiff.layer.limits import Limits
    from ocidiff.layer.monitor import Cancellation
    from ocidiff.layer.operand import Tree
    from ocidiff.layer.options import DiffOptions
    from ocidiff.transport.scheme import Registry


class EmbeddedStore(Store):
    """Images in a directory, with working containers over them, garbage collection and verification."""

    def __init__(self, home: Embedded) -> None:
        super().__init__(home)
        self._embedded = home

    @property
    def _layout(self) -> Layout:
        return self._embedded.layout

    @property
    def containers(self) -> Containers:
        """The working containers."""
        from ocidiff.embedded.containers import Containers

        return Containers(self._layout)

    def create(
        self,
        image: str,
        name: str | None = None,
        *,
        driver: DriverName | None = None,
        platform: str | None = None,
        **arguments: Unpack[CallArguments],
    ) -> Container:
        """Create a working container over an image. The first one over it unpacks the image.

        Args:
            image: See `resolve`.
            name: 1 to 128 letters, digits, `_`, `.` and `-`; None to derive one from the image's.
            driver: `overlay` or `directory`; None for overlay where it works.
            platform: `OS/ARCH[/VARIANT]`, out of several; None for this machine.
            **arguments: See `CallArguments`.

        Raises:
            NotFoundError: There is no such image, or a part of it is missing.
            AlreadyExistsError: There is a container of that name.
            UsageError: The name or the driver is invalid.
        """
        from ocidiff.image.create import create
        from ocidiff.image.lookup import find_image

        engine, monitor, limits = call(**arguments)
        with working(self._home, engine, monitor) as found:
            made = create(
                found, find_image(found, image, platform_of(platform)), name, driver, limits=limits, monitor=monitor
            )
        return self.containers.get(made.name)

    def batch(
        self,
        lines: str | os.PathLike[str] | IO[bytes],
        take: Callable[[BatchResult], None],
        *,
        base: str | None = None,
        lower: Tree | None = None,
        shard: str | None = None,
        disk_bytes: int | None = None,
        platform: str | None = None,
        limits: Limits | None = None,
        options: DiffOptions | None = None,
        layers: int = 1,
        registry: Registry | None = None,
        cancel: Cancellation | None = None,
        **arguments: Unpack[DiffArguments],
    ) -> BatchSummary:
        """Commit many directories over one base: each line of a file says what, and the name of the image.

        A failure ends its line and no other. A line is skipped if an earlier call made its image of the same input. The
        images are those that `commit` makes, digest for digest, but for the time.

        Args:
            lines: Path of a file of JSON Lines, or an open file or pipe. Members: `upper` (the upper directory of an overlay
                over the base) or `source` (a directory or a working container), `name`, and `changes`, a list of Dockerfile
                instructions.
            take: Called in a thread of its own with each result, in the order in which the lines are done. An image is safe
                on disk by then. An exception of it ends the call.
            base: See `CommitArguments`. Containers have their own.
            lower: See `CommitArguments`; `upper` needs a directory.
            shard: `I/N` for every N-th line, from line I + 1 on; `/N` takes I from `JOB_COMPLETION_INDEX`. None for all.
            disk_bytes: Stop before this call has added more bytes to the store. None to stop before the file system is full.
            platform: See `CommitArguments`.
            limits: See `CommitArguments`.
            options: Options of the layers; None for the defaults. Threads and memory are those of the whole call.
            layers: See `CommitArguments`.
            registry: How registries are reached; None for the defaults.
            cancel: Stops the call: the lines that have begun are told as stopped.
            **arguments: The fields of `DiffOptions` by name, in place of `options`.

        Raises:
            UsageError: An option is out of range.
            NotFoundError: There is no such base, or a part of it is missing.
        """
        from ocidiff.layer.options import DiffOptions
        from ocidiff.store.batch import batch

        return batch(
            self,
            self._embedded,
            lines,
            take,
            base=base,
            lower=lower,
            shard=shard,
            disk_bytes=disk_bytes,
            platform=platform,
            limits=limits,
            options=DiffOptions.of(options, arguments),
            layers=layers,
            registry=registry,
            cancel=cancel,
        )

    def collect(self, *, dry_run: bool = False) -> Collected:
        """Remove what nothing needs, and return how much it was. A dry run only reads."""
        from ocidiff.embedded.gc import collect, estimate

        if dry_run:
            return estimate(self._layout)
        self._embedded.sweep()
        return collect(self._layout)

    def verify(self, *, repair: bool = False, **arguments: Unpack[CallArguments]) -> Verified:
        """Read everything in the store again, compare it, and return every fault. Garbage is not a fault.

        Args:
            repair: Repair what can be repaired.
            **arguments: See `CallArguments`.
        """
        from ocidiff.embedded.verify import verify

        engine, monitor, limits = call(**arguments)
        return verify(self._embedded, repair=repair, limits=limits, engine=engine, monitor=monitor)
