"""Table: a result in lines of at most 80 columns. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ocidiff.bench.result import Result, Row, Workload
from ocidiff.printable import printable, shortened
from ocidiff.sizes import counted, size

_COLUMNS: Final = 80
_HEADS: Final = ("MEDIAN", "LEAST-MOST", "RATIO", "CPU", "PEAK", "LAYER")
_WIDTHS: Final = (8, 14, 7, 8, 9, 9)
_TOOL_WIDTH: Final = _COLUMNS - sum(_WIDTHS)
_LONGEST_VALUE: Final = 64


def lines(result: Result) -> Iterator[str]:
    """Yield the lines."""
    for name, value in facts(result):
        yield f"{name:13} {shortened(value, _LONGEST_VALUE)}"
    for workload in result.workloads:
        yield ""
        yield workload.title
        yield _line("", _HEADS)
        yield from (_line(row.tool, _cells(workload, row)) for row in workload.rows)
    if result.failures:
        yield ""
    for failure in result.failures:
        yield f"not measured: {printable(str(failure))}"
    yield ""
    yield f"MEDIAN, LEAST-MOST, CPU: seconds, of {counted(result.rounds, 'run')} in turns."
    yield "RATIO: of the median to the first row's. PEAK: largest memory of a process."
    yield "LAYER: bytes of what was written."


def facts(result: Result) -> Iterator[tuple[str, str]]:
    """Yield the names and the values of what is said about the machine and the input."""
    machine, source = result.machine, result.input
    yield "processor", f"{machine['processor']}; SHA instructions: {machine['shaInstructions']}"
    yield (
        "machine",
        (
            f"{counted(int(machine['cores']), 'core')}, {size(int(machine['memoryBytes']))} of memory, "
            f"{machine['kernel']}, {machine['fileSystem']}"
        ),
    )
    yield "load before", f"{machine['load']:.1f} (what else ran; figures of a busy machine say little)"
    for name, version in result.versions.items():
        yield name, f"{version}, Python {machine['python']}" if name == "ocidiff" else version
    seed = f", seed {source['seed']}" if "seed" in source else ""
    yield "tree", f"{source['tree']}: {counted(int(source['names']), 'name')}, {size(int(source['bytes']))}{seed}"


def seconds(value: float | None) -> str:
    """Return seconds with three digits that count."""
    if value is None:
        return "-"
    return f"{value:.3f}" if value < 10 else f"{value:.2f}" if value < 100 else f"{value:.1f}"


def ratio(value: float) -> str:
    """Return a ratio for people."""
    return f"{value:.2f}x" if value < 10 else f"{value:.1f}x" if value < 100 else f"{value:.0f}x"


def _cells(workload: Workload, row: Row) -> tuple[str, ...]:
    return (
        seconds(row.median),
        f"{seconds(row.least)}-{seconds(row.most)}",
        ratio(workload.ratio(row)),
        seconds(row.processor_seconds),
        "-" if row.peak_bytes is None else size(row.peak_bytes),
        "-" if row.size is None else size(row.size),
    )


def _line(tool: str, cells: tuple[str, ...]) -> str:
    return f"  {printable(tool):{_TOOL_WIDTH - 2}}" + "".join(
        f"{cell:>{width}}" for cell, width in zip(cells, _WIDTHS, strict=True)
    )
