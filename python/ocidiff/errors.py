"""The exceptions of ocidiff; failures of the system stay `OSError`.

OcidiffError
├── UsageError (also ValueError)      the call contradicts itself or the format
├── LayerError
│   ├── MalformedLayerError           the layer is not what its format says
│   ├── UnsafeLayerError              the layer asks for something that is never done
│   ├── LimitExceededError            a limit of the caller was passed
│   │   └── ChangeTooLargeError       the change is larger than `fail_above`
│   └── SourceChangedError            a file changed while it was read
├── OverlayError                      the directories of an overlay cannot be read without mounting it
├── IndexFileError                    a file is not the index of a tree, or is damaged
├── UnsupportedError                  ocidiff does not do this; another differ, tool or version may
├── UnrepresentableError              no layer, index or manifest of this kind can say this
├── DigestMismatchError               bytes are not those that were named
├── DocumentError                     a manifest, config or index is malformed
├── NotFoundError                     no image, blob or reference of that name
├── AlreadyExistsError                a name or blob is taken
├── InUseError                        something else still needs what should go
├── ForbiddenContentError             an image holds what the caller denies
├── BusyError                         another process holds what is needed
├── OverloadedError                   a server has as many calls as it takes
├── RegistryError                     a registry fails, answers what it should not, or cannot be trusted
│   └── DeniedError                   a registry refuses the user, or wants to know who asks
└── Cancelled                         the caller cancelled

`OUTCOMES` says what becomes of each of them elsewhere.
"""

from __future__ import annotations

import os
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class OcidiffError(Exception):
    """Base of all; the message is one line: what, where, cause."""


class UsageError(OcidiffError, ValueError):
    """The call contradicts itself or the format."""


class LayerError(OcidiffError):
    """Base of what can be wrong with one layer."""


class MalformedLayerError(LayerError):
    """The layer is not what its format says."""


class UnsafeLayerError(LayerError):
    """The layer asks for something that is never done."""


class LimitExceededError(LayerError):
    """A limit of the caller was passed."""


class ChangeTooLargeError(LimitExceededError):
    """The change is larger than `fail_above`."""


class SourceChangedError(LayerError):
    """A file changed while it was read."""


class OverlayError(OcidiffError):
    """The directories of an overlay cannot be read without mounting it."""


class IndexFileError(OcidiffError):
    """A file is not the index of a tree, or is damaged."""


class UnsupportedError(OcidiffError):
    """Ocidiff does not do this; another differ, tool or version may."""


class UnrepresentableError(OcidiffError):
    """No layer, index or manifest of this kind can say this, whoever writes it."""


class DigestMismatchError(OcidiffError):
    """Bytes are not those that were named."""


class DocumentError(OcidiffError):
    """A manifest, config or index is malformed."""


class NotFoundError(OcidiffError):
    """No image, blob or reference of that name."""


class AlreadyExistsError(OcidiffError):
    """A name or blob is taken."""


class InUseError(OcidiffError):
    """Something else still needs what should go."""


class ForbiddenContentError(OcidiffError):
    """An image holds what the caller denies."""


class BusyError(OcidiffError):
    """Another process holds what is needed."""


class OverloadedError(OcidiffError):
    """A server has as many calls as it takes."""


class RegistryError(OcidiffError):
    """A registry fails, answers what it should not, or cannot be trusted."""


class DeniedError(RegistryError):
    """A registry refuses the user, or wants to know who asks."""


class Cancelled(OcidiffError):
    """The caller cancelled."""


class Outcome(NamedTuple):
    """The names and the exit status that stand for an exception elsewhere.

    Attributes:
        core: Variants of the core's `Error` that become this exception.
        grpc: Name of the status code of gRPC. After UNIMPLEMENTED alone containerd asks its next differ.
        status: Exit status of a command.
    """

    core: tuple[str, ...]
    grpc: str
    status: int


OUTCOMES: Final[Mapping[type[BaseException], Outcome]] = MappingProxyType(
    {
        OcidiffError: Outcome((), "UNKNOWN", 1),
        UsageError: Outcome(("Usage",), "INVALID_ARGUMENT", 2),
        LayerError: Outcome((), "INVALID_ARGUMENT", 1),
        MalformedLayerError: Outcome(("MalformedLayer", "MalformedCompression"), "INVALID_ARGUMENT", 1),
        UnsafeLayerError: Outcome(("UnsafeEntry",), "INVALID_ARGUMENT", 1),
        LimitExceededError: Outcome(("LimitExceeded",), "RESOURCE_EXHAUSTED", 1),
        ChangeTooLargeError: Outcome((), "RESOURCE_EXHAUSTED", 3),
        SourceChangedError: Outcome(("SourceChanged",), "ABORTED", 1),
        OverlayError: Outcome(("Overlay",), "UNIMPLEMENTED", 1),
        IndexFileError: Outcome(("IndexFile",), "INVALID_ARGUMENT", 1),
        UnsupportedError: Outcome(("Unsupported",), "UNIMPLEMENTED", 1),
        UnrepresentableError: Outcome(("Unrepresentable",), "FAILED_PRECONDITION", 1),
        DigestMismatchError: Outcome((), "FAILED_PRECONDITION", 1),
        DocumentError: Outcome((), "INVALID_ARGUMENT", 1),
        NotFoundError: Outcome((), "NOT_FOUND", 1),
        AlreadyExistsError: Outcome((), "ALREADY_EXISTS", 1),
        InUseError: Outcome((), "FAILED_PRECONDITION", 1),
        ForbiddenContentError: Outcome((), "FAILED_PRECONDITION", 1),
        BusyError: Outcome((), "UNAVAILABLE", 1),
        OverloadedError: Outcome((), "RESOURCE_EXHAUSTED", 1),
        RegistryError: Outcome((), "UNAVAILABLE", 1),
        DeniedError: Outcome((), "PERMISSION_DENIED", 1),
        Cancelled: Outcome(("Cancelled",), "CANCELLED", 1),
        OSError: Outcome(("Io",), "INTERNAL", 1),
        ConnectionError: Outcome((), "UNAVAILABLE", 1),
        TimeoutError: Outcome((), "UNAVAILABLE", 1),
        KeyboardInterrupt: Outcome((), "CANCELLED", 130),
    }
)
"""The one table of errors: core, Python, gRPC, exit status."""


def outcome_of(error: BaseException) -> Outcome:
    """Return the row of the table for an exception; that of `OcidiffError` for one that no row knows."""
    return next((OUTCOMES[kind] for kind in type(error).__mro__ if kind in OUTCOMES), OUTCOMES[OcidiffError])


def class_of(variant: str) -> type[BaseException]:
    """Return the exception for a variant of the core's `Error`."""
    return next(kind for kind, outcome in OUTCOMES.items() if variant in outcome.core)


def reason(error: BaseException) -> str:
    """Return where an error is, its cause, and what it leaves."""
    return "; ".join([_cause(error), *getattr(error, "__notes__", ())])


def _cause(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        names = [os.fsdecode(name) or "''" for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
        return ": ".join(filter(None, (" to ".join(names), error.strerror)))
    if isinstance(error, OcidiffError | OSError):
        return str(error)
    if isinstance(error, MemoryError):
        return "out of memory"
    return f"internal error: {type(error).__name__}: {error}"
