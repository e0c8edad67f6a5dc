"""Give an image a name, or take one away."""

from __future__ import annotations

from ocidiff.errors import InUseError
from ocidiff.image import lookup
from ocidiff.image.reference import is_same, name_to_give
from ocidiff.oci.descriptor import Descriptor
from ocidiff.services.bundle import Services
from ocidiff.services.images import ImageStore


def tag(services: Services, name: str, new_name: str) -> Descriptor:
    """See `Store.tag`; the services are under a lease."""
    stored_name = services.images.spelling(name_to_give(new_name))
    descriptor = lookup.resolve(services, name)
    services.keep_blob(descriptor.digest)
    services.images.put(stored_name, descriptor)
    return descriptor


def untag(images: ImageStore, name: str) -> str:
    """See `Store.untag`."""
    found = lookup.find_entry(images, name)
    same = [entry for entry in images.list() if entry.digest == found.digest]
    if len(same) > 1 and not is_same(name.partition("@")[0], found.name):
        names = ", ".join(sorted(entry.name or "-" for entry in same))
        raise InUseError(f"image {name}: has {len(same)} names; give one of them: {names}")
    images.drop(found)
    return found.digest or "-"
