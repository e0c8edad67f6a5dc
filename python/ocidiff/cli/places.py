"""Options of the commands that copy images, and the one call that they make."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

import ocidiff
from ocidiff.cli.options import everything_option, platform_option
from ocidiff.cli.progress import shown
from ocidiff.cli.registry import registry_options
from ocidiff.cli.render import as_json
from ocidiff.cli.settings import CONTAINERD, Settings, common
from ocidiff.cli.streams import complain, emit
from ocidiff.output import naming
from ocidiff.sizes import size

if TYPE_CHECKING:
    from ocidiff.transport.copy import Copied

_Command = TypeVar("_Command", bound=Callable[..., Any])

REGISTRY: Final = "docker://"
"""Before the name of an image in a registry."""

_IMAGES: Final = (platform_option, everything_option)
_COMMON: Final = ("store", "json", "quiet", "progress", "verbose")


def copy_options(*shown_options: str, writing: bool = True) -> Callable[[_Command], _Command]:
    """Add the options of a command that copies an image.

    Args:
        shown_options: Common options that its help lists beside the usual ones.
        writing: Add those of writing to a registry.
    """

    def add(command: _Command) -> _Command:
        command = common(*_COMMON, *shown_options)(command)
        command = registry_options(command, writing=writing)
        return functools.reduce(lambda made, option: option(made), reversed(_IMAGES), command)

    return add


def copy(
    settings: Settings,
    what: str,
    source: str,
    target: str,
    *,
    platform: str | None,
    everything: bool,
    registry: ocidiff.Registry,
) -> None:
    """Copy an image, and say what was done.

    Args:
        settings: What holds for every command.
        what: Name of the command.
        source: Where the image is.
        target: Where it goes.
        platform: Which image of several platforms; None for this machine's.
        everything: Copy all of them, and what refers to them.
        registry: How registries are reached.
    """
    from ocidiff.transport.scheme import is_plain

    if everything and platform is not None:
        raise click.UsageError("--platform and --all contradict each other")
    with ExitStack() as stack:
        store = containerd = None
        if is_plain(source) or is_plain(target):
            place = settings.store_path()
            stack.enter_context(naming(place))
            store = stack.enter_context(ocidiff.Store.open(place, create=is_plain(target)))
        if CONTAINERD in {source[: len(CONTAINERD)], target[: len(CONTAINERD)]}:
            containerd = stack.enter_context(
                ocidiff.Store.containerd(settings.address, settings.namespace, snapshotter=settings.snapshotter)
            )
        progress = stack.enter_context(shown(settings, what))
        done = ocidiff.copy(
            source,
            target,
            store=store,
            containerd=containerd,
            platform=platform,
            everything=everything,
            registry=registry,
            progress=progress,
        )
    emit(as_json(done.to_dict()) if settings.json else done.descriptor.digest)
    if settings.verbose or ((done.kept_bytes or sys.stderr.isatty()) and not settings.quiet):
        complain(f"{done.target}: {_line(done)}")


def _line(done: Copied) -> str:
    """Return one line for people about a finished copy."""
    kept = f", of which {size(done.kept_bytes)} came with an interrupted copy" if done.kept_bytes else ""
    mounted = f"; {done.mounted} mounted" if done.mounted else ""
    word = "blob" if done.copied == 1 else "blobs"
    return (
        f"{done.copied} {word} copied, {size(done.copied_bytes)}{kept}; {done.skipped} there already{mounted}; "
        f"{done.seconds:.2f} s"
    )
