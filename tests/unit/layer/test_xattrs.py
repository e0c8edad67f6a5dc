"""The table of extended attributes: that of the page, as in the other engine, and what both engines do by it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ocidiff.layer.engine import Engine
from ocidiff.layer.options import Profile
from ocidiff.layer.xattrs import CLASSES, XattrClass, class_of, escape, mark_of
from support import probes, verbs
from support.archives import directory, file, tar

PAGE = Path(__file__).parents[3] / "docs" / "layer-format.md"
IDS = {"": "", "root": "root", "acl": "users and groups"}
FILES = {"all": "all", "no symlinks": "all but symlinks", "regular": "files, directories"}
# One of each class that root can set on a file here, and names that only look like one.
NAMES = (
    *("user.a", "user.overlay.x", "user.overlayx", "user.overlay.overlay.x", "user.fuseoverlayfs.x"),
    *("user.containers.override_stat", "user.containers.override_stat2"),
    *("trusted.t", "trusted.overlay.x", "security.x", "security.fuseoverlayfs.x"),
)


def row(found: XattrClass) -> str:
    """A class as the page says it."""
    name = found.pattern.decode()
    cells = (
        "others" if not name else f"`{name}*`" if name.endswith(".") else f"`{name}`",
        "`oci`" if found.stored == "oci" else found.stored,
        "yes" if found.is_accepted else "no",
        IDS[found.ids],
        FILES[found.files],
        found.owner,
    )
    return "".join(f"| {cell} " if cell else "| " for cell in cells) + "|"


def test_the_page_has_this_table() -> None:
    lines = PAGE.read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("| attribute | in layers"))
    rows = lines[start + 2 : lines.index("", start)]
    assert rows == [row(found) for found in CLASSES]


def test_a_class_has_its_names_and_no_more() -> None:
    assert class_of(b"user.overlay.opaque").pattern == b"user.overlay."
    for name in (b"user.overlay", b"user.overlayx.y", b"user.containers.override_stat2", b"user."):
        assert class_of(name).pattern == b"user."
    assert class_of(b"security.capability2").pattern == b""
    assert class_of(b"system.posix_acl_").pattern == b"system."
    assert class_of(b"user").pattern == b""


def test_what_is_stored_is_accepted_again_and_by_both_profiles_or_by_oci() -> None:
    for found in CLASSES:
        assert found.is_accepted or not found.is_stored()
        assert found.is_stored() or not found.is_stored(only_capability=True)


def test_an_escaped_mark_is_none() -> None:
    assert mark_of(b"user.overlay.opaque", b"user.overlay.") == b"opaque"
    assert mark_of(b"user.overlay.overlay.opaque", b"user.overlay.") is None
    assert mark_of(b"trusted.overlay.opaque", b"user.overlay.") is None
    assert escape(b"user.overlay.opaque", b"user.overlay.") == b"user.overlay.overlay.opaque"
    assert escape(b"user.a", b"user.overlay.") == b"user.a"


@pytest.mark.parametrize("profile", Profile)
@pytest.mark.parametrize("name", NAMES)
def test_layers_have_what_the_table_says(engine: Engine, rust: Engine, tmp_path: Path, name: str, profile: Profile) -> None:
    tree = marked(tmp_path / "tree", name)
    summary, blob = verbs.diff(engine, None, tree, profile=profile)
    is_stored = class_of(name.encode()).is_stored(only_capability=profile is Profile.CONTAINERD)
    assert (b"SCHILY.xattr." + name.encode() + b"=" in blob) == is_stored
    # A mount of fuse-overlayfs shows its own.
    is_told = not is_stored and not name.startswith("security.fuseoverlayfs.")
    assert sum(summary.skipped.values()) == (2 if is_told else 0)
    assert blob == verbs.diff(rust, None, tree, profile=profile)[1]


@pytest.mark.parametrize("name", NAMES)
def test_an_apply_sets_and_removes_what_the_table_says(engine: Engine, tmp_path: Path, name: str) -> None:
    found = class_of(name.encode())
    tree = marked(tmp_path / "tree", name)
    verbs.apply(engine, tar(directory(b"d")), tree, same_owner=True)
    assert (name in os.listxattr(tree / "d")) == (not found.is_stored())
    entries = (
        directory(b"d", pax_headers={f"SCHILY.xattr.{name}": "2"}),
        file(b"g", b"", pax_headers={f"SCHILY.xattr.{name}": "2"}),
    )
    summary = verbs.apply(engine, tar(*entries), tree, same_owner=True)
    assert (name in os.listxattr(tree / "g")) == found.is_accepted
    assert dict(summary.skipped) == ({} if found.is_accepted else {"xattrs": 2})
    values = [os.getxattr(tree / "d", key) for key in os.listxattr(tree / "d")]
    assert values == ([b"2"] if found.is_accepted else [b"1"])


@pytest.mark.parametrize("name", NAMES)
def test_an_index_of_layers_has_what_that_of_their_tree_has(engine: Engine, rust: Engine, tmp_path: Path, name: str) -> None:
    blob = tar(
        directory(b"d", pax_headers={f"SCHILY.xattr.{name}": "2"}), file(b"f", pax_headers={f"SCHILY.xattr.{name}": "2"})
    )
    tree = tmp_path / "tree"
    tree.mkdir()
    needs(tree, name)
    verbs.apply(engine, blob, tree, same_owner=True)
    assert verbs.index_of_layers(engine, [blob])[0] == verbs.index(rust, tree)


def marked(tree: Path, name: str) -> Path:
    """A tree with the attribute on a file and a directory."""
    (tree / "d").mkdir(parents=True)
    (tree / "f").touch()
    needs(tree, name)
    for path in (tree / "d", tree / "f"):
        os.setxattr(path, name, b"1")
    return tree


def needs(tree: Path, name: str) -> None:
    """Skip where this process cannot set the attribute."""
    try:
        os.setxattr(tree, name, b"1")
        os.removexattr(tree, name)
    except OSError as error:
        probes.missing(f"cannot set {name}: {error}")
