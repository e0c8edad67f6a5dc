"""The golden vectors: both engines give what containerd's own differ gave, and apply it back."""

from __future__ import annotations

import base64
import hashlib
import os
import zlib
from pathlib import Path
from typing import Any

import pytest

from ocidiff.layer.engine import Engine
from ocidiff.layer.layer import IndexPath
from ocidiff.layer.options import Compression, Profile
from support import probes, trees, verbs

pytestmark = pytest.mark.root

VECTORS = [trees.load(path) for path in sorted(trees.VECTORS.glob("*.json"))]
EXACT = [vector for vector in VECTORS if vector["expect"]["roundtrip"] == "exact"]
WITH_OTHER_XATTRS = "p24-other-xattrs-invisible"  # the one vector in which the profiles differ
SAME_IN_BOTH_PROFILES = [vector for vector in VECTORS if vector["name"] != WITH_OTHER_XATTRS]


def name_of(vector: dict[str, Any]) -> str:
    return str(vector["name"])


class Case:
    """A vector with its trees on disk."""

    def __init__(self, vector: dict[str, Any], directory: Path) -> None:
        self.vector = vector
        self.expect = vector["expect"]
        self.directory = directory
        try:
            self.lower, self.upper = trees.build_vector(vector, directory)
        except trees.Unsupported as error:
            probes.missing(str(error))
        self.options = {"source_date_epoch": vector.get("source_date_epoch")}

    def lower_again(self) -> Path:
        """A fresh copy of the lower tree, or an empty directory."""
        target = self.directory / "target"
        if self.vector["lower"] is None:
            target.mkdir()
        else:
            trees.build_tree(self.vector["lower"], target)
        return target


@pytest.fixture
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    return Case(request.param, tmp_path)


def test_all_vectors_are_here() -> None:
    assert len(VECTORS) >= 30


@pytest.mark.parametrize("case", VECTORS, ids=name_of, indirect=True)
def test_the_profile_containerd_gives_what_containerd_gave(engine: Engine, case: Case) -> None:
    assert_golden(engine, case, Profile.CONTAINERD)


@pytest.mark.parametrize("case", SAME_IN_BOTH_PROFILES, ids=name_of, indirect=True)
def test_the_profile_oci_gives_the_same(engine: Engine, case: Case) -> None:
    assert_golden(engine, case, Profile.OCI)


@pytest.mark.parametrize("profile", Profile)
@pytest.mark.parametrize("case", SAME_IN_BOTH_PROFILES, ids=name_of, indirect=True)
def test_an_index_in_place_of_lower_gives_the_same(engine: Engine, case: Case, profile: Profile) -> None:
    lower = None
    if case.lower is not None:
        (case.directory / "index").write_bytes(verbs.index(engine, case.lower))
        lower = IndexPath(os.fsencode(case.directory / "index"))
    summary, tar = verbs.diff(engine, lower, case.upper, profile=profile, **case.options)
    assert trees.read_layer(tar) == case.expect["entries"]
    assert summary.diff_id == case.expect["diff_id"]


def assert_golden(engine: Engine, case: Case, profile: Profile) -> None:
    summary, tar = verbs.diff(engine, case.lower, case.upper, profile=profile, **case.options)
    assert trees.read_layer(tar) == case.expect["entries"]
    assert summary.diff_id == case.expect["diff_id"] == f"sha256:{hashlib.sha256(tar).hexdigest()}"
    assert summary.digest == summary.diff_id
    assert summary.size == summary.uncompressed_size == case.expect["tar_size"] == len(tar)
    assert summary.entries == len(case.expect["entries"])
    if "tar_zlib_base64" in case.expect:
        assert tar == zlib.decompress(base64.b64decode(case.expect["tar_zlib_base64"]))
    expected = [(change["kind"], trees.name_of(change)[1:]) for change in case.expect["changes"]]
    assert verbs.changes(engine, case.lower, case.upper, profile) == expected
    kinds = [kind for kind, _ in expected]
    assert [summary.added, summary.modified, summary.deleted] == [kinds.count(kind) for kind in ("add", "modify", "delete")]


@pytest.mark.parametrize("case", VECTORS, ids=name_of, indirect=True)
@pytest.mark.parametrize("compression", Compression)
def test_one_diff_id_whatever_the_compression(engine: Engine, case: Case, compression: Compression) -> None:
    probes.require_compression(engine, compression)
    options = {"profile": Profile.CONTAINERD, "compression": compression, **case.options}
    summary, blob = verbs.diff(engine, case.lower, case.upper, **options)
    assert (summary.diff_id, summary.uncompressed_size) == (case.expect["diff_id"], case.expect["tar_size"])
    assert (summary.digest, summary.size) == (f"sha256:{hashlib.sha256(blob).hexdigest()}", len(blob))


@pytest.mark.parametrize("case", VECTORS, ids=name_of, indirect=True)
@pytest.mark.parametrize("compression", Compression)
def test_blobs_do_not_depend_on_the_number_of_threads(rust: Engine, case: Case, compression: Compression) -> None:
    blobs = {
        verbs.diff(rust, case.lower, case.upper, compression=compression, threads=threads, **case.options)[1]
        for threads in (1, 2, 8)
    }
    assert len(blobs) == 1


@pytest.mark.parametrize("case", EXACT, ids=name_of, indirect=True)
@pytest.mark.parametrize("compression", Compression)
def test_applying_the_layer_to_lower_gives_upper(engine: Engine, case: Case, compression: Compression) -> None:
    probes.require_compression(engine, compression)
    options = {"profile": Profile.CONTAINERD, "compression": compression, **case.options}
    made, blob = verbs.diff(engine, case.lower, case.upper, **options)
    target = case.lower_again()
    applied = verbs.apply(engine, blob, target)
    trees.assert_same_tree(target, case.upper, xattrs=trees.carried_by_containerd, leave_out=["socket"])
    assert (applied.digest, applied.size) == (made.digest, made.size)
    assert (applied.diff_id, applied.uncompressed_size) == (made.diff_id, made.uncompressed_size)
    assert (applied.entries, applied.whiteouts) == (made.entries, made.deleted)
    assert not applied.skipped


def test_the_profile_oci_keeps_other_xattrs(engine: Engine, tmp_path: Path) -> None:
    vector = next(vector for vector in VECTORS if vector["name"] == WITH_OTHER_XATTRS)
    case = Case(vector, tmp_path)
    summary, tar = verbs.diff(engine, case.lower, case.upper, profile=Profile.OCI)
    assert summary.diff_id != case.expect["diff_id"]
    stored = {trees.name_of(entry, "name").rstrip(b"/"): entry.get("xattrs", {}) for entry in trees.read_layer(tar)}
    above = trees.comparable(trees.scan_tree(case.upper))
    assert any(stored.values())
    for name, xattrs in stored.items():
        assert xattrs == above[name]["xattrs"]
    target = case.lower_again()
    verbs.apply(engine, tar, target)
    trees.assert_same_tree(target, case.upper)
