"""Draw `docs/ratio.svg` from the figures in `benches/runs/ratios.json`: `python benches/ratio_chart.py`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

FIGURES: Final = Path(__file__).with_name("runs") / "ratios.json"
CHART: Final = Path(__file__).parents[1] / "docs/ratio.svg"
COLOURS: Final = {"containerd": "#3b6ea5", "buildah": "#c47f17", "umoci": "#6b8e4e"}
WIDTH: Final = 800
LABEL_WIDTH: Final = 340
BAR_HEIGHT: Final = 16
GAP: Final = 12
# One multiple is the left edge; the scale is logarithmic, so that 1.4 and 116 fit.
LARGEST: Final = 150.0


def chart() -> str:
    """Return the picture as SVG."""
    rows = [
        (work["name"], peer, seconds[0] / work["ocidiff"][0])
        for work in json.loads(FIGURES.read_text())["works"]
        for peer, seconds in work["peers"].items()
    ]
    parts: list[str] = []
    top, before = 44, ""
    for name, peer, ratio in rows:
        top += GAP if name != before else 0
        if name != before:
            parts.append(f'<text x="{LABEL_WIDTH - 10}" y="{top + 12}" text-anchor="end">{escape(name)}</text>')
        width = max(2.0, (WIDTH - LABEL_WIDTH - 130) * math.log(ratio) / math.log(LARGEST))
        parts.append(
            f'<rect x="{LABEL_WIDTH}" y="{top}" width="{width:.1f}" height="{BAR_HEIGHT - 2}" fill="{COLOURS[peer]}"/>'
            f'<text x="{LABEL_WIDTH + width + 6:.1f}" y="{top + 12}">{peer} {_shown(ratio)}x</text>'
        )
        top, before = top + BAR_HEIGHT, name
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top + 30}" font-family="sans-serif" font-size="13">'
        f'<rect width="100%" height="100%" fill="#ffffff"/>'
        '<text x="20" y="26" font-size="16" font-weight="bold">Time of other tools, in multiples of ocidiff\'s</text>'
    )
    foot = f'<text x="20" y="{top + 20}" fill="#666666">Logarithmic scale; longer is slower.</text></svg>'
    return "\n".join([head, *parts, foot]) + "\n"


def _shown(ratio: float) -> str:
    return f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.1f}"


if __name__ == "__main__":
    CHART.write_text(chart())
