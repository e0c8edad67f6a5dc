"""Plot: figures as inline SVG. Pure.

Places across are in percent and texts in pixels, so that a plot fits any width and its texts keep their size.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from typing import Final

from ocidiff.values import dataclass

STYLE: Final = """
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));gap:22px 44px;margin:12px 0 0}
h3{font-size:15px;line-height:1.35;margin:0 0 6px}
.plot{display:block;width:100%;overflow:visible;font-size:13px;font-variant-numeric:tabular-nums}
.plot text{fill:var(--text)}.plot .axis{fill:var(--soft);font-size:12px}
.plot line{stroke:var(--line)}.plot .range,.plot .one{stroke:var(--text);stroke-width:1.5}
.plot .own{fill:var(--accent)}.plot .other{fill:var(--soft);fill-opacity:.55}
.plot circle{fill:var(--card);stroke:var(--text);stroke-width:1.5}
.scroll{overflow-x:auto}.scroll td,.scroll th{white-space:nowrap}
.swatch{display:inline-block;width:12px;height:12px;border-radius:6px;margin-right:7px;vertical-align:-1px}
"""
_ROW: Final = 42
_BAR_TOP: Final = 19
_BAR: Final = 14
_FOOT: Final = 40
_TICKS: Final = 5
_SCATTER: Final = 280
_DOT: Final = 3
_POINT: Final = 6
_STEPS: Final = (1, 2, 5, 10)


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar.

    Attributes:
        label: Its name.
        value: Its length.
        note: Text at the right.
        is_own: True for ocidiff.
        dots: Single values, shown as points with a line from the least to the most.
    """

    label: str
    value: float
    note: str
    is_own: bool
    dots: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Point:
    """A point.

    Attributes:
        label: Its name.
        across, up: Where it is.
        colour: Number of its colour, of those of the style.
    """

    label: str
    across: float
    up: float
    colour: int


def bars(rows: Sequence[Bar], axis: str) -> Iterator[str]:
    """Yield horizontal bars over a linear axis that begins at 0.

    Args:
        rows: The bars.
        axis: What the axis shows, with its unit.
    """
    most = max((*(row.value for row in rows), *(dot for row in rows for dot in row.dots)))
    ticks = linear_ticks(most)
    yield from _open(len(rows), f"{axis}: " + ", ".join(f"{row.label} {row.note}" for row in rows))
    yield from _axis([(tick / ticks[-1], number(tick)) for tick in ticks], len(rows) * _ROW, axis)
    for place, row in enumerate(rows):
        yield from _bar(row, place, 0.0, row.value / ticks[-1])
        middle = place * _ROW + _BAR_TOP + _BAR / 2
        if row.dots:
            least, largest = min(row.dots) / ticks[-1], max(row.dots) / ticks[-1]
            yield f'<line class="range" x1="{least:.2%}" x2="{largest:.2%}" y1="{middle}" y2="{middle}"/>'
        yield from (f'<circle cx="{dot / ticks[-1]:.2%}" cy="{middle}" r="{_DOT}"/>' for dot in row.dots)
    yield "</svg>\n"


def ratios(rows: Sequence[Bar], axis: str) -> Iterator[str]:
    """Yield bars over a logarithmic axis, which begin at 1 and go to either side; arguments as of `bars`."""
    ticks = log_ticks(min(1.0, *(row.value for row in rows)), max(2.0, *(row.value for row in rows)))
    low, whole = math.log(ticks[0]), math.log(ticks[-1] / ticks[0])

    def place_of(value: float) -> float:
        return (math.log(value) - low) / whole

    yield from _open(len(rows), f"{axis}: " + ", ".join(f"{row.label} {row.note}" for row in rows))
    yield from _axis([(place_of(tick), f"{number(tick)}x") for tick in ticks], len(rows) * _ROW, axis)
    for place, row in enumerate(rows):
        yield from _bar(row, place, *sorted((place_of(1.0), place_of(row.value))))
    one = place_of(1.0)
    yield f'<line class="one" x1="{one:.2%}" x2="{one:.2%}" y1="0" y2="{len(rows) * _ROW}"/></svg>\n'


