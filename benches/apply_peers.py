"""Apply beside other tools: `apply_peers.py PLACE LAYER...` writes each gzip layer to PLACE, five times with every tool.

The runs take turns, each into a new directory that is removed again untimed; the layer is in the page cache. Needs root, GNU
tar, umoci, containerd and ctr; of containerd only the unpacking is timed, not the import before it. Ours runs as an
installed wheel does, its bytecode compiled before.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from installed import compiled_command
from ocidiff.bench.measure import launch
from ocidiff.bench.trees import MIB

ROUNDS = 5
OCIDIFF = compiled_command()
KIB_PER_MIB = 1024
# Or containerd inflates with igzip or unpigz, where there is one.
OWN_GZIP = {"CONTAINERD_DISABLE_IGZIP": "1", "CONTAINERD_DISABLE_PIGZ": "1"}


@dataclass(frozen=True)
class Figures:
    """Of one run. For containerd processor time is unknown, because its daemon does the work."""

    seconds: float
    processor_seconds: float
    peak_mib: float


def timed(*command: str | Path) -> Figures:
    usage, _ = launch(command, discards_output=True)
    return Figures(usage.seconds, usage.processor_seconds or 0.0, (usage.peak_bytes or 0) / MIB)


@dataclass(frozen=True)
class Sample:
    """A layer, and the image that consists of it."""

    layer: Path
    layout: Path
    manifest: str


def image(layer: Path, layout: Path) -> Sample:
    """Makes an image of one layer, named `app`."""
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(content: dict[str, object]) -> dict[str, object]:
        data = json.dumps(content).encode()
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    with layer.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    with gzip.open(layer) as tar:
        diff_id = hashlib.file_digest(tar, "sha256").hexdigest()
    shutil.copyfile(layer, blobs / digest)
    kind = "application/vnd.oci.image."
    rootfs = {"type": "layers", "diff_ids": [f"sha256:{diff_id}"]}
    config = blob({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs})
    layers = [{"mediaType": f"{kind}layer.v1.tar+gzip", "digest": f"sha256:{digest}", "size": layer.stat().st_size}]
    manifest = {"schemaVersion": 2, "mediaType": f"{kind}manifest.v1+json", "layers": layers}
    described = blob({**manifest, "config": {"mediaType": f"{kind}config.v1+json", **config}})
    names = {"org.opencontainers.image.ref.name": "app", "io.containerd.image.name": "localhost/app:latest"}
    entry = {"mediaType": f"{kind}manifest.v1+json", **described, "annotations": names}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return Sample(layer, layout, str(described["digest"]))


def containerd(sample: Sample, place: Path) -> Figures:
    """Imports the image into a containerd of its own, and times the unpacking."""
    os.environ |= OWN_GZIP
    archive = sample.layout.with_suffix(".tar")
    if not archive.exists():
        with tarfile.open(archive, "w") as tar:
            tar.add(sample.layout, "")
    socket = str(place / "socket")
    configuration = {"root": place / "root", "state": place / "state"}
    lines = ["version = 3", *(f'{key} = "{value}"' for key, value in configuration.items()), "[grpc]"]
    (place / "config.toml").write_text("\n".join([*lines, f'address = "{socket}"\n']))
    daemon = subprocess.Popen(
        ["containerd", "--config", str(place / "config.toml"), "--log-level", "fatal"], stderr=subprocess.DEVNULL
    )
    ctr = ("ctr", "--address", socket)
    try:
        while subprocess.run([*ctr, "version"], check=False, capture_output=True).returncode:
            time.sleep(0.05)
        subprocess.run([*ctr, "images", "import", "--no-unpack", archive], check=True, capture_output=True)
        run = timed(*ctr, "snapshots", "--snapshotter", "overlayfs", "unpack", sample.manifest)
        status = Path(f"/proc/{daemon.pid}/status").read_text()
        peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
        return Figures(run.seconds, float("nan"), peak / KIB_PER_MIB)
    finally:
        daemon.terminate()
        daemon.wait()


Tool = Callable[[Sample, Path], Figures]
TOOLS: dict[str, Tool] = {
    "ocidiff apply": lambda sample, place: timed(OCIDIFF, "apply", sample.layer, place),
    "tar -xzf": lambda sample, place: timed("tar", "-xzf", sample.layer, "-C", place),
    "containerd": containerd,
    "umoci raw unpack": lambda sample, place: timed(
        "umoci", "raw", "unpack", "--image", f"{sample.layout}:app", place / "rootfs"
    ),
}


@contextlib.contextmanager
def fresh(place: Path) -> Iterator[Path]:
    target = place / "run"
    target.mkdir()
    os.sync()
    try:
        yield target
    finally:
        shutil.rmtree(target)


def main(place: Path, *layers: Path) -> None:
    for number, layer in enumerate(layers):
        sample = image(layer, place / f"image{number}")
        found: dict[str, list[Figures]] = {name: [] for name in TOOLS}
        for _ in range(ROUNDS):
            for name, tool in TOOLS.items():
                with fresh(place) as target:
                    found[name].append(tool(sample, target))
        own = statistics.median(run.seconds for run in found["ocidiff apply"])
        for name, runs in found.items():
            seconds = statistics.median(run.seconds for run in runs)
            processor = statistics.median(run.processor_seconds for run in runs)
            peak = max(run.peak_mib for run in runs)
            times = " ".join(f"{run.seconds:.2f}" for run in runs)
            print(
                f"{layer.name:16} {name:17} {seconds:6.2f} s  {seconds / own:5.2f}x  processor {processor:6.2f} s  "
                f"peak {peak:6.1f} MiB  ({times})",
                flush=True,
            )


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
