"""Create: a working container over an image, whose tree is unpacked once for all containers over it."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import Final

from ocidiff.errors import InUseError, NotFoundError
from ocidiff.image.chain import TooManyLayersError, unpack_chain
from ocidiff.image.image import Image
from ocidiff.layer.limits import Limits
from ocidiff.layer.monitor import Monitor
from ocidiff.log import Logger
from ocidiff.services.bundle import Services
from ocidiff.services.containers import Container
from ocidiff.services.snapshots import PLAIN

_KEY: Final = "container-"
_log = Logger(__name__)


def create(
    services: Services, image: Image, name: str | None, driver: str | None, *, limits: Limits, monitor: Monitor
) -> Container:
    """Make a working container.

    Args:
        services: The store, under a lease.
        image: The image that it begins as.
        name: Its name; None for one that is made of the image's.
        driver: Name of the snapshotter that holds its tree; None for the best one that works here.
        limits: What the layers that are applied may not pass together.
        monitor: Sees progress of unpacking, and stops the call.

    Raises:
        UsageError: The name or the driver is invalid.
        AlreadyExistsError: The name is taken.
        NotFoundError: A part of the image is missing.
    """
    name = _default_name(image.name) if name is None else name
    services.containers.check(name)
    snapshots = services.snapshotter(driver)
    try:
        parent = unpack_chain(services, snapshots, image, limits=limits, monitor=monitor)
    except TooManyLayersError as error:
        if driver is not None:
            raise
        _log.warning("%s; using it", error)
        snapshots = services.snapshotter(PLAIN)
        parent = unpack_chain(services, snapshots, image, limits=limits, monitor=monitor)
    key = _KEY + os.urandom(16).hex()
    snapshots.prepare(key, parent)
    try:
        return services.containers.put(name, image.name, image.descriptor, image.config_digest, snapshots.name, key)
    except BaseException:
        with suppress(NotFoundError, InUseError):
            snapshots.remove(key)
        raise


def _default_name(image: str) -> str:
    """Return a name that says what is in the container."""
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", image.partition("@")[0].rpartition("/")[2].partition(":")[0])[:64]
    return f"{stem.strip('-_.') or 'container'}-{os.urandom(4).hex()}"
