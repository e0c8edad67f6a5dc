"""Findings: the files of layers that break a rule."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Final

from ocidiff.errors import ForbiddenContentError
from ocidiff.image.image import Image
from ocidiff.layer.engine import Engine
from ocidiff.layer.layer import Layer
from ocidiff.layer.limits import Limits
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.pure import tar
from ocidiff.layer.pure.tar_reader import Entry, TarReader
from ocidiff.layer.tar_file import FileBytes, Part, plain_tar
from ocidiff.report.rules import Rule, matching
from ocidiff.services.content import ContentStore
from ocidiff.values import dataclass

_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class Finding:
    """A file that breaks a rule.

    Attributes:
        path: Absolute path within the image.
        layer: Number of the layer that has it, from 1 on.
        rule: The rule.
    """

    path: str
    layer: int
    rule: Rule


def findings_of(
    entry: Entry, layer: int, file: int, offset: int, segments: Sequence[tuple[int, int]], *, secrets_only: bool = False
) -> Iterator[Finding]:
    """Yield what is wrong with an entry of a layer.

    Args:
        entry: The entry.
        layer: Number of the layer, from 1 on.
        file: Descriptor of its tar.
        offset: Where the data of the entry begins in it.
        segments: See `Part`.
        secrets_only: Look for secrets only.
    """
    if entry.type != tar.REGULAR:
        return
    for rule in matching(
        entry.path, entry.size, lambda: Part(file, offset, segments).readall() or b"", secrets_only=secrets_only
    ):
        yield Finding("/" + os.fsdecode(entry.path), layer, rule)


def secrets_in(
    content: ContentStore, layers: Sequence[Layer], first: int, *, engine: Engine, monitor: Monitor
) -> Iterator[Finding]:
    """Yield the secrets in layers that were just written.

    Args:
        content: Where the layers are.
        layers: The layers.
        first: Number of the first of them in its image, from 1 on.
        engine: What decompresses them.
        monitor: Stops the call.
    """
    for number, layer in enumerate(layers, first):
        descriptor = layer.descriptor
        with (
            content.open_blob(descriptor) as blob,
            plain_tar(
                blob, descriptor.digest, layer.diff_id, content.spool, engine=engine, limits=_ANY, monitor=monitor
            ) as (file, _),
        ):
            source = FileBytes(file)
            archive = TarReader(source, _ANY)
            for entry in archive.entries():
                monitor.check()
                yield from findings_of(entry, number, file, source.offset, archive.segments(), secrets_only=True)


# Nobody else has written these layers.
_ANY: Final = Limits(max_bytes=None, max_entries=None, max_ratio=None)


def deny(content: ContentStore, image: Image, *, engine: Engine, monitor: Monitor) -> None:
    """Refuse an image whose new layers hold secrets.

    Raises:
        ForbiddenContentError: They do.
    """
    first = len(image.manifest.layers) - len(image.layers) + 1
    found = list(secrets_in(content, image.layers, first, engine=engine, monitor=monitor))
    if found:
        shown = "; ".join(f"{finding.path} ({finding.rule.name})" for finding in found[:_SHOWN])
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise ForbiddenContentError(f"image {image.name}: holds secrets: {shown}{more}")
