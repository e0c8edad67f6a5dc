"""An apply takes the threads that it is given to write small files."""

from __future__ import annotations

import io
import os
import tarfile
import threading
import time
from pathlib import Path

import pytest

from ocidiff.layer.apply_options import ApplyOptions
from ocidiff.layer.monitor import Monitor
from support import probes

NAME = "ocidiff-write"


def writers() -> int:
    """Return the number of threads of this process that write small files."""
    names = []
    for thread in os.listdir("/proc/self/task"):
        try:
            names.append(Path(f"/proc/self/task/{thread}/comm").read_text().strip())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return names.count(NAME)


@pytest.mark.parametrize("threads", [1, 3])
def test_an_apply_has_as_many_writers_as_it_is_told(tmp_path: Path, threads: int) -> None:
    if not probes.has_rust():
        probes.missing("ocidiff._core is not built")
    from ocidiff.layer.rust import RustEngine

    before = writers()
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("first"))
        tar.addfile(tarfile.TarInfo("last"))
    source, sink = os.pipe()
    work = threading.Thread(
        target=RustEngine().apply_layer, args=(source, os.fsencode(tmp_path), ApplyOptions(threads=threads), Monitor())
    )
    work.start()
    os.write(sink, layer.getvalue()[:600])
    end = time.monotonic() + 20
    while writers() - before < threads and time.monotonic() < end:
        time.sleep(0.01)
    found = writers() - before
    os.write(sink, layer.getvalue()[600:])
    os.close(sink)
    work.join()
    os.close(source)
    assert found == threads
    assert sorted(os.listdir(tmp_path)) == ["first", "last"]
