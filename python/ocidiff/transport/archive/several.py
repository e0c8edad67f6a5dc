"""Save and load: the images of a store to and from one archive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from ocidiff.errors import DocumentError, LimitExceededError, UsageError
from ocidiff.image import lookup
from ocidiff.image.reference import is_same, name_to_give
from ocidiff.layer.monitor import Monitor
from ocidiff.oci.platform import Platform
from ocidiff.services.bundle import Services
from ocidiff.services.damage import reading_stored
from ocidiff.services.images import understood
from ocidiff.transport.archive.members import Members
from ocidiff.transport.archive.place import ArchiveTarget
from ocidiff.transport.archive.read import entries_of
from ocidiff.transport.archive.write import ArchiveWriter
from ocidiff.transport.copy import Copied, copy
from ocidiff.transport.layout import LayoutSource, Referrers
from ocidiff.transport.store import StorePlace

_SHOWN: Final = 5
# An archive of 20 MiB can name 500,000.
_MOST_NAMES: Final = 10_000


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
    with reading_stored():
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
        DocumentError: No image of the archive has a name, or a name is none that an image can have here.
        LimitExceededError: There are too many names.
    """
    content, entries = entries_of(members)
    names = {_given(entry.name, members.place): entry for entry in entries if entry.name is not None}
    if len(names) > _MOST_NAMES:
        raise LimitExceededError(f"{members.place}: {len(names)} names of images, limit {_MOST_NAMES}")
    if not names:
        found = ", ".join(entry.digest or "-" for entry in entries[:_SHOWN]) or "nothing"
        raise DocumentError(
            f"{members.place}: no image in it has a name, there is {found}: use `ocidiff copy oci-archive:FILE:DIGEST NAME`"
        )
    referrers = Referrers(content, entries)
    done: dict[str, Copied] = {}
    copied: dict[tuple[str, str, int], str] = {}
    for name, entry in names.items():
        monitor.check()
        image = understood(entry)
        first = copied.setdefault((image.media_type, image.digest, image.size), name)
        if first != name:
            done[name] = done[first].again(name)
            continue
        source = LayoutSource(members.place, content, entry, referrers)
        target = StorePlace(services, "", "")
        got = copy(source, target, platform=platform, everything=everything, monitor=monitor)
        done[name] = replace(got, target=name)
    # At once, since each change of the index of a store costs as much as the index is long.
    services.images.put_all({name: one.descriptor for name, one in done.items()})
    return list(done.values())


def _given(name: str, place: str) -> str:
    """Return a name of the archive if an image can have it here."""
    try:
        return name_to_give(name)
    except UsageError as error:
        raise DocumentError(f"{place}: {error}") from None
