"""Media types that ocidiff reads and writes. Spec: image-spec media-types.md; Docker image manifest v2 schema 2."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
INDEX: Final = "application/vnd.oci.image.index.v1+json"
ARTIFACT: Final = "application/vnd.oci.artifact.manifest.v1+json"
CONFIG: Final = "application/vnd.oci.image.config.v1+json"
LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
LAYER_GZIP: Final = LAYER + "+gzip"
LAYER_ZSTD: Final = LAYER + "+zstd"

DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
_DOCKER_LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar"
_DOCKER_FOREIGN_LAYER: Final = "application/vnd.docker.image.rootfs.foreign.diff.tar"
_NONDISTRIBUTABLE_LAYER: Final = "application/vnd.oci.image.layer.nondistributable.v1.tar"

MANIFESTS: Final = frozenset({MANIFEST, DOCKER_MANIFEST})
INDEXES: Final = frozenset({INDEX, DOCKER_INDEX})
# Types that a registry takes for a manifest. Tools wrote artifacts of their own type before distribution-spec 1.1.
DOCUMENTS: Final = MANIFESTS | INDEXES | {ARTIFACT}
CONFIGS: Final = frozenset({CONFIG, DOCKER_CONFIG})
LAYERS: Final = frozenset(
    {stem + suffix for stem in (LAYER, _NONDISTRIBUTABLE_LAYER) for suffix in ("", "+gzip", "+zstd")}
    | {stem + suffix for stem in (_DOCKER_LAYER, _DOCKER_FOREIGN_LAYER) for suffix in ("", ".gzip", ".zstd")}
)


class Format(StrEnum):
    """A family of media types. The documents and layers of one manifest are all of one family, or other tools refuse it."""

    OCI = "oci"
    DOCKER = "docker"


# The counterparts of the other family. Docker's tools take no zstd in a manifest of Docker's, so that it has none.
_TO_OCI: Final = {
    DOCKER_MANIFEST: MANIFEST,
    DOCKER_INDEX: INDEX,
    DOCKER_CONFIG: CONFIG,
    **{
        docker + suffix: oci + suffix.replace(".", "+")
        for docker, oci in ((_DOCKER_LAYER, LAYER), (_DOCKER_FOREIGN_LAYER, _NONDISTRIBUTABLE_LAYER))
        for suffix in ("", ".gzip", ".zstd")
    },
}
_TO_DOCKER: Final = {oci: docker for docker, oci in _TO_OCI.items() if not docker.endswith(".zstd")}
_COUNTERPARTS: Final[Mapping[Format, Mapping[str, str]]] = MappingProxyType({Format.OCI: _TO_OCI, Format.DOCKER: _TO_DOCKER})


def counterpart(media_type: str, family: Format) -> str | None:
    """Return the media type in `family` for the same bytes; None if the family has none for them.

    OCI allows any media type, so one that is unknown stays as it is there.
    """
    known = _COUNTERPARTS[family]
    if media_type in known.values() or (family is Format.OCI and media_type not in known):
        return media_type
    return known.get(media_type)


def is_foreign_layer(media_type: object) -> bool:
    """True for layers that are in no registry, and are fetched from their `urls`."""
    return isinstance(media_type, str) and media_type.startswith((_NONDISTRIBUTABLE_LAYER, _DOCKER_FOREIGN_LAYER))
