"""Which trees are compared for the mounts of two snapshots, and which mounts are refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import ocidiff
from ocidiff.errors import UnsupportedError
from ocidiff.mounts.kernel import directory_of
from ocidiff.mounts.layers import OverlayLayers
from ocidiff.mounts.mount import Mount, bind, overlay
from ocidiff.mounts.mountinfo import mount_points
from ocidiff.mounts.trees import trees_to_compare
from support import probes

OPTIONS = ("index=off",)


class Place:
    """Two lower directories, an upper one that was written through a mount, and the mounts of both snapshots."""

    def __init__(self, root: Path) -> None:
        for name in ("top", "bottom", "upper", "work"):
            (root / name).mkdir()
        (root / "bottom/kept").write_text("kept")
        (root / "bottom/gone").write_text("gone")
        (root / "top/changed").write_text("before")
        self.lower = [str(root / "top"), str(root / "bottom")]
        self.upper = str(root / "upper")
        self.active = overlay(self.lower, self.upper, str(root / "work"), OPTIONS)
        self.frozen = overlay((self.upper, *self.lower), None, None, OPTIONS)
        self.parent = overlay(self.lower, None, None, OPTIONS)

    def change(self) -> None:
        """Change the merged tree through a mount."""
        with directory_of((self.active,)) as tree:
            os.remove(f"{tree}/gone")
            Path(f"{tree}/changed").write_text("after")
            Path(f"{tree}/new").write_text("new")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    if not probes.can_mount_overlay():
        probes.missing("needs overlay mounts")
    place = Place(tmp_path)
    place.change()
    yield place
    assert not [point for point in mount_points() if point.startswith(str(tmp_path))]


def layer(lower: tuple[Mount, ...], upper: tuple[Mount, ...], output: Path, *, walk: bool = False) -> str:
    """The diff ID of what the mounts show."""
    with trees_to_compare(lower, upper, walk=walk) as (below, above):
        tree = above if isinstance(above, OverlayLayers) else os.fsdecode(above)
        return ocidiff.diff(None if below is None else os.fsdecode(below), tree, output).diff_id


@pytest.mark.root
def test_an_active_overlay_over_its_parent_is_read_by_its_layers(place: Place) -> None:
    with trees_to_compare((place.parent,), (place.active,)) as (below, above):
        assert below is None
        assert isinstance(above, OverlayLayers)
        assert (above.upperdir, *above.lowerdirs) == tuple(map(os.fsencode, (place.upper, *place.lower)))


@pytest.mark.root
def test_a_read_only_overlay_over_its_parent_is_read_by_its_layers(place: Place) -> None:
    with trees_to_compare((place.parent,), (place.frozen,)) as (below, above):
        assert below is None
        assert isinstance(above, OverlayLayers)
        assert (above.upperdir, *above.lowerdirs) == tuple(map(os.fsencode, (place.upper, *place.lower)))


@pytest.mark.root
@pytest.mark.parametrize("walk", [False, True])
def test_layers_and_trees_give_one_layer(place: Place, tmp_path: Path, *, walk: bool) -> None:
    with directory_of((place.parent,)) as below, directory_of((place.active,)) as above:
        expected = ocidiff.diff(below, above, tmp_path / "expected.tar", overlay="never").diff_id
    for changed in (place.active, place.frozen):
        assert layer((place.parent,), (changed,), tmp_path / "layer.tar", walk=walk) == expected


@pytest.mark.root
def test_the_only_lower_directory_may_be_a_bind_mount(place: Place, tmp_path: Path) -> None:
    one = overlay(place.lower[:1], place.upper, str(tmp_path / "work"), OPTIONS)
    with trees_to_compare((bind(place.lower[0], read_only=True),), (one,)) as (below, above):
        assert below is None
        assert isinstance(above, OverlayLayers)


@pytest.mark.root
def test_an_overlay_over_another_parent_is_compared_as_trees(place: Place) -> None:
    with trees_to_compare((bind(place.lower[0], read_only=True),), (place.active,)) as (below, above):
        assert below == os.fsencode(place.lower[0])
        assert isinstance(above, bytes)
        assert sorted(os.listdir(above)) == [b"changed", b"kept", b"new"]


@pytest.mark.root
def test_without_a_parent_everything_is_new(place: Place, tmp_path: Path) -> None:
    with trees_to_compare((), (place.active,)) as (below, above):
        assert below is None
        assert isinstance(above, bytes)
        assert sorted(os.listdir(above)) == [b"changed", b"kept", b"new"]


@pytest.mark.root
def test_an_option_that_may_change_the_meaning_of_layers_makes_trees(place: Place, tmp_path: Path) -> None:
    options = ("index=on",)
    active = overlay(place.lower, place.upper, str(tmp_path / "work"), options)
    with trees_to_compare((overlay(place.lower, None, None, ()),), (active,)) as (below, above):
        assert below is not None
        assert isinstance(above, bytes)


def test_views_and_several_mounts_show_the_last_one(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    mounts = (bind(str(tmp_path / "a"), read_only=False), bind(str(tmp_path / "b"), read_only=True))
    with trees_to_compare((), mounts) as trees:
        assert trees == (None, os.fsencode(tmp_path / "b"))


@pytest.mark.parametrize(
    ("mounts", "reason"),
    [
        ((), "no mounts"),
        ((Mount("ext4", "/dev/vdb", ("rw",)),), "ext4 mount"),
        ((Mount("bind", "/x", ("rbind", "uidmap=0:100000:65536")),), "uidmap"),
        ((Mount("bind", "/x", ("rbind",), target="etc"),), "at etc"),
        ((Mount("erofs", "/layer.erofs", ("ro", "loop")), bind("/x", read_only=True)), "erofs mount"),
    ],
)
def test_a_mount_that_cannot_be_read_as_a_directory_is_refused(mounts: tuple[Mount, ...], reason: str) -> None:
    with pytest.raises(UnsupportedError, match=reason), trees_to_compare((), mounts):
        pass


@pytest.mark.parametrize("path", ["/a:b", "/a,b", "/a\\b", "/a b", "/a\\:,"])
def test_layers_with_separators_in_their_paths_are_known(path: str) -> None:
    parent, active = overlay((path, "/z"), None, None, ()), overlay((path, "/z"), "/u", "/w", ())
    with trees_to_compare((parent,), (active,)) as (below, above):
        assert below is None
        assert isinstance(above, OverlayLayers)
        assert above.lowerdirs == (os.fsencode(path), b"/z")
