"""Mutate: one step more, nothing else changed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ocidiff.errors import UnrepresentableError
from ocidiff.image import mutate
from ocidiff.layer.layer import NOTHING_SKIPPED, Layer
from ocidiff.oci import media_type
from ocidiff.oci.config import ExecConfig, History, ImageConfig, RootFS
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.digest import DiffID, Digest
from ocidiff.oci.manifest import Manifest
from ocidiff.oci.platform import Platform


def _digest(digit: str) -> Digest:
    return Digest("sha256:" + digit * 64)


LAYER = Layer(
    Descriptor(media_type.LAYER_ZSTD, _digest("a"), 9), DiffID(_digest("b")), 10, 1, 0, 0, False, NOTHING_SKIPPED, 0.0
)
CONFIG = Descriptor(media_type.CONFIG, _digest("c"), 5)
ENTRY = History("2023-11-14T22:13:20Z", "ocidiff commit", "me", "text")
BASE = ImageConfig(
    platform=Platform("arm", "linux", "v6", "10", ("f",)),
    rootfs=RootFS((DiffID(_digest("1")), DiffID(_digest("2"))), {"more": 1}),
    created="2020-01-01T00:00:00Z",
    author="them",
    history=(History(created_by="one"), History(created_by="env", empty_layer=True), History(created_by="two")),
    config=ExecConfig(cmd=("sh",)),
    extra={"docker_version": "1"},
)


def test_a_layer_gives_one_diff_id_and_one_step_more() -> None:
    after = mutate.extend_config(BASE, LAYER, ENTRY)
    assert after == replace(
        BASE,
        created=ENTRY.created,
        author="me",
        rootfs=replace(BASE.rootfs, diff_ids=(*BASE.rootfs.diff_ids, LAYER.diff_id)),
        history=(*BASE.history, ENTRY),
    )


def test_a_step_without_layer_says_so() -> None:
    after = mutate.extend_config(BASE, None, ENTRY)
    assert after.rootfs == BASE.rootfs
    assert after.history == (*BASE.history, replace(ENTRY, empty_layer=True))


@pytest.mark.parametrize("history", [(), (History(created_by="one"), History(empty_layer=True))])
def test_layers_without_history_get_blank_steps(history: tuple[History, ...]) -> None:
    after = mutate.extend_config(replace(BASE, history=history), LAYER, ENTRY)
    assert mutate.recorded_layers(after) == len(after.rootfs.diff_ids) == 3
    assert after.history[-1] == ENTRY
    assert after.history[: len(history)] == history


def test_a_history_of_too_many_steps_stays_as_it_is() -> None:
    history = (*BASE.history, History(created_by="three"))
    assert mutate.extend_config(replace(BASE, history=history), LAYER, ENTRY).history == (*history, ENTRY)


DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar"
NONDISTRIBUTABLE = "application/vnd.oci.image.layer.nondistributable.v1.tar"


def _docker(*kinds: str) -> Manifest:
    layers = tuple(
        Descriptor(kind, _digest(f"{number:x}"), 3, {"k": "v"}, {"urls": ["u"]}) for number, kind in enumerate(kinds)
    )
    config = Descriptor(media_type.DOCKER_CONFIG, _digest("e"), 4)
    return Manifest(config, layers, media_type.DOCKER_MANIFEST, {"a": "b"}, {"subject": {}, "artifactType": "t"})


@pytest.mark.parametrize(
    ("docker", "oci"),
    [
        (DOCKER_LAYER, media_type.LAYER),
        (DOCKER_LAYER + ".gzip", media_type.LAYER_GZIP),
        (DOCKER_LAYER + ".zstd", media_type.LAYER_ZSTD),
        (DOCKER_FOREIGN, NONDISTRIBUTABLE),
        (DOCKER_FOREIGN + ".gzip", NONDISTRIBUTABLE + "+gzip"),
        (DOCKER_FOREIGN + ".zstd", NONDISTRIBUTABLE + "+zstd"),
        (media_type.LAYER_GZIP, media_type.LAYER_GZIP),
        ("application/vnd.in-toto+json", "application/vnd.in-toto+json"),
        (media_type.LAYER_GZIP + "+encrypted", media_type.LAYER_GZIP + "+encrypted"),
    ],
)
def test_a_manifest_on_a_docker_base_has_one_family(docker: str, oci: str) -> None:
    base = _docker(docker, DOCKER_LAYER + ".gzip")
    first, second = base.layers
    kept = (replace(first, media_type=oci), replace(second, media_type=media_type.LAYER_GZIP))
    after = mutate.extend_manifest(base, CONFIG, LAYER)
    assert after == Manifest(CONFIG, (*kept, LAYER.descriptor), media_type.MANIFEST, {"a": "b"}, {"artifactType": "t"})
    assert mutate.extend_manifest(base, CONFIG, None).layers == kept


def test_a_manifest_mixed_of_two_families_is_mended() -> None:
    mixed = replace(_docker(DOCKER_LAYER + ".gzip"), media_type=media_type.MANIFEST, config=CONFIG)
    assert [layer.media_type for layer in mutate.extend_manifest(mixed, CONFIG, None).layers] == [media_type.LAYER_GZIP]


def test_every_media_type_that_docker_has_goes_both_ways() -> None:
    docker = _docker(*(stem + suffix for stem in (DOCKER_LAYER, DOCKER_FOREIGN) for suffix in ("", ".gzip")))
    oci = docker.in_format(media_type.Format.OCI)
    kinds = [oci.media_type, oci.config.media_type, *(layer.media_type for layer in oci.layers)]
    assert not any(kind.startswith("application/vnd.docker.") for kind in kinds)
    assert oci.in_format(media_type.Format.DOCKER) == docker
    assert docker.in_format(media_type.Format.DOCKER) == docker
    assert oci.in_format(media_type.Format.OCI) == oci


@pytest.mark.parametrize("kind", [media_type.LAYER_ZSTD, DOCKER_LAYER + ".zstd", NONDISTRIBUTABLE + "+zstd", "text/plain"])
def test_what_docker_has_no_media_type_for_is_refused_there(kind: str) -> None:
    with pytest.raises(UnrepresentableError, match="the docker format has none for it"):
        _docker(kind).in_format(media_type.Format.DOCKER)


def test_a_first_layer_needs_no_manifest_before() -> None:
    assert mutate.extend_manifest(None, CONFIG, LAYER) == Manifest(CONFIG, (LAYER.descriptor,))
    assert mutate.extend_manifest(None, CONFIG, None) == Manifest(CONFIG, ())
