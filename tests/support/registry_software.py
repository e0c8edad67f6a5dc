"""Docker's registry software, as Debian packages it."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support import probes

_START_SECONDS = 60.0


@contextmanager
def running(place: Path) -> Iterator[str]:
    """Yield `localhost:PORT` of a registry that keeps what it gets in a directory."""
    program = shutil.which("docker-registry")
    if program is None:
        probes.missing("needs docker-registry")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(place / "data")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    # JSON is YAML.
    (place / "config.yml").write_text(json.dumps(settings))
    with (place / "log").open("wb") as log:
        process = subprocess.Popen([program, "serve", place / "config.yml"], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/", timeout=5):
                    break
            except OSError:
                assert process.poll() is None, (place / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.1)
        yield f"localhost:{port}"
    finally:
        process.terminate()
        process.wait(30)
