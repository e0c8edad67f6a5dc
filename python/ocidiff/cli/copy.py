"""`ocidiff copy`: an image from any place to any other."""

from __future__ import annotations

import click

import ocidiff
from ocidiff.cli.places import copy, copy_options
from ocidiff.cli.settings import Settings, pass_settings


@click.command("copy", epilog="Example: ocidiff copy app:v2 oci:layout:v2")
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
@copy_options("address", "namespace", "snapshotter")
@pass_settings
def command(
    settings: Settings,
    /,
    *,
    source: str,
    target: str,
    platform: str | None,
    everything: bool,
    registry: ocidiff.Registry,
) -> None:
    """Copy an image from SRC to DST.

    Both are NAME[:TAG] in the local store, oci:DIR[:TAG], oci-archive:FILE, docker-archive:FILE,
    docker://HOST/REPO[:TAG][@DIGEST] or containerd:NAME. Digests stay as they are. What DST has is not copied, and a copy
    that was interrupted goes on. Prints the digest of the image's manifest or index.
    """
    copy(settings, "copy", source, target, platform=platform, everything=everything, registry=registry)
