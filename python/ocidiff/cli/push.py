"""`ocidiff push`: an image from the local store into a registry."""

from __future__ import annotations

import click

import ocidiff
from ocidiff.cli.names import IMAGE
from ocidiff.cli.places import REGISTRY, copy, copy_options
from ocidiff.cli.settings import Settings, pass_settings


@click.command("push", epilog="Example: ocidiff push app:v2 localhost:5000/team/app:v2")
@click.argument("name", metavar="NAME[:TAG]", type=IMAGE)
@click.argument("target", metavar="HOST/REPO[:TAG]", required=False)
@copy_options()
@pass_settings
def command(
    settings: Settings,
    /,
    *,
    name: str,
    target: str | None,
    platform: str | None,
    everything: bool,
    registry: ocidiff.Registry,
) -> None:
    """Copy an image from the local store into a registry.

    Without HOST/REPO the name says where: localhost:5000/team/app:v2. What the registry has is not sent; what another of its
    repositories has is mounted from there. Prints the digest of the image's manifest or index.
    """
    where = REGISTRY + (target or name).removeprefix(REGISTRY)
    copy(settings, "push", name, where, platform=platform, everything=everything, registry=registry)
