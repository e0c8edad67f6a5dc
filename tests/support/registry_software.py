"""Registries that others wrote: Docker's as Debian packages it, what became of it, and two that share no code with it."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from support.programs import program_of

_START_SECONDS = 60.0


def _distribution(place: Path, port: int) -> list[str]:
    settings = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(place / "data")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    # JSON is YAML.
    (place / "config.yml").write_text(json.dumps(settings))
    return ["serve", str(place / "config.yml")]


SOFTWARE: Final[dict[str, Callable[[Path, int], list[str]]]] = {
    "docker-registry": _distribution,
    "registry": _distribution,
    "olareg": lambda place, port: ["serve", "--port", str(port), "--dir", str(place)],
    "crane": lambda _, port: ["registry", "serve", "--address", f"127.0.0.1:{port}"],
}
"""The programs, and the words with which they serve."""


@contextmanager
def running(place: Path, software: str = "docker-registry") -> Iterator[str]:
    """Yield `localhost:PORT` of a registry that keeps what it gets in a directory, or in memory."""
    program = program_of(software)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (place / "log").open("wb") as log:
        process = subprocess.Popen([program, *SOFTWARE[software](place, port)], stdout=log, stderr=log)
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
