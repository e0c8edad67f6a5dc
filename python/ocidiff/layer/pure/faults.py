"""The errors of the engine, made of the templates in `sentences`, which the other engine has too."""

from __future__ import annotations

from ocidiff.errors import (
    LimitExceededError,
    MalformedLayerError,
    OverlayError,
    SourceChangedError,
    UnrepresentableError,
    UnsafeLayerError,
    UnsupportedError,
)
from ocidiff.layer.pure import sentences
from ocidiff.layer.pure.directories import show


def malformed(offset: int, reason: str) -> MalformedLayerError:
    """The error of a tar that breaks its format at this byte."""
    return MalformedLayerError(sentences.MALFORMED_LAYER.format(offset=offset, reason=reason))


def broken_link(offset: int, path: bytes, target: bytes, cause: str) -> MalformedLayerError:
    """The error of a hard link that cannot be made; both paths are clean."""
    return malformed(offset, sentences.HARD_LINK.format(path=show(path), target=show(target), cause=cause))


def broken_compression(name: str, reason: str) -> MalformedLayerError:
    """The error of a blob that does not decompress."""
    return MalformedLayerError(sentences.MALFORMED_COMPRESSION.format(format=name, reason=reason))


def unsafe(path: bytes, reason: str) -> UnsafeLayerError:
    """The error of an entry that asks for what is never done; its path is clean, and empty for the root."""
    return UnsafeLayerError(sentences.UNSAFE_ENTRY.format(path=show(path) or "/", reason=reason))


def unsupported(path: bytes, reason: str) -> UnsupportedError:
    """The error of a file or entry in a form that is not read."""
    return UnsupportedError(sentences.UNSUPPORTED.format(path=show(path), reason=reason))


def unrepresentable(path: bytes, reason: str) -> UnrepresentableError:
    """The error of a file that no layer can hold."""
    return UnrepresentableError(sentences.UNREPRESENTABLE.format(path=show(path), reason=reason))


def source_changed(path: bytes, reason: str) -> SourceChangedError:
    """The error of a file that changed while it was read."""
    return SourceChangedError(sentences.SOURCE_CHANGED.format(path=show(path), reason=reason))


def unreadable_overlay(upperdir: bytes, reason: str) -> OverlayError:
    """The error of an overlay that cannot be read without mounting it."""
    return OverlayError(sentences.OVERLAY.format(path=show(upperdir), reason=reason))


def limit_exceeded(limit: str, value: int, largest: int, offset: int, path: bytes = b"") -> LimitExceededError:
    """The error of a layer that passes a limit; the path is that of the entry, if it is one that passes it."""
    where = f" by {show(path)}" if path else ""
    return LimitExceededError(
        sentences.LIMIT_EXCEEDED.format(limit=limit, path=where, offset=offset, value=value, max=largest)
    )
