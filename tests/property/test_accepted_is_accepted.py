"""Law: what a diff or a commit accepts, every reader of the layer accepts."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
import strategies
from hypothesis import given, settings
from hypothesis import strategies as st

from ocidiff.errors import OcidiffError, UnrepresentableError, UnsupportedError
from ocidiff.layer.apply_options import Destination
from ocidiff.layer.engine import Engine
from ocidiff.layer.layer import RECORD, LayerSummary
from ocidiff.layer.options import EngineName, Profile
from ocidiff.store import Store
from support import probes, trees, verbs

pytestmark = [pytest.mark.root, pytest.mark.timeout(3600)]

EXAMPLES: Final = int(os.environ.get("OCIDIFF_EXAMPLES", "100"))
NAMES: Final = (
    *(b"a", b"b", b"c", b"\n", b"\xff", b" ", b"-", "\u202e".encode(), b"n" * 255, b"n" * 252),
    *(b".wh.a", b".wh.", b".wh..", b".wh...", b".wh..wh..opq", b".wh..wh.plnk", b".wh..wh.aufs", b".wh..wh.x"),
    *(b"PaxHeaders.0", b".ocidiffignore"),
)
KINDS: Final = ("file", "file", "dir", "dir", "symlink", "fifo", "socket", "char", "block", "link")
DEVICES: Final = ((0, 0), (0, 1), (1, 3), (4095, 0), (0, 1048575), (4095, 1048575))
IDS: Final = (0, 1000, 2097151, 2097152, 2**31, 2**32 - 2)
TIMES: Final = (0, -1, -(2**40), 2**33 - 1, 2**33, 2**34 + 1, 1_600_000_000)
XATTRS: Final = (
    *(("user.a", b"1"), ("user.a=b", b"1"), ("user.empty", b""), ("user.\n", b"\0\n="), ("user." + "n" * 250, b"1")),
    *(("user.overlay.opaque", b"y"), ("user.overlay.whiteout", b"y"), ("user.overlay.redirect", b"/x")),
    *(("user.fuseoverlayfs.opaque", b"y"), ("user.fuseoverlayfs.origin", b"a"), ("trusted.overlay.opaque", b"y")),
    *((RECORD, b"0:0:04755"), (RECORD, b"7:7:0600:char-1-3"), (RECORD, b"7:7:0600:char-0-0"), (RECORD, b"x")),
    *(("security.capability", probes.CAPABILITY_VALUE), ("trusted.t", b"1"), ("user.big", b"x" * 3000)),
)


@dataclass(frozen=True)
class Odd:
    """One thing in a tree."""

    parent: int
    name: bytes
    kind: str
    device: tuple[int, int]
    mode: int
    uid: int
    time: int
    xattrs: tuple[tuple[str, bytes], ...]


@st.composite
def odd_trees(draw: st.DrawFn) -> tuple[bool, list[Odd]]:
    """Whether the root is marked as one with notes, and what is in it."""
    odd = st.builds(
        Odd,
        st.integers(0, 3),
        # Most are harmless, or nearly all trees would be refused.
        st.one_of(st.sampled_from(NAMES[:10]), st.sampled_from(NAMES[:10]), st.sampled_from(NAMES)),
        st.sampled_from(KINDS),
        st.sampled_from(DEVICES),
        st.sampled_from((0o644, 0o755, 0o6777, 0, 0o1000)),
        st.sampled_from(IDS),
        st.sampled_from(TIMES),
        st.lists(st.sampled_from(XATTRS), max_size=2).map(tuple),
    )
    return draw(st.booleans()), draw(st.lists(odd, max_size=8))


@contextmanager
def built(is_marked: bool, odds: list[Odd]) -> Iterator[Path]:
    """The tree, as far as this machine can make it, below a directory that a user may use."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        place.chmod(0o777)
        root = os.fsencode(place / "tree")
        os.mkdir(root, 0o755)
        if is_marked:
            os.setxattr(root, RECORD, b"0:0:0755")
        made, dirs = list[tuple[bytes, Odd]](), [root]
        for odd in odds:
            path = os.path.join(dirs[odd.parent % len(dirs)], odd.name)
            with suppress(FileExistsError):
                _make(path, odd, [file for file, one in made if one.kind != "dir"])
                made.append((path, odd))
                dirs += [path] if odd.kind == "dir" else []
        for path, odd in reversed(made):
            os.lchown(path, odd.uid, odd.uid)
            if not stat.S_ISLNK(os.lstat(path).st_mode):
                os.chmod(path, odd.mode)
            for key, value in odd.xattrs:
                with suppress(OSError):
                    os.setxattr(path, key, value, follow_symlinks=False)
            with suppress(OSError):
                os.utime(path, (odd.time, odd.time), follow_symlinks=False)
        yield place


