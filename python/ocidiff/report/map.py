"""Map: the two treemaps of a report as HTML, by directory and by layer. Pure."""

from __future__ import annotations

import html
import os
from collections.abc import Iterator, Sequence
from typing import Final

from ocidiff.printable import shortened
from ocidiff.report.survey import Survey
from ocidiff.report.tree import GROUPS, Node
from ocidiff.report.treemap import Rectangle, squarified
from ocidiff.sizes import counted, size
from ocidiff.values import dataclass

# Laid out in pixels, written in percent to fit any screen.
_WHOLE: Final = Rectangle(0, 0, 1200, 640)
_HEAD: Final = 18
_SMALLEST_BOX: Final = (80, 52)
_LONGEST_LABEL: Final = 40
_LONGEST_TITLE: Final = 120


@dataclass(frozen=True, slots=True)
class _Area:
    """An area of a map.

    Attributes:
        label: Its name, as it was given; empty for the rest of a directory.
        path: Path that its title shows.
        size: Bytes.
        files: Number of files.
        group: The group of layers that has most of it.
        is_wasted: True for what no tree shows.
        parts: What is in it.
    """

    label: str
    path: str
    size: int
    files: int
    group: int
    is_wasted: bool
    parts: tuple[_Area, ...]


def maps(survey: Survey) -> Iterator[str]:
    """Yield both maps, and what chooses one of them."""
    for key, label, checked in (("directory", "By directory", " checked"), ("layer", "By layer", "")):
        yield f'<input class="pick" type="radio" name="map" id="by-{key}"{checked}><label for="by-{key}">{label}</label>'
    wasted = [0] * GROUPS
    for layer in survey.layers:
        wasted[layer.group] += layer.wasted_bytes
    directories = _parts(survey.tree, "", None)
    if survey.wasted_bytes:
        directories = _ordered([*directories, _waste(survey.wasted_bytes, wasted.index(max(wasted)))])
    yield from _map("directory", "the directories of the tree", directories)
    yield from _map("layer", "the layers", _by_layer(survey, wasted))


def _by_layer(survey: Survey, wasted: Sequence[int]) -> tuple[_Area, ...]:
    found = []
    for group in range(GROUPS):
        layers = [layer for layer in survey.layers if layer.group == group]
        parts = _parts(survey.tree, "", group)
        if wasted[group]:
            parts = _ordered([*parts, _waste(wasted[group], group)])
        total = sum(part.size for part in parts)
        if total:
            files = sum(layer.files for layer in layers)
            name = f"layer {layers[0].number}" if len(layers) == 1 else counted(len(layers), "other layer")
            found.append(_Area(name, name, total, files, group, is_wasted=False, parts=parts))
    return _ordered(found)


def _waste(count: int, group: int) -> _Area:
    return _Area("wasted", "wasted: deleted or replaced by a later layer", count, 0, group, is_wasted=True, parts=())


def _parts(node: Node, path: str, group: int | None) -> tuple[_Area, ...]:
    """Return the areas of what is in a directory, of one group of layers or of all."""
    found = []
    for child in node.children:
        count = child.size if group is None else child.groups[group]
        if count:
            name = os.fsdecode(child.name)
            below = f"{path}/{name}" if name else f"{path or '/'}: other files"
            most = max(range(GROUPS), key=lambda one: child.groups[one]) if group is None else group
            parts = _parts(child, below, group) if child.is_directory else ()
            files = child.files if group is None else 0
            found.append(_Area(name, below, count, files, most, is_wasted=False, parts=parts))
    return _ordered(found)


def _ordered(areas: Sequence[_Area]) -> tuple[_Area, ...]:
    return tuple(sorted(areas, key=lambda area: (-area.size, area.path)))


def _map(key: str, what: str, areas: Sequence[_Area]) -> Iterator[str]:
    largest = ", ".join(f"{shortened(area.label or 'other files', _LONGEST_LABEL)} {size(area.size)}" for area in areas[:5])
    label = html.escape(f"Treemap of {what}. Largest: {largest}.")
    yield f'<div class="map" id="map-{key}" role="img" aria-label="{label}">'
    yield from _tiles(areas, _WHOLE)
    yield "</div>\n"


def _tiles(areas: Sequence[_Area], within: Rectangle) -> Iterator[str]:
    inner = Rectangle(0, 0, within.width, within.height)
    for area, place in zip(areas, squarified([area.size for area in areas], inner), strict=True):
        right = within.width - place.left - place.width
        bottom = within.height - place.top - place.height
        across, down = 100 / within.width, 100 / within.height
        inset = " ".join(
            f"{max(0.0, share):.2f}%" for share in (place.top * down, right * across, bottom * down, place.left * across)
        )
        files = f", {counted(area.files, 'file')}" if area.files else ""
        title = html.escape(f"{shortened(area.path, _LONGEST_TITLE)}\n{size(area.size)}{files}")
        label = html.escape(shortened(area.label, _LONGEST_LABEL)) or "other"
        place_and_title = f'style="inset:{inset}" title="{title}"'
        is_box = bool(area.parts) and place.width >= _SMALLEST_BOX[0] and place.height >= _SMALLEST_BOX[1]
        if is_box:
            yield f'<div class="box" {place_and_title}><b>{label} · {size(area.size)}</b><div class="in">'
            yield from _tiles(area.parts, Rectangle(0, 0, place.width - 2, place.height - _HEAD - 2))
            yield "</div></div>"
        else:
            kind = f"tile g{area.group}" + (" waste" if area.is_wasted else "")
            yield f'<div class="{kind}" {place_and_title}><b>{label}</b><i>{size(area.size)}</i></div>'
