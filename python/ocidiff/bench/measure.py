"""Measure: the time, the processor time and the peak of memory of one command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from ocidiff.errors import OcidiffError
from ocidiff.printable import shortened

# A process counts the memory that its parent had when it was made, so that a small one starts it.
_LAUNCHER: Final = """
import json, os, sys, time
_, discards_output, *command = sys.argv
actions = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)] if discards_output else []
start = time.perf_counter()
process = os.posix_spawnp(command[0], command, os.environ, file_actions=actions)
_, status, usage = os.wait4(process, 0)
seconds = time.perf_counter() - start
print("\\n" + json.dumps([seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss << 10]))
code = os.waitstatus_to_exitcode(status)
sys.exit(code if code >= 0 else 128 - code)
"""
_SECONDS_TO_END: Final = 5.0
_LONGEST_REASON: Final = 300


class Usage(NamedTuple):
    """The cost of one run.

    Attributes:
        seconds: On the clock.
        processor_seconds: Of processors, user and system, with those of child processes; None if a daemon did the work.
        peak_bytes: Largest memory of one of its processes; None likewise.
    """

    seconds: float
    processor_seconds: float | None
    peak_bytes: int | None


def launch(
    command: Sequence[str | os.PathLike[str]],
    environment: Mapping[str, str] | None = None,
    *,
    discards_output: bool = False,
) -> tuple[Usage, str]:
    """Run a command; return what it took, and what it wrote to stdout.

    An exception that comes meanwhile, such as an interrupt, ends the command and all that it started.

    Args:
        command: Its words.
        environment: Its variables; None for those of this process.
        discards_output: Send stdout to /dev/null, and return no text.

    Raises:
        OcidiffError: It failed; the message is what it said last.
    """
    launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, "1" if discards_output else ""]
    line = [*launcher, *(os.fspath(word) for word in command)]
    pipe = subprocess.PIPE
    with subprocess.Popen(  # noqa: S603 - programs that the user named or has on the path
        line, env=environment, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, process_group=0
    ) as process:
        try:
            out, err = process.communicate()
        except BaseException:
            _end(process)
            raise
    if process.returncode != 0:
        raise OcidiffError(_complaint(err.decode(errors="replace"), process.returncode))
    text, _, figures = out.decode(errors="surrogateescape").rstrip("\n").rpartition("\n")
    seconds, processor_seconds, peak_bytes = json.loads(figures)
    return Usage(seconds, processor_seconds, peak_bytes), text


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the processes of a group: politely, so that they clean up, and then for good."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            # The launcher ends first; its children keep the pipes open.
            process.communicate(timeout=_SECONDS_TO_END)
        except (subprocess.TimeoutExpired, ProcessLookupError):
            continue


def _complaint(text: str, status: int) -> str:
    """Return the line of stderr that says why a program failed."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and "Exiting with failure" not in line]
    if not lines:
        return f"ended with status {status}"
    return shortened(lines[-1].removeprefix("ocidiff: "), _LONGEST_REASON)
