"""Measure commands and daemons, and make the image that they are measured on."""

from __future__ import annotations

import os
import signal
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from containerd.conftest import archived
from containerd.daemon import programs
from ocidiff.bench.measure import launch
from ocidiff.bench.trees import MIB
from ocidiff.store import Store
from workloads import system

KIND = "new-2"
KIB_PER_MIB = 1024
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass
class Taken:
    """The cost of one command, and of daemons for it."""

    seconds: float
    client_cpu: float
    daemon_cpu: float
    client_mib: float
    daemon_mib: float


class Processes:
    """Daemons, as they are measured."""

    def __init__(self, *pids: int) -> None:
        self._pids = pids

    def cpu(self) -> float:
        """Processor seconds so far, with those of ended children, which may have inflated for them."""
        stats = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in self._pids]
        return sum(int(number) for stat in stats for number in stat[11:15]) / _TICKS_PER_SECOND

    def forget_peaks(self) -> None:
        for pid in self._pids:
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def peak_mib(self) -> float:
        lines = [line for pid in self._pids for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
        return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / KIB_PER_MIB


def end_cleanly() -> None:
    """Let a signal that ends this process run what cleans up."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))


def take(command: Sequence[str | Path], environment: Mapping[str, str] | None, daemons: Processes) -> Taken:
    """Run a command, and measure the daemons meanwhile."""
    return _take(command, environment, daemons, discards_output=True)[0]


def take_with_output(
    command: Sequence[str | Path], environment: Mapping[str, str] | None, daemons: Processes
) -> tuple[Taken, str]:
    """Like `take`, and return what the command writes to stdout."""
    return _take(command, environment, daemons, discards_output=False)


def _take(
    command: Sequence[str | Path], environment: Mapping[str, str] | None, daemons: Processes, *, discards_output: bool
) -> tuple[Taken, str]:
    # Earlier work is on disk, and not waited for.
    os.sync()
    daemons.forget_peaks()
    cpu = daemons.cpu()
    usage, text = launch(command, environment, discards_output=discards_output)
    client_cpu, client_mib = usage.processor_seconds or 0.0, (usage.peak_bytes or 0) / MIB
    return Taken(usage.seconds, client_cpu, daemons.cpu() - cpu, client_mib, daemons.peak_mib()), text


def median(runs: Iterable[Taken], name: str) -> float:
    return float(statistics.median(getattr(one, name) for one in runs))


def figures(runs: Sequence[Taken]) -> str:
    """The medians of runs in a line, with the least and the most time."""
    seconds = sorted(one.seconds for one in runs)
    return (
        f"{median(runs, 'seconds'):8.3f} s ({seconds[0]:.3f} to {seconds[-1]:.3f})  "
        f"cpu {median(runs, 'client_cpu'):7.2f} + {median(runs, 'daemon_cpu'):7.2f} s  "
        f"peak {median(runs, 'client_mib'):5.0f} + {median(runs, 'daemon_mib'):5.0f} MiB"
    )


def base(directory: Path, count: int) -> Path:
    """Make the archive of the image `base:1`: a system of `count` files that starts with a shell."""
    tree = directory / "tree"
    for name in ("bin", "etc", "tmp", "proc", "dev", "sys", "run", "opt"):
        (tree / name).mkdir(parents=True)
    (tree / "bin/busybox").write_bytes((programs(KIND) / "busybox").read_bytes())
    (tree / "bin/busybox").chmod(0o755)
    for name in ("sh", "sleep", "echo"):
        (tree / "bin" / name).symlink_to("busybox")
    for name in ("hosts", "hostname", "resolv.conf"):
        (tree / "etc" / name).touch()
    system(tree, count)
    with Store.open(directory / "store") as store:
        image = store.commit(tree, "base:1", changes=['CMD ["/bin/sleep", "1000000"]'])
        assert image.layer is not None
        print(f"base: {image.layer.added} entries, {image.layer.uncompressed_size / 1e6:.0f} MB of tar", flush=True)
    return archived(directory / "store", directory / "base.tar")
