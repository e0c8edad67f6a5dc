"""Save images of a store to an archive, and load them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ocidiff.errors import UsageError
from ocidiff.layer.monitor import Cancellation, Monitor, ProgressCallback
from ocidiff.output import naming, open_output
from ocidiff.store import Store
from ocidiff.store.call import platform_of
from ocidiff.transport.archive import several
from ocidiff.transport.archive.members import opened

if TYPE_CHECKING:
    from ocidiff.layer.limits import Limits
    from ocidiff.output import Output
    from ocidiff.transport.copy import Copied


def save(
    store: Store,
    names: Sequence[str],
    output: Output,
    *,
    platform: str | None = None,
    everything: bool = False,
    progress: ProgressCallback | None = None,
    cancel: Cancellation | None = None,
) -> list[Copied]:
    """See `Store.save`."""
    if not names:
        raise UsageError("names: must be at least one image")
    chosen, monitor = platform_of(platform), Monitor(progress, cancel)
    place = os.fsdecode(output) if isinstance(output, str | bytes | os.PathLike) else "archive"
    with naming(output), store.leased(monitor, writing=False) as services, open_output(output) as sink:
        return several.save(services, names, sink, place, platform=chosen, everything=everything, monitor=monitor)


def load(
    store: Store,
    archive: str | os.PathLike[str],
    limits: Limits,
    *,
    platform: str | None = None,
    everything: bool = False,
    progress: ProgressCallback | None = None,
    cancel: Cancellation | None = None,
) -> list[Copied]:
    """See `Store.load`."""
    chosen, monitor = platform_of(platform), Monitor(progress, cancel)
    with opened(os.fspath(archive), limits, monitor) as members, store.leased(monitor, writing=True) as services:
        return several.load(services, members, platform=chosen, everything=everything, monitor=monitor)
