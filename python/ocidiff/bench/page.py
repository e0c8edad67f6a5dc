"""Page: a result as one HTML page with plots, in the frame of all reports. Pure."""

from __future__ import annotations

import html
from collections.abc import Iterator

from ocidiff.bench.plot import STYLE, Bar, Point, bars, ratios, scatter
from ocidiff.bench.result import Result, Row, Workload
from ocidiff.bench.table import facts, ratio, seconds
from ocidiff.report.document import cards, document, shown, table
from ocidiff.report.style import LIGHT
from ocidiff.sizes import counted, size

_OWN = "ocidiff"
_MEGA = 1e6


def page_of(result: Result) -> bytes:
    """Return the page."""
    sections = [
        ("ratios", "Other tools beside ocidiff", _ratios(result)),
        ("workloads", "Time of each work", _workloads(result)),
        ("sizes", "Speed against size", _sizes(result)),
        ("memory", "Memory", _memory(result)),
        ("figures", "All figures", _figures(result)),
        ("machine", "Machine and tools", _machine(result)),
    ]
    about = f"{shown(str(result.machine['processor']))} · {shown(str(result.machine['kernel']))}"
    footer = (
        "Figures of one run compare the tools of this run with one another, on this machine, and nothing else. "
        "Written by ocidiff."
    )
    return "".join(
        document("Benchmark", ("Benchmark", "ocidiff"), about, _cards(result), sections, footer, style=STYLE)
    ).encode()


def _cards(result: Result) -> str:
    machine, source = result.machine, result.input
    is_busy = float(machine["load"]) > int(machine["cores"]) / 2
    return cards(
        ("Tree", size(int(source["bytes"])), counted(int(source["names"]), "name"), ""),
        ("Cores", str(machine["cores"]), f"SHA instructions: {machine['shaInstructions']}", ""),
        (
            "Load before",
            f"{machine['load']:.1f}",
            "busy: times say little" if is_busy else "idle",
            "warn" if is_busy else "",
        ),
        ("Runs", str(result.rounds), "of each work by each tool, in turns", ""),
        ("Tools", str(len(result.versions)), f"{counted(len(result.failures), 'failure')}", ""),
    )


def _is_own(row: Row) -> bool:
    return row.tool.startswith(_OWN)


def _ratios(result: Result) -> Iterator[str]:
    rows = [
        Bar(f"{workload.name}: {row.tool}", workload.ratio(row), ratio(workload.ratio(row)), is_own=False)
        for workload in result.workloads
        for row in workload.rows
        if not _is_own(row)
    ]
    if not rows:
        yield "<p>No other tool was measured.</p>\n"
        return
    yield (
        f"<p>Median time in multiples of that of {shown(result.workloads[0].rows[0].tool)}, in the same work. "
        "The scale is logarithmic. A bar to the right of 1x is slower than ocidiff, one to the left faster.</p>\n"
    )
    yield from ratios(rows, "time, in multiples of ocidiff's")


def _workloads(result: Result) -> Iterator[str]:
    yield f'<p>The bar is the median of {counted(result.rounds, "run")}, each point is one run.</p>\n<div class="plots">\n'
    for workload in result.workloads:
        yield f"<div>\n<h3>{html.escape(workload.title)}</h3>\n"
        yield from bars([_bar(workload, row) for row in workload.rows], "seconds")
        yield "</div>\n"
    yield "</div>\n"


def _bar(workload: Workload, row: Row) -> Bar:
    note = f"{seconds(row.median)} s · {ratio(workload.ratio(row))}"
    return Bar(row.tool, row.median, note, _is_own(row), tuple(run.seconds for run in row.runs))


def _sizes(result: Result) -> Iterator[str]:
    """Yield the plot of the first workload, in which all write the same tree."""
    rows = [row for row in result.workloads[0].rows if row.size is not None]
    points = [
        Point(row.tool, (row.size or 0) / _MEGA, int(result.input["bytes"]) / _MEGA / row.median, number % len(LIGHT))
        for number, row in enumerate(rows)
    ]
    yield "<p>The whole tree as a layer: the higher the faster, the further left the smaller.</p>\n"
    yield from scatter(points, "MB of layer", "MB of files per second")


def _memory(result: Result) -> Iterator[str]:
    peaks: dict[str, int] = {}
    for workload in result.workloads:
        for row in workload.rows:
            if row.peak_bytes is not None:
                peaks[row.tool] = max(peaks.get(row.tool, 0), row.peak_bytes)
    yield "<p>Largest resident memory of one process, in any work.</p>\n"
    rows = [Bar(tool, peak / _MEGA, size(peak), tool.startswith(_OWN)) for tool, peak in peaks.items()]
    yield from bars(rows, "MB")


def _figures(result: Result) -> Iterator[str]:
    yield '<div class="scroll">\n'
    heads = "Work|Tool|Median, s.n|Least, s.n|Most, s.n|Ratio.n|Processor, s.n|Peak.n|Layer.n"
    rows = (_figure(workload, row) for workload in result.workloads for row in workload.rows)
    yield from table("All figures", heads, rows)
    yield "</div>\n"


def _figure(workload: Workload, row: Row) -> str:
    cells = (
        seconds(row.median),
        seconds(row.least),
        seconds(row.most),
        ratio(workload.ratio(row)),
        seconds(row.processor_seconds),
        "-" if row.peak_bytes is None else size(row.peak_bytes),
        "-" if row.size is None else size(row.size),
    )
    return f'<th scope="row">{workload.name}</th><td>{shown(row.tool)}</td>' + "".join(
        f'<td class="n">{cell}</td>' for cell in cells
    )


def _machine(result: Result) -> Iterator[str]:
    rows = (f'<th scope="row">{shown(name)}</th><td class="path">{shown(value)}</td>' for name, value in facts(result))
    yield from table("Machine and tools", "What|Value", rows)
    for failure in result.failures:
        yield f"<p>Not measured: {shown(str(failure))}</p>\n"
