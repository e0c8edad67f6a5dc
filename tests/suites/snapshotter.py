"""What every snapshotter promises. A subclass gives the snapshotter."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from ocidiff.errors import AlreadyExistsError, InUseError, NotFoundError, UsageError
from ocidiff.mounts.kernel import directory_of
from ocidiff.services.snapshots import Kind, Snapshotter


def write(snapshotter: Snapshotter, key: str, name: str, text: str) -> None:
    """Write a file into an active snapshot."""
    with directory_of(snapshotter.mounts(key)) as tree:
        Path(tree, name).write_text(text)


def committed(snapshotter: Snapshotter, name: str, parent: str | None, **files: str) -> None:
    """A committed snapshot with these files."""
    snapshotter.prepare(f"making {name}", parent)
    for file, text in files.items():
        write(snapshotter, f"making {name}", file, text)
    snapshotter.commit(name, f"making {name}")


def listed(snapshotter: Snapshotter, key: str) -> dict[str, str]:
    """The files at the top of an active snapshot or a view, and what is in them."""
    with directory_of(snapshotter.mounts(key)) as tree:
        return {name: Path(tree, name).read_text() for name in os.listdir(tree)}


class SnapshotterSuite:
    """The promises, as tests."""

    # By name of the snapshotter: what a snapshot of another program has not kept of its parent.
    lost: Mapping[str, str] = {}

    @pytest.fixture
    def snapshotter(self, tmp_path: Path) -> Snapshotter:
        raise NotImplementedError

    def leftovers(self, snapshotter: Snapshotter) -> list[str]:
        """Directories that belong to no snapshot."""
        raise NotImplementedError

    def test_a_snapshot_without_parent_is_empty_and_is_written_to(self, snapshotter: Snapshotter) -> None:
        with directory_of(snapshotter.prepare("a", None)) as tree:
            assert os.listdir(tree) == []
        write(snapshotter, "a", "file", "1")
        assert listed(snapshotter, "a") == {"file": "1"}

    def test_a_committed_snapshot_is_what_was_written(self, snapshotter: Snapshotter) -> None:
        committed(snapshotter, "one", None, file="1")
        snapshotter.view("look", "one")
        assert listed(snapshotter, "look") == {"file": "1"}

    def test_a_child_begins_as_its_parent_and_leaves_it_as_it_is(self, snapshotter: Snapshotter) -> None:
        committed(snapshotter, "one", None, kept="1", changed="1", removed="1")
        snapshotter.prepare("child", "one")
        with directory_of(snapshotter.mounts("child")) as tree:
            Path(tree, "changed").write_text("2")
            Path(tree, "removed").unlink()
            Path(tree, "new").write_text("2")
        assert listed(snapshotter, "child") == {"kept": "1", "changed": "2", "new": "2"}
        snapshotter.view("look", "one")
        assert listed(snapshotter, "look") == {"kept": "1", "changed": "1", "removed": "1"}
        snapshotter.commit("two", "child")
        snapshotter.prepare("grandchild", "two")
        assert listed(snapshotter, "grandchild") == {"kept": "1", "changed": "2", "new": "2"}

    def test_two_children_know_nothing_of_each_other(self, snapshotter: Snapshotter) -> None:
        committed(snapshotter, "one", None, file="1")
        for name in ("left", "right"):
            snapshotter.prepare(name, "one")
            write(snapshotter, name, "file", name)
        assert listed(snapshotter, "left") == {"file": "left"}
        assert listed(snapshotter, "right") == {"file": "right"}

    def test_a_directory_that_was_replaced_hides_what_was_in_it(self, snapshotter: Snapshotter) -> None:
        snapshotter.prepare("a", None)
        with directory_of(snapshotter.mounts("a")) as tree:
            Path(tree, "dir").mkdir()
            Path(tree, "dir", "old").touch()
        snapshotter.commit("one", "a")
        snapshotter.prepare("b", "one")
        with directory_of(snapshotter.mounts("b")) as tree:
            Path(tree, "dir", "old").unlink()
            Path(tree, "dir").rmdir()
            Path(tree, "dir").mkdir()
            Path(tree, "dir", "new").touch()
        snapshotter.commit("two", "b")
        snapshotter.view("look", "two")
        with directory_of(snapshotter.mounts("look")) as tree:
            assert os.listdir(os.path.join(tree, "dir")) == ["new"]

    def test_a_child_keeps_links_modes_times_and_attributes(self, snapshotter: Snapshotter) -> None:
        snapshotter.prepare("a", None)
        with directory_of(snapshotter.mounts("a")) as tree:
            file = Path(tree, "file")
            file.write_text("x")
            file.chmod(0o4751)
            os.setxattr(file, "user.note", b"1")
            os.link(file, Path(tree, "linked"))
            Path(tree, "symlink").symlink_to("file")
            os.mkfifo(Path(tree, "fifo"), 0o640)
            Path(tree, "dir").mkdir(0o1777)
            Path(tree, "dir").chmod(0o1777)
            with Path(tree, "sparse").open("wb") as sparse:
                sparse.truncate(1 << 30)
                sparse.seek(1 << 20)
                sparse.write(b"x")
            for name in ("file", "dir", "fifo"):
                os.utime(Path(tree, name), ns=(5, 1_700_000_000_123_456_789))
            os.utime(Path(tree, "symlink"), ns=(5, 6), follow_symlinks=False)
            Path(tree).chmod(0o710)
        snapshotter.commit("one", "a")
        snapshotter.prepare("b", "one")
        with directory_of(snapshotter.mounts("b")) as tree:
            info = os.stat(os.path.join(tree, "file"))
            assert stat.S_IMODE(info.st_mode) == 0o4751
            assert info.st_mtime_ns == 1_700_000_000_123_456_789
            assert info.st_nlink == 2
            assert os.path.samefile(os.path.join(tree, "file"), os.path.join(tree, "linked"))
            assert os.getxattr(os.path.join(tree, "file"), "user.note") == b"1"
            assert os.readlink(os.path.join(tree, "symlink")) == "file"
            assert os.lstat(os.path.join(tree, "symlink")).st_mtime_ns == 6
            assert stat.S_ISFIFO(os.stat(os.path.join(tree, "fifo")).st_mode)
            assert stat.S_IMODE(os.stat(os.path.join(tree, "dir")).st_mode) == 0o1777
            assert os.stat(os.path.join(tree, "dir")).st_mtime_ns == 1_700_000_000_123_456_789
            sparse_info = os.stat(os.path.join(tree, "sparse"))
            assert sparse_info.st_size == 1 << 30
            lost = self.lost.get(snapshotter.name)
            assert (sparse_info.st_blocks * 512 < 1 << 20) == (lost != "holes")
            assert (stat.S_IMODE(os.stat(tree).st_mode) == 0o710) == (lost != "the mode of the root")

    @pytest.mark.root
    def test_a_child_keeps_owners_and_devices(self, snapshotter: Snapshotter) -> None:
        snapshotter.prepare("a", None)
        with directory_of(snapshotter.mounts("a")) as tree:
            Path(tree, "file").touch()
            os.chown(os.path.join(tree, "file"), 12, 34)
            os.mknod(os.path.join(tree, "null"), 0o20666, os.makedev(1, 3))
            os.chown(tree, 56, 78)
        snapshotter.commit("one", "a")
        snapshotter.prepare("b", "one")
        with directory_of(snapshotter.mounts("b")) as tree:
            info = os.stat(os.path.join(tree, "file"))
            assert (info.st_uid, info.st_gid) == (12, 34)
            assert os.stat(os.path.join(tree, "null")).st_rdev == os.makedev(1, 3)
            info = os.stat(tree)
            assert (info.st_uid, info.st_gid) == (56, 78)

    def test_a_key_is_taken_once(self, snapshotter: Snapshotter) -> None:
        committed(snapshotter, "one", None)
        snapshotter.prepare("a", None)
        for again in (snapshotter.prepare, snapshotter.view):
            for key in ("a", "one"):
                with pytest.raises(AlreadyExistsError, match=key):
                    again(key, None)

    def test_a_name_is_taken_once_and_the_active_snapshot_stays(self, snapshotter: Snapshotter) -> None:
        committed(snapshotter, "one", None)
        snapshotter.prepare("a", None)
        with pytest.raises(AlreadyExistsError, match="one"):
            snapshotter.commit("one", "a")
        assert snapshotter.stat("a").kind is Kind.ACTIVE
        snapshotter.remove("a")

    def test_what_is_missing_is_not_found(self, snapshotter: Snapshotter) -> None:
        for call in (snapshotter.stat, snapshotter.mounts, snapshotter.remove, snapshotter.usage):
            with pytest.raises(NotFoundError, match="nothing"):
                call("nothing")
        with pytest.raises(NotFoundError, match="nothing"):
            snapshotter.commit("one", "nothing")
        with pytest.raises(NotFoundError, match="nothing"):
            snapshotter.prepare("a", "nothing")
        assert self.leftovers(snapshotter) == []

    def test_only_what_is_committed_is_a_parent(self, snapshotter: Snapshotter) -> None:
        committed(snapshotter, "one", None)
        snapshotter.prepare("active", None)
        snapshotter.view("view", "one")
        for parent in ("active", "view"):
            with pytest.raises(UsageError, match="only a committed one is a parent"):
                snapshotter.prepare("child", parent)

    def test_only_what_is_active_is_committed(self, snapshotter: Snapshotter) -> None:
        committed(snapshotter, "one", None)
        snapshotter.view("view", "one")
        for key in ("one", "view"):
            with pytest.raises(UsageError, match="only an active one is committed"):
                snapshotter.commit("two", key)

    def test_what_is_committed_is_not_mounted(self, snapshotter: Snapshotter) -> None:
        committed(snapshotter, "one", None)
        with pytest.raises(UsageError, match="is committed"):
            snapshotter.mounts("one")

    def test_a_parent_stays_while_something_grows_on_it(self, snapshotter: Snapshotter) -> None:
        committed(snapshotter, "one", None, file="1")
        snapshotter.prepare("a", "one")
        with pytest.raises(InUseError, match="in use as the parent of a"):
            snapshotter.remove("one")
        snapshotter.remove("a")
        snapshotter.remove("one")
        assert list(snapshotter.walk()) == []
        assert self.leftovers(snapshotter) == []

    def test_what_is_known_of_a_snapshot(self, snapshotter: Snapshotter) -> None:
        snapshotter.prepare("a", None, {"k": "v", "gone": ""})
        before = snapshotter.stat("a")
        assert (before.kind, before.key, before.parent, before.labels) == (Kind.ACTIVE, "a", None, {"k": "v"})
        snapshotter.commit("one", "a", {"l": "w"})
        after = snapshotter.stat("one")
        assert (after.kind, after.parent, after.labels) == (Kind.COMMITTED, None, {"k": "v", "l": "w"})
        assert before.created_ns <= after.created_ns <= after.updated_ns
        snapshotter.view("b", "one")
        assert [(found.kind, found.key, found.parent) for found in snapshotter.walk()] == [
            (Kind.COMMITTED, "one", None),
            (Kind.VIEW, "b", "one"),
        ]

    def test_usage_is_of_the_snapshot_itself(self, snapshotter: Snapshotter) -> None:
        committed(snapshotter, "one", None, large="x" * 100_000)
        assert 100_000 <= snapshotter.usage("one").bytes < 200_000
        assert snapshotter.usage("one").inodes == 2

    def test_a_snapshot_of_any_kind_can_be_read(self, snapshotter: Snapshotter) -> None:
        committed(snapshotter, "one", None, file="1")
        snapshotter.prepare("active", "one")
        write(snapshotter, "active", "new", "2")
        snapshotter.view("look", "one")
        for key, names in (("one", ["file"]), ("active", ["file", "new"]), ("look", ["file"])):
            before = [found.key for found in snapshotter.walk()]
            with snapshotter.reading(key) as mounts, directory_of(mounts) as tree:
                assert sorted(os.listdir(tree)) == names
            assert [found.key for found in snapshotter.walk()] == before
        with pytest.raises(NotFoundError, match="none"), snapshotter.reading("none"):
            pass

    def test_a_hundred_and_fifty_generations_are_one_tree(self, snapshotter: Snapshotter) -> None:
        parent = None
        for number in range(150):
            committed(snapshotter, f"generation {number}", parent, **{f"file{number}": str(number)})
            parent = f"generation {number}"
        snapshotter.prepare("last", parent)
        assert listed(snapshotter, "last") == {f"file{number}": str(number) for number in range(150)}

    def test_of_many_that_want_one_key_one_gets_it(self, snapshotter: Snapshotter) -> None:
        results: list[str] = []

        def prepare() -> None:
            try:
                snapshotter.prepare("wanted", None)
                results.append("made")
            except AlreadyExistsError:
                results.append("taken")

        threads = [threading.Thread(target=prepare) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(results) == ["made"] + ["taken"] * 7
        assert self.leftovers(snapshotter) == []

    @pytest.mark.parametrize("key", ["", "x" * 2000, "a\nb"])
    def test_a_key_is_printable_and_not_too_long(self, snapshotter: Snapshotter, key: str) -> None:
        with pytest.raises(UsageError):
            snapshotter.prepare(key, None)
