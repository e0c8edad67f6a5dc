"""Result: the figures of a benchmark, and the JSON object that stands for them. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from ocidiff.bench.measure import Usage
from ocidiff.values import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """The runs of one tool in a workload.

    Attributes:
        tool: Name of the tool.
        runs: What each took.
        size: Bytes of the layer that it wrote; None if it writes none.
    """

    tool: str
    runs: tuple[Usage, ...]
    size: int | None

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(run.seconds for run in self.runs)

    @property
    def least(self) -> float:
        """Seconds of the fastest run."""
        return min(run.seconds for run in self.runs)

    @property
    def most(self) -> float:
        """Seconds of the slowest run."""
        return max(run.seconds for run in self.runs)

    @property
    def processor_seconds(self) -> float | None:
        """Median; None if unknown."""
        known = [run.processor_seconds for run in self.runs if run.processor_seconds is not None]
        return statistics.median(known) if known else None

    @property
    def peak_bytes(self) -> int | None:
        """Largest of all runs; None if unknown."""
        return max((run.peak_bytes for run in self.runs if run.peak_bytes is not None), default=None)


@dataclass(frozen=True, slots=True)
class Workload:
    """The same work by several tools.

    Attributes:
        name: Name for programs.
        title: Name for people.
        rows: The tools that do this work; the first one is what the others are compared with.
    """

    name: str
    title: str
    rows: tuple[Row, ...]

    def ratio(self, row: Row) -> float:
        """Return the median of a row in multiples of the first one's."""
        return row.median / self.rows[0].median


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a tool was not measured, or not to the end.

    Attributes:
        tool: Its name.
        reason: The cause, in one line.
        workload: Title of the workload; empty if it was not measured at all.
    """

    tool: str
    reason: str
    workload: str = ""

    def __str__(self) -> str:
        """Return a line for people."""
        return f"{self.tool}: {self.workload}: {self.reason}" if self.workload else f"{self.tool}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Result:
    """A benchmark.

    Attributes:
        machine: Facts on the machine, by name.
        versions: Versions of the tools, by name.
        input: Names and bytes of the tree, and where it came from.
        rounds: How often each tool did each work.
        workloads: The figures.
        failures: The tools without figures.
        seconds: How long all of it took.
    """

    machine: Mapping[str, str | float]
    versions: Mapping[str, str]
    input: Mapping[str, str | float]
    rounds: int
    workloads: tuple[Workload, ...]
    failures: tuple[Failure, ...]
    seconds: float

    def to_dict(self) -> dict[str, object]:
        """Return the object that `bench --json` prints."""
        return {
            "machine": dict(self.machine),
            "versions": dict(self.versions),
            "input": dict(self.input),
            "rounds": self.rounds,
            "workloads": [
                {"name": one.name, "title": one.title, "rows": [_row(one, row) for row in one.rows]}
                for one in self.workloads
            ],
            "failures": [
                {"tool": one.tool, "workload": one.workload or None, "reason": one.reason} for one in self.failures
            ],
            "seconds": round(self.seconds, 3),
        }


def _row(workload: Workload, row: Row) -> dict[str, object]:
    processor: Sequence[float | None] = [run.processor_seconds for run in row.runs]
    return {
        "tool": row.tool,
        "seconds": [round(run.seconds, 6) for run in row.runs],
        "median": round(row.median, 6),
        "ratio": round(workload.ratio(row), 4),
        "processorSeconds": [None if one is None else round(one, 6) for one in processor],
        "peakBytes": row.peak_bytes,
        "layerSize": row.size,
    }
