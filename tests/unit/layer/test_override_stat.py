"""Notes on what an apply could not keep: read as the file's stat, never stored, right after every later layer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ocidiff.layer.engine import Engine
from ocidiff.layer.layer import RECORD
from ocidiff.layer.options import Profile
from support import probes, trees, verbs
from support.archives import directory, file, hard_link, member, symlink, tar

pytestmark = pytest.mark.root

USER = 1000
LAYER = tar(
    directory(b"d", uid=0, gid=8, mode=0o2775),
    file(b"d/su", b"x", uid=5, gid=0, mode=0o4755),
    member(b"null", tarfile.CHRTYPE, uid=0, gid=6, mode=0o666, devmajor=1, devminor=3),
    hard_link(b"zero", b"null", uid=0, gid=6, mode=0o666),
    symlink(b"l", b"d"),
    member(b"pipe", tarfile.FIFOTYPE),
)
# cap_net_raw, as `setcap` writes it.
CAPABILITY = "\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0"


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that a plain user can reach."""
    with tempfile.TemporaryDirectory() as directory_:
        os.chmod(directory_, 0o755)
        yield Path(directory_)


@pytest.fixture
def tree(engine: Engine, place: Path) -> Path:
    """What a plain user makes of `LAYER`."""
    root = place / "tree"
    root.mkdir()
    os.chown(root, USER, USER)
    with probes.as_user(USER):
        verbs.apply(engine, LAYER, root)
    return root


def told(engine: Engine, tree: Path, **options: Any) -> dict[str, tuple[str, str, int, int]]:
    """Type, mode and owner of each entry of a layer of the whole tree."""
    entries = trees.read_layer(verbs.diff(engine, None, tree, **options)[1])
    assert not any(RECORD in entry.get("xattrs", {}) for entry in entries)
    return {entry["name"]: (entry["type"], entry["mode"], entry["uid"], entry["gid"]) for entry in entries}


def note_of(path: Path) -> str | None:
    return os.getxattr(path, RECORD).decode() if RECORD in os.listxattr(path) else None


@pytest.mark.parametrize("profile", Profile)
def test_the_entries_are_those_of_the_layer(engine: Engine, tree: Path, profile: Profile) -> None:
    for reader in (probes.as_user, probes.as_root):
        with reader():
            found = told(engine, tree, profile=profile)
        assert found["d/"] == ("5", "2775", 0, 8)
        assert found["d/su"] == ("0", "4755", 5, 0)
        assert (found["null"], found["zero"][0]) == (("3", "0666", 0, 6), "1")


def test_what_the_user_changed_since_wins(engine: Engine, tree: Path) -> None:
    with probes.as_user(USER):
        (tree / "d/su").chmod(0o700)
        (tree / "null").chmod(0o600)
        (tree / "d/new").write_text("mine")
        found = told(engine, tree)
    assert found["d/su"] == ("0", "0700", 5, 0)
    assert found["null"] == ("3", "0600", 0, 6)
    assert found["d/new"][2:] == (USER, USER)
    assert found["d/"] == ("5", "2775", 0, 8)


def test_a_later_owner_wins(engine: Engine, tree: Path) -> None:
    os.chown(tree / "d/su", 33, 34)
    os.chown(tree / "d", USER, 34)
    found = told(engine, tree)
    assert (found["d/su"][2:], found["d/"][2:]) == ((33, 34), (0, 34))


def test_content_in_place_of_a_device_is_a_file(engine: Engine, tree: Path) -> None:
    with probes.as_user(USER):
        (tree / "null").chmod(0o600)
        (tree / "null").write_text("log")
        found = told(engine, tree)
    assert found["null"] == ("0", "0600", 0, 6)


