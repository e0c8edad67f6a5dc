"""Overlays: what mountinfo says of them, marks of every kind, and what is refused."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

import ocidiff
from ocidiff.errors import OverlayError, UnsupportedError, UsageError
from ocidiff.layer.engine import Engine
from ocidiff.layer.options import Profile
from ocidiff.mounts.behind import parse_layers
from ocidiff.mounts.layers import OverlayLayers
from ocidiff.mounts.mount import split_lowerdir
from ocidiff.mounts.mountinfo import parse_mountinfo
from support import overlays, probes, trees, verbs


def test_a_line_of_mountinfo_is_read_with_its_escapes() -> None:
    line = rb"46 27 0:39 / /a\040b rw,relatime shared:1 - overlay overlay rw,lowerdir=/l,upperdir=/u\054v,workdir=/w" + b"\n"
    (mount,) = parse_mountinfo(line + b"broken\n")
    assert (mount.id, mount.root, mount.path, mount.kind) == (46, b"/", b"/a b", b"overlay")
    assert parse_layers(mount.options).upperdir == b"/u,v"


@pytest.mark.parametrize(
    ("options", "lowerdirs", "datadirs"),
    [
        (rb"rw,lowerdir=/a:/b,upperdir=/u,uuid=on", (b"/a", b"/b"), ()),
        (rb"rw,lowerdir=/a\134:b:/c\0402\134\054x,upperdir=/u", (b"/a:b", b"/c 2,x"), ()),
        (rb"rw,lowerdir=/a\072b:/c::/d1::/d2,upperdir=/u", (b"/a:b", b"/c"), (b"/d1", b"/d2")),
        (rb"rw,lowerdir+=/a:b,lowerdir+=/c,datadir+=/d,upperdir=/u", (b"/a:b", b"/c"), (b"/d",)),
    ],
)
def test_layers_are_read_from_options(options: bytes, lowerdirs: tuple[bytes, ...], datadirs: tuple[bytes, ...]) -> None:
    layers = parse_layers(options)
    assert (layers.upperdir, layers.lowerdirs, layers.datadirs) == (b"/u", lowerdirs, datadirs)


@pytest.mark.parametrize("option", [b"index=on", b"nfs_export=on", b"verity=require", b"new_in_the_future"])
def test_an_option_that_may_change_the_meaning_is_refused(option: bytes) -> None:
    with pytest.raises(OverlayError, match=option.decode()):
        parse_layers(b"rw,lowerdir=/a,upperdir=/u," + option)


def test_a_lowerdir_option_is_split_as_the_kernel_splits_it() -> None:
    assert split_lowerdir(rb"/a:/b\:c:/d\\e") == ([b"/a", b"/b:c", rb"/d\e"], [])
    assert split_lowerdir(b"/a::/b::/c") == ([b"/a"], [b"/b", b"/c"])


def layer(root: Path, files: dict[str, str | None]) -> bytes:
    """A directory with these files; None is a directory."""
    for name, text in files.items():
        path = root / name
        (path if text is None else path.parent).mkdir(parents=True, exist_ok=True)
        if text is not None:
            path.write_text(text)
    root.mkdir(exist_ok=True)
    return os.fsencode(root)


def names(engine: Engine, layers: OverlayLayers) -> dict[str, str]:
    return {path.decode(): kind for kind, path in verbs.changes(engine, None, layers, Profile.OCI)}


def test_names_that_begin_with_wh_are_read_as_fuse_overlayfs_and_aufs_mean_them(engine: Engine, tmp_path: Path) -> None:
    lower = layer(tmp_path / "lower", {"gone": "", "kept": "", "d/old": "", "d/again": "", "deep/x": ""})
    upper = layer(
        tmp_path / "upper",
        {
            ".wh.gone": "",
            ".wh.never": "",
            "d/.wh..wh..opq": "",
            "d/again": "new",
            "new": "",
            ".wh..wh.plnk/1": "",
            ".wh..wh.plnk/12.3": "of a file with several names",
            ".wh..wh.orph/.wh.x": "",
            ".wh..wh.aufs": "",
            "deep": None,
        },
    )
    layers = OverlayLayers(upper, (lower,))
    assert names(engine, layers) == {"d/again": "modify", "d/old": "delete", "gone": "delete", "new": "add"}
    _, tar = verbs.diff(engine, None, layers)
    found = [entry["name"] for entry in trees.read_layer(tar)]
    assert found == ["d/", "d/again", "d/.wh.old", ".wh.gone", "new"]


@pytest.mark.root
def test_marks_of_fuse_overlayfs_for_root_are_read(engine: Engine, tmp_path: Path) -> None:
    lower = layer(tmp_path / "lower", {"old/f": "1", "gone": "2"})
    upper = layer(tmp_path / "upper", {"made/.wh..wh..opq": "", "made/file": "n", "old/.wh..wh..opq": ""})
    os.mknod(tmp_path / "upper/gone", 0o020000)
    os.mknod(tmp_path / "upper/made/.wh..opq", 0o020700)
    for directory in ("made", "old"):
        os.setxattr(tmp_path / "upper" / directory, "trusted.overlay.opaque", b"y")
    layers = OverlayLayers(upper, (lower,))
    assert names(engine, layers) == {"gone": "delete", "made": "add", "made/file": "add", "old/f": "delete"}
    # Overlayfs wrote this one, without the name.
    os.unlink(tmp_path / "upper/old/.wh..wh..opq")
    with pytest.raises(OverlayError, match="who wrote it cannot be known"):
        names(engine, layers)


@pytest.mark.parametrize("marked", ["old", "old/f"])
def test_attributes_of_fuse_overlayfs_tell_its_layers_and_are_not_stored(
    engine: Engine, tmp_path: Path, marked: str
) -> None:
    lower = layer(tmp_path / "lower", {"old/f": "1", "old/g": "2"})
    middle = layer(tmp_path / "middle", {"old/.wh.g": ""})
    upper = layer(tmp_path / "upper", {"old/f": "11", "old/g": "2"})
    os.setxattr(tmp_path / "upper" / marked, "user.fuseoverlayfs.origin", b"old/f\0")
    os.setxattr(tmp_path / "upper/old/f", "user.mine", b"1")
    layers = OverlayLayers(upper, (middle, lower))
    assert names(engine, layers) == {"old/f": "modify", "old/g": "add"}
    _, tar = verbs.diff(engine, None, layers)
    assert b"fuseoverlayfs" not in tar
    assert b"SCHILY.xattr.user.mine=1" in tar


def test_owners_and_modes_in_attributes_of_fuse_overlayfs_are_read(engine: Engine, tmp_path: Path) -> None:
    key = "user.fuseoverlayfs.override_stat"
    lower = layer(tmp_path / "lower", {"same": "1", "d": None, "f": "1"})
    upper = layer(tmp_path / "upper", {"new": "2", "same": "1", "d/x": ""})
    for name, value in {"": b"0:0:40755", "new": b"7:8:104711", "d": b"1000:4294967295:40700"}.items():
        os.setxattr(tmp_path / "upper" / name, key, value)
    os.utime(tmp_path / "lower/same", (1, 1))
    os.utime(tmp_path / "upper/same", (1, 1))
    assert names(engine, OverlayLayers(upper, (lower,))) == {"d": "modify", "d/x": "add", "new": "add"}
    _, tar = verbs.diff(engine, None, OverlayLayers(upper, (lower,)))
    assert b"override_stat" not in tar
    told = {entry["name"]: (entry["uid"], entry["gid"], entry["mode"]) for entry in trees.read_layer(tar)}
    assert told["new"] == (7, 8, "4711")
    assert told["d/"] == (1000, 4294967295, "0700")
    for value in (b"", b"7:8", b"7:8:9", b"-1:8:644", b"7:8:644:x", b"4294967296:0:644", b"1" * 80 + b":0:644"):
        os.setxattr(tmp_path / "upper/new", key, value)
        with pytest.raises(UnsupportedError, match=r"new: an invalid user\.fuseoverlayfs\.override_stat"):
            verbs.diff(engine, None, OverlayLayers(upper, (lower,)))


def test_an_upper_directory_without_marks_is_read_as_the_layers_below_it_are(engine: Engine, tmp_path: Path) -> None:
    lower = layer(tmp_path / "lower", {"f": "1", "old/g": "2"})
    middle = layer(tmp_path / "middle", {".wh.f": "", "old/.wh..wh..opq": "", "old/x": ""})
    upper = layer(tmp_path / "upper", {"f": "1"})
    assert names(engine, OverlayLayers(upper, (middle, lower))) == {"f": "add"}


def test_a_name_that_hides_wins_over_what_its_layer_has_there(engine: Engine, tmp_path: Path) -> None:
    long = "x" * 255
    lower = layer(tmp_path / "lower", {"f": "1", "d/g": "2", long: ""})
    upper = layer(tmp_path / "upper", {"f": "2", ".wh.f": "", "d/h": "", ".wh.d": "", "e/" + long: "", "y" * 252: ""})
    found = names(engine, OverlayLayers(upper, (lower,)))
    assert found == {"f": "delete", "d": "delete", "e": "add", "e/" + long: "add", "y" * 252: "add"}


@pytest.mark.root
def test_content_is_found_in_a_layer_for_data(engine: Engine, tmp_path: Path) -> None:
    data, lower = layer(tmp_path / "data", {"store/1": "content"}), layer(tmp_path / "lower", {"f": "x"})
    upper = layer(tmp_path / "upper", {"g": ""})
    os.truncate(tmp_path / "upper/g", 7)
    os.setxattr(tmp_path / "upper/g", "trusted.overlay.metacopy", b"")
    os.setxattr(tmp_path / "upper/g", "trusted.overlay.redirect", b"/store/1")
    _, tar = verbs.diff(engine, None, OverlayLayers(upper, (lower,), (data,)))
    assert b"content" in tar
    with pytest.raises(UnsupportedError, match="no layer of the overlay has its content"):
        verbs.diff(engine, None, OverlayLayers(upper, (lower,)))


@pytest.mark.root
def test_xwhiteouts_of_a_lower_layer_hide(engine: Engine, tmp_path: Path) -> None:
    bottom = layer(tmp_path / "bottom", {"d/a": "1", "d/b": "1"})
    middle = layer(tmp_path / "middle", {"d/a": ""})
    os.setxattr(tmp_path / "middle/d", "trusted.overlay.opaque", b"x")
    os.setxattr(tmp_path / "middle/d/a", "trusted.overlay.whiteout", b"")
    upper = layer(tmp_path / "upper", {"d/a": "2", "d/b": "2"})
    assert names(engine, OverlayLayers(upper, (middle, bottom)))["d/a"] == "add"
    assert names(engine, OverlayLayers(upper, (bottom,)))["d/a"] == "modify"


@pytest.mark.root
@pytest.mark.parametrize("redirect", [b"", b"a/b", b"/a//b", b"/../x", b"."])
def test_a_redirect_that_leads_astray_is_refused(engine: Engine, tmp_path: Path, redirect: bytes) -> None:
    lower, upper = layer(tmp_path / "lower", {"a/f": ""}), layer(tmp_path / "upper", {"d": None})
    os.setxattr(tmp_path / "upper/d", "trusted.overlay.redirect", redirect)
    with pytest.raises(UnsupportedError, match="redirect"):
        verbs.diff(engine, None, OverlayLayers(upper, (lower,)))


@pytest.mark.root
def test_what_cannot_be_known_is_refused_before_anything_is_written(engine: Engine, tmp_path: Path) -> None:
    lower = layer(tmp_path / "lower", {"a": ""})
    mixed = layer(tmp_path / "mixed", {"d/.wh.a": ""})
    os.setxattr(tmp_path / "mixed/d", "trusted.overlay.opaque", b"y")
    indexed = layer(tmp_path / "indexed", {"d": None})
    os.setxattr(indexed, "trusted.overlay.origin", b"x")
    renamed = layer(tmp_path / "renamed", {"d": None})
    os.setxattr(tmp_path / "renamed/d", "user.overlay.redirect", b"a")
    faked = layer(tmp_path / "faked", {".wh.a": "", "d": None})
    os.setxattr(tmp_path / "faked/d", "user.containers.override_stat", b"0:0:755")
    for upper, why in ((mixed, "who wrote it"), (indexed, "index=on"), (renamed, "redirects"), (faked, "owners")):
        with pytest.raises(OverlayError, match=why):
            verbs.diff(engine, None, OverlayLayers(upper, (lower,)))


@pytest.mark.root
def test_an_overlay_whose_layers_may_not_be_read_is_walked_and_the_reason_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if not overlays.can_mount("index=on"):
        probes.missing("needs overlay mounts with index=on")
    layer(tmp_path / "lower", {"a": "1"})
    (tmp_path / "upper").mkdir()
    with overlays.mounted(tmp_path / "m", [tmp_path / "lower"], tmp_path / "upper", options=("index=on",)) as root:
        (root / "b").write_text("2")
        with caplog.at_level(logging.WARNING, "ocidiff"):
            found = [change.path for change in ocidiff.changes(tmp_path / "lower", root)]
        assert found == ["/b"]
        assert "index=on" in caplog.text
        with pytest.raises(OverlayError, match="index=on"):
            list(ocidiff.changes(tmp_path / "lower", root, overlay="require"))


@pytest.mark.root
def test_only_what_lies_below_the_overlay_is_taken_for_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    if not overlays.can_mount():
        probes.missing("needs overlay mounts")
    for name in ("one", "two"):
        layer(tmp_path / name, {"a": "1", "d/b": name})
    (tmp_path / "upper").mkdir()
    with overlays.mounted(tmp_path / "m", [tmp_path / "one"], tmp_path / "upper") as root:
        (root / "a").unlink()
        read = tmp_path / "read"
        ocidiff.diff(tmp_path / "one", root, read, overlay="require")
        ocidiff.diff(tmp_path / "one", root, tmp_path / "walked", overlay="never")
        assert read.read_bytes() == (tmp_path / "walked").read_bytes()
        assert not caplog.records
        with pytest.raises(OverlayError, match="UPPER is not mounted over LOWER"):
            ocidiff.diff(tmp_path / "two", root, read, overlay="require")
        # The directory is another one now than the one that is mounted.
        os.rename(tmp_path / "one", tmp_path / "three")
        layer(tmp_path / "one", {"a": "1", "d/b": "one"})
        with pytest.raises(OverlayError, match="is not the one that is mounted"):
            ocidiff.diff(tmp_path / "one", root, read, overlay="require")
        with pytest.raises(OverlayError, match="no overlay mount"):
            ocidiff.diff(tmp_path / "one", tmp_path / "two", read, overlay="require")


def test_layers_stand_for_both_trees(tmp_path: Path) -> None:
    lower, upper = layer(tmp_path / "lower", {"a": ""}), layer(tmp_path / "upper", {"b": ""})
    layers = ocidiff.overlay_layers(os.fsdecode(upper), [os.fsdecode(lower)])
    assert [change.path for change in ocidiff.changes(None, layers)] == ["/b"]
    with pytest.raises(UsageError, match="lowerdirs"):
        ocidiff.changes(tmp_path / "lower", layers)
    with pytest.raises(UsageError, match="one lowerdir or more"):
        ocidiff.overlay_layers(tmp_path / "upper", [])
