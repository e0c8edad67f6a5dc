"""Mutate: one step more, nothing else changed."""

from __future__ import annotations

from dataclasses import replace

import pytest

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


def test_a_manifest_becomes_oci_and_keeps_the_layers_of_a_docker_base() -> None:
    old = Descriptor("application/vnd.docker.image.rootfs.diff.tar.gzip", _digest("d"), 3, {"k": "v"}, {"urls": ["u"]})
    base = Manifest(
        Descriptor(media_type.DOCKER_CONFIG, _digest("e"), 4),
        (old,),
        media_type.DOCKER_MANIFEST,
        {"a": "b"},
        {"subject": {}, "artifactType": "t"},
    )
    after = mutate.extend_manifest(base, CONFIG, LAYER)
    assert after == Manifest(CONFIG, (old, LAYER.descriptor), media_type.MANIFEST, {"a": "b"}, {"artifactType": "t"})
    assert mutate.extend_manifest(base, CONFIG, None).layers == (old,)


def test_a_first_layer_needs_no_manifest_before() -> None:
    assert mutate.extend_manifest(None, CONFIG, LAYER) == Manifest(CONFIG, (LAYER.descriptor,))
    assert mutate.extend_manifest(None, CONFIG, None) == Manifest(CONFIG, ())
