"""Pairs of trees for the laws: a lower tree, and an upper one that random steps made of it.

A tree is a model first: names, and the inodes that they share. `build` puts a pair on disk in the vocabulary of `trees`, so
what Hypothesis prints for a failure can become a vector as it is.
"""

from __future__ import annotations

import copy
import functools
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from support import probes, trees

RAN: Counter[str] = Counter()
"""How many examples each law saw."""

BORDERS = (0, 1, 511, 512, 513, 1024, 4096, 32767, 32768, 32769, (1 << 18) - 1, 1 << 18, (1 << 18) + 1, 700_001)
ODD_NAMES = (
    *(b"a", b"b", b"c", b"a-", b"a.", b"a b", b"a!", b"a+", b"a0", b"A", b"ab", b"-", b".a", b"...", b"~", b"a~b"),
    *(
        b"\xff",
        b"\xc3\xa9",
        b"e\xcc\x81",
        b"\x80" * 120,
        b"a\nb",
        b"a\x01",
        b"'\"\\",
        b"1 2=3\n",
        b"=",
        b".wh",
        b".whx",
        b"wh.",
    ),
    *(b"x" * 99, b"y" * 100, b"z" * 101, b"v" * 155, b"w" * 156, b"u" * 255, b"\xc3\xa9" * 60),
)
IDS = (0, 0, 0, 0, 1, 1000, 1000, 65534, 2097151, 2097152, 4294967294)  # the last two take a PAX header
SECONDS = (0, 1, 1, 1_600_000_000, 1_600_000_000, 1_700_000_000, (1 << 31) - 1)
NANOSECONDS = (0, 0, 0, 1, 500_000_000, 999_999_999)
DEVICES = ((1, 3), (5, 1), (8, 0), (4095, (1 << 20) - 1))
TARGETS = (b"a", b"b", b"/", b"/etc/passwd", b"../../..", b".", b"\xff", b"t" * 100, b"t" * 101, b"\xc3\xa9" * 60)


@dataclass(frozen=True)
class Inode:
    """What all names of an inode share."""

    type: str
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    content: tuple[int, int, int] = (0, 0, 0)  # size, seed of all, seed of the last bytes
    target: bytes = b""
    rdev: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[str, str], ...] = ()


@dataclass
class Model:
    """Names below the root, a parent before its children, and their inodes; inode 0 is the root itself."""

    names: dict[bytes, int] = field(default_factory=dict)
    inodes: dict[int, Inode] = field(default_factory=lambda: {0: Inode("dir", 0o755, os.geteuid(), os.getegid(), 0)})

    def directories(self) -> list[bytes]:
        """Paths of directories, the root being empty."""
        return [b"", *(path for path, inode in self.names.items() if self.inodes[inode].type == "dir")]

    def leaves(self) -> list[bytes]:
        """Paths of all else."""
        return [path for path, inode in self.names.items() if self.inodes[inode].type != "dir"]

    def new_inode(self, inode: Inode) -> int:
        """Keep a new inode; its number is never used again."""
        number = max(self.inodes) + 1
        self.inodes[number] = inode
        return number

    def remove(self, path: bytes) -> None:
        """Drop a name and all below it."""
        for name in [name for name in self.names if name == path or name.startswith(path + b"/")]:
            del self.names[name]

    def spec(self, lower: Model | None = None) -> trees.Spec:
        """The tree in the vocabulary of `trees`; inodes that `lower` has just so become the same inodes on disk."""
        first: dict[int, bytes] = {}
        kept = {number: path for path, number in reversed(lower.names.items())} if lower else {}
        spec = [_entry(b".", self.inodes[0])]
        for path, number in self.names.items():
            inode = self.inodes[number]
            if inode.type != "dir" and lower and number in kept and lower.inodes[number] == inode:
                spec.append(_link(path, "lowerlink", kept[number]))
            elif number in first:
                spec.append(_link(path, "hardlink", first[number]))
            else:
                spec.append(_entry(path, inode))
                first[number] = path
        return spec


@dataclass(frozen=True)
class Pair:
    """Two trees in the vocabulary of `trees`."""

    lower: trees.Spec
    upper: trees.Spec


