"""Reference: how users name images, and which name a layout gets.

Spec: docs/decisions/0106-names-that-registries-take.md.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final, Self

from ocidiff.errors import DocumentError, UsageError
from ocidiff.oci.digest import Digest
from ocidiff.values import dataclass

_DEFAULT_TAG: Final = "latest"
_DIGEST_PREFIX: Final = "sha256:"
_SHOWN: Final = 100
_MAX_LENGTH: Final = 255
_MAX_TAG: Final = 128
# Docker's registry has two names, and is meant where no host is given. Images of a single name are kept in `library`.
_DOCKER_HOSTS: Final = ("docker.io", "index.docker.io")
_LIBRARY: Final = "library/"
# Names that registries (distribution's reference grammar) and `ref.name` (image-spec annotations.md) both take: skopeo and
# podman refuse the rest.
_LABEL: Final = r"[A-Za-z0-9]+(?:--?[A-Za-z0-9]+)*"
_HOST: Final = rf"(?:{_LABEL}(?:\.{_LABEL})+(?::[0-9]+)?|{_LABEL}:[0-9]+|localhost)"
_COMPONENT: Final = r"[a-z0-9]+(?:(?:[._]|--?)[a-z0-9]+)*"
_TAG: Final = r"[A-Za-z0-9]+(?:(?:[._]|--?)[A-Za-z0-9]+)*"
_NAME: Final = rf"(?P<name>(?:{_HOST}/)?{_COMPONENT}(?:/{_COMPONENT})*)(?::(?P<tag>{_TAG}))?"


@dataclass(frozen=True, slots=True)
class Reference:
    """`NAME[:TAG]`, `NAME[:TAG]@DIGEST` or `DIGEST`.

    Attributes:
        name: Without tag; empty for a bare digest.
        tag: Empty when not given.
        digest: Of the manifest or index; None when not given.
    """

    name: str
    tag: str
    digest: Digest | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the reference that a text is.

        Raises:
            UsageError: It is none.
        """
        if text.startswith(_DIGEST_PREFIX) and "@" not in text:
            return cls("", "", _digest(text, text))
        name, at, digest_text = text.partition("@")
        digest = _digest(digest_text, text) if at else None
        found = _parts(name)
        if found is None:
            raise UsageError(f"image {text[:_SHOWN]!r}: {_advice(name)}")
        return cls(found["name"], found["tag"] or "", digest)

    @property
    def stored_name(self) -> str:
        """The name in the layout's index: always with a tag."""
        return f"{self.name}:{self.tag or _DEFAULT_TAG}"

    @property
    def spellings(self) -> tuple[str, ...]:
        """All names that mean this image, the shortest first: `foo:1` and `docker.io/library/foo:1` are one."""
        tags = [f":{self.tag or _DEFAULT_TAG}", *([""] if self.tag in {"", _DEFAULT_TAG} else [])]
        return tuple(stem + tag for tag in tags for stem in self._stems)

    @property
    def full_name(self) -> str:
        """The longest spelling, as Docker and containerd write names: `docker.io/library/foo:1` for `foo:1`."""
        host, path = _host_and_path(self.name)
        if host and host not in _DOCKER_HOSTS:
            return self.stored_name
        return f"{_DOCKER_HOSTS[0]}/{path if '/' in path else _LIBRARY + path}:{self.tag or _DEFAULT_TAG}"

    def covers(self, stored_name: str) -> bool:
        """Return true if the image stored under this name may be meant; without a tag that of any tag may."""
        if self.tag:
            return stored_name in self.spellings
        return stored_name in self._stems or stored_name.rpartition(":")[0] in self._stems

    @property
    def _stems(self) -> tuple[str, ...]:
        """All spellings of the name without its tag, the shortest first."""
        host, path = _host_and_path(self.name)
        if not self.name or (host and host not in _DOCKER_HOSTS):
            return (self.name,)
        single = path.removeprefix(_LIBRARY)
        paths = (single, _LIBRARY + single) if "/" not in single else (path,)
        # A path that begins with what looks like a host would mean another registry.
        bare = () if _host_and_path(paths[0])[0] else paths
        return (*bare, *(f"{registry}/{one}" for registry in _DOCKER_HOSTS for one in paths))


def name_to_give(text: str) -> str:
    """Return the text if an image can be called so.

    Raises:
        UsageError: It cannot be the name of an image.
    """
    if Reference.parse(text).digest is not None:
        raise UsageError(f"image {text!r}: a digest cannot be given as a name")
    return text


def shortest(text: str) -> str:
    """Return the shortest spelling of a name; the text itself if it can be none of ours."""
    found = _parts(text)
    return Reference(found["name"], found["tag"] or "", None).spellings[0] if found else text


def spelling(text: str, taken: Collection[str]) -> str:
    """Return the name under which a layout keeps an image that is called `text`: as the layout spells it.

    Args:
        text: The name as given.
        taken: The names in the layout.
    """
    reference = Reference.parse(text)
    names = reference.spellings
    for name in (reference.stored_name, *names):
        if name in taken:
            return name
    keeps_tags = bool(taken) and all(re.fullmatch(_TAG, name) for name in taken)
    return text if keeps_tags and re.fullmatch(_TAG, text) else names[0]


def is_same(text: str, stored_name: str | None) -> bool:
    """Return true if a text that a user gives means the image stored under this name."""
    if stored_name is None or text == stored_name:
        return stored_name is not None
    found = _parts(text)
    return found is not None and stored_name in Reference(found["name"], found["tag"] or "", None).spellings


def _parts(name: str) -> re.Match[str] | None:
    # The pattern is not run over a text that is too long.
    found = re.fullmatch(_NAME, name) if len(name) <= _MAX_LENGTH + 1 + _MAX_TAG else None
    return found if found and len(found["name"]) <= _MAX_LENGTH and len(found["tag"] or "") <= _MAX_TAG else None


def _host_and_path(name: str) -> tuple[str, str]:
    host, slash, path = name.partition("/")
    return (host, path) if slash and re.fullmatch(_HOST, host) else ("", name)


def _advice(name: str) -> str:
    """Return what to write in place of a name that is none."""
    stem, colon, tag = name.rpartition(":")
    lower = stem.lower() + colon + tag if colon and "/" not in tag else name.lower()
    if lower != name and _parts(lower):
        return f"no registry takes upper case in a name; write {lower[:_SHOWN]!r}"
    return "takes NAME, NAME:TAG, NAME@sha256:HEX or sha256:HEX, with a NAME that registries take"


def _digest(text: str, reference: str) -> Digest:
    try:
        return Digest(text)
    except DocumentError as error:
        raise UsageError(f"image {reference[:_SHOWN]!r}: {error}") from None
