"""The store in a directory: what only it can do."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    from ocidiff.embedded.verify import Verified
    from ocidiff.layer.arguments import CallArguments


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
