"""Save and load: the images of a store to and from one archive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ocidiff.errors import DocumentError
from ocidiff.image import lookup
from ocidiff.image.reference import is_same, name_to_give
from ocidiff.layer.monitor import Monitor
from ocidiff.oci.platform import Platform
from ocidiff.services.bundle import Services
from ocidiff.transport.archive.members import Members
from ocidiff.transport.archive.place import ArchiveTarget
from ocidiff.transport.archive.read import entries_of
from ocidiff.transport.archive.write import ArchiveWriter
from ocidiff.transport.copy import Copied, copy
from ocidiff.transport.layout import LayoutSource
from ocidiff.transport.store import StorePlace

_SHOWN: Final = 5


def save(
    services: Services,
    names: Sequence[str],
    sink: int,
    place: str,
    *,
    platform: Platform | None,
    everything: bool,
    monitor: Monitor,
) -> list[Copied]:
    """Write images into one archive, each blob once.

    Args:
        services: The store, under a lease.
        names: The images; one that is named by its digest has no name in the archive.
        sink: Descriptor that takes the archive, a file or a pipe.
        place: Name of the archive, for messages.
        platform: Which images of several platforms; None for this machine's.
        everything: Write the images of all platforms, and what refers to them.
        monitor: Sees progress, and stops the call.
    """
    writer = ArchiveWriter(sink, place)
    targets = []
    for name in names:
        stored = lookup.find_entry(services.images, name).name
        targets.append(ArchiveTarget(writer, place, stored if is_same(name, stored) else None))
    done = [
        copy(StorePlace(services, "", name), target, platform=platform, everything=everything, monitor=monitor)
        for name, target in zip(names, targets, strict=True)
    ]
    writer.finish()
    return done


def load(
    services: Services, members: Members, *, platform: Platform | None, everything: bool, monitor: Monitor
) -> list[Copied]:
    """Store the images of an archive under the names that they have there.

    Args:
        services: The store, under a lease.
        members: The archive.
        platform: Which images of several platforms; None for this machine's.
        everything: Store the images of all platforms, and what refers to them.
        monitor: Sees progress, and stops the call.

    Raises:
        DocumentError: No image of the archive has a name.
        UsageError: A name is none that an image can have here.
    """
    content, entries = entries_of(members)
    names = {name_to_give(entry.name): entry for entry in entries if entry.name is not None}
    if not names:
        found = ", ".join(entry.digest or "-" for entry in entries[:_SHOWN]) or "nothing"
        raise DocumentError(
            f"{members.place}: no image in it has a name, there is {found}: use `ocidiff copy oci-archive:FILE:DIGEST NAME`"
        )
    # What refers to the images has no name.
    unnamed = [entry for entry in entries if entry.name is None]
    return [
        copy(
            LayoutSource(members.place, content, [entry, *unnamed], name),
            StorePlace(services, "", name),
            platform=platform,
            everything=everything,
            monitor=monitor,
        )
        for name, entry in names.items()
    ]
