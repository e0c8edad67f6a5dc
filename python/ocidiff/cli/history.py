"""`ocidiff history`: list the steps that an image was made by."""

from __future__ import annotations

from typing import Final

import click

from ocidiff.cli.listing import Row, ago, listing_options, write_listing
from ocidiff.cli.names import IMAGE
from ocidiff.cli.options import platform_option
from ocidiff.cli.settings import CONTAINERD, Settings, common, pass_settings
from ocidiff.oci.config import History
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.timestamp import time_ns_of
from ocidiff.sizes import size

_HEADS: Final = ("CREATED", "CREATED BY", "SIZE", "COMMENT")
_FILTERS: Final = ("empty",)
_SHOWN_CHARACTERS: Final = 45


@click.command("history", epilog="Example: ocidiff history app:v2")
@click.argument("image", metavar="IMAGE", type=IMAGE)
@platform_option
@listing_options(_FILTERS)
@common("store", "containerd", "address", "namespace", "json", without=("quiet",))
@pass_settings
def command(
    settings: Settings,
    /,
    *,
    image: str,
    platform: str | None,
    only_ids: bool,
    no_trunc: bool,
    filters: list[tuple[str, str]],
    template: str | None,
) -> None:
    """List the steps that made IMAGE, the last one first, each with the layer that it added.

    Ids are the digests of the layers; a step without a layer has none.
    """
    with settings.open_store(image) as store:
        steps = store.history(image.removeprefix(CONTAINERD), platform=platform)
    shown = [step for step in reversed(steps) if all(_passes(step[1], value) for _, value in filters)]
    rows = [_row(*step) for step in shown if step[1] is not None or not only_ids]
    write_listing(_HEADS, rows, settings, only_ids=only_ids, no_trunc=no_trunc, template=template)


def _passes(layer: Descriptor | None, value: str) -> bool:
    if value not in {"true", "false"}:
        raise click.UsageError(f"--filter empty={value}: must be true or false")
    return (layer is None) == (value == "true")


def _row(step: History, layer: Descriptor | None) -> Row:
    document = {
        "created": step.created or None,
        "createdBy": step.created_by,
        "author": step.author,
        "comment": step.comment,
        "layer": layer and {"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size},
    }
    bytes_ = "-" if layer is None else size(layer.size)
    command, comment = step.created_by or "-", step.comment or "-"
    short = command if len(command) <= _SHOWN_CHARACTERS else command[: _SHOWN_CHARACTERS - 1] + "…"
    return Row(
        "" if layer is None else layer.digest,
        document,
        (ago(time_ns_of(step.created)), short, bytes_, comment),
        (step.created or "-", command, bytes_, comment),
    )
