"""Rendering of results: JSON for programs, lines and columns for people. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from ocidiff.printable import printable
from ocidiff.sizes import size

if TYPE_CHECKING:
    from ocidiff.image.image import Image
    from ocidiff.layer.layer import Change, Layer
    from ocidiff.layer.totals import Totals


def as_json(document: object) -> str:
    """One line of JSON, in ASCII, so that a name that is not UTF-8 survives any encoding of stdout."""
    return json.dumps(document)


def columns(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines with the cells below their heads."""
    table = [tuple(heads), *(tuple(map(printable, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def explained(change: Change) -> str:
    """Why a change is one, for people: what follows its path, after tabs."""
    from ocidiff.layer.layer import ChangeKind

    upper, lower = change.upper_bytes or 0, change.lower_bytes or 0
    if change.kind is ChangeKind.ADD:
        text = size(upper)
    elif change.kind is ChangeKind.DELETE:
        text = f"was {size(lower)}"
    else:
        text = f"{size(upper)}, was {size(lower)}"
    return "\t" + ",".join(change.reason) + "\t" + text


def totals_document(totals: Totals) -> Mapping[str, object]:
    """The JSON object that stands for what changes add up to."""
    from ocidiff.layer.layer import ChangeKind

    return {
        "added": totals.kinds[ChangeKind.ADD],
        "modified": totals.kinds[ChangeKind.MODIFY],
        "deleted": totals.kinds[ChangeKind.DELETE],
        "layerSize": totals.layer_bytes,
        "largestDirectories": [
            {"path": total.path, "layerSize": total.layer_bytes, "changes": total.changes}
            for total in totals.largest_directories()
        ],
    }


def layer_line(layer: Layer) -> str:
    """Return the counts and sizes of a layer, in a line for people."""
    excluded = f", {layer.skipped['excluded']} excluded" if "excluded" in layer.skipped else ""
    reused = f", {size(layer.reused_bytes)} of it reused" if layer.reused_bytes else ""
    return (
        f"{layer.added} added, {layer.modified} modified, {layer.deleted} deleted{excluded}; "
        f"{size(layer.descriptor.size)}, {size(layer.uncompressed_size)} uncompressed{reused}; {layer.seconds:.2f} s"
    )


def metadata_document(image: Image) -> Mapping[str, object]:
    """The JSON object that names an image to scripts, with the keys of BuildKit and buildah."""
    return {
        "image.name": image.name,
        "containerimage.digest": image.descriptor.digest,
        "containerimage.config.digest": image.config_digest,
        "containerimage.descriptor": image.descriptor.document(),
    }
