"""Damaged blobs of a store: what an error says to do about them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from ocidiff.errors import DigestMismatchError, MalformedLayerError
from ocidiff.oci.digest import Digest

_REMEDY: Final = "if the blob is damaged, bring the image again (in containerd, remove the image first)"


@contextmanager
def reading_stored(layer: Digest | None = None) -> Iterator[None]:
    """Name the remedy in the error that the bytes of a blob raise.

    Args:
        layer: The blob that is read, which errors of the format do not name; None if it is one of several.
    """
    try:
        yield
    except MalformedLayerError as error:
        error.add_note(_REMEDY if layer is None else f"layer {layer}; {_REMEDY}")
        raise
    except DigestMismatchError as error:
        error.add_note(_REMEDY)
        raise