def _make(path: bytes, odd: Odd, files: list[bytes]) -> None:
    if odd.kind == "dir":
        os.mkdir(path)
    elif odd.kind == "symlink":
        os.symlink(b"../" * 3 + odd.name, path)
    elif odd.kind == "link" and files:
        os.link(files[-1], path, follow_symlinks=False)
    elif odd.kind in ("char", "block", "fifo"):
        os.mknod(path, trees.NODE_BITS[odd.kind] | 0o600, os.makedev(*odd.device))
    elif odd.kind == "socket":
        # Bind tells a name that is there and one that is too long alike.
        if os.path.lexists(path):
            raise FileExistsError
        here = os.open(os.path.dirname(path), os.O_PATH)
        try:
            with suppress(OSError), socket.socket(socket.AF_UNIX) as bound:
                bound.bind(b"/proc/self/fd/%d/%s" % (here, odd.name))
        finally:
            os.close(here)
        if not os.path.lexists(path):
            raise FileExistsError
    else:
        with open(path, "xb") as file:
            file.write(odd.name)


@given(tree=odd_trees(), profile=st.sampled_from(Profile))
def test_what_diff_accepts(rust: Engine, pure: Engine, tree: tuple[bool, list[Odd]], profile: Profile) -> None:
    with built(*tree) as place:
        verdicts = list[tuple[LayerSummary, bytes] | str]()
        for engine in (rust, pure):
            try:
                verdicts.append(verbs.diff(engine, None, place / "tree", profile=profile))
            except UnrepresentableError as error:
                verdicts.append(str(error))
        assert verdicts[0] == verdicts[1]
        verdict = verdicts[0]
        if isinstance(verdict, str):
            strategies.RAN["diff refuses, in the same words"] += 1
            assert any(part in verdict for part in (".wh.", "character device 0:0", "xattr"))
            return
        strategies.RAN["what diff accepts, all readers accept"] += 1
        blob = verdict[1]
        for number, engine in enumerate((rust, pure)):
            for destination in Destination:
                target = place / f"{destination}{number}"
                target.mkdir()
                with _opaque_root(blob, destination):
                    verbs.apply(engine, blob, target, same_owner=True, destination=destination)
            verbs.index_of_layers(engine, [blob])
            with probes.as_user():
                (place / f"user{number}").mkdir()
                verbs.apply(engine, blob, place / f"user{number}")
        one, other = (trees.scan_tree(place / f"directory{number}") for number in (0, 1))
        assert trees.comparable(one, xattrs=lambda _: True) == trees.comparable(other, xattrs=lambda _: True)


@contextmanager
def _opaque_root(blob: bytes, destination: Destination) -> Iterator[None]:
    """The root of an upperdir cannot be opaque, which only containerd's layers can say by a file of that name."""
    try:
        yield
    except UnsupportedError:
        names = [trees.name_of(entry, "name").rstrip(b"/") for entry in trees.read_layer(blob)]
        if destination is Destination.DIRECTORY or b".wh..wh..opq" not in names:
            raise


@settings(max_examples=max(10, EXAMPLES // 5))
@given(tree=odd_trees())
def test_what_commit_accepts(engine: Engine, tree: tuple[bool, list[Odd]]) -> None:
    name: EngineName = "rust" if type(engine).__name__ == "RustEngine" else "pure"
    with built(*tree) as place:
        for driver in ("overlay", "directory"):
            with Store.open(place / driver) as store:
                refusal = _refusal(store, place / "tree", name)
                if refusal is not None:
                    strategies.RAN["commit refuses"] += 1
                    return
                strategies.RAN["what commit accepts, unpack and create accept"] += 1
                store.unpack("a:1", place / f"out-{driver}", engine=name)
                store.create("a:1", "box", driver=driver, engine=name)


def _refusal(store: Store, tree: Path, engine: EngineName) -> str | None:
    """Commit a tree; what is said where that may not be."""
    try:
        store.commit(tree, "a:1", engine=engine)
    except OcidiffError as error:
        return str(error)
    return None