def scatter(points: Sequence[Point], across: str, up: str) -> Iterator[str]:
    """Yield points over two linear axes that begin at 0, and their names.

    Args:
        points: The points.
        across: What its axis shows, with the unit.
        up: Likewise.
    """
    columns, rows = linear_ticks(max(point.across for point in points)), linear_ticks(max(point.up for point in points))
    label = "; ".join(f"{point.label}: {number(point.across)} {across}, {number(point.up)} {up}" for point in points)
    yield f'<svg class="plot" height="{_SCATTER + _FOOT + 18}" role="img" aria-label="{html.escape(label)}">'
    yield f'<text class="axis" x="0" y="11">{html.escape(up)}</text>'
    yield f'<svg y="18" height="{_SCATTER + _FOOT}" overflow="visible">'
    for tick in rows:
        level = _SCATTER * (1 - tick / rows[-1])
        yield f'<line x1="0" x2="100%" y1="{level:.1f}" y2="{level:.1f}"/>'
        yield f'<text class="axis" x="2" y="{level + 13:.1f}">{number(tick)}</text>' if tick else ""
    yield from _axis([(tick / columns[-1], number(tick)) for tick in columns], _SCATTER, across)
    for point in points:
        level = _SCATTER * (1 - point.up / rows[-1])
        yield (
            f'<circle cx="{point.across / columns[-1]:.2%}" cy="{level:.1f}" r="{_POINT}" '
            f'style="fill:var(--g{point.colour})"><title>{html.escape(point.label)}</title></circle>'
        )
    yield '</svg></svg>\n<ul class="key" aria-label="Colours">'
    for point in points:
        swatch = f'<span class="swatch" style="background:var(--g{point.colour});border:1.5px solid var(--text)"></span>'
        yield f"<li>{swatch}{html.escape(point.label)}</li>"
    yield "</ul>\n"


def linear_ticks(most: float) -> list[float]:
    """Return round numbers from 0 to the first one that is not below `most`."""
    rough = (most or 1.0) / (_TICKS - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in _STEPS if factor * power >= rough * (1 - 1e-9))
    return [step * count for count in range(math.ceil((most or 1.0) / step - 1e-9) + 1)]


def log_ticks(least: float, most: float) -> list[float]:
    """Return 1, 2 and 5 times powers of ten, or the powers alone if those are too many, around `least` and `most`."""
    low, high = math.floor(math.log10(least)), math.ceil(math.log10(most))
    steps = (1,) if high - low > 2 else _STEPS[:3]
    ticks = [step * 10.0**power for power in range(low, high + 1) for step in steps]
    first = max((tick for tick in ticks if tick <= least * (1 + 1e-9)), default=ticks[0])
    last = min((tick for tick in ticks if tick >= most * (1 - 1e-9)), default=ticks[-1])
    return [tick for tick in ticks if first <= tick <= last]


def number(value: float) -> str:
    """Return a number without digits that do not count."""
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def _open(rows: int, label: str) -> Iterator[str]:
    yield f'<svg class="plot" height="{rows * _ROW + _FOOT}" role="img" aria-label="{html.escape(label)}">'


def _bar(row: Bar, place: int, begin: float, end: float) -> Iterator[str]:
    top = place * _ROW
    yield (
        f'<text x="0" y="{top + 13}">{html.escape(row.label)}</text>'
        f'<text x="100%" y="{top + 13}" text-anchor="end">{html.escape(row.note)}</text>'
        f'<rect class="{"own" if row.is_own else "other"}" x="{begin:.2%}" width="{end - begin:.2%}" y="{top + _BAR_TOP}" '
        f'height="{_BAR}" rx="2"/>'
    )


def _axis(ticks: Sequence[tuple[float, str]], bottom: int, axis: str) -> Iterator[str]:
    """Yield vertical lines, the numbers below them, and what they are."""
    for place, text in ticks:
        anchor = "start" if place <= 0 else "end" if place > 0.999 else "middle"
        yield f'<line x1="{place:.2%}" x2="{place:.2%}" y1="0" y2="{bottom}"/>'
        yield f'<text class="axis" x="{place:.2%}" y="{bottom + 14}" text-anchor="{anchor}">{text}</text>'
    yield f'<text class="axis" x="50%" y="{bottom + 32}" text-anchor="middle">{html.escape(axis)}</text>'
