"""Lines of a batch: JSON Lines that say what to commit, read in bounded memory whatever they hold."""

from __future__ import annotations

import os
import re
import select
from array import array
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Self

from ocidiff.errors import DocumentError, UsageError
from ocidiff.oci.encoding import Members, parse_object
from ocidiff.values import dataclass

MAX_LINE_BYTES: Final = 1 << 20
"""Longest line. Longer ones are skipped without being kept."""

_BLOCK_BYTES: Final = 1 << 16
# Milliseconds between two checks for a stop, while no line comes.
_LOOK_MS: Final = 100
_SHARD: Final = r"([0-9]{0,9})/([0-9]{1,9})"
_INDEX_OF_JOB: Final = "JOB_COMPLETION_INDEX"
_EMPTY: Final = 0
_WHERE: Final = "line"


@dataclass(frozen=True, slots=True)
class Line:
    """One commit of a batch.

    Attributes:
        number: Number of the line, from 1 on.
        upper: Path of the upper directory of an overlay over the base; empty if there is a `source`.
        source: A directory or a working container, as `ocidiff commit` takes it; empty if there is an `upper`.
        name: Name of the image, in any place.
        changes: Dockerfile instructions.
    """

    number: int
    upper: str
    source: str
    name: str
    changes: tuple[str, ...]

    @classmethod
    def parse(cls, number: int, data: bytes) -> Self:
        """Return what a line says.

        Raises:
            DocumentError: It is not JSON, or not of this form.
        """
        members = Members(parse_object(data, _WHERE), _WHERE)
        upper, source = members.text("upper"), members.text("source")
        line = cls(number, upper, source, members.required_text("name"), members.texts("changes"))
        if unknown := sorted(members.rest()):
            raise DocumentError(f"{_WHERE}: unknown member {unknown[0][:100]!r}: must be upper, source, name or changes")
        if bool(upper) == bool(source):
            raise DocumentError(f"{_WHERE}: must have upper or source, not both")
        if "\0" in upper + source:
            raise DocumentError(f"{_WHERE}: a path holds a null character")
        return line


@dataclass(frozen=True, slots=True)
class Shard:
    """A part of the lines of a batch.

    Attributes:
        index: Which part, from 0 on.
        count: Number of parts.
    """

    index: int = 0
    count: int = 1

    @classmethod
    def of(cls, text: str, environment: Mapping[str, str] = os.environ) -> Self:
        """Return the shard of `I/N`; of `/N` with the index that Kubernetes gives to a pod of an indexed job.

        Raises:
            UsageError: It is none.
        """
        found = re.fullmatch(_SHARD, text, re.ASCII)
        index = found and (found[1] or environment.get(_INDEX_OF_JOB, ""))
        if not found or not index or not re.fullmatch("[0-9]{1,9}", index, re.ASCII):
            raise UsageError(f"shard {text[:100]!r}: must be I/N, or /N if {_INDEX_OF_JOB} is set to a number")
        shard = cls(int(index), int(found[2]))
        if not shard.count:
            raise UsageError(f"shard {text[:100]!r}: the number of parts must be 1 or more")
        if shard.index >= shard.count:
            raise UsageError(f"shard {text[:100]!r}: the index must be 0 to {shard.count - 1}, not {shard.index}")
        return shard

    def has(self, number: int) -> bool:
        """True if a line belongs to this part: lines go to the parts in turn."""
        return (number - 1) % self.count == self.index


def numbered_lines(file: int, is_stopped: Callable[[], bool]) -> Iterator[tuple[int, bytes | None]]:
    """Yield the lines of a file or pipe with their numbers, from 1 on; None for one of more than `MAX_LINE_BYTES`.

    Args:
        file: Its descriptor.
        is_stopped: Asked while nothing comes: True ends the lines.
    """
    number, begun, is_long = 1, bytearray(), False
    for block in _blocks(file, is_stopped):
        *whole, rest = block.split(b"\n")
        for part in whole:
            yield number, None if is_long or len(begun) + len(part) > MAX_LINE_BYTES else bytes(begun + part)
            number, is_long = number + 1, False
            begun.clear()
        is_long = is_long or len(begun) + len(rest) > MAX_LINE_BYTES
        begun += b"" if is_long else rest
    if begun or is_long:
        yield number, None if is_long else bytes(begun)


def _blocks(file: int, is_stopped: Callable[[], bool]) -> Iterator[bytes]:
    poll = select.poll()
    poll.register(file, select.POLLIN)
    while not is_stopped():
        if poll.poll(_LOOK_MS):
            block = os.read(file, _BLOCK_BYTES)
            if not block:
                return
            yield block


class NameSet:
    """A set of names that takes 16 to 32 bytes for each, whatever its length.

    Two names are one if their 64-bit hashes are, which are keyed anew in each process: for a million names, one chance in
    thirty million.
    """

    def __init__(self) -> None:
        self._places = array("Q", bytes(8 << 10))
        self._count = 0

    def add(self, name: str) -> bool:
        """Add a name; False if it was there already."""
        if not _put(self._places, hash(name) & (1 << 64) - 1 or 1):
            return False
        self._count += 1
        if 2 * self._count > len(self._places):
            larger = array("Q", bytes(16 * len(self._places)))
            for value in self._places:
                if value != _EMPTY:
                    _put(larger, value)
            self._places = larger
        return True


def _put(places: array[int], value: int) -> bool:
    """Put a hash where it belongs; False if it is there already."""
    mask = len(places) - 1
    at = value & mask
    while places[at] != _EMPTY:
        if places[at] == value:
            return False
        at = (at + 1) & mask
    places[at] = value
    return True
