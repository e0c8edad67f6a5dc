"""How results are written: JSON for programs, lines and columns for people. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from ocidiff.sizes import size

if TYPE_CHECKING:
    from ocidiff.embedded.containers import Container
    from ocidiff.image.image import Image
    from ocidiff.layer.layer import ApplySummary, Change, Layer
    from ocidiff.layer.totals import Totals
    from ocidiff.transport.copy import Copied

_SURROGATES = range(0xDC80, 0xDD00)


def as_json(document: object) -> str:
    """One line of JSON, in ASCII, so that a name that is not UTF-8 survives any encoding of stdout."""
    return json.dumps(document)


def printable(text: str) -> str:
    """The text with every character escaped that would break the line or steer a terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def _escape(char: str) -> str:
    if ord(char) in _SURROGATES:
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")


def counted(count: int, one: str, many: str = "") -> str:
    """Return a number of things: `1 layer`, `2 layers`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def columns(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines with the cells below their heads."""
    table = [tuple(heads), *(tuple(map(printable, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def change_document(change: Change) -> Mapping[str, object]:
    """The JSON object that stands for a change; with its reasons and sizes where it is explained."""
    document: dict[str, object] = {"kind": change.kind, "path": change.path}
    if change.reason:
        document["reason"] = list(change.reason)
        document["upperSize"] = change.upper_bytes
        document["lowerSize"] = change.lower_bytes
        document["layerSize"] = change.layer_bytes
    return document


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


def copied_document(copied: Copied) -> Mapping[str, object]:
    """The JSON object that stands for an image that was copied."""
    return {
        "source": copied.source,
        "target": copied.target,
        "descriptor": copied.descriptor.document(),
        "copied": {"blobs": copied.copied, "bytes": copied.copied_bytes, "kept": copied.kept_bytes},
        "skipped": {"blobs": copied.skipped, "bytes": copied.skipped_bytes},
        "mounted": {"blobs": copied.mounted, "bytes": copied.mounted_bytes},
        "seconds": round(copied.seconds, 3),
    }


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


def layer_document(layer: Layer) -> Mapping[str, object]:
    """The JSON object that stands for a layer."""
    return {
        "mediaType": layer.descriptor.media_type,
        "digest": layer.descriptor.digest,
        "size": layer.descriptor.size,
        "diffID": layer.diff_id,
        "uncompressedSize": layer.uncompressed_size,
        "empty": layer.empty,
        "changes": {"added": layer.added, "modified": layer.modified, "deleted": layer.deleted},
        "skipped": dict(layer.skipped),
        "retried": layer.retried,
        "vanished": layer.vanished,
        "seconds": round(layer.seconds, 6),
    }


def layer_line(layer: Layer) -> str:
    """What a layer is, in a line for people."""
    excluded = f", {layer.skipped['excluded']} excluded" if "excluded" in layer.skipped else ""
    return (
        f"{layer.added} added, {layer.modified} modified, {layer.deleted} deleted{excluded}; "
        f"{size(layer.descriptor.size)}, {size(layer.uncompressed_size)} uncompressed; {layer.seconds:.2f} s"
    )


def image_document(image: Image) -> Mapping[str, object]:
    """The JSON object that stands for an image, and for the layer that the call added to it."""
    return {
        "name": image.name,
        "mediaType": image.descriptor.media_type,
        "digest": image.descriptor.digest,
        "size": image.descriptor.size,
        "configDigest": image.config_digest,
        "layer": image.layer and layer_document(image.layer),
        "seconds": round(image.seconds, 6),
    }


def metadata_document(image: Image) -> Mapping[str, object]:
    """The JSON object that names an image to scripts, with the keys of BuildKit and buildah."""
    return {
        "image.name": image.name,
        "containerimage.digest": image.descriptor.digest,
        "containerimage.config.digest": image.config_digest,
        "containerimage.descriptor": image.descriptor.document(),
    }


def container_document(container: Container) -> Mapping[str, object]:
    """The JSON object that stands for a working container."""
    from ocidiff.oci.timestamp import timestamp

    return {
        "name": container.name,
        "image": container.image,
        "manifestDigest": container.manifest.digest,
        "created": timestamp(container.created_ns),
        "driver": container.driver,
        "snapshot": container.snapshot,
        "mountPoint": container.mount_point,
        "partlyRemoved": container.partly_removed,
    }


def applied_document(summary: ApplySummary) -> Mapping[str, object]:
    """The JSON object that stands for what was applied."""
    return {
        "digest": summary.digest,
        "size": summary.size,
        "diffID": summary.diff_id,
        "uncompressedSize": summary.uncompressed_size,
        "entries": summary.entries,
        "whiteouts": summary.whiteouts,
        "skipped": dict(summary.skipped),
        "recorded": summary.recorded,
    }
