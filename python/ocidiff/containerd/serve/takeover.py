"""Takeover: a server starts the one that comes after it, and ends once that takes calls.

The new server is started with the same words and so runs the program that is installed now. It binds the socket's name anew.
containerd's connection leads to the old one, which says that it goes, and the next call finds the new one.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
from contextlib import suppress
from typing import Final

from ocidiff.containerd.serve import records

_READY: Final = "OCIDIFF_SERVE_READY"
_PATIENCE_SECONDS: Final = 60.0


def takes_over() -> bool:
    """True if this server was started by the one that is there."""
    return _READY in os.environ


def announce() -> None:
    """Tell the server that started this one that it may go."""
    pipe = os.environ.pop(_READY, None)
    if pipe is not None:
        with suppress(BrokenPipeError):
            os.write(int(pipe), b"ready")
            os.close(int(pipe))


def start_successor() -> int | None:
    """Start a server that takes over, and return its process once it takes calls; None if it fails, which is logged."""
    reader, writer = os.pipe()
    try:
        # Its own arguments, as the interpreter got them.
        process = subprocess.Popen(  # noqa: S603 - the program that runs already
            [sys.executable, *sys.orig_argv[1:]], env={**os.environ, _READY: str(writer)}, pass_fds=(writer,)
        )
        os.close(writer)
        writer = -1
        ready, _, _ = select.select([reader], [], [], _PATIENCE_SECONDS)
        if ready and os.read(reader, 5) == b"ready":
            # It outlives this process.
            process.returncode = 0
            return process.pid
        process.kill()
        records.warn("no other server took over, this one goes on", status=process.wait())
        return None
    except OSError as error:
        records.warn("no other server could be started, this one goes on", error=error.strerror)
        return None
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)
