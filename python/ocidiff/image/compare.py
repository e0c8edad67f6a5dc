"""Compare: the changes of a container since it was made, and between images, without unpacking them."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Self

from ocidiff.errors import UsageError
from ocidiff.image import lookup
from ocidiff.image.source import check_source, open_source
from ocidiff.image.unpack import index_layers
from ocidiff.layer.differ import list_changes, with_ignore_file
from ocidiff.layer.engine import Engine, Lower, select_engine
from ocidiff.layer.fractions import with_lower_times
from ocidiff.layer.layer import Change, IndexPath
from ocidiff.layer.limits import Limits
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.operand import Tree, is_tree
from ocidiff.layer.options import DiffOptions, LayerOptions, OverlayMode
from ocidiff.layer.paths import lower_path
from ocidiff.layer.unseen import refuse_unseen
from ocidiff.oci.platform import Platform
from ocidiff.services.bundle import Services
from ocidiff.services.containers import Container
from ocidiff.services.home import Home, reading
from ocidiff.values import dataclass
from ocidiff.workspace import filling, nameless_file


@dataclass(frozen=True, slots=True)
class Comparison:
    """The way in which two sides are compared.

    Attributes:
        layer: The rules.
        ignore_file: Read the patterns in `.ocidiffignore` of the changed tree.
        overlay: Tells if the upper directory of an overlay is read in place of what it shows.
        explain: Give the reason and the sizes of each change.
        engine: What reads layers and compares.
    """

    layer: LayerOptions
    ignore_file: bool
    overlay: OverlayMode
    explain: bool
    engine: Engine

    @classmethod
    def of(cls, options: DiffOptions, *, explain: bool) -> Self:
        """Return the way in which the options compare; errors as in `DiffOptions.compared`."""
        engine = select_engine(options.engine)
        return cls(options.compared(), options.ignore_file, options.overlay, explain, engine)


Changed = Generator[Change, None, Mapping[str, int]]


def changes_in(
    home: Home,
    lower: Tree | Container,
    upper: Tree | None,
    comparison: Comparison,
    *,
    platform: Platform | None,
    limits: Limits,
) -> Changed:
    """Yield the changes of a container, if there is no `upper`, or between images and trees; see `Store.changes`."""
    monitor = Monitor()
    with reading(home, comparison.engine, monitor) as services:
        if upper is None:
            container = services.containers.get(os.fspath(lower)) if isinstance(lower, str | os.PathLike) else lower
            return (yield from changes_of_container(services, container, comparison, monitor=monitor))
        if not isinstance(lower, str | os.PathLike):
            raise UsageError(f"container {lower.name}: can be compared with its own image only")
        found = changes_of_images(services, lower, upper, comparison, platform=platform, limits=limits, monitor=monitor)
        return (yield from found)


def changes_of_container(services: Services, container: Container, comparison: Comparison, *, monitor: Monitor) -> Changed:
    """Yield what changed in a container since it was made, which a commit of it would store.

    The container is kept still until the last change is taken.

    Raises:
        NotFoundError: There is no such container, or a part of its image is missing.
        UsageError: Id maps are given; a container has those of its image.
    """
    check_source(container, None, None, comparison.layer.ids)
    walk = comparison.overlay is OverlayMode.NEVER
    with open_source(
        services,
        container,
        base=None,
        lower=None,
        platform=None,
        walk=walk,
        limits=Limits(),
        engine=comparison.engine,
        monitor=monitor,
    ) as source:
        options = replace(
            comparison.layer,
            lower_has_layer_times=source.lower_has_layer_times,
            lower_lacks_owners=source.lower_lacks_owners,
            ids=source.ids,
        )
        if comparison.ignore_file:
            options = with_ignore_file(options, source.upper)
        return (
            yield from list_changes(
                comparison.engine, source.lower, source.upper, options, comparison.overlay, explain=comparison.explain
            )
        )


def changes_of_images(
    services: Services,
    lower: Tree,
    upper: Tree,
    comparison: Comparison,
    *,
    platform: Platform | None,
    limits: Limits,
    monitor: Monitor,
) -> Changed:
    """Yield what turns one image, or tree, into another. Layers of images are read once each, into an index.

    Args:
        services: The store with the images.
        lower: Name of an image; or a tree, see `is_tree`.
        upper: The same of the changed side.
        comparison: How they are compared.
        platform: Which image of several platforms; None for this machine.
        limits: What the layers of each image may not pass.
        monitor: Sees progress, and stops the call.

    Raises:
        NotFoundError: There is no such image, or a part of it is missing.
        UsageError: The upper side is `scratch`.
        UnsupportedError: gVisor keeps the changes of the upper tree elsewhere.
    """
    engine = comparison.engine
    with ExitStack() as stack:

        def side(operand: Tree) -> Lower | None:
            if is_tree(operand):
                return lower_path(operand)
            image = lookup.find_image(services, os.fspath(operand), platform)
            # Without a name, so that nothing is left behind whatever happens.
            file = stack.enter_context(nameless_file(None))
            with filling(None):
                index_layers(
                    services.content,
                    image,
                    file.fileno(),
                    engine=comparison.engine,
                    sha256=False,
                    limits=limits,
                    monitor=monitor,
                )
            return IndexPath(b"/proc/self/fd/%d" % file.fileno())

        below, above = side(lower), side(upper)
        if above is None:
            raise UsageError("upper: must be an image or a tree")
        if isinstance(above, bytes):
            refuse_unseen(above)
        options = replace(comparison.layer, lower_has_layer_times=not is_tree(lower))
        if comparison.ignore_file:
            options = with_ignore_file(options, above)
        options = with_lower_times(options, below, above)
        return (yield from list_changes(engine, below, above, options, comparison.overlay, explain=comparison.explain))
