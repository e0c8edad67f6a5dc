"""Law: a layer in an upperdir shows through overlayfs as the tree that the same layer makes of the lower tree.

And as the tree that an index of both layers stands for; in both engines, with the same verdict. Not in the law is what an
upperdir cannot say without the lower tree (decision 0040).
"""

from __future__ import annotations

import functools
import itertools
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st

from ocidiff.errors import OcidiffError, UnsupportedError
from ocidiff.layer.apply_options import Destination
from ocidiff.layer.engine import Engine
from ocidiff.mounts.kernel import directory_of
from ocidiff.mounts.mount import overlay, unsynced
from support import overlays, probes, trees, verbs
from support.archives import MTIME, Member, directory, file, hard_link, member, symlink, tar, whiteout

pytestmark = [pytest.mark.root, pytest.mark.timeout(3600)]

# Every path of up to three of these names is a directory of the lower tree.
DIRECTORIES = (b"d", b"e")
# Each of these directories has these files.
FILES = (b"f", b"g")
# Names that only layers use.
NEW = (b"n", b"m")
TARGETS = (b"d", b"e", b"../e", b"/d/e", b"..", b".", b"/", b"n", b"/d/e/../e", b"loop")
OPTIONS = {Destination.OVERLAY: ("index=off",), Destination.OVERLAY_USERXATTR: ("index=off", "userxattr")}


@functools.cache
def lower_tar() -> bytes:
    members = []
    for depth in range(4):
        for parts in itertools.product(DIRECTORIES, repeat=depth):
            members += [directory(b"/".join(parts))] if parts else []
            members += [file(b"/".join([*parts, name]), b"lower") for name in FILES]
    return tar(*members)


@pytest.fixture(scope="module")
def lower(tmp_path_factory: pytest.TempPathFactory, rust: Engine) -> Path:
    """The lower tree, for reading only."""
    place = tmp_path_factory.mktemp("lower") / "lower"
    place.mkdir()
    verbs.apply(rust, lower_tar(), place)
    return place


@st.composite
def layers(draw: st.DrawFn) -> tuple[Member, ...]:
    """Entries that meet: they replace and hide each other, and lead through each other's links."""
    members: list[Member] = []
    written: list[bytes] = []
    for _ in range(draw(st.integers(1, 14))):
        kind = draw(
            st.sampled_from(["file", "file", "dir", "dir", "symlink", "link", "fifo", *["hide"] * 5, *["opaque"] * 2])
        )
        hides = kind in ("hide", "opaque")
        through = DIRECTORIES if hides else (*DIRECTORIES, *DIRECTORIES, b"f", b"n")
        parts = draw(st.lists(st.sampled_from(through), max_size=2))
        if hides:
            is_written = bool(written) and draw(st.booleans())
            parent = draw(st.sampled_from(written)) if is_written else b"/".join(parts)
            name = draw(st.sampled_from([*DIRECTORIES, *FILES, *NEW]))
            if kind == "hide":
                members.append(whiteout(parent + b"/" + name if parent else name))
            elif parent:
                members.append(file(parent + b"/.wh..wh..opq"))
            continue
        # In an upperdir there are no hard links to what only lower layers have.
        links = [path for path in written if path.endswith(NEW)]
        if kind == "link" and not links:
            continue
        is_new = draw(st.booleans()) or kind == "link"
        path = b"/".join([*parts, draw(st.sampled_from(NEW if is_new else DIRECTORIES + FILES))])
        fields: dict[str, Any] = {"mtime": MTIME + len(members)}
        if kind != "symlink":
            fields["mode"] = draw(st.sampled_from([0o755, 0o700, 0o4750]))
            fields["pax_headers"] = draw(st.sampled_from([{}, {}, {"SCHILY.xattr.user.a": "1"}]))
        match kind:
            case "file":
                members.append(file(path, b"%d" % len(members), **fields))
            case "dir":
                members.append(directory(path, **fields))
            case "symlink":
                members.append(symlink(path, draw(st.sampled_from(TARGETS)), **fields))
            case "link":
                members.append(hard_link(path, draw(st.sampled_from(links)), **fields))
            case _:
                members.append(member(path, tarfile.FIFOTYPE, **fields))
        written.append(path)
    return tuple(members)


@given(members=layers(), destination=st.sampled_from(list(OPTIONS)))
def test_any_layer(
    rust: Engine, pure: Engine, lower: Path, *, members: tuple[Member, ...], destination: Destination
) -> None:
    if not overlays.can_mount(*OPTIONS[destination]):
        probes.missing(f"needs overlay mounts with {OPTIONS[destination]}")
    layer = tar(*members)
    plain, index = applied(rust, layer, lower, Destination.DIRECTORY)
    merged, _ = applied(rust, layer, lower, destination)
    assert_same(applied(pure, layer, lower, Destination.DIRECTORY)[0], plain)
    assert_same(applied(pure, layer, lower, destination)[0], merged)
    for engine in (rust, pure):
        assert index_of(engine, layer) == index
    if merged == UnsupportedError.__name__:
        strategies.RAN["out of the law: an opaque mark that a link leads to the root"] += 1
        return
    if isinstance(plain, dict) and isinstance(merged, dict) and is_beyond(plain, merged, lower):
        strategies.RAN["out of the law: a whiteout alone where the lower tree has no directory"] += 1
        return
    assert_same(merged, plain)
    verdict = "refused" if isinstance(plain, str) else "accepted"
    strategies.RAN[f"upperdir = plain tree = index, rust = pure: {verdict}"] += 1


def applied(
    engine: Engine, layer: bytes, lower: Path, kind: Destination
) -> tuple[dict[bytes, trees.Facts] | str, bytes | str]:
    """The tree that a layer makes of the lower one, and the index of a plain tree; or the class of the error for both."""
    with tempfile.TemporaryDirectory() as home:
        upper, work = Path(home, "upper"), Path(home, "work")
        upper.mkdir()
        work.mkdir()
        if kind is Destination.DIRECTORY:
            verbs.apply(engine, lower_tar(), upper)
        try:
            verbs.apply(engine, layer, upper, destination=kind)
        except (OcidiffError, OSError) as error:
            return type(error).__name__, type(error).__name__
        if kind is Destination.DIRECTORY:
            return facts_of(upper), verbs.index(engine, upper)
        mount = overlay([str(lower)], str(upper), str(work), OPTIONS[kind])
        with directory_of(unsynced((mount,))) as merged:
            return facts_of(merged), b""


def index_of(engine: Engine, layer: bytes) -> bytes | str:
    try:
        return verbs.index_of_layers(engine, [lower_tar(), layer])[0]
    except (OcidiffError, OSError) as error:
        return type(error).__name__


def is_beyond(plain: dict[bytes, trees.Facts], merged: dict[bytes, trees.Facts], lower: Path) -> bool:
    """True if the upperdir got a directory for a whiteout alone, and the lower tree has none there.

    The layer then leaves that place of the lower tree as it is.
    """
    below = facts_of(lower)
    made = {path for path, facts in merged.items() if facts["type"] == "dir"}
    unsaid = {path for path in made if plain.get(path) == below.get(path)}
    return any(path not in below or below[path]["type"] != "dir" for path in unsaid)


def facts_of(tree: str | Path) -> dict[bytes, trees.Facts]:
    return trees.comparable(trees.scan_tree(tree))


def assert_same(found: dict[bytes, trees.Facts] | str, expected: dict[bytes, trees.Facts] | str) -> None:
    if isinstance(found, dict) and isinstance(expected, dict):
        trees.assert_same_facts(found, expected)
    else:
        assert found == expected
