"""The errors of a layer that is read. Their sentences are those of the other engine, letter for letter."""

from __future__ import annotations

from typing import Final

from ocidiff.errors import LimitExceededError, MalformedLayerError, UnsafeLayerError, UnsupportedError
from ocidiff.layer.pure.directories import show

_MAX_ID: Final = (1 << 32) - 2  # the next one means "leave it" to chown


def malformed(offset: int, reason: str) -> MalformedLayerError:
    """The error of a tar that breaks its format at this byte."""
    return MalformedLayerError(f"malformed layer at byte {offset} of the tar: {reason}")


def broken_link(offset: int, path: bytes, target: bytes, what: str) -> MalformedLayerError:
    """The error of a hard link that cannot be made; both paths are clean."""
    return malformed(offset, f"hard link {show(path)} to {show(target)}: {what}")


def broken_compression(name: str, reason: str) -> MalformedLayerError:
    """The error of a blob that does not decompress."""
    return MalformedLayerError(f"malformed {name}: {reason}")


def unsafe(path: bytes, reason: str) -> UnsafeLayerError:
    """The error of an entry that asks for what is never done; its path is clean, and empty for the root."""
    return UnsafeLayerError(f"unsafe entry {show(path) or '/'}: {reason}")


def unsupported(path: bytes, what: str) -> UnsupportedError:
    """The error of an entry in a form that is not read."""
    return UnsupportedError(f"{show(path)}: {what}")


def limit_exceeded(limit: str, value: int, largest: int, offset: int, path: bytes = b"") -> LimitExceededError:
    """The error of a layer that passes a limit; the path is that of the entry, if it is one that passes it."""
    where = f" by {show(path)}" if path else ""
    return LimitExceededError(f"limit {limit} exceeded{where}, at byte {offset} of the tar: {value} is more than {largest}")


def check_owner(path: bytes, uid: int, gid: int) -> None:
    """Check that an entry has an owner that Linux can have.

    Raises:
        UnsafeLayerError: It has not.
    """
    if not (0 <= uid <= _MAX_ID and 0 <= gid <= _MAX_ID):
        raise unsafe(path, f"owner {uid}:{gid} is out of range")
