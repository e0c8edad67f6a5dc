"""Speed against size of every level: `frontier.py TREE SVG [NAME COMMAND]...` packs TREE with each, and draws what it found.

TREE should be of some hundred megabytes, and of the kind that layers hold. COMMAND is a peer's, with {tree} for TREE and
{empty} for an empty directory, and writes its layer to stdout. Times are medians of three runs with the page cache warm. A
point further up and to the left is better.
"""

from __future__ import annotations

import math
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

import ocidiff
from ocidiff.layer.arguments import CompressionName
from ocidiff.layer.options import EngineName

ROUNDS = 3
MB = 1_000_000


@dataclass
class Series:
    """One compressor at some levels."""

    name: str
    colour: str
    labels: list[str]
    runs: list[Callable[[], int]]
    sizes: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def own(tree: Path, compression: CompressionName, levels: Sequence[int], engine: EngineName, colour: str) -> Series:
    """A compressor of ours; each run gives the size, and proves that the tar is the same."""
    expected = ocidiff.diff(None, tree, os.devnull, compression="none").diff_id

    def at(level: int) -> Callable[[], int]:
        def run() -> int:
            layer = ocidiff.diff(None, tree, os.devnull, compression=compression, level=level, engine=engine)
            assert layer.diff_id == expected, f"{compression} {level}"
            return layer.descriptor.size

        return run

    return Series(f"{engine}, {compression}", colour, [str(level) for level in levels], [at(level) for level in levels])


def peer(tree: Path, empty: Path, name: str, command: str) -> Series:
    """Another program."""
    words = [word.format(tree=tree, empty=empty) for word in shlex.split(command)]

    def run() -> int:
        with tempfile.TemporaryFile() as output:
            subprocess.run(words, check=True, stdout=output)
            return os.fstat(output.fileno()).st_size

    return Series(name, "#555555", [name], [run])


def measure(all_series: list[Series]) -> None:
    """Runs everything, and fills sizes and seconds."""
    for series in all_series:
        for run, label in zip(series.runs, series.labels, strict=True):
            times = []
            for _ in range(ROUNDS):
                start = time.perf_counter()
                size = run()
                times.append(time.perf_counter() - start)
            series.sizes.append(size)
            series.seconds.append(statistics.median(times))
            print(
                f"{series.name:16} {label:>14} {min(times):7.2f} {max(times):7.2f} s {size:>12}", file=sys.stderr, flush=True
            )


def table(all_series: list[Series], plain_bytes: int) -> str:
    """The figures, as Markdown."""
    lines = ["| compressor | level | MB/s | bytes | of the tar |", "|---|---|---|---|---|"]
    for series in all_series:
        for label, size, seconds in zip(series.labels, series.sizes, series.seconds, strict=True):
            level = label if label != series.name else ""
            rate = plain_bytes / MB / seconds
            lines.append(f"| {series.name} | {level} | {rate:.0f} | {size:,} | {size / plain_bytes:.1%} |")
    return "\n".join(lines)


def drawing(all_series: list[Series], plain_bytes: int) -> str:
    """The figures, as SVG: size to the right, speed upwards, twice as fast with every line."""
    width, height, left, right, top, bottom = 760, 460, 64, 24, 24, 56
    ratios = [size / plain_bytes for series in all_series for size in series.sizes]
    rates = [plain_bytes / MB / seconds for series in all_series for seconds in series.seconds]
    least, most = min(ratios) - 0.005, max(ratios) + 0.005
    lowest, highest = math.floor(math.log2(min(rates))), math.ceil(math.log2(max(rates)))

    def x(ratio: float) -> float:
        return left + (ratio - least) / (most - least) * (width - left - right)

    def y(rate: float) -> float:
        return top + (highest - math.log2(rate)) / (highest - lowest) * (height - top - bottom)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]

    def text(at_x: float, at_y: float, content: str, colour: str = "#333333", anchor: str = "start") -> None:
        parts.append(f'<text x="{at_x:.1f}" y="{at_y:.1f}" fill="{colour}" text-anchor="{anchor}">{escape(content)}</text>')

    for power in range(lowest, highest + 1):
        parts.append(f'<path d="M{left} {y(2**power):.1f}H{width - right}" stroke="#dddddd"/>')
        text(left - 6, y(2**power) + 4, f"{2**power} MB/s", anchor="end")
    for percent in range(math.ceil(least * 50) * 2, math.floor(most * 100) + 1, 2):
        text(x(percent / 100), height - bottom + 18, f"{percent} %", anchor="middle")
    text((left + width - right) / 2, height - 14, "size of the layer, of its tar", anchor="middle")
    for place, series in enumerate(all_series):
        points = [
            (x(size / plain_bytes), y(plain_bytes / MB / seconds))
            for size, seconds in zip(series.sizes, series.seconds, strict=True)
        ]
        line = " ".join(f"{at_x:.1f},{at_y:.1f}" for at_x, at_y in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{series.colour}" stroke-width="1.5"/>')
        for (at_x, at_y), label in zip(points, series.labels, strict=True):
            parts.append(f'<circle cx="{at_x:.1f}" cy="{at_y:.1f}" r="3.5" fill="{series.colour}"/>')
            text(at_x + 5, at_y - 5, label, series.colour)
        if series.labels != [series.name]:
            text(left + 12, height - bottom - 12 - 16 * place, series.name, series.colour)
    return "\n".join([*parts, "</svg>\n"])


def main(tree: str, image: str, *peers: str) -> None:
    place = Path(tree)
    plain = ocidiff.diff(None, place, os.devnull, compression="none").uncompressed_size
    with tempfile.TemporaryDirectory() as empty:
        names = zip(peers[::2], peers[1::2], strict=True)
        everything = [
            own(place, "gzip", range(1, 10), "rust", "#0b6e4f"),
            own(place, "zstd", range(1, 8), "rust", "#1d4ed8"),
            own(place, "gzip", (1, 6, 9), "pure", "#b45309"),
            *(peer(place, Path(empty), name, command) for name, command in names),
        ]
        measure(everything)
    print(table(everything, plain))
    Path(image).write_text(drawing(everything, plain))


if __name__ == "__main__":
    main(*sys.argv[1:])
