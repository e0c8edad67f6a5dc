"""`ocidiff pull`: an image from a registry into the local store."""

from __future__ import annotations

import click

import ocidiff
from ocidiff.cli.places import REGISTRY, copy, copy_options
from ocidiff.cli.settings import Settings, pass_settings


@click.command("pull", epilog="Example: ocidiff pull debian:13")
@click.argument("source", metavar="[HOST/]REPO[:TAG][@DIGEST]")
@click.argument("name", metavar="NAME[:TAG]", required=False)
@copy_options(writing=False)
@pass_settings
def command(
    settings: Settings,
    /,
    *,
    source: str,
    name: str | None,
    platform: str | None,
    everything: bool,
    registry: ocidiff.Registry,
) -> None:
    """Copy an image from a registry into the local store.

    Names mean what they mean to Docker. The image gets the name that it was asked for by, unless NAME is given. What the
    store has is not copied, and a pull that was interrupted goes on. Prints the digest of the image's manifest or index.
    """
    asked = source.removeprefix(REGISTRY)
    plain, _, digest = asked.partition("@")
    if name is None and digest and ":" not in plain.rpartition("/")[2]:
        raise click.UsageError(f"{asked}: a digest is not a name; give one, as in `ocidiff pull {asked} NAME`")
    target = name or plain
    copy(settings, "pull", REGISTRY + asked, target, platform=platform, everything=everything, registry=registry)
