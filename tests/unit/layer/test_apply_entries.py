"""What entries of a layer do to a directory, in both engines. Spec: layer-semantics 11."""

from __future__ import annotations

import os
import stat
import tarfile
import tempfile
from itertools import permutations
from pathlib import Path

import pytest

from ocidiff.errors import Cancelled, MalformedLayerError, UnsafeLayerError
from ocidiff.layer.apply_options import ApplyOptions, Destination
from ocidiff.layer.engine import Engine
from ocidiff.layer.monitor import Cancellation, Monitor, Progress
from support import probes, verbs
from support.archives import MTIME, Member, directory, file, hard_link, member, symlink, tar, whiteout


def names_below(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A lower tree: `a`, `d/old`, `d/x/old`."""
    root = tmp_path / "target"
    (root / "d" / "x").mkdir(parents=True)
    for name in ("a", "d/old", "d/x/old"):
        (root / name).write_text("lower")
    return root


def test_metadata_is_that_of_the_entry(engine: Engine, target: Path) -> None:
    summary = verbs.apply(
        engine, tar(directory(b"n", mode=0o1755, mtime=7), file(b"n/f", b"data", mode=0o640), symlink(b"n/l", b"f")), target
    )
    assert (target / "n/f").read_bytes() == b"data"
    assert stat.S_IMODE((target / "n/f").stat().st_mode) == 0o640
    assert (target / "n/f").stat().st_mtime == MTIME
    assert (target / "n/l").lstat().st_mtime == MTIME
    assert stat.S_IMODE((target / "n").stat().st_mode) == 0o1755
    assert (target / "n").stat().st_mtime == 7, "a later child must not touch the time of its directory"
    assert (summary.entries, summary.whiteouts, dict(summary.skipped)) == (3, 0, {})


def test_missing_parents_are_made_readable_for_all(engine: Engine, target: Path) -> None:
    before = os.umask(0o077)
    try:
        verbs.apply(engine, tar(file(b"p/q/f")), target)
    finally:
        os.umask(before)
    assert stat.S_IMODE((target / "p").stat().st_mode) == stat.S_IMODE((target / "p/q").stat().st_mode) == 0o755


@pytest.mark.parametrize(
    ("members", "left"),
    [
        ([whiteout(b"a")], {"d", "d/old", "d/x", "d/x/old"}),
        ([whiteout(b"d")], {"a"}),
        ([whiteout(b"missing"), whiteout(b"a")], {"d", "d/old", "d/x", "d/x/old"}),
        ([file(b".wh..wh..opq")], set()),
        ([file(b"d/.wh..wh..opq")], {"a", "d"}),
        ([file(b"d/.wh..wh..opq"), whiteout(b"d/x")], {"a", "d"}),
        ([directory(b"d/x/.wh.old")], {"a", "d", "d/old", "d/x"}),
    ],
)
def test_whiteouts_remove_what_lower_layers_left(
    engine: Engine, target: Path, members: list[Member], left: set[str]
) -> None:
    summary = verbs.apply(engine, tar(*members), target)
    assert names_below(target) == left
    assert summary.whiteouts == len(members)


@pytest.mark.parametrize(
    ("members", "left"),
    [
        ([file(b"a", b"new"), whiteout(b"a")], {"a", "d", "d/old", "d/x", "d/x/old"}),
        ([directory(b"d"), file(b"d/new"), whiteout(b"d")], {"a", "d", "d/new"}),
        ([file(b"d/x/y"), file(b"d/.wh..wh..opq")], {"a", "d", "d/x", "d/x/y"}),
        ([file(b"d/new"), file(b"d/.wh..wh..opq"), file(b"d/newer")], {"a", "d", "d/new", "d/newer"}),
        ([file(b"d/x/y"), file(b".wh..wh..opq")], {"d", "d/x", "d/x/y"}),
    ],
)
def test_whiteouts_never_remove_what_the_same_layer_wrote_wherever_they_stand(
    engine: Engine, tmp_path: Path, members: list[Member], left: set[str]
) -> None:
    for count, order in enumerate(permutations(members)):
        root = tmp_path / str(count)
        (root / "d" / "x").mkdir(parents=True)
        for name in ("a", "d/old", "d/x/old"):
            (root / name).write_text("lower")
        verbs.apply(engine, tar(*order), root)
        assert names_below(root) == left, [info.name for info, _ in order]


WHITEOUTS_BELOW = [whiteout(b"r/f"), whiteout(b"r/s/f"), file(b"r/.wh..wh..opq"), file(b"r/s/.wh..wh..opq")]


@pytest.mark.parametrize("below", WHITEOUTS_BELOW, ids=lambda entry: entry[0].name)
@pytest.mark.parametrize("destination", ["directory", pytest.param("overlay", marks=pytest.mark.root)])
def test_a_whiteout_below_a_file_of_the_same_layer_leaves_it(
    engine: Engine, target: Path, below: Member, destination: str
) -> None:
    for parent in (file(b"r", b"kept"), symlink(b"r", b"f"), member(b"r", tarfile.FIFOTYPE), hard_link(b"r", b"f")):
        for count, order in enumerate(permutations([parent, below])):
            root = target / f"{parent[0].type!r}{count}"
            (root / "r" / "s").mkdir(parents=True)
            (root / "r" / "s" / "f").touch()
            summary = verbs.apply(engine, tar(file(b"f"), *order), root, destination=Destination(destination))
            assert names_below(root) == {"f", "r"}
            assert summary.whiteouts == 1
            assert stat.S_IFMT((root / "r").lstat().st_mode) != stat.S_IFDIR
            assert not parent[1] or (root / "r").read_bytes() == parent[1]


@pytest.mark.parametrize("below", [b"a", b"missing", b"missing/deep", b"d/missing", b"dead", b"d/x/old"])
def test_a_whiteout_makes_no_directory(engine: Engine, target: Path, below: bytes) -> None:
    (target / "dead").symlink_to("gone/far")
    before = names_below(target)
    summary = verbs.apply(engine, tar(whiteout(below + b"/f"), file(below + b"/.wh..wh..opq")), target)
    assert names_below(target) == before
    assert (target / "a").read_text() == (target / "d/x/old").read_text() == "lower"
    assert summary.whiteouts == 2


@pytest.mark.root
@pytest.mark.parametrize(
    ("members", "left"),
    [
        ([whiteout(b"foo/bar"), whiteout(b"foo")], {"foo": "whiteout"}),
        ([whiteout(b"foo"), whiteout(b"foo/bar")], {"foo": "whiteout"}),
        ([whiteout(b"foo/a/b"), file(b"foo/.wh..wh..opq")], {"foo": "opaque"}),
        ([whiteout(b"foo/a/b"), whiteout(b"foo/a")], {"foo": "directory", "foo/a": "whiteout"}),
        ([whiteout(b"foo/bar"), directory(b"foo"), whiteout(b"foo")], {"foo": "opaque"}),
        ([whiteout(b"foo"), file(b"foo/new")], {"foo": "opaque", "foo/new": "file"}),
        ([whiteout(b"foo/bar"), file(b"foo", b"x")], {"foo": "file"}),
    ],
)
def test_marks_in_an_upperdir_are_no_entries(
    engine: Engine, tmp_path: Path, members: list[Member], left: dict[str, str]
) -> None:
    verbs.apply(engine, tar(*members), tmp_path, destination=Destination.OVERLAY)
    assert {name: _mark(tmp_path / name) for name in names_below(tmp_path)} == left


def _mark(path: Path) -> str:
    facts = path.lstat()
    if stat.S_ISCHR(facts.st_mode) and facts.st_rdev == 0:
        return "whiteout"
    if not stat.S_ISDIR(facts.st_mode):
        return "file"
    return "opaque" if "trusted.overlay.opaque" in os.listxattr(path) else "directory"


@pytest.mark.root
def test_a_hard_link_to_a_whiteout_in_an_upperdir_is_one_to_nothing(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(MalformedLayerError, match="it does not exist"):
        verbs.apply(engine, tar(whiteout(b"a"), hard_link(b"b", b"a")), tmp_path, destination=Destination.OVERLAY)


def test_what_links_bring_into_a_path_is_bounded(engine: Engine, target: Path) -> None:
    half, more = symlink(b"half", b"d/../" * 512), symlink(b"more", b"d/../" * 512 + b"half")
    verbs.apply(engine, tar(half, more, file(b"half/half/f")), target)
    assert (target / "f").exists()
    with pytest.raises(UnsafeLayerError, match="too many symbolic links"):
        verbs.apply(engine, tar(file(b"more/g")), target)
    with pytest.raises(UnsafeLayerError, match="too many symbolic links"):
        verbs.index_of_layers(engine, [tar(directory(b"d"), half, more, file(b"more/g"))])


def test_bookkeeping_of_aufs_is_left_out_and_counted(engine: Engine, target: Path) -> None:
    before = names_below(target)
    summary = verbs.apply(
        engine, tar(directory(b".wh..wh.plnk"), file(b".wh..wh.aufs"), directory(b"d/.wh..wh.orph")), target
    )
    assert names_below(target) == before
    assert (summary.whiteouts, dict(summary.skipped)) == (0, {"aufs": 3})


def test_a_directory_is_merged_and_everything_else_is_replaced(engine: Engine, target: Path) -> None:
    members = [directory(b"d", mode=0o700), file(b"d/x", b"file now"), directory(b"a"), file(b"a/f")]
    verbs.apply(engine, tar(*members), target)
    assert names_below(target) == {"a", "a/f", "d", "d/old", "d/x"}
    assert stat.S_IMODE((target / "d").stat().st_mode) == 0o700


def test_a_directory_entry_replaces_a_link_to_a_directory(engine: Engine, target: Path) -> None:
    verbs.apply(engine, tar(symlink(b"l", b"d"), directory(b"l"), file(b"l/f")), target)
    assert not (target / "l").is_symlink()
    assert names_below(target / "l") == {"f"}


def test_a_replaced_file_keeps_its_old_content_under_other_names(engine: Engine, target: Path) -> None:
    os.link(target / "a", target / "b")
    verbs.apply(engine, tar(file(b"a", b"new")), target)
    assert (target / "a").read_text() == "new"
    assert (target / "b").read_text() == "lower"


def test_hard_links_share_one_inode(engine: Engine, target: Path) -> None:
    verbs.apply(engine, tar(file(b"f", b"x"), hard_link(b"d/g", b"f"), symlink(b"s", b"f"), hard_link(b"t", b"s")), target)
    assert (target / "f").stat().st_ino == (target / "d/g").stat().st_ino
    assert (target / "s").lstat().st_ino == (target / "t").lstat().st_ino, "a link to a link is no link to its target"
    assert (target / "t").is_symlink()


@pytest.mark.parametrize(
    "link", [hard_link(b"h", b"nothing"), hard_link(b"h", b"d"), hard_link(b"a", b"a"), hard_link(b"h", b"/")]
)
def test_a_hard_link_to_nothing_a_directory_itself_or_the_root_fails(engine: Engine, target: Path, link: Member) -> None:
    with pytest.raises(MalformedLayerError, match="hard link"):
        verbs.apply(engine, tar(link), target)


@pytest.mark.parametrize(
    "members",
    [
        [file(b"../out"), file(b"/../../out"), file(b"d/../../../out")],
        [symlink(b"l", b"/"), file(b"l/out")],
        [symlink(b"l", b"../../.."), file(b"l/out")],
        [symlink(b"l", b"d/../../.."), symlink(b"m", b"l"), file(b"m/out")],
        [file(b"/out")],
    ],
)
def test_every_name_lands_inside_the_root(engine: Engine, target: Path, members: list[Member]) -> None:
    outside = names_below(target.parent)
    verbs.apply(engine, tar(*members), target)
    assert (target / "out").is_file()
    created = names_below(target.parent) - outside
    assert all(name.startswith("target/") for name in created), created


def test_a_dangling_parent_link_is_completed_inside_the_root(engine: Engine, target: Path) -> None:
    verbs.apply(engine, tar(symlink(b"l", b"/new/deep"), file(b"l/f", b"x")), target)
    assert (target / "new/deep/f").read_text() == "x"


def test_links_that_go_in_circles_fail(engine: Engine, target: Path) -> None:
    with pytest.raises(UnsafeLayerError, match="too many symbolic links"):
        verbs.apply(engine, tar(symlink(b"l", b"m"), symlink(b"m", b"l"), file(b"l/f")), target)


def test_a_hard_link_never_reaches_an_inode_outside(engine: Engine, target: Path) -> None:
    secret = target.parent / "secret"
    secret.write_text("secret")
    links = [b"../secret", b"/../secret", os.fsencode(secret), b"l/secret"]
    for link in links:
        with pytest.raises(MalformedLayerError, match="it does not exist"):
            verbs.apply(engine, tar(symlink(b"l", b".."), hard_link(b"h", link)), target)
    assert secret.stat().st_nlink == 1


def test_metadata_of_a_link_never_reaches_its_target(engine: Engine, target: Path) -> None:
    (target / "a").chmod(0o600)
    verbs.apply(engine, tar(symlink(b"s", b"a", mode=0o777), hard_link(b"t", b"s", mode=0o4777, mtime=5)), target)
    assert stat.S_IMODE((target / "a").stat().st_mode) == 0o600
    assert (target / "a").stat().st_mtime > MTIME


def test_a_whiteout_of_a_link_leaves_its_target(engine: Engine, target: Path) -> None:
    (target / "l").symlink_to("d")
    verbs.apply(engine, tar(whiteout(b"l")), target)
    assert names_below(target) == {"a", "d", "d/old", "d/x", "d/x/old"}


@pytest.mark.parametrize("name", [b".", b"./", b"/", b"d/.."])
def test_an_entry_of_the_root_says_what_it_is(engine: Engine, target: Path, name: bytes) -> None:
    before = target.stat()
    summary = verbs.apply(engine, tar(file(b"e")), target)
    assert (target.stat().st_mode, summary.has_root) == (before.st_mode, False)
    summary = verbs.apply(engine, tar(directory(name, mode=0o2510, mtime=1), file(b"f"), directory(b"n", mode=0)), target)
    assert (target.stat().st_mode & 0o7777, target.stat().st_mtime, summary.has_root) == (0o2510, 1, True)
    # What is closed to its owner is opened for as long as it takes.
    verbs.apply(engine, tar(file(b"n/g")), target)
    assert (target.stat().st_mode & 0o7777, (target / "n").stat().st_mode & 0o7777) == (0o2510, 0)
    assert (target / "n/g").exists()


def test_a_file_that_is_a_parent_becomes_a_directory(engine: Engine, target: Path) -> None:
    (target / "l").symlink_to("a")
    verbs.apply(engine, tar(file(b"l/f", b"x")), target)
    assert (target / "a/f").read_text() == "x"


def test_a_directory_that_its_layer_replaces_later_is_no_fault(engine: Engine, target: Path) -> None:
    verbs.apply(engine, tar(directory(b"n"), directory(b"n/m"), symlink(b"n", b"d")), target)
    assert (target / "n").is_symlink()
    assert (target / "d").stat().st_mtime != MTIME


@pytest.mark.parametrize("last", [file(b"d"), directory(b"d")])
def test_a_directory_of_a_lower_layer_that_an_emptied_one_keeps_can_be_replaced(
    engine: Engine, target: Path, last: Member
) -> None:
    verbs.apply(engine, tar(directory(b"d")), target)
    verbs.apply(engine, tar(file(b"d/new"), file(b".wh..wh..opq"), last), target)
    assert (target / "d").is_dir() == (last[0].type == tarfile.DIRTYPE)


def test_a_directory_that_is_only_implied_has_nothing_of_one_that_is_gone(engine: Engine, target: Path) -> None:
    verbs.apply(engine, tar(directory(b"d", mode=0o700), directory(b"d/e", mode=0o700), file(b"d"), file(b"d/e/f")), target)
    assert [stat.S_IMODE((target / name).stat().st_mode) for name in ("d", "d/e")] == [0o755, 0o755]


def test_a_path_does_not_lead_through_a_link_that_it_has_replaced(engine: Engine, target: Path) -> None:
    verbs.apply(engine, tar(symlink(b"l", b".."), file(b"l/l", b"one"), file(b"l/l", b"two")), target)
    assert (target / "l" / "l").read_bytes() == b"two"


def test_a_path_does_not_lead_through_a_link_that_it_has_removed(engine: Engine, target: Path) -> None:
    verbs.apply(engine, tar(symlink(b"l", b"..")), target)
    verbs.apply(engine, tar(whiteout(b"l/l"), file(b"l/l")), target)
    assert (target / "l" / "l").is_file()


def test_a_directory_in_place_of_a_link_that_led_to_it_gets_its_mode_and_time(engine: Engine, target: Path) -> None:
    verbs.apply(engine, tar(symlink(b"l", b".."), directory(b"l/l", mode=0o500, mtime=7)), target)
    assert (stat.S_IMODE((target / "l").stat().st_mode), (target / "l").stat().st_mtime) == (0o500, 7)


def test_a_link_in_place_of_a_directory_does_not_open_what_it_leads_to(engine: Engine, target: Path) -> None:
    verbs.apply(engine, tar(directory(b"c", mode=0o444)), target)
    verbs.apply(engine, tar(directory(b"a/c"), symlink(b"a", b"..")), target)
    assert stat.S_IMODE((target / "c").stat().st_mode) == 0o444


def test_directories_that_cannot_be_written_get_their_children_first(engine: Engine, target: Path) -> None:
    verbs.apply(engine, tar(directory(b"n", mode=0o500), directory(b"n/m", mode=0), file(b"n/m/f", mode=0)), target)
    assert [stat.S_IMODE((target / name).lstat().st_mode) for name in ("n",)] == [0o500]
    (target / "n").chmod(0o700)
    assert stat.S_IMODE((target / "n/m").lstat().st_mode) == 0


def test_times_before_1970_and_fractions_are_kept(engine: Engine, target: Path) -> None:
    if not probes.can_store_time(-1):
        probes.missing("the file system cannot store times before 1970")
    verbs.apply(engine, tar(file(b"old", mtime=-1.5), file(b"f", mtime=1.25)), target)
    assert (target / "old").stat().st_mtime_ns == -1_500_000_000
    assert (target / "f").stat().st_mtime_ns == 1_250_000_000


def test_xattrs_of_an_entry_replace_those_of_the_directory_that_was_there(engine: Engine, target: Path) -> None:
    if not probes.can_set_xattr("user.probe"):
        probes.missing("the file system has no user xattrs")
    os.setxattr(target / "d", "user.old", b"1")
    os.setxattr(target / "d", "user.both", b"1")
    verbs.apply(engine, tar(directory(b"d", pax_headers={"SCHILY.xattr.user.both": "2"})), target)
    found = {key: os.getxattr(target / "d", key) for key in os.listxattr(target / "d") if key.startswith("user.")}
    assert found == {"user.both": b"2"}


def test_xattrs_of_the_host_are_left_out_and_counted(engine: Engine, target: Path) -> None:
    summary = verbs.apply(engine, tar(file(b"f", pax_headers={"SCHILY.xattr.trusted.overlay.opaque": "y"})), target)
    assert os.listxattr(target / "f") == [key for key in os.listxattr(target / "f") if not key.startswith("trusted.")]
    assert dict(summary.skipped) == {"xattrs": 1}


@pytest.mark.root
def test_owners_are_set_before_what_a_new_owner_clears(engine: Engine, target: Path) -> None:
    capability = os.fsdecode(probes.CAPABILITY_VALUE)
    headers = {"SCHILY.xattr.security.capability": capability}
    verbs.apply(engine, tar(file(b"f", b"x", uid=5, gid=6, mode=0o6755, pax_headers=headers)), target)
    found = (target / "f").stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (5, 6, 0o6755)
    assert os.getxattr(target / "f", "security.capability") == probes.CAPABILITY_VALUE


@pytest.mark.root
def test_owners_that_are_not_kept_are_counted(engine: Engine, target: Path) -> None:
    members = [file(b"f", uid=5), file(b"g"), directory(b"e", gid=6)]
    summary = verbs.apply(engine, tar(*members), target, same_owner=False)
    assert {(target / name).stat().st_uid for name in "fge"} == {0}
    assert dict(summary.skipped) == {"owners": 2}


def test_a_link_entry_need_not_repeat_what_its_inode_has(engine: Engine, target: Path) -> None:
    if not probes.can_set_xattr("user.probe"):
        probes.missing("the file system has no user xattrs")
    headers = {"SCHILY.xattr.user.a": "1"}
    verbs.apply(engine, tar(file(b"f", pax_headers=headers), hard_link(b"g", b"f")), target)
    assert os.getxattr(target / "f", "user.a") == b"1"


@pytest.mark.root
def test_a_link_entry_with_the_same_owner_clears_no_capability(engine: Engine, target: Path) -> None:
    headers = {"SCHILY.xattr.security.capability": os.fsdecode(probes.CAPABILITY_VALUE)}
    verbs.apply(engine, tar(file(b"f", pax_headers=headers), hard_link(b"g", b"f")), target)
    assert os.getxattr(target / "f", "security.capability") == probes.CAPABILITY_VALUE


def test_an_inherited_acl_is_not_kept(engine: Engine, target: Path) -> None:
    if not probes.can_set_xattr("system.posix_acl_default", value=probes.ACL_VALUE, on_directory=True):
        probes.missing("the file system has no ACLs")
    os.setxattr(target, "system.posix_acl_default", probes.ACL_VALUE)
    verbs.apply(engine, tar(file(b"f"), directory(b"n"), file(b"n/g")), target)
    assert [key for name in ("f", "n", "n/g") for key in os.listxattr(target / name) if "acl" in key] == []


@pytest.mark.root
def test_devices_and_fifos_are_made(engine: Engine, target: Path) -> None:
    members = [
        member(b"c", tarfile.CHRTYPE, devmajor=4095, devminor=(1 << 20) - 1),
        member(b"b", tarfile.BLKTYPE, devmajor=7, devminor=9),
        member(b"p", tarfile.FIFOTYPE, devmajor=1, devminor=1),
    ]
    verbs.apply(engine, tar(*members), target)
    assert stat.S_ISCHR((target / "c").stat().st_mode)
    assert (target / "c").stat().st_rdev == os.makedev(4095, (1 << 20) - 1)
    assert stat.S_ISBLK((target / "b").stat().st_mode)
    assert stat.S_ISFIFO((target / "p").stat().st_mode)


def test_a_large_removal_can_be_cancelled(pure: Engine, target: Path) -> None:
    for number in range(20_000):
        (target / "d" / str(number)).touch()
    cancel = Cancellation()
    calls = []

    def progress(now: Progress) -> None:
        calls.append(now)
        if now.entries:
            cancel.cancel()

    with tempfile.TemporaryFile() as source:
        source.write(tar(whiteout(b"d")))
        source.seek(0)
        with pytest.raises(Cancelled):
            pure.apply_layer(source.fileno(), os.fsencode(target), ApplyOptions(), Monitor(progress, cancel))
    assert names_below(target / "d"), f"cancelled too late: {len(calls)} calls"


def test_a_parent_that_changes_within_a_layer_is_found_anew(engine: Engine, target: Path) -> None:
    (target / "e").mkdir()
    members = [symlink(b"l", b"d"), file(b"l/one"), symlink(b"l", b"e"), file(b"l/two"), directory(b"l"), file(b"l/three")]
    verbs.apply(engine, tar(*members), target)
    assert [names_below(target / name) & {"one", "two", "three"} for name in "del"] == [{"one"}, {"two"}, {"three"}]
    verbs.apply(engine, tar(directory(b"n"), file(b"n/one"), file(b"n"), directory(b"n"), file(b"n/two")), target)
    assert names_below(target / "n") == {"two"}


def test_an_implied_directory_has_nothing_of_the_one_that_was_there(engine: Engine, tmp_path: Path) -> None:
    for count in range(8):  # a file system may give the number of the removed inode to the next one
        target = tmp_path / str(count)
        (target / "d").mkdir(parents=True)
        (target / "d").chmod(0o500)
        verbs.apply(engine, tar(whiteout(b"d"), file(b"d/f")), target)
        assert stat.S_IMODE((target / "d").stat().st_mode) == 0o755


def test_the_old_mode_of_a_removed_directory_reaches_nothing_else(engine: Engine, tmp_path: Path) -> None:
    for count in range(8):  # a file system may give the number of the removed inode to the next one
        target = tmp_path / str(count)
        (target / "d" / "e").mkdir(parents=True)
        (target / "d" / "e").chmod(0o500)
        (target / "d").chmod(0o400)
        verbs.apply(engine, tar(file(b"d/e/f"), file(b"d", mode=0o640)), target)
        assert stat.S_IMODE((target / "d").stat().st_mode) == 0o640


@pytest.mark.root
@pytest.mark.parametrize("mode", [0o755, 0o2755])
def test_an_implied_directory_has_our_group_wherever_it_is(engine: Engine, target: Path, mode: int) -> None:
    verbs.apply(
        engine, tar(directory(b"d", mode=mode, uid=3, gid=7), file(b"d/a/b/f", gid=7), directory(b"d/own", gid=7)), target
    )
    facts = {name: (target / name).stat() for name in ("d", "d/a", "d/a/b", "d/a/b/f", "d/own")}
    assert [fact.st_gid for fact in facts.values()] == [7, os.getegid(), os.getegid(), 7, 7]
    assert facts["d/a"].st_mode == facts["d/a/b"].st_mode == 0o40755
