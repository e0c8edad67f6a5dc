"""Treemap: rectangles whose areas are as sizes are. Pure.

The layout is "squarified": Bruls, Huizing and van Wijk, 2000. Rows are filled along the shorter side for as long as that
makes their rectangles more like squares.
"""

from __future__ import annotations

from collections.abc import Sequence

from ocidiff.values import dataclass


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A rectangle.

    Attributes:
        left, top: Its corner.
        width, height: Its sides.
    """

    left: float
    top: float
    width: float
    height: float


def squarified(sizes: Sequence[int], area: Rectangle) -> list[Rectangle]:
    """Return a rectangle within `area` for each size.

    Args:
        sizes: Largest first, each above 0.
        area: All of it is filled.
    """
    found: list[Rectangle] = []
    rest, left = area, sum(sizes)
    while len(found) < len(sizes):
        begin = len(found)
        scale = rest.width * rest.height / left
        side = min(rest.width, rest.height)
        end, total = begin + 1, sizes[begin]
        worst = _worst(sizes[begin], sizes[begin], total, side, scale)
        while end < len(sizes):
            next_worst = _worst(sizes[begin], sizes[end], total + sizes[end], side, scale)
            if next_worst > worst:
                break
            total, worst, end = total + sizes[end], next_worst, end + 1
        rest = _fill(sizes[begin:end], total, total / left, rest, found)
        left -= total
    return found


def _worst(largest: int, smallest: int, total: int, side: float, scale: float) -> float:
    """Return the worst ratio of sides in a row along `side`."""
    if side <= 0 or scale <= 0:
        return 0.0
    depth = total * scale / side
    return max(largest * scale / depth / depth, depth * depth / (smallest * scale))


def _fill(sizes: Sequence[int], total: int, share: float, area: Rectangle, found: list[Rectangle]) -> Rectangle:
    """Append a row that takes a share of the area, and return the rest of the area."""
    before = 0
    for size in sizes:
        start, part = before / total, size / total
        if area.width >= area.height:
            width = area.width * share
            found.append(Rectangle(area.left, area.top + area.height * start, width, area.height * part))
        else:
            height = area.height * share
            found.append(Rectangle(area.left + area.width * start, area.top, area.width * part, height))
        before += size
    if area.width >= area.height:
        width = area.width * share
        return Rectangle(area.left + width, area.top, area.width - width, area.height)
    height = area.height * share
    return Rectangle(area.left, area.top + height, area.width, area.height - height)
