"""Preview: the changes that a commit would store. Nothing is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace

from ocidiff.image.commit import compared
from ocidiff.image.request import Request
from ocidiff.layer.differ import list_changes
from ocidiff.layer.engine import Engine, Lower
from ocidiff.layer.layer import Change, Layer
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.options import LayerOptions, OverlayMode
from ocidiff.mounts.layers import OverlayLayers
from ocidiff.services.bundle import Services
from ocidiff.services.content import Ingester
from ocidiff.services.diff import Differ
from ocidiff.services.leases import Lease


def preview(
    services: Services, request: Request, take: Callable[[Change], None], *, engine: Engine, monitor: Monitor
) -> Mapping[str, int]:
    """Give the changes of a commit to `take`, in layer order, each explained; return what is left out, by reason.

    Arguments and errors as in `commit`.
    """
    skipped = Counter[str]()

    def listing(lease: Lease) -> Services:
        under = services.under(lease)
        return replace(under, differ=_Lister(under.differ, engine, request.options.overlay, take, skipped), unpacks=False)

    # Nothing is there to become one layer.
    request = replace(request, merge=None, layers=1)
    with compared(replace(services, under=listing), request, engine=engine, monitor=monitor):
        return dict(skipped)


class _Lister:
    """A `Differ` that lists changes in place of storing them."""

    def __init__(
        self,
        differ: Differ,
        engine: Engine,
        overlay: OverlayMode,
        take: Callable[[Change], None],
        skipped: Counter[str],
    ) -> None:
        self._engine, self._overlay, self._take, self._skipped = engine, overlay, take, skipped
        # A preview lists one layer.
        self.apply, self.measure, self.split = differ.apply, differ.measure, differ.split

    def compare(
        self,
        lower: Lower | None,
        upper: bytes | OverlayLayers,
        content: Ingester,  # noqa: ARG002 - of the protocol
        options: LayerOptions,
        monitor: Monitor,
    ) -> Layer | None:
        """See `Differ.compare`; there is no layer."""
        changes = list_changes(self._engine, lower, upper, options, self._overlay, explain=True)
        try:
            while True:
                monitor.check()
                self._take(next(changes))
        except StopIteration as end:
            self._skipped.update(end.value)
        return None
