"""Run: all workloads, in which the tools take turns."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from ocidiff.bench import machine
from ocidiff.bench.measure import Usage
from ocidiff.bench.ours import Ocidiff, Variant
from ocidiff.bench.peers import PEERS
from ocidiff.bench.place import check_room, private_directory
from ocidiff.bench.result import Failure, Result, Row, Workload
from ocidiff.bench.scene import Scene
from ocidiff.bench.trees import can_change
from ocidiff.bench.workload import TITLES, Kind, Task, Tool
from ocidiff.errors import OcidiffError, UnsupportedError, UsageError
from ocidiff.layer.differ import diff
from ocidiff.layer.monitor import Progress, ProgressCallback
from ocidiff.mounts.kernel import sync_file_system
from ocidiff.values import dataclass

# So many times the size of the tree is there at once, at most, of ours; each further compression has a layer and a store.
_OWN_COPIES: Final = 6
_COPIES_OF_A_COMPRESSION: Final = 2
_BLOCK_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Plan:
    """The choices of a benchmark.

    Attributes:
        tree: Directory whose copy is measured; None for a made-up tree.
        files, size, seed: Of the made-up tree.
        directory: Where everything is written; None for the default.
        rounds: How often each tool does each work.
        variants: Variants of ours.
        peers: Names of the peers; None for all that are found.
    """

    tree: str | None
    files: int
    size: int
    seed: int
    directory: str | None
    rounds: int
    variants: tuple[Variant, ...]
    peers: tuple[str, ...] | None


class _Steps:
    """Reports each timed run."""

    def __init__(self, callback: ProgressCallback | None) -> None:
        self._callback = callback
        self.done, self.total = 0, 0

    def say(self, phase: str) -> None:
        if self._callback is not None:
            self._callback(Progress(0, 0, 0, phase, runs=(self.done, self.total)))


def run(plan: Plan, *, warn: Callable[[str], None], progress: ProgressCallback | None = None) -> Result:
    """Measure; nothing that was made is left at the end.

    Args:
        plan: The choices.
        warn: Called with a line for each peer that fails.
        progress: Called at each timed run.

    Raises:
        UsageError: A peer has no such name, or the tree has no files.
        OcidiffError: A command of ours fails, or two results differ.
        OSError: The tree cannot be read, or the disk is full.
    """
    begun = time.perf_counter()
    unknown = [name for name in plan.peers or () if name not in PEERS]
    if unknown:
        raise UsageError(f"peer {unknown[0]!r}: must be auto, none or some of {', '.join(PEERS)}")
    with private_directory(plan.directory, kept=plan.tree) as root:
        # First, since reading the tree is load too.
        facts = machine.facts(root)
        names, size = (plan.files, plan.size) if plan.tree is None else _measured(plan.tree, root)
        compressions = {variant.compression for variant in plan.variants}
        copies = _OWN_COPIES + _COPIES_OF_A_COMPRESSION * (len(compressions) - 1)
        copies += sum(PEERS[name].copies for name in (PEERS if plan.peers is None else plan.peers))
        check_room(root, (size + names * _BLOCK_BYTES) * copies)
        scene, steps = Scene(root), _Steps(progress)
        failures: list[Failure] = []
        tools: list[Tool] = [Ocidiff(scene, plan.variants), *_peers(plan, scene, failures, warn)]
        versions = {tool.name: tool.version for tool in tools}
        steps.total = plan.rounds * sum(tool.rows(kind) for tool in tools for kind in Kind)
        steps.say("making the tree")
        scene.fill(plan.tree, files=plan.files, size=plan.size, seed=plan.seed)
        if not can_change(scene.upper):
            raise UsageError(f"tree {plan.tree!r}: holds no files to change")
        workloads = []
        for kind in Kind:
            if kind is Kind.SMALL:
                scene.change_little(plan.seed + 1)
            elif kind is Kind.LARGE:
                scene.change_much(plan.seed + 2)
            workloads.append(_Turns(kind, scene, plan.rounds, steps, failures, warn).measure(tools))
        measured: Mapping[str, str | float] = {
            "tree": plan.tree or "made up",
            "names": scene.names,
            "bytes": scene.size,
            **({"seed": plan.seed} if plan.tree is None else {}),
        }
    seconds = time.perf_counter() - begun
    return Result(facts, versions, measured, plan.rounds, tuple(workloads), tuple(failures), seconds)


def _measured(tree: str, root: str) -> tuple[int, int]:
    """Return the number of names in a tree of the user, and their bytes.

    Raises:
        UsageError: The private directory is in it, and would be copied into itself.
    """
    inside = os.path.realpath(tree).rstrip("/") + "/"
    if os.path.realpath(root).startswith(inside):
        raise UsageError(f"tree {tree!r}: holds {os.path.dirname(root)}; --directory must name a place outside of it")
    # Sees what the copy will have, and nothing of other file systems that are mounted there.
    layer = diff(None, os.path.abspath(tree), os.devnull, compression="none", ignore_file=False)
    return layer.added, layer.uncompressed_size


def _peers(plan: Plan, scene: Scene, failures: list[Failure], warn: Callable[[str], None]) -> Iterator[Tool]:
    for name in PEERS if plan.peers is None else plan.peers:
        try:
            yield PEERS[name](scene)
        except (OcidiffError, OSError) as error:
            failure = Failure(name, str(error))
            failures.append(failure)
            # One that is missing is no news, unless it was asked for.
            if plan.peers is not None or not isinstance(error, UnsupportedError):
                warn(str(failure))


class _Turns:
    """One workload, in which all tools take turns."""

    def __init__(
        self,
        kind: Kind,
        scene: Scene,
        rounds: int,
        steps: _Steps,
        failures: list[Failure],
        warn: Callable[[str], None],
    ) -> None:
        self._kind, self._scene, self._rounds, self._steps = kind, scene, rounds, steps
        self._failures, self._warn = failures, warn
        self._failed: set[str] = set()

    def measure(self, tools: list[Tool]) -> Workload:
        """Measure. The first tool is ours; another one that cannot prepare is out of all later workloads too."""
        ours, *peers = tools
        self._steps.say(f"{self._kind}: preparing {ours.name}")
        tasks: list[Task] = [*ours.begin(self._kind)]
        own = {task.tool for task in tasks}
        for tool in peers:
            self._steps.say(f"{self._kind}: preparing {tool.name}")
            try:
                tasks += tool.begin(self._kind)
            except (OcidiffError, OSError) as error:
                self._fail(tool.name, error)
                tools.remove(tool)
        runs: dict[str, list[Usage]] = {task.tool: [] for task in tasks}
        sizes: dict[str, int | None] = {}
        for number in range(self._rounds):
            # Nobody always follows the same one.
            start = number % len(tasks)
            for task in (*tasks[start:], *tasks[:start]):
                self._steps.say(f"{self._kind}: {task.tool}")
                self._steps.done += 1
                if task.tool not in self._failed:
                    try:
                        usage, sizes[task.tool] = self._once(task)
                        runs[task.tool].append(usage)
                    except (OcidiffError, OSError) as error:
                        if task.tool in own:
                            raise
                        self._fail(task.tool, error)
        rows = (Row(name, tuple(taken), sizes[name]) for name, taken in runs.items() if name not in self._failed)
        return Workload(str(self._kind), TITLES[self._kind], tuple(rows))

    def _once(self, task: Task) -> tuple[Usage, int | None]:
        task.prepare()
        # What was written before is not waited for in the time that counts.
        sync_file_system(self._scene.root)
        usage, text = task.run()
        return usage, task.finish(text)

    def _fail(self, name: str, error: OcidiffError | OSError) -> None:
        self._failed.add(name)
        failure = Failure(name, str(error), TITLES[self._kind])
        self._failures.append(failure)
        self._warn(str(failure))


def variants_of(compressions: Sequence[str], threads: Sequence[int]) -> tuple[Variant, ...]:
    """Return the default variant, and all combinations of what was asked for."""
    every = [Variant(), *(Variant(name, count) for count in (0, *threads) for name in ("gzip", *compressions))]
    return tuple(dict.fromkeys(every))
