"""Names of images in registries, as Docker reads them. Spec: distribution-spec "Pulling manifests"."""

from __future__ import annotations

import re
from typing import Final, Self

from ocidiff.errors import DocumentError, UsageError
from ocidiff.oci.digest import Digest
from ocidiff.values import dataclass

DEFAULT_HOST: Final = "docker.io"

_SHOWN: Final = 100
_MAX_REPOSITORY: Final = 255
_DEFAULT_TAG: Final = "latest"
_HOST: Final = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")  # fmt: skip  # noqa: E501
_COMPONENT: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY: Final = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True, slots=True)
class RegistryName:
    """`[HOST/]REPOSITORY[:TAG][@DIGEST]`.

    Attributes:
        host: Host and port of the registry, as users write them.
        repository: Path of the repository in it.
        tag: The tag; empty if there is none.
        digest: The digest; None if there is none. It decides if there is a tag too.
    """

    host: str
    repository: str
    tag: str
    digest: Digest | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the name that a text is.

        Raises:
            UsageError: It is none.
        """
        rest, at, digest_text = text.partition("@")
        digest = _digest(digest_text, text) if at else None
        host, repository, tag = _split(rest)
        if not _HOST.fullmatch(host):
            raise _wrong(text, f"{host!r} is no host")
        if repository != repository.lower():
            raise _wrong(text, f"repository names are lower case, as {repository.lower()!r}")
        if not _REPOSITORY.fullmatch(repository) or len(repository) > _MAX_REPOSITORY:
            raise _wrong(text, f"{repository[:_SHOWN]!r} is no repository")
        if tag is not None and not _TAG.fullmatch(tag):
            raise _wrong(text, f"{tag[:_SHOWN]!r} is no tag")
        return cls(host, repository, tag or ("" if digest else _DEFAULT_TAG), digest)

    @property
    def reference(self) -> str:
        """The reference to ask the registry for: the digest, or the tag."""
        return self.digest or self.tag

    def __str__(self) -> str:
        return f"{self.host}/{self.repository}" + (self.tag and f":{self.tag}") + (f"@{self.digest}" if self.digest else "")


def check_tag(tag: str) -> str:
    """Return a tag.

    Raises:
        UsageError: It cannot be one.
    """
    if not _TAG.fullmatch(tag):
        raise UsageError(f"tag {tag[:_SHOWN]!r}: takes 1 to 128 letters, digits, `_`, `.` and `-`")
    return tag


def _split(text: str) -> tuple[str, str, str | None]:
    """Return host, repository and tag, with what Docker takes for granted."""
    first, slash, rest = text.partition("/")
    is_host = slash and (any(char in first for char in ".:[") or first == "localhost" or first != first.lower())
    host, path = (first, rest) if is_host else (DEFAULT_HOST, text)
    stem, colon, tag = path.rpartition(":")
    path = stem if colon else path
    if host in {DEFAULT_HOST, f"index.{DEFAULT_HOST}"}:
        host, path = DEFAULT_HOST, path if "/" in path else f"library/{path}"
    return host, path, tag if colon else None


def _digest(text: str, whole: str) -> Digest:
    try:
        return Digest(text)
    except DocumentError as error:
        raise _wrong(whole, str(error)) from None


def _wrong(text: str, why: str) -> UsageError:
    return UsageError(f"docker://{text[:_SHOWN]}: {why}; takes HOST/REPOSITORY[:TAG][@sha256:HEX]")