@contextmanager
def build(pair: Pair) -> Iterator[tuple[bytes, bytes, Callable[[], bytes]]]:
    """Both trees on disk, and a function that gives one more copy of lower each time."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=False) as directory:
        place = Path(directory)
        lower = trees.build_tree(pair.lower, place / "lower")
        upper = trees.build_tree(pair.upper, place / "upper", lower)
        copies = (place / f"copy{count}" for count in range(100))
        yield lower, upper, lambda: trees.build_tree(pair.lower, next(copies))


@st.composite
def pairs(draw: st.DrawFn, *, sockets: bool = False) -> Pair:
    """Lower and upper; neither holds what the rules of sameness miss (new content under the same sub-second time)."""
    lower = Model()
    for _ in range(draw(st.integers(0, 16))):
        _create(draw, lower, sockets=sockets)
    upper = copy.deepcopy(lower)
    for _ in range(draw(st.integers(0, 12))):
        step = draw(st.sampled_from(STEPS))
        if step is _create:
            _create(draw, upper, sockets=sockets)
        else:
            step(draw, upper)
    _show_changes(lower, upper)
    return Pair(lower.spec(), upper.spec(lower if draw(st.booleans()) else None))


# ---------------------------------------------------------------- steps


def _create(draw: st.DrawFn, model: Model, *, sockets: bool) -> None:
    parent = draw(st.sampled_from(model.directories()))
    name = draw(names())
    path = parent + b"/" + name if parent else name
    if path in model.names or path.count(b"/") > 5:
        return
    if model.leaves() and draw(st.integers(0, 4)) == 0:
        model.names[path] = model.names[draw(st.sampled_from(model.leaves()))]
    else:
        model.names[path] = model.new_inode(draw(inodes(sockets=sockets)))


def _remove(draw: st.DrawFn, model: Model) -> None:
    if model.names:
        model.remove(draw(st.sampled_from(list(model.names))))


def _rename(draw: st.DrawFn, model: Model) -> None:
    if not model.names:
        return
    old = draw(st.sampled_from(list(model.names)))
    parent = draw(st.sampled_from([path for path in model.directories() if path != old and not path.startswith(old + b"/")]))
    name = draw(names())
    new = parent + b"/" + name if parent else name
    if new in model.names:
        return
    moved = {new + path[len(old) :]: number for path, number in model.names.items() if _is_at_or_below(path, old)}
    model.remove(old)
    model.names.update(moved)


def _replace(draw: st.DrawFn, model: Model) -> None:
    """Another inode under the same name, often of another type."""
    if model.names:
        path = draw(st.sampled_from(list(model.names)))
        model.remove(path)
        model.names[path] = model.new_inode(draw(inodes(sockets=False)))


def _relink(draw: st.DrawFn, model: Model) -> None:
    """A name becomes another name of another file."""
    if model.leaves():
        path = draw(st.sampled_from(model.leaves()))
        model.names[path] = model.names[draw(st.sampled_from(model.leaves()))]


def _unlink_from_group(draw: st.DrawFn, model: Model) -> None:
    """A name gets its own copy of the file."""
    if model.leaves():
        path = draw(st.sampled_from(model.leaves()))
        model.names[path] = model.new_inode(model.inodes[model.names[path]])


def _edit(draw: st.DrawFn, model: Model) -> None:
    """New attributes or new content of one inode."""
    if not model.names:
        return
    number = model.names[draw(st.sampled_from(list(model.names)))]
    old = model.inodes[number]
    other = draw(inodes(kind=old.type))
    match draw(st.sampled_from(["mode", "owner", "mtime", "seconds", "xattrs", "content", "content", "content"])):
        case "mode":
            new = replace(old, mode=other.mode)
        case "owner":
            new = replace(old, uid=other.uid, gid=other.gid)
        case "mtime":
            new = replace(old, mtime_ns=other.mtime_ns)
        case "seconds":
            new = replace(old, mtime_ns=old.mtime_ns // trees.SECOND * trees.SECOND)
        case "xattrs":
            new = replace(old, xattrs=other.xattrs)
        case _:
            new = replace(old, content=_similar(draw, old.content, other.content), target=other.target, rdev=other.rdev)
    model.inodes[number] = new


def _similar(draw: st.DrawFn, old: tuple[int, int, int], other: tuple[int, int, int]) -> tuple[int, int, int]:
    """Another content, often of the same size, sometimes with the same beginning."""
    size, seed, tail = old
    return draw(st.sampled_from([other, (size, other[1], tail), (size, seed, other[2])]))


def _show_changes(lower: Model, upper: Model) -> None:
    """Let no content differ under one sub-second time: by the rules of sameness such a change is missed."""
    todo = list(upper.names)
    while todo:
        path = todo.pop()
        old, number = lower.inodes.get(lower.names.get(path, -1)), upper.names[path]
        new = upper.inodes[number]
        if old and new.mtime_ns % trees.SECOND and old.mtime_ns == new.mtime_ns and _data(old) != _data(new):
            upper.inodes[number] = replace(new, mtime_ns=new.mtime_ns + trees.SECOND)
            todo = list(upper.names)


def _data(inode: Inode) -> object:
    return (inode.content, inode.target) if inode.type in ("file", "symlink") else None


STEPS: list[Callable[..., None]] = [
    *(_create, _create, _remove, _remove, _rename, _replace, _relink, _unlink_from_group),
    *(_edit, _edit, _edit),
]


# ---------------------------------------------------------------- values


@functools.cache
def names() -> st.SearchStrategy[bytes]:
    """Names of files; none that a layer would read as a deletion."""
    free = st.binary(min_size=1, max_size=12).map(lambda raw: raw.replace(b"/", b"_").replace(b"\0", b"0"))
    return st.one_of(st.sampled_from(ODD_NAMES), free).filter(
        lambda name: name not in (b".", b"..") and not name.startswith(b".wh.")
    )


@st.composite
def inodes(draw: st.DrawFn, *, kind: str | None = None, sockets: bool = False) -> Inode:
    """Anything that a tree can hold and this process can make."""
    able = probes.abilities()
    kinds = ["dir", "dir", "file", "file", "file", "symlink", "fifo"]
    kinds += ["char", "block"] if able["devices"] else []
    kinds += ["socket"] if sockets else []
    kind = kind or draw(st.sampled_from(kinds))
    root = able["root"]
    owner = st.sampled_from(IDS) if root else st.just(os.geteuid())
    group = st.sampled_from(IDS) if root else st.just(os.getegid())
    bits = st.one_of(st.sampled_from([0o644, 0o755, 0o4755, 0o2750, 0o1777, 0]), st.integers(0, 0o7777))
    seconds = SECONDS + ((-1,) if able["times before 1970"] else ()) + ((1 << 33,) if able["times after 2242"] else ())
    uid, gid = draw(owner), draw(group)
    return Inode(
        kind,
        0o777 if kind == "symlink" else draw(bits) | (0 if root else 0o700),
        uid,
        gid,
        draw(st.sampled_from(seconds)) * trees.SECOND + draw(st.sampled_from(NANOSECONDS)),
        content=(draw(st.sampled_from(BORDERS)), draw(st.integers(0, 2)), draw(st.integers(0, 2))),
        target=draw(st.sampled_from(TARGETS)) if kind == "symlink" else b"",
        rdev=draw(st.sampled_from(DEVICES)) if kind in ("char", "block") else (0, 0),
        xattrs=draw(xattrs(kind)),
    )


@st.composite
def xattrs(draw: st.DrawFn, kind: str) -> tuple[tuple[str, str], ...]:
    """Xattrs that an inode of this type may have, with those that no layer carries among them."""
    able = probes.abilities()
    if kind not in ("file", "dir") or not able["user xattrs"]:
        return ()
    choices = [("user.a", "00"), ("user.a", "31"), ("user.\u00e9", "ff" * 300), ("user.empty", ""), ("user.overlay.x", "79")]
    if able["capabilities"] and kind == "file":
        choices += [("security.capability", probes.CAPABILITY_VALUE.hex())]
    if able["root"]:
        choices += [("trusted.t", "31")]
    if able["ACLs"]:
        choices += [("system.posix_acl_access", probes.ACL_VALUE.hex())]
        choices += [("system.posix_acl_default", probes.ACL_VALUE.hex())] if kind == "dir" else []
    return tuple(dict(draw(st.lists(st.sampled_from(choices), max_size=2))).items())


# ---------------------------------------------------------------- vocabulary


def _is_at_or_below(path: bytes, top: bytes) -> bool:
    return path == top or path.startswith(top + b"/")


def _link(path: bytes, kind: str, target: bytes) -> dict[str, Any]:
    return trees.put_name(trees.put_name({"type": kind}, "path", path), "target", target)


def _entry(path: bytes, inode: Inode) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "type": inode.type,
        "mode": f"{inode.mode:04o}",
        "uid": inode.uid,
        "gid": inode.gid,
        "mtime": list(divmod(inode.mtime_ns, trees.SECOND)),
    }
    trees.put_name(entry, "path", path)
    if inode.type == "file":
        size, seed, tail = inode.content
        entry["content"] = [{"repeat": [f"{seed:07d}\n", size // 8]}, {"prng": [tail, size % 8]}]
    if inode.type == "symlink":
        trees.put_name(entry, "target", inode.target)
    if inode.type in ("char", "block"):
        entry["rdev"] = list(inode.rdev)
    if inode.xattrs:
        entry["xattrs"] = dict(inode.xattrs)
    return entry