def test_an_unmarked_tree_of_root_has_no_notes(engine: Engine, tmp_path: Path) -> None:
    """Who may write to one file of a container shall not have root commit it as a program of root's."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/f").touch()
    os.setxattr(tmp_path / "tree/f", RECORD, b"0:0:04755")
    summary, _ = verbs.diff(engine, None, tmp_path / "tree")
    assert told(engine, tmp_path / "tree")["f"] == ("0", "0644", 0, 0)
    assert summary.skipped == {"xattrs.user": 1}


MALFORMED = (
    *b" 0:0 0:0:9 -1:0:0644 4294967295:0:0644 0:0:010000 0:0:0644:char-0-0 0:0:0644:char-4096-0".split(b" "),
    *b"0:0:0644:block-1 0:0:0644:symlink 0:0:0644:char-1-3:x".split(b" "),
    b"1" * 3000,
    b"\xd9\xa1:0:0644",
)


@pytest.mark.parametrize("value", MALFORMED)
def test_a_malformed_note_says_nothing(engine: Engine, tree: Path, value: bytes) -> None:
    os.setxattr(tree / "d/su", RECORD, value)
    assert told(engine, tree)["d/su"] == ("0", "0755", USER, USER)


def test_what_a_layer_with_owners_says_needs_no_note(engine: Engine, tree: Path) -> None:
    layer = tar(
        directory(b"d", uid=0, gid=9, mode=0o755),
        file(b"d/su", b"y", uid=7, gid=7),
        file(b"f", b"z"),
        hard_link(b"g", b"d/su", uid=7, gid=7, mode=0o711),
    )
    verbs.apply(engine, layer, tree, same_owner=True)
    assert [note_of(tree / name) for name in ("d", "d/su", "f", "g")] == [None] * 4
    assert note_of(tree) is not None, "the mark of the tree stays for all the others"
    found = told(engine, tree)
    assert found["d/"] == ("5", "0755", 0, 9)
    assert found["null"] == ("3", "0666", 0, 6)


def test_what_a_later_layer_links_or_merges_is_noted_anew(engine: Engine, tree: Path) -> None:
    layer = tar(
        directory(b"d", uid=3, gid=3, mode=0o700),
        hard_link(b"other", b"d/su", uid=4, gid=4, mode=0o6711),
        hard_link(b"full", b"null", uid=9, gid=9, mode=0o640),
        directory(b"implied/e", uid=2, gid=2),
    )
    with probes.as_user(USER):
        verbs.apply(engine, layer, tree)
        found = told(engine, tree)
    assert found["d/"] == ("5", "0700", 3, 3)
    assert found["d/su"] == ("0", "6711", 4, 4)
    assert found["full"] == ("3", "0640", 9, 9)
    assert found["implied/"] == ("5", "0755", 0, 0)


@pytest.mark.parametrize("name", ["l", "pipe"])
def test_what_can_have_no_note_is_the_same_whoever_owns_it(engine: Engine, tree: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "owned").mkdir()
    verbs.apply(engine, LAYER, tmp_path / "owned", same_owner=True)
    os.lchown(tmp_path / "owned" / name, 77, 77)
    assert verbs.changes(engine, tmp_path / "owned", tree, Profile.OCI) == []
    with verbs.saved_index(verbs.index(engine, tree)) as index:
        assert verbs.changes(engine, index, tmp_path / "owned", Profile.OCI) == []
        assert verbs.changes(engine, tmp_path / "owned", index, Profile.OCI) == []
    os.lchown(tree / name, 78, 78)
    assert verbs.changes(engine, tmp_path / "owned", tree, Profile.OCI) == [("modify", name.encode())]


def test_a_capability_that_a_user_may_not_set_is_counted_and_no_change_of_the_user(engine: Engine, place: Path) -> None:
    layer = tar(file(b"ping", b"x", mode=0o755, pax_headers={"SCHILY.xattr.security.capability": CAPABILITY}))
    for name in ("one", "other", "owned"):
        (place / name).mkdir()
        os.chown(place / name, USER, USER)
    with probes.as_user(USER):
        for name in ("one", "other"):
            assert verbs.apply(engine, layer, place / name).skipped["xattrs"] == 1
        assert verbs.changes(engine, place / "one", place / "other", Profile.OCI) == []
    verbs.apply(engine, layer, place / "owned", same_owner=True)
    assert verbs.changes(engine, place / "owned", place / "one", Profile.OCI) == [("modify", b"ping")]


def test_a_mode_that_differs_from_the_noted_one_wins_as_with_force_mask(engine: Engine, tree: Path) -> None:
    (tree / "d/su").chmod(0o755)
    os.setxattr(tree / "d/su", RECORD, b"5:0:0640")
    assert told(engine, tree)["d/su"] == ("0", "0755", 5, 0)


COUNTED = "import sys; from ocidiff.cli.main import run; sys.argv[0] = 'ocidiff'; run()"


def test_notes_cost_root_no_call_for_a_file(tmp_path: Path) -> None:
    """And another reader, of a marked tree or its own, one call for each file and directory."""
    if shutil.which("strace") is None:
        probes.missing("needs strace")
    calls: dict[tuple[bool, int], Counter[str]] = {}
    for count in (100, 300):
        tree = tmp_path / str(count)
        tree.mkdir()
        for number in range(count):
            (tree / str(number)).touch()
        for is_marked in (False, True):
            if is_marked:
                os.setxattr(tree, RECORD, b"0:0:0755")
            calls[is_marked, count] = _calls(tree, tmp_path / "trace")
    grown = {marked: calls[marked, 300] - calls[marked, 100] for marked in (False, True)}
    reads = {marked: sum(grown[marked][name] for name in ("lgetxattr", "getxattrat", "syscall_0x1d0")) for marked in grown}
    assert (reads[False], reads[True]) == (0, 200)


def _calls(tree: Path, trace: Path) -> Counter[str]:
    words = ["diff", "--engine", "rust", "--threads", "1", "--compression", "none", "scratch", str(tree), "-o", os.devnull]
    subprocess.run(
        ["strace", "-f", "-qq", "-o", str(trace), sys.executable, "-c", COUNTED, *words], check=True, capture_output=True
    )
    return Counter(line.split(None, 1)[1].split("(", 1)[0] for line in trace.read_text(errors="replace").splitlines())
