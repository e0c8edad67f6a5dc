"""Files of other kinds, which may stand where a regular file should be."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final


def fifo(path: Path) -> None:
    """Make a FIFO."""
    os.mkfifo(path)


def directory(path: Path) -> None:
    """Make a directory that holds a file."""
    path.mkdir()
    (path / "file").write_text("kept")


def symlink(path: Path) -> None:
    """Make a symbolic link to a file that can be read."""
    path.symlink_to("/etc/passwd")


def dangling(path: Path) -> None:
    """Make a symbolic link to nothing."""
    path.symlink_to("nowhere")


def unix_socket(path: Path) -> None:
    """Make a socket."""
    here = os.open(path.parent, os.O_RDONLY)
    try:
        # The path of a socket is short.
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(f"/proc/self/fd/{here}/{path.name}")
    finally:
        os.close(here)


KINDS: Final[dict[str, Callable[[Path], None]]] = {
    "fifo": fifo,
    "directory": directory,
    "symlink": symlink,
    "dangling": dangling,
    "socket": unix_socket,
}


def replace(path: Path, kind: str) -> None:
    """Put something else in the place of a file."""
    path.unlink()
    KINDS[kind](path)
