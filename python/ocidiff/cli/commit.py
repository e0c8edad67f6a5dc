"""`ocidiff commit`: a directory or a working container becomes an image."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING

import click

import ocidiff
from ocidiff.cli.cache import cache_options
from ocidiff.cli.config import KeyValue, config_options
from ocidiff.cli.names import CONTAINER_OR_PATH, IMAGE
from ocidiff.cli.options import (
    layer_options,
    limit_options,
    report_option,
    reuse_option,
    upper_tar_of,
    upper_tar_option,
)
from ocidiff.cli.progress import shown
from ocidiff.cli.registry import registry_options
from ocidiff.cli.render import as_json, layer_line, metadata_document
from ocidiff.cli.settings import CONTAINERD, Settings, common, pass_settings
from ocidiff.cli.split import split_option
from ocidiff.cli.streams import complain, emit, warn_of_changes, warn_of_skipped
from ocidiff.errors import NotFoundError
from ocidiff.layer.operand import may_be_container
from ocidiff.output import naming, open_output, write_all

if TYPE_CHECKING:
    from typing import Unpack

    from ocidiff.image.arguments import CommitArguments, FormatName
    from ocidiff.image.changes import ConfigChanges
    from ocidiff.layer.arguments import DiffArguments
    from ocidiff.services.containers import Container


@click.command("commit", epilog="Example: ocidiff commit ./rootfs app:v2 --base app:v1 -m 'Set up the app'")
@click.argument("source", type=CONTAINER_OR_PATH, required=False)
@click.argument("name", metavar="NAME[:TAG]|PLACE", type=IMAGE, required=False)
@upper_tar_option
@click.option(
    "--base",
    metavar="IMAGE",
    type=IMAGE,
    help="The image that a directory has grown from, in any place.  [default: scratch]",
)
@click.option(
    "--lower",
    metavar="DIR|index:FILE",
    type=click.Path(),
    help="The tree of the base, or an index of it.  [default: the base, unpacked]",
)
@click.option("-a", "--author", help="Who made the change.")
@click.option("-m", "--message", help="What the change is.")
@config_options
@click.option(
    "--add",
    multiple=True,
    metavar="SRC:DEST",
    help="Add a file or directory of the host to the image, in a layer of its own.",
)
@click.option("--annotation", multiple=True, type=KeyValue(), help="Add an annotation to the manifest.")
@click.option(
    "--format",
    type=click.Choice(("oci", "docker")),
    default="oci",
    show_default=True,
    help="The media types of the manifest and of all that it names.",
)
@click.option("--squash", is_flag=True, help="Make all layers one, those of the base too.")
@click.option(
    "--squash-last",
    metavar="N",
    type=click.IntRange(min=2),
    help="Make the N newest layers one, the layer of the change included; all if there are fewer.",
)
@click.option(
    "--max-layers",
    metavar="N",
    type=click.IntRange(min=1),
    help="If the image would have more than N layers, make the newest ones one.",
)
@split_option
@click.option("--omit-history", is_flag=True, help="Leave out the history of the base, and this step.")
@click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="What it runs on.  [default: the base's, else this machine's]")
@click.option("--pause/--no-pause", default=True, help="Pause a running container while its tree is read.  [default: pause]")
@reuse_option
@click.option("--verify", is_flag=True, help="Decompress and compare all that --reuse copies, and not only a sample.")
@click.option("--iidfile", metavar="FILE", type=click.Path(), help="Write the manifest digest to this file.")
@click.option(
    "--metadata-file",
    metavar="FILE",
    type=click.Path(),
    help="Write name, digests and descriptor of the image to this file, as JSON.",
)
@click.option(
    "--deny",
    multiple=True,
    type=click.Choice(("secrets",)),
    help="Fail if the new layers hold private keys, tokens or passwords, and name the files.",
)
@report_option
@click.option(
    "--dry-run",
    is_flag=True,
    help="Show what would be added, largest first, and why; no image is made. What --add names counts too.",
)
@layer_options
@limit_options
@registry_options
@cache_options
@common("store", "address", "namespace", "snapshotter", "json", "quiet", "progress", "verbose")
@pass_settings
def command(
    settings: Settings,
    /,
    *,
    source: str | None,
    name: str | None,
    upper_tar: str | None,
    base: str | None,
    lower: str | None,
    author: str | None,
    message: str | None,
    changes: ConfigChanges,
    add: tuple[str, ...],
    annotation: tuple[tuple[str, str], ...],
    format: FormatName,  # noqa: A002 - as the option is called
    omit_history: bool,
    squash: bool,
    squash_last: int | None,
    max_layers: int | None,
    layers: int,
    reuse: str,
    verify: bool,
    platform: str | None,
    iidfile: str | None,
    metadata_file: str | None,
    report: str | None,
    limits: ocidiff.Limits,
    pause: bool,
    registry: ocidiff.Registry,
    deny: tuple[str, ...],
    dry_run: bool,
    **options: Unpack[DiffArguments],
) -> None:
    """Commit SOURCE as an image.

    SOURCE is the name of a working container, whose base is the image it was created from; or a directory, which has a
    slash or is a dot: ./rootfs; or a container of containerd: containerd:ID. With --upper-tar there is no SOURCE, or a
    container: then the tar holds what its sandbox changed. Prints the digest of the image's manifest.

    The image and its base may be in other places, as in `ocidiff copy`: docker://HOST/REPO:TAG sends the image to a
    registry. Layers of the base that are there already are neither needed here nor sent.

    The configuration is that of the base with the instructions of --change, in order, then without what --unset-* names,
    then with the settings of --env, --label, --cmd, --entrypoint, --workdir and --user.
    """
    if dry_run and (iidfile or metadata_file):
        raise click.UsageError("--iidfile and --metadata-file: cannot be used with --dry-run, which makes no image")
    if dry_run and report:
        raise click.UsageError("--report: cannot be used with --dry-run, which makes no image")
    upper = None if upper_tar is None else upper_tar_of(upper_tar, limits)
    tree, image_name = _source(source, name, upper)
    in_containerd = settings.is_containerd(tree if isinstance(tree, str) else "")
    settings.check_new_name(image_name, in_containerd=in_containerd)
    place = "containerd" if in_containerd else settings.store_path()
    container = tree if isinstance(tree, str) and may_be_container(tree) else None
    # The files first, so that no image is made whose digest cannot be told.
    with (
        naming(place),
        nullcontext() if iidfile is None else open_output(iidfile) as iid,
        nullcontext() if metadata_file is None else open_output(metadata_file) as metadata,
        nullcontext() if report is None else open_output(report) as page,
        _open_store(settings, container) as store,
    ):
        found = tree if container is None else _container(store, container, in_containerd=in_containerd)
        arguments: CommitArguments = {
            "upper": None if container is None else upper,
            "base": base,
            "lower": lower,
            "author": author,
            "message": message,
            "changes": changes,
            "additions": add,
            "annotations": dict(annotation),
            "format": format,
            "omit_history": omit_history,
            "squash": squash,
            "squash_last": squash_last,
            "max_layers": max_layers,
            "layers": layers,
            "reuse": reuse,
            "verify": verify,
            "platform": platform,
            "limits": limits,
            "pause": pause,
            "deny": deny,
        }
        arguments.update(options)  # type: ignore[typeddict-item]  # of which it has all
        new_name = image_name.removeprefix(CONTAINERD)
        if dry_run and deny:
            raise click.UsageError("--deny: cannot be used with --dry-run, which reads no contents")
        if dry_run:
            from ocidiff.cli.dry_run import Listing

            listing = Listing()
            with shown(settings, "commit") as progress:
                skipped = store.preview(found, new_name, listing.take, registry=registry, progress=progress, **arguments)
            listing.emit(skipped, json=settings.json)
            return
        with shown(settings, "commit") as progress:
            image = store.commit(found, new_name, registry=registry, progress=progress, **arguments)
        # The image is there, whatever becomes of the files.
        emit(as_json(image.to_dict()) if settings.json else image.descriptor.digest)
        if iid is not None:
            with naming(str(iidfile)):
                write_all(iid, image.descriptor.digest.encode())
        if metadata is not None:
            with naming(str(metadata_file)):
                write_all(metadata, as_json(metadata_document(image)).encode() + b"\n")
        if page is not None:
            from ocidiff.cli.report import report_commit

            report_commit(settings, store, image, page, str(report), limits=limits, engine=options.get("engine"))
    for layer in image.layers if not settings.quiet else ():
        warn_of_skipped("commit", layer.skipped)
        warn_of_changes("commit", layer)
    if settings.verbose or (sys.stderr.isatty() and not settings.quiet):
        for line in map(layer_line, image.layers) if image.layers else ("no change, no layer",):
            complain(f"{image.name}: {line}")


def _source(first: str | None, second: str | None, upper: ocidiff.UpperTar | None) -> tuple[str | ocidiff.UpperTar, str]:
    """Return the source and the name of the image that a command line names.

    Raises:
        UsageError: It names one too few, or too many.
    """
    if upper is None:
        if first is None or second is None:
            raise click.UsageError("missing argument: give SOURCE and NAME[:TAG]")
        return first, second
    if first is None or (second is not None and not may_be_container(first)):
        raise click.UsageError("--upper-tar: give NAME[:TAG], or a working container and NAME[:TAG]")
    return (upper, first) if second is None else (first, second)


def _open_store(settings: Settings, container: str | None) -> ocidiff.Store:
    """The store, made for a directory; a container is in one that is there."""
    if settings.is_containerd(container or ""):
        return settings.open_store(container or "")
    try:
        return settings.open_store(create=container is None)
    except FileNotFoundError:
        if container is None:
            raise
        raise _no_container(container) from None


def _container(store: ocidiff.Store, name: str, *, in_containerd: bool) -> Container:
    if in_containerd:
        return store.container(name.removeprefix(CONTAINERD))
    try:
        return store.container(name)
    except NotFoundError:
        raise _no_container(name) from None


def _no_container(name: str) -> NotFoundError:
    hint = f"; for the directory of that name write ./{name}" if os.path.isdir(name) else ""
    return NotFoundError(f"no working container {name!r}{hint}")
