"""Laws: a change is explained by exactly what differs, and its bytes are those of the files and of the layer."""

from __future__ import annotations

import os

import strategies
from hypothesis import given
from hypothesis import strategies as st

from ocidiff.layer.engine import Engine
from ocidiff.layer.layer import Change, ChangeKind
from ocidiff.layer.options import Profile
from ocidiff.layer.totals import Totals
from support import trees, verbs

FACTS = {
    "device": ("rdev",),
    "mode": ("mode",),
    "owner": ("uid", "gid"),
    "xattr": ("xattrs",),
    "size": ("size",),
    "content": ("sha256",),
    "link": ("target",),
}


@given(pair=strategies.pairs(sockets=True), profile=st.sampled_from(Profile), from_scratch=st.booleans())
def test_changes_are_explained(
    rust: Engine, pure: Engine, *, pair: strategies.Pair, profile: Profile, from_scratch: bool
) -> None:
    strategies.RAN["changes: explained by what differs"] += 1
    carried = trees.carried_by_oci if profile is Profile.OCI else trees.carried_by_containerd
    with strategies.build(pair) as (lower, upper, _):
        below = None if from_scratch else lower
        told = verbs.explained(rust, below, upper, profile=profile)
        assert told == verbs.explained(pure, below, upper, profile=profile)
        old, new = ({} if tree is None else trees.scan_tree(tree) for tree in (below, upper))
        _, tar = verbs.diff(rust, below, upper, profile=profile)
    for facts in (*old.values(), *new.values()):
        facts["xattrs"] = {key: value for key, value in facts["xattrs"].items() if value and carried(key)}
    for change in told:
        path = os.fsencode(change.path)[1:]
        assert change.upper_bytes == (new[path].get("size", 0) if path in new else None)
        assert change.lower_bytes == (lower_bytes(old, path, new.get(path)) if path in old else None)
        assert set(change.reason) == reasons(change, old.get(path), new.get(path))
        assert list(change.reason) == sorted(set(change.reason), key=list(type(change.reason[0])).index)
    assert sum(change.layer_bytes for change in told) == trees.file_bytes(tar)
    assert_totals(told)


def reasons(change: Change, old: trees.Facts | None, new: trees.Facts | None) -> set[str]:
    if old is None or new is None:
        return {"new" if change.kind is ChangeKind.ADD else "deleted"}
    if old["type"] != new["type"]:
        return {"type"}
    differ = {reason for reason, keys in FACTS.items() if any(old.get(key) != new.get(key) for key in keys)}
    return differ | ({"mtime"} if new["type"] != "dir" and old["mtime_ns"] != new["mtime_ns"] else set())


def lower_bytes(old: dict[bytes, trees.Facts], path: bytes, new: trees.Facts | None) -> int:
    """Those of the file, or of all files that are gone with the directory."""
    is_gone = new is None or new["type"] != "dir"
    names = [name for name in old if name == path or (is_gone and name.startswith(path + b"/"))]
    return sum(old[name].get("size", 0) for name in names)


def assert_totals(told: list[Change]) -> None:
    """The sums are those of a plain count of all directories."""
    totals, plain = Totals(), dict[str, list[int]]()
    for change in told:
        totals.add(change)
        directory = os.path.dirname(change.path)
        while directory != "/":
            count = plain.setdefault(directory, [0, 0])
            count[0] += change.layer_bytes
            count[1] += 1
            directory = os.path.dirname(directory)
    for path in list(plain):
        children = [name for name in plain if os.path.dirname(name) == path]
        plain[path].append(bool(plain[path][0] and any(plain[child][0] == plain[path][0] for child in children)))
    expected = sorted((-size, -count, path) for path, (size, count, is_told_below) in plain.items() if not is_told_below)
    found = [(-total.layer_bytes, -total.changes, total.path) for total in totals.largest_directories()]
    assert set(found) <= set(expected)
    assert [total[:2] for total in found] == [total[:2] for total in expected[:10]]
    assert totals.layer_bytes == sum(change.layer_bytes for change in told)
