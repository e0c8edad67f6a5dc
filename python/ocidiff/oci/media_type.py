"""Media types that ocidiff reads and writes. Spec: image-spec media-types.md; Docker image manifest v2 schema 2."""

from __future__ import annotations

from typing import Final

MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
INDEX: Final = "application/vnd.oci.image.index.v1+json"
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
CONFIGS: Final = frozenset({CONFIG, DOCKER_CONFIG})
LAYERS: Final = frozenset(
    {stem + suffix for stem in (LAYER, _NONDISTRIBUTABLE_LAYER) for suffix in ("", "+gzip", "+zstd")}
    | {stem + suffix for stem in (_DOCKER_LAYER, _DOCKER_FOREIGN_LAYER) for suffix in ("", ".gzip", ".zstd")}
)
