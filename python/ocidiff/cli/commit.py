"""`ocidiff commit`: a directory or a working container becomes an image."""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import TYPE_CHECKING

import click

import ocidiff
from ocidiff.cli.options import Settings, common, layer_options, lease_option, pass_settings
from ocidiff.cli.progress import shown
from ocidiff.cli.render import as_json, image_document, layer_line
from ocidiff.cli.streams import complain, emit, warn_of_changes, warn_of_skipped, writing_to
from ocidiff.errors import NotFoundError
from ocidiff.layer.output import open_output

if TYPE_CHECKING:
    from typing import Unpack

    from ocidiff.cli.options import LayerArguments
    from ocidiff.image.container import Container


@click.command("commit", epilog="Example: ocidiff commit ./rootfs app:v2 --base app:v1 -m 'Set up the app'")
@click.argument("source", type=click.Path())
@click.argument("name", metavar="NAME[:TAG]")
@click.option("--base", metavar="IMAGE", help="The image that a directory has grown from.  [default: scratch]")
@click.option(
    "--lower",
    metavar="DIR|index:FILE",
    type=click.Path(),
    help="The tree of the base, or an index of it.  [default: the base, unpacked]",
)
@click.option("-a", "--author", help="Who made the change.")
@click.option("-m", "--message", help="What the change is.")
@click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="What it runs on.  [default: the base's, else this machine's]")
@click.option("--iidfile", metavar="FILE", type=click.Path(), help="Write the manifest digest to this file.")
@lease_option
@layer_options
@common("store", "json", "quiet", "progress", "verbose")
@pass_settings
def command(
    settings: Settings,
    /,
    *,
    source: str,
    name: str,
    base: str | None,
    lower: str | None,
    author: str | None,
    message: str | None,
    platform: str | None,
    iidfile: str | None,
    lease_seconds: float,
    **options: Unpack[LayerArguments],
) -> None:
    """Make SOURCE an image.

    SOURCE is the name of a working container, whose base is the image it was created from; or a directory, which has a
    slash or is a dot: ./rootfs. Prints the digest of the image's manifest.
    """
    place = settings.store_path()
    is_path = "/" in source or source in {".", ".."}
    # The file first, so that no image is made whose digest cannot be told.
    with (
        writing_to(place),
        nullcontext() if iidfile is None else open_output(iidfile) as iid,
        _open_store(place, None if is_path else source) as store,
    ):
        tree = source if is_path else _container(store, source)
        with shown(settings, "commit") as progress:
            image = store.commit(
                tree,
                name,
                base=base,
                lower=lower,
                author=author,
                message=message,
                platform=platform,
                lease_seconds=lease_seconds,
                progress=progress,
                **options,
            )
        if iid is not None:
            os.write(iid, image.descriptor.digest.encode())
    if image.layer is not None and not settings.quiet:
        warn_of_skipped("commit", image.layer.skipped)
        warn_of_changes("commit", image.layer)
    if settings.verbose:
        complain(f"commit: {layer_line(image.layer) if image.layer else 'no change, no layer'}")
    emit(as_json(image_document(image)) if settings.json else image.descriptor.digest)


def _open_store(place: str, container: str | None) -> ocidiff.Store:
    """The store, made for a directory; a container is in one that is there."""
    try:
        return ocidiff.Store.open(place, create=container is None)
    except FileNotFoundError:
        if container is None:
            raise
        raise _no_container(container) from None


def _container(store: ocidiff.Store, name: str) -> Container:
    try:
        return store.containers.get(name)
    except NotFoundError:
        raise _no_container(name) from None


def _no_container(name: str) -> NotFoundError:
    hint = f"; for the directory of that name write ./{name}" if os.path.isdir(name) else ""
    return NotFoundError(f"no working container {name!r}{hint}")
