"""Commit to a place outside of the store, or on a base from one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from ocidiff.image.image import Image, read_image
from ocidiff.image.request import Elsewhere
from ocidiff.layer.monitor import Monitor
from ocidiff.oci.descriptor import Descriptor
from ocidiff.services.bundle import Services
from ocidiff.services.damage import reading_stored
from ocidiff.store.call import platform_of
from ocidiff.store.copy import access_of
from ocidiff.transport.copy import copy
from ocidiff.transport.place import Source, Target, open_source, open_target
from ocidiff.transport.scheme import Registry, is_plain
from ocidiff.transport.store import FallbackContent, StorePlace

if TYPE_CHECKING:
    from ocidiff.image.arguments import CommitArguments
    from ocidiff.store import Store


@contextmanager
def elsewhere(
    store: Store, name: str, arguments: CommitArguments, registry: Registry | None, monitor: Monitor
) -> Iterator[Elsewhere]:
    """Yield what a commit does in other places than the store. They are opened first, so that wrong names are refused.

    Args:
        store: Where the blobs of the commit go. What is published gets no name there, and the next collection frees it.
        name: Name of the image.
        arguments: Of the commit.
        registry: How registries are reached; None for the defaults.
        monitor: Sees progress, and stops the call.
    """
    base, platform = arguments.get("base"), arguments.get("platform")
    access = access_of(store, None, registry, monitor)
    with ExitStack() as stack:
        origin: Source | None = None
        target: Target | None = None
        if base is not None and not is_plain(base):
            origin = stack.enter_context(open_source(base, access))
        if not is_plain(name):
            target = stack.enter_context(open_target(name, access))

        def find_base(services: Services) -> Image:
            assert origin is not None  # noqa: S101 - it is asked for only then
            wanted = platform_of(platform)
            place = StorePlace(services, "", "")
            # An image that gets a name in the store is whole.
            with_layers = arguments.get("lower") is None or target is None
            done = copy(origin, place, platform=wanted, with_layers=with_layers, monitor=monitor)
            return read_image(services.content, origin.place, done.descriptor, wanted)

        def publish(services: Services, descriptor: Descriptor) -> None:
            assert target is not None  # noqa: S101 - it is asked for only then
            content = services.content if origin is None else FallbackContent(services.content, origin.content)
            with reading_stored():
                copy(StorePlace(services, "", "", descriptor, content), target, everything=True, monitor=monitor)

        yield Elsewhere(find_base if origin is not None else None, publish if target is not None else None)
