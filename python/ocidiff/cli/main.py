"""`ocidiff`: the entry point, and the boundary where an error becomes one line and an exit status.

    0    done
    1    failed: one line on stderr says what, where and why (`changes --exit-code`: the trees differ)
    2    wrong usage (`changes --exit-code`: any trouble)
    3    the change is larger than `--fail-above`
    130  interrupted (any other signal that ends it: 128 and its number)

Law: nothing is imported here that `ocidiff --version` can do without.
"""

from __future__ import annotations

import gc
import io
import os
import sys

import ocidiff

# As type checkers understand it.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType
    from typing import Final, NoReturn

_FAILED: Final = 1
_OBJECTS_BETWEEN_COLLECTIONS: Final = 50_000
_ENDED_BY_SIGNAL: Final = 128
_INTERRUPTED: Final = _ENDED_BY_SIGNAL + 2
_LEFT_BY_READER: Final = _ENDED_BY_SIGNAL + 13
_SECONDS_OF_SILENCE: Final = 0.3


def run() -> NoReturn:
    """The whole life of a process: all is let go of by its end, so that taking the interpreter down would be time lost."""
    # Imported objects stay: looking through them for garbage every 700 objects takes a tenth of a short command.
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    status = main()
    # An interrupt may have left text in them. A closed one is None.
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            try:  # noqa: SIM105 - the module would be imported for this
                stream.flush()
            except OSError:
                pass
    os._exit(status)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status of `ocidiff` with these arguments; without any, those of the process."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if sys.stderr is None:
        # Closed: what is meant for it would go to stdout.
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for the life of the process
    try:
        _write_any_name()
        status = _run(words)
        # Here rather than at exit, where a full disk would be a traceback. A closed stdout is None.
        if sys.stdout is not None:
            sys.stdout.flush()
    except KeyboardInterrupt as interrupt:
        print("; ".join(["ocidiff: interrupted", *getattr(interrupt, "__notes__", ())]), file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        # Our reader has enough, as in `ocidiff changes … | head`.
        _forget_output()
        return _LEFT_BY_READER
    except OSError as error:
        _forget_output()
        print(f"ocidiff: stdout: {error.strerror}", file=sys.stderr)
        return _FAILED
    return status


def _run(words: list[str]) -> int:
    if words == ["--version"]:
        print(f"ocidiff {ocidiff.__version__}")
        return 0
    _unwind_on_signals()
    from ocidiff.cli.group import run

    return run(words)


def _unwind_on_signals() -> None:
    """Let a polite kill and a lost terminal end the process as an interrupt does, so that nothing is left behind."""
    import signal

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _unwind)
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, _unwind)


def _unwind(number: int, _frame: FrameType | None) -> NoReturn:
    """Unwind, and say so if it takes long."""
    import signal
    import threading

    # Silence for seconds would look like a hang. Written past the stream, in which the signal may have come.
    timer = threading.Timer(_SECONDS_OF_SILENCE, os.write, (2, b"ocidiff: stopping and cleaning up\n"))
    timer.daemon = True
    timer.start()
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(_ENDED_BY_SIGNAL + number)


def _write_any_name() -> None:
    """Let no encoding of stdout be too small for a name."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _forget_output() -> None:
    """Give stdout's buffer somewhere to go, so that flushing it at exit cannot fail again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
