"""Copy images between stores, layouts, archives and registries."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, TypedDict

from ocidiff.errors import UsageError
from ocidiff.layer.monitor import Cancellation, Monitor, ProgressCallback
from ocidiff.store import Store
from ocidiff.store.call import platform_of

if TYPE_CHECKING:
    from ocidiff.services.bundle import Services
    from ocidiff.transport.copy import Copied
    from ocidiff.transport.place import Access
    from ocidiff.transport.scheme import Registry


class TransportArguments(TypedDict, total=False):
    """The arguments of every call that moves images.

    Attributes:
        platform: `OS/ARCH[/VARIANT]`, out of several; None for this machine.
        everything: Move the images of all platforms, and what refers to them, such as signatures.
        progress: Called with the counters, blob by blob, a few times a second.
        cancel: Stops the call.
    """

    platform: str | None
    everything: bool
    progress: ProgressCallback | None
    cancel: Cancellation | None


class CopyArguments(TransportArguments, total=False):
    """The arguments of `Store.copy`.

    Attributes:
        containerd: Where names that begin with `containerd:` are; None for `Store.containerd()`.
        registry: How registries are reached; None for the defaults.
    """

    containerd: Store | None
    registry: Registry | None


def copy(
    source: str,
    target: str,
    *,
    store: Store | None = None,
    containerd: Store | None = None,
    platform: str | None = None,
    everything: bool = False,
    registry: Registry | None = None,
    progress: ProgressCallback | None = None,
    cancel: Cancellation | None = None,
) -> Copied:
    """Copy an image from one place to another. A failure leaves the name in the target as it was.

    Blobs that the target has are not copied. What an interrupted call brought is kept, and the next one goes on from there.

    Args:
        source: `NAME[:TAG]` in `store`, `oci:DIR[:TAG]`, `oci-archive:FILE`, `docker-archive:FILE`,
            `docker://HOST/REPO[:TAG][@DIGEST]` or `containerd:NAME`.
        target: The same.
        store: Where plain names are.
        containerd: Where names that begin with `containerd:` are; None for `Store.containerd()`.
        platform: `OS/ARCH[/VARIANT]`, out of several; None for this machine.
        everything: Copy the images of all platforms, and what refers to them, such as signatures.
        registry: How registries are reached; None for the defaults.
        progress: Called with the counters, blob by blob, a few times a second.
        cancel: Stops the call.

    Raises:
        UsageError: A text is no name of a place, or `platform` and `everything` are both given.
        NotFoundError: There is no such image, or a part of it is neither in the source nor in the target.
        DigestMismatchError: A part of the image is not the one that is named.
    """
    from ocidiff.services.damage import reading_stored
    from ocidiff.transport import copy as transport
    from ocidiff.transport.place import open_source, open_target
    from ocidiff.transport.scheme import is_in_store

    if everything and platform is not None:
        raise UsageError("platform: cannot be chosen if everything is copied")
    monitor = Monitor(progress, cancel)
    access = access_of(store, containerd, registry, monitor)
    remedied = reading_stored() if is_in_store(source) else nullcontext()
    with remedied, open_source(source, access) as found, open_target(target, access) as place:
        return transport.copy(found, place, platform=platform_of(platform), everything=everything, monitor=monitor)


def access_of(store: Store | None, containerd: Store | None, registry: Registry | None, monitor: Monitor) -> Access:
    """Return what places need to be opened; arguments as in `copy`."""
    from ocidiff.embedded.open import Embedded
    from ocidiff.store.embedded import EmbeddedStore
    from ocidiff.transport.place import Access
    from ocidiff.transport.scheme import Registry

    if containerd is None and not isinstance(store, EmbeddedStore):
        containerd = store
    return Access(
        services=lambda scheme, writing: _leased(containerd if scheme else store, scheme, monitor, writing=writing),
        under_lease=lambda layout: Store(Embedded(layout)).leased(monitor, writing=True),
        registry=registry or Registry(),
        monitor=monitor,
    )


@contextmanager
def _leased(store: Store | None, scheme: str, monitor: Monitor, *, writing: bool) -> Iterator[Services]:
    """Yield the services of the store that names of a scheme are in."""
    with ExitStack() as stack:
        if store is None and not scheme:
            raise UsageError("no store: a name without a scheme needs one")
        store = store or stack.enter_context(Store.containerd())
        yield stack.enter_context(store.leased(monitor, writing=writing))
