"""Digest, DiffID and ChainID: types of their own, so that one is never taken for another."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Self

from ocidiff.errors import DocumentError, UnsupportedError

_SHA256: Final = re.compile(r"sha256:[0-9a-f]{64}")
# image-spec's grammar, within what a file name can hold. No part of it can be `..` or have a slash.
_ANY: Final = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]{1,255}")
_MAX_BYTES: Final = 512


class AnyDigest(str):
    """The digest of stored bytes by any algorithm, `ALGORITHM:ENCODED`.

    Raises:
        DocumentError: The text is anything else, so that a digest can become part of a path.
    Spec: image-spec descriptor.md, "Digests".
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """The text, checked."""
        if len(text) > _MAX_BYTES or not _ANY.fullmatch(text):
            raise DocumentError(f"not a digest: {text[:100]!r}")
        return super().__new__(cls, text)

    @property
    def algorithm(self) -> str:
        """Name of the algorithm, which is that of a directory too."""
        return self.partition(":")[0]

    @property
    def encoded(self) -> str:
        """The part after the algorithm, which names the file of the blob."""
        return self.partition(":")[2]


class Digest(AnyDigest):
    """The digest that we compute: `sha256:` and 64 lower-case hex digits.

    Raises:
        DocumentError: The text is anything else.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """The text, checked."""
        if not _SHA256.fullmatch(text):
            raise DocumentError(f"not a sha256 digest: {text[:100]!r}")
        return super().__new__(cls, text)

    @classmethod
    def of(cls, data: bytes) -> Self:
        """The digest of `data`."""
        import hashlib

        return cls("sha256:" + hashlib.sha256(data).hexdigest())

    @classmethod
    def parse(cls, value: object, where: str) -> Self:
        """The digest that a JSON value is.

        Raises:
            UnsupportedError: It is one of another algorithm.
            DocumentError: It is none; the message begins with `where`.
        """
        if isinstance(value, str) and _SHA256.fullmatch(value):
            return cls(value)
        if isinstance(value, str) and len(value) <= _MAX_BYTES and _ANY.fullmatch(value):
            algorithm = value.partition(":")[0]
            if algorithm != "sha256":
                raise UnsupportedError(f"{where}: {value}: algorithm {algorithm} is not supported: only sha256 is")
        raise DocumentError(f"{where}: not a sha256 digest: {str(value)[:100]!r}")

    @property
    def hex(self) -> str:
        """The 64 hex digits."""
        return self[7:]


class DiffID(Digest):
    """The digest of a layer's uncompressed tar. Spec: image-spec config.md, "Layer DiffID"."""

    __slots__ = ()


class ChainID(Digest):
    """The name of the file system that a stack of layers gives. Spec: image-spec config.md, "Layer ChainID"."""

    __slots__ = ()


def chain_id(diff_ids: Sequence[DiffID]) -> ChainID:
    """Name the file system that results from applying these layers in order.

    Args:
        diff_ids: Digests of the uncompressed layer tars, base layer first, at least one.

    Raises:
        ValueError: `diff_ids` is empty.
    Spec: image-spec config.md, "Layer ChainID".
    """
    if not diff_ids:
        raise ValueError("a chain ID needs at least one diff ID")
    return chain_ids(diff_ids)[-1]


def chain_ids(diff_ids: Sequence[DiffID]) -> list[ChainID]:
    """The names of the file systems that the first layer gives, the first two, and so on."""
    chain: list[ChainID] = []
    for diff_id in diff_ids:
        chain.append(ChainID.of(f"{chain[-1]} {diff_id}".encode()) if chain else ChainID(diff_id))
    return chain
