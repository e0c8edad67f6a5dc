"""`ocidiff history`: the steps that an image was made by."""

from __future__ import annotations

import click

import ocidiff
from ocidiff.cli.options import Settings, common, pass_settings
from ocidiff.cli.render import as_json, columns, size
from ocidiff.cli.streams import emit
from ocidiff.oci.config import History
from ocidiff.oci.descriptor import Descriptor


@click.command("history", epilog="Example: ocidiff history app:v2")
@click.argument("image", metavar="IMAGE")
@common("store", "json")
@pass_settings
def command(settings: Settings, image: str) -> None:
    """List the steps that made IMAGE, the last one first, each with the layer that it added."""
    with ocidiff.Store.open(settings.store_path(), create=False) as store:
        steps = store.history(image)
    if settings.json:
        for step, layer in reversed(steps):
            emit(as_json(_document(step, layer)))
    else:
        for line in columns(("CREATED", "CREATED BY", "SIZE", "COMMENT"), (_row(*step) for step in reversed(steps))):
            emit(line)


def _document(step: History, layer: Descriptor | None) -> dict[str, object]:
    return {
        "created": step.created or None,
        "createdBy": step.created_by,
        "author": step.author,
        "comment": step.comment,
        "layer": layer and {"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size},
    }


def _row(step: History, layer: Descriptor | None) -> tuple[str, ...]:
    return (step.created or "-", step.created_by or "-", "-" if layer is None else size(layer.size), step.comment or "-")
