"""Commit: a directory or a container becomes an image, with one layer more than its base.

Everything is written under a lease: children before parents, the name last.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ocidiff.errors import NotFoundError, UnsupportedError
from ocidiff.image import mutate
from ocidiff.image.changes import apply_changes
from ocidiff.image.image import Image
from ocidiff.image.request import Request, Step
from ocidiff.image.source import Source, open_source
from ocidiff.layer.differ import with_ignore_file
from ocidiff.layer.engine import Engine
from ocidiff.layer.input import UpperTar
from ocidiff.layer.layer import Layer
from ocidiff.layer.limits import Limits
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.options import LayerOptions, OverlayMode
from ocidiff.layer.scope import Scope
from ocidiff.layer.unseen import PATTERN
from ocidiff.log import Logger
from ocidiff.mounts.layers import OverlayLayers
from ocidiff.oci import media_type
from ocidiff.oci.config import History, ImageConfig
from ocidiff.oci.digest import ChainID, chain_id
from ocidiff.oci.manifest import Manifest
from ocidiff.oci.platform import Platform
from ocidiff.oci.timestamp import NS_PER_SECOND, timestamp
from ocidiff.services import labels
from ocidiff.services.bundle import Services
from ocidiff.services.containers import Committed, Container
from ocidiff.services.content import ContentStore, Ingester
from ocidiff.values import dataclass

if TYPE_CHECKING:
    from ocidiff.image.additions import Addition
    from ocidiff.image.early import EarlySnapshot
    from ocidiff.oci.descriptor import Descriptor

_CREATED_BY: Final = "ocidiff commit"
_log = Logger(__name__)


Review = Callable[[Services, Image], None]
"""Looks at an image that has no name yet; an exception leaves it without."""


def commit(services: Services, request: Request, *, engine: Engine, monitor: Monitor, review: Review | None = None) -> Image:
    """Store and name the image that a directory or a container is. A failure leaves every name as it was.

    Args:
        services: The store.
        request: What is asked for.
        engine: What unpacks a base.
        monitor: Sees progress, and stops the call.
        review: Called with the services and the image before it gets its name.

    Raises:
        UsageError: A change is refused with the values of the base, or arguments contradict each other.
        NotFoundError: There is no such base or container, or a part of the base is missing.
        UnrepresentableError: The family has no media type for a layer of the base.

    Spec: commit-semantics sections 1 and 6 to 8.
    """
    started = time.monotonic()
    request = _spelled(services, request)
    with compared(services, request, engine=engine, monitor=monitor) as found:
        leased, source, layer = found.services, found.source, found.layer
        image = _stored(leased.content, request, found.config, found.parent, found.layers)
        image = replace(image, layers=found.layers)
        if review is not None:
            review(leased, image)
        if source.container is not None and layer is not None and found.chain is not None:
            done = Committed(image.name, image.config_digest, found.chain, request.layers, found.options)
            leased.containers.committed(source.container, done)
        if leased.unpacks and request.elsewhere.publish is None:
            _unpack(leased, source, image, request.limits, monitor)
        monitor.check()
        (request.elsewhere.publish or _name(request.name))(leased, image.descriptor)
    return replace(image, seconds=time.monotonic() - started)


@dataclass(frozen=True, slots=True)
class Compared:
    """The trees of a commit, compared.

    Attributes:
        services: The store, under a lease.
        source: The trees.
        options: How they were compared.
        config: The new configuration.
        parent: The manifest of the base; None for no base.
        layer: The layer of the change, or the first of several; None for no change.
        layers: The new layers: of the change, of what a sandbox changed, of what is added; or the one that they became.
        chain: Chain ID of the base and the layers of the change; None for no layers, or merged ones.
    """

    services: Services
    source: Source
    options: LayerOptions
    config: ImageConfig
    parent: Manifest | None
    layer: Layer | None
    layers: tuple[Layer, ...]
    chain: ChainID | None


@contextmanager
def compared(services: Services, request: Request, *, engine: Engine, monitor: Monitor) -> Iterator[Compared]:
    """Compare the trees of a commit by the differ of the services; arguments and errors as in `commit`."""
    additions = _additions(request.additions)
    with (
        ExitStack() as stack,
        services.leased() as leased,
        open_source(
            leased,
            request.source,
            base=request.base,
            lower=request.lower,
            platform=request.platform,
            walk=request.options.overlay is OverlayMode.NEVER,
            limits=request.limits,
            engine=engine,
            monitor=monitor,
            may_be_unseen=request.upper is not None,
            find_base=request.elsewhere.find_base,
            parent=request.parent,
        ) as source,
    ):
        options = _layer_options(request, source)
        base = _base_config(source.base, request)
        # Both may refuse, and the tree takes longest to read.
        config = apply_changes(base, request.changes)
        parent = None if source.base is None else source.base.manifest.in_format(request.family)
        target: Ingester = leased.content
        merging, final_options = None, options
        if request.merge is not None:
            from ocidiff.image.squash import Merging

            new_count = 1 + (request.upper is not None) + bool(additions)
            merging = stack.enter_context(Merging(leased.content, request.merge, parent, new_count))
            target, options = merging.target, merging.options(options)
        pausing = leased.containers.frozen(source.container) if source.container and request.pause else nullcontext(False)
        with (
            pausing as is_paused,
            # A pause is shorter if the disk does not take the snapshot meanwhile.
            nullcontext() if is_paused else _early_snapshot(leased, request, source, engine) as early,
        ):
            taken = options if early is None else early.taking(options)
            if request.layers > 1:
                changed = _split(leased, request, source, base, options, engine, monitor)
            else:
                changed = [leased.differ.compare(source.lower, source.upper, target, taken, monitor.of("diff"))]
            layer = changed[0]
            if early is not None and layer is not None:
                early.commit(layer, chain_id((*config.rootfs.diff_ids, layer.diff_id)))
        tree, layers = source.upper, changed
        entry = _entry(request.step, base, source.container, options.source_date_epoch)
        if layer is not None or request.upper is None:
            for one in changed:
                config = mutate.extend_config(config, one, entry)
        chain = chain_id(config.rootfs.diff_ids) if config.rootfs.diff_ids else None
        if request.upper is not None:
            from ocidiff.layer.upper_tar import options_for, unpacked

            place = stack.enter_context(leased.private_directory())
            tree = stack.enter_context(unpacked(request.upper, tree, place, engine=engine, monitor=monitor))
            over = options_for(tree, options)
            layers.append(leased.differ.compare(None, tree, target, over, monitor.of("diff")))
            config = mutate.extend_config(config, layers[-1], entry)
        if additions:
            added = _added_layer(leased, additions, tree, target, options, engine, monitor)
            layers.append(added)
            config = mutate.extend_config(config, added, _entry_of_additions(config, additions))
        new = [one for one in layers if one is not None]
        if merging is not None:
            merged = merging.merged(
                config, new, options=final_options, limits=request.limits, engine=engine, monitor=monitor
            )
            if merged is not None:
                # The tree of the container is that of no chain any more.
                (count, one), chain = merged, None
                config = mutate.squash_config(config, count, one.diff_id)
                parent = None if parent is None else mutate.first_layers(parent, len(config.rootfs.diff_ids) - 1)
                new = [*new[: max(0, len(new) - count)], one]
        yield Compared(leased, source, options, config, parent, layer, tuple(new), chain)


def _split(
    services: Services,
    request: Request,
    source: Source,
    base: ImageConfig,
    options: LayerOptions,
    engine: Engine,
    monitor: Monitor,
) -> list[Layer | None]:
    """Store the layers of the change, several by path; None alone for no change."""
    from ocidiff.image.split import split

    layers = split(
        services,
        source.lower,
        source.upper,
        count=request.layers,
        chain=chain_id(base.rootfs.diff_ids) if base.rootfs.diff_ids else None,
        options=options,
        engine=engine,
        monitor=monitor,
    )
    return [*layers] or [None]


def _early_snapshot(
    services: Services, request: Request, source: Source, engine: Engine
) -> AbstractContextManager[EarlySnapshot | None]:
    """Return the snapshot of the image that is made while its only new layer is written, if there can be one."""
    has_more_layers = request.layers > 1 or request.merge is not None or request.additions or request.upper is not None
    is_unpacked = services.unpacks and request.elsewhere.publish is None
    if not is_unpacked or has_more_layers or source.container is None or source.base is None:
        return nullcontext()
    from ocidiff.image.early import early_snapshot

    diff_ids = source.base.config.rootfs.diff_ids
    return early_snapshot(services, source.container.driver, diff_ids, engine=engine, limits=request.limits)


def _spelled(services: Services, request: Request) -> Request:
    """Return the request with the name of the image as the store spells it."""
    if request.elsewhere.publish is not None:
        return request
    return replace(request, name=services.images.spelling(request.name))


def _name(name: str) -> Callable[[Services, Descriptor], None]:
    """Return what gives an image this name in the store."""
    return lambda services, descriptor: services.images.put(name, descriptor)


def _layer_options(request: Request, source: Source) -> LayerOptions:
    """Return how the layer of the change is made.

    Raises:
        UnsupportedError: There would be more layers, and the container is id-mapped.
    """
    options = replace(
        request.options,
        lower_has_layer_times=source.lower_has_layer_times,
        lower_lacks_owners=source.lower_lacks_owners,
        ids=request.options.ids or source.ids,
    )
    if (request.additions or request.upper is not None) and options.lower_has_ids and options.ids:
        raise UnsupportedError("add: the container is id-mapped: commit it first, then add to the image")
    if isinstance(request.source, UpperTar) and isinstance(source.upper, OverlayLayers):
        from ocidiff.layer.upper_tar import options_for

        options = options_for(source.upper, options)
    if request.options.ignore_file:
        options = with_ignore_file(options, source.upper)
    if not options.lower_has_layer_times:
        from ocidiff.layer.fractions import with_lower_times

        options = with_lower_times(options, source.lower, source.upper)
    if request.upper is not None:
        options = replace(options, scope=options.scope.without(PATTERN))
    return options


def _unpack(services: Services, source: Source, image: Image, limits: Limits, monitor: Monitor) -> None:
    """Make the snapshot that containers of the image grow on, and name the layers of the base that are not there.

    Many nodes discard the layers of an image once it is unpacked: neither a commit nor its snapshot needs them.
    """
    from ocidiff.image.chain import unpack_chain

    missing = [layer.digest for layer in image.manifest.layers if not services.content.contains(layer.digest)]
    if missing:
        _log.warning(
            "%s: layers of the base are not in the store, so that it cannot be pushed: %s", image.name, ", ".join(missing)
        )
    snapshots = services.snapshotter(source.container.driver if source.container else None)
    try:
        unpack_chain(services, snapshots, image, limits=limits, monitor=monitor)
    except NotFoundError as error:
        if not missing:
            raise
        _log.warning("%s: was not unpacked: %s", image.name, error)


def _base_config(base: Image | None, request: Request) -> ImageConfig:
    """Return the configuration that the commit begins with."""
    platform = request.platform or Platform.of_machine()
    config = ImageConfig(platform) if base is None else base.config
    if mutate.recorded_layers(config) > len(config.rootfs.diff_ids):
        _log.warning("%s: the history of the base accounts for more layers than there are", request.name)
    return replace(config, platform=config.platform.completed(platform))


def _stored(
    content: ContentStore,
    request: Request,
    config: ImageConfig,
    parent: Manifest | None,
    layers: Sequence[Layer],
) -> Image:
    """Store the configuration, and a manifest with it and the layers."""
    if request.step.omit_history:
        config = mutate.without_history(config)
    config_descriptor = content.write(config.encode(), media_type.CONFIG)
    manifest = mutate.extend_manifest(parent, config_descriptor, None, request.family, request.annotations)
    for layer in layers:
        manifest = mutate.extend_manifest(manifest, config_descriptor, layer, request.family, request.annotations)
    descriptor = content.write(manifest.encode(), manifest.media_type, _references(manifest))
    return Image(request.name, descriptor, manifest, config)


def _additions(texts: Sequence[str]) -> Sequence[Addition]:
    """Return what `SRC:DEST` says, each."""
    if not texts:
        return ()
    from ocidiff.image.additions import Addition

    return [Addition.parse(text) for text in texts]


def _added_layer(
    services: Services,
    additions: Sequence[Addition],
    tree: bytes | OverlayLayers,
    target: Ingester,
    options: LayerOptions,
    engine: Engine,
    monitor: Monitor,
) -> Layer | None:
    """Store the layer of what is added to the changed tree; None if that is nothing new."""
    from ocidiff.image.additions import added
    from ocidiff.layer.upper_tar import options_for

    # Additions are named, so nothing of them is excluded or compared by the times of layers.
    options = replace(options, lower_has_layer_times=False, lower_lacks_owners=False, scope=Scope())
    with (
        services.private_directory() as place,
        added(additions, tree, place, options, engine=engine, monitor=monitor) as layers,
    ):
        options = options_for(layers, options)
        return services.differ.compare(None, layers, target, options, monitor.of("diff"))


def _references(manifest: Manifest) -> dict[str, str]:
    """Return what a manifest needs as labels, for collectors that read no documents. Spec: commit-semantics section 7."""
    layers = {f"{labels.REFERS_CONTENT}.l.{number}": layer.digest for number, layer in enumerate(manifest.layers)}
    return {f"{labels.REFERS_CONTENT}.config": manifest.config.digest, **layers}


def _entry_of_additions(config: ImageConfig, additions: Sequence[Addition]) -> History:
    names = " ".join("/" + os.fsdecode(one.destination) for one in additions)
    return History(created=config.created, created_by=f"{_CREATED_BY} --add {names}", author=config.author)


def _entry(step: Step, base: ImageConfig, container: Container | None, source_date_epoch: int | None) -> History:
    now = time.time_ns() if source_date_epoch is None else source_date_epoch * NS_PER_SECOND
    command = (container.command if container is not None else ()) or (*base.config.entrypoint, *base.config.cmd)
    return History(
        created=step.created or timestamp(now),
        created_by=step.created_by or " ".join(command) or _CREATED_BY,
        author=step.author or base.author,
        comment=step.comment,
    )
