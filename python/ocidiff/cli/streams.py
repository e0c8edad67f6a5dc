"""Streams: results go to stdout; complaints go to stderr, one line each, without control characters."""

from __future__ import annotations

import errno
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, BinaryIO, Final, TextIO

import click

from ocidiff.output import naming
from ocidiff.printable import printable
from ocidiff.sizes import counted

if TYPE_CHECKING:
    from ocidiff.layer.layer import Layer


_XATTRS: Final = "xattrs."


def emit(text: str, *, flush: bool = False) -> None:
    """Write a line of the result to stdout; with `flush` now, and not with the lines that follow."""
    with naming("stdout"):
        if sys.stdout is None:
            raise OSError(errno.EBADF, "is closed")
        print(text, flush=flush)


def complain(text: str) -> None:
    """Write one line to stderr."""
    print(printable(f"ocidiff: {text}"), file=sys.stderr)


def warn_of_skipped(what: str, skipped: Mapping[str, int]) -> None:
    """Say on stderr what the result does not hold."""
    lost = {name.removeprefix(_XATTRS): count for name, count in skipped.items() if name.startswith(_XATTRS)}
    for reason_, count in skipped.items():
        # Somebody asked for the excluded paths.
        if reason_ != "excluded" and not reason_.startswith(_XATTRS):
            complain(f"warning: {what}: {_counted(count, reason_)} left out")
    if lost:
        namespaces = ", ".join(f"{count} {name}.*" for name, count in lost.items())
        complain(f"warning: {what}: {counted(sum(lost.values()), 'extended attribute')} left out: {namespaces}")


def _counted(count: int, reason_: str) -> str:
    """Return a count of what a reason names: `1 socket`, `2 sockets`."""
    return counted(count, reason_.removesuffix("s"), reason_)


def warn_of_changes(what: str, layer: Layer) -> None:
    """Say on stderr that the tree changed while it was read."""
    if layer.retried or layer.vanished:
        complain(f"warning: {what}: the tree changed: {counted(layer.retried, 'name')} read again, {layer.vanished} gone")


def sink_of(output: str, what: str, *, json: bool) -> str | BinaryIO:
    """Return the sink of a result in bytes: the file `output`; for `-` stdout, which must not be a terminal or take JSON."""
    if output != "-":
        return output
    if json:
        raise click.UsageError("--json: cannot be used with -o -, since both write to stdout")
    if is_terminal(sys.stdout):
        raise click.UsageError(f"-o -: {what} is not written to a terminal")
    if sys.stdout is None:
        raise click.UsageError("-o -: stdout is closed")
    return sys.stdout.buffer


def source_of(source: str) -> str | BinaryIO:
    """Return the source of bytes: the file `source`; for `-` stdin."""
    if source != "-":
        return source
    if sys.stdin is None:
        raise click.UsageError("-: stdin is closed")
    return sys.stdin.buffer


def is_terminal(stream: TextIO | None) -> bool:
    """True for a terminal; False also for a stream that the caller has closed, which is None."""
    return stream is not None and stream.isatty()
