"""The law: a batch makes the images of single commits, digest for digest, from upper directories and from directories.

Uppers are those of real overlays. An image of an upper is compared with that of its tar, over the same unpacked base, and
with that of the mounted overlay over the lower tree.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
from pathlib import Path

import pytest
import strategies
from test_upper_tar_equals_directory import marks_in

import ocidiff
from ocidiff.layer.input import UpperTar
from support import overlays, probes, upper_tars

pytestmark = pytest.mark.root

EPOCH = 1_800_000_000


def test_a_batch_equals_commits() -> None:
    if not overlays.can_mount():
        probes.missing("needs overlay mounts")
    for first in range(0, 24, 6):
        check(list(range(first, first + 6)))


def check(seeds: list[int]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        for seed in seeds:
            with overlays.sequence(seed, ()) as (below, root, layers), ocidiff.Store.open(place / f"{seed}") as store:
                store.commit(below, "base:1", source_date_epoch=EPOCH)
                upper = os.fsdecode(layers.upperdir)
                given = [{"upper": upper, "name": "upper:1"}, {"source": str(root), "name": "source:1"}]
                batched = batch(store, place, given)
                batched_over_tree = batch(store, place, given, lower=str(below))
                # What is unpacked has times of layers, so that a lower tree that is given may tell more changes.
                mounted = store.commit(root, "single:1", base="base:1", lower=below, source_date_epoch=EPOCH)
                assert batched_over_tree["upper:1"] == batched_over_tree["source:1"] == mounted.digest, seed
                strategies.RAN["batch = commit of the mounted overlay"] += 1
                whole = store.commit(root, "single:2", base="base:1", source_date_epoch=EPOCH)
                assert batched["source:1"] == whole.digest, seed
                strategies.RAN["batch = commit of the directory"] += 1
                data = upper_tars.archive(upper, seed)
                is_in_law = not any(stat.S_ISSOCK(path.lstat().st_mode) for path in Path(upper).rglob("*"))
                if not is_in_law or "redirected" in marks_in(data):
                    continue
                tar = place / "upper.tar"
                tar.write_bytes(data)
                single = store.commit(UpperTar(tar), "single:3", base="base:1", source_date_epoch=EPOCH)
                assert batched["upper:1"] == single.digest, seed
                strategies.RAN["batch = commit of the upper's tar"] += 1


def batch(
    store: ocidiff.EmbeddedStore, place: Path, given: list[dict[str, str]], lower: str | None = None
) -> dict[str, str]:
    (place / "lines").write_text("".join(json.dumps(line) + "\n" for line in given))
    found: dict[str, str] = {}

    def take(result: ocidiff.BatchResult) -> None:
        assert result.digest is not None, result.error
        found[result.name] = result.digest

    store.batch(place / "lines", take, base="base:1", lower=lower, source_date_epoch=EPOCH)
    return found
