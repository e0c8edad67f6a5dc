"""Diff beside containerd's differ: `diff_peers.py changes|layer LOWER UPPER PEER...`: ROUNDS (5) in which all take turns.

PEER is called as `PEER changes|gzip|zstd LOWER UPPER OUT`, with an empty LOWER for none, and prints JSON with `diffID`.
LOWER may be the word scratch. Layers go to nowhere, but for the plain one, which goes to a file in the temporary directory,
beside `dd` of the same bytes. A run of ours comes first, which does not count: so the page cache is warm. Ours runs as an
installed wheel does, its bytecode compiled before.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from installed import compiled_command
from ocidiff.bench.measure import launch
from ocidiff.bench.trees import MIB

ROUNDS = int(os.environ.get("ROUNDS", "5"))
OCIDIFF = compiled_command()


@dataclass
class Contender:
    """A command, and what its runs came to."""

    name: str
    command: list[str | Path]
    seconds: list[float] = field(default_factory=list)
    processor_seconds: list[float] = field(default_factory=list)
    peak_mib: float = 0
    size: int | None = None
    # What all have to come to: the diff ID, or how many names were added and deleted.
    result: str = ""

    def run(self) -> None:
        usage, text = launch(self.command)
        self.seconds.append(usage.seconds)
        self.processor_seconds.append(usage.processor_seconds or 0.0)
        self.peak_mib = max(self.peak_mib, (usage.peak_bytes or 0) / MIB)
        if text.startswith("{"):
            found = json.loads(text)
            counts = found.get("changes", {}) if found.get("mode") == "changes" else None
            self.size = found.get("size") or None
            self.result = found["diffID"] if counts is None else f"{counts.get('add', 0)} {counts.get('delete', 0)}"
        elif text.startswith(("A /", "C /", "D /")):
            kinds = [line[:1] for line in text.splitlines()]
            self.result = f"{kinds.count('A')} {kinds.count('D')}"

    def row(self, slowest: float) -> str:
        times = f"{statistics.median(self.seconds):.2f} ({min(self.seconds):.2f}-{max(self.seconds):.2f})"
        processor = statistics.median(self.processor_seconds)
        ratio = slowest / statistics.median(self.seconds)
        size = "" if self.size is None else f"{self.size:,}"
        return f"| {self.name} | {times} | {processor:.2f} | {ratio:.2f} | {self.peak_mib:.0f} | {size} |"


def ours(work: str, lower: str, upper: str, place: Path) -> list[Contender]:
    if work == "changes":
        return [Contender("ocidiff changes", [OCIDIFF, "changes", lower, upper])]
    diff: list[str | Path] = [OCIDIFF, "diff", lower, upper, "--json", "-q", "-o"]
    options = {"": [], "--level 1": ["--level", "1"], "zstd": ["--compression", "zstd"]}
    layers = [Contender(f"ocidiff diff {name}".rstrip(), [*diff, os.devnull, *words]) for name, words in options.items()]
    return [*layers, Contender("ocidiff diff none, FILE", [*diff, place / "tar", "--compression", "none"])]


def theirs(work: str, lower: str, upper: str, peer: str) -> list[Contender]:
    kinds = ["changes"] if work == "changes" else ["gzip", "zstd"]
    below = "" if lower == "scratch" else lower
    return [Contender(f"{Path(peer).name} {kind}", [peer, kind, below, upper, os.devnull]) for kind in kinds]


def main(work: str, lower: str, upper: str, *peers: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        contenders = [*ours(work, lower, upper, place), *(one for peer in peers for one in theirs(work, lower, upper, peer))]
        if work == "layer":
            words = ["dd", f"if={place / 'tar'}", f"of={place / 'copy'}", "bs=1M", "conv=fsync"]
            contenders.append(Contender("dd of the tar, FILE", list(words)))
        ours(work, lower, upper, place)[-1].run()
        for number in range(1, ROUNDS + 1):
            for contender in contenders:
                contender.run()
                print(f"{number} {contender.name} {contender.seconds[-1]:.2f}", file=sys.stderr, flush=True)
        assert len({one.result for one in contenders if one.result}) == 1, [one.result for one in contenders]
    slowest = max(statistics.median(one.seconds) for one in contenders)
    print("| | s (least-most) | processor s | ratio | peak MiB | bytes |", "|---|---|---|---|---|---|", sep="\n")
    print(*(one.row(slowest) for one in contenders), sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
