"""Batch of a store: the places outside of it that the lines and the base name."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import IO, TYPE_CHECKING

from ocidiff.embedded.batch import run
from ocidiff.embedded.open import Embedded
from ocidiff.image.batch import BatchJob, BatchResult, BatchSummary
from ocidiff.image.batch_lines import Shard
from ocidiff.image.request import Elsewhere, check_layers
from ocidiff.image.source import check_lower
from ocidiff.layer.limits import Limits
from ocidiff.layer.monitor import Cancellation, Monitor
from ocidiff.layer.options import DiffOptions
from ocidiff.store import Store
from ocidiff.store.call import platform_of
from ocidiff.store.publish import elsewhere
from ocidiff.transport.scheme import Registry, check_tags, is_plain

if TYPE_CHECKING:
    from ocidiff.layer.operand import Tree


def batch(
    store: Store,
    home: Embedded,
    lines: str | os.PathLike[str] | IO[bytes],
    take: Callable[[BatchResult], None],
    *,
    base: str | None,
    lower: Tree | None,
    shard: str | None,
    disk_bytes: int | None,
    platform: str | None,
    limits: Limits | None,
    options: DiffOptions,
    layers: int,
    registry: Registry | None,
    cancel: Cancellation | None,
) -> BatchSummary:
    """Commit what the lines say; see `EmbeddedStore.batch`."""

    def there(name: str, monitor: Monitor) -> AbstractContextManager[Elsewhere] | None:
        if is_plain(name):
            return None
        if registry is not None:
            check_tags(name, registry)
        return elsewhere(store, name, {}, registry, monitor)

    check_lower(base, lower)
    with ExitStack() as stack:
        opened = open(lines, "rb") if isinstance(lines, str | os.PathLike) else nullcontext(lines)  # noqa: SIM115 - see below
        file = stack.enter_context(opened)
        find_base = None
        if base is not None and not is_plain(base):
            # The lower tree does not count: the base may be unpacked.
            origin = elsewhere(store, "", {"base": base, "platform": platform}, registry, Monitor(cancel=cancel))
            find_base = stack.enter_context(origin).find_base
        job = BatchJob(
            file=file.fileno(),
            shard=Shard() if shard is None else Shard.of(shard),
            base=base,
            lower=lower,
            platform=platform_of(platform),
            options=options,
            layers=check_layers(layers),
            limits=limits or Limits(),
            disk_bytes=disk_bytes,
            find_base=find_base,
            elsewhere=there,
        )
        return run(home, job, take, cancel)
