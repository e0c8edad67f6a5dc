"""Every exception that ocidiff raises on its own account; failures of the system stay `OSError`.

OcidiffError
├── UsageError (also ValueError)      the call contradicts itself or the format
├── LayerError
│   ├── MalformedLayerError           the layer is not what its format says
│   ├── UnsafeLayerError              the layer asks for something that is never done
│   ├── LimitExceededError            a limit of the caller was passed
│   │   └── ChangeTooLargeError       the change is larger than `fail_above`
│   └── SourceChangedError            a file changed while it was read
├── OverlayError                      the directories of an overlay cannot be read without mounting it
├── IndexFileError                    a file that should be the index of a tree is none, or a broken one
├── UnsupportedError                  a tree or document holds what the format cannot say
├── DigestMismatchError               bytes are not those that were named
├── DocumentError                     a manifest, config or index is malformed
├── NotFoundError                     no image, blob or reference of that name
├── AlreadyExistsError                a name or blob is taken
├── InUseError                        something else still needs what should go
├── BusyError                         another process holds what is needed
└── Cancelled                         the caller cancelled
"""

from __future__ import annotations


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
    """A file that should be the index of a tree is none, or a broken one."""


class UnsupportedError(OcidiffError):
    """A tree or document holds what the format cannot say."""


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


class BusyError(OcidiffError):
    """Another process holds what is needed."""


class Cancelled(OcidiffError):
    """The caller cancelled."""
