"""Layers of entries that meet: few names, in any order, also of kinds that no differ writes."""

from __future__ import annotations

import io
import tarfile
from typing import Any

from hypothesis import strategies as st

NAMES = ("a", "b", "c", "d", "l")
PSEUDO_LINKS = ".wh..wh.plnk"
TARGETS = ("a", "b/a", "..", "../b", "/c", "/", "l", "/a/./b/../b", "missing/x")
CAPABILITY = "\x01\x00\x00\x02" + "\x01" * 16
CAPABILITY_OF_ROOT = "\x01\x00\x00\x03" + "\x01" * 16 + "\x00" * 4
Entries = list[tuple[str, dict[str, Any]]]


@st.composite
def entries(draw: st.DrawFn, *, closed: bool = False) -> Entries:
    """Entries of one layer: few names, so that they meet.

    In a closed layer every directory has an entry before what is in it, as differs write them.
    """
    path = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4).map("/".join)
    made, files = [], ["a"]
    # Some layers reach by a link into the directory in which AUFS keeps names.
    reaches = not closed and draw(st.integers(0, 2)) == 0
    for number in range(draw(st.integers(0, 12))):
        is_way = reaches and number == 0
        name = "way" if is_way else draw(path)
        name = f"way/{name[0]}" if reaches and number > 0 and draw(st.booleans()) else name
        # Most links lead to a file that is there, or nearly all layers would be refused.
        kinds = ["file", "file", "dir", "dir", "symlink", "link", "fifo", "hide", "opaque", "char", "aufs"]
        kind = "symlink" if is_way else draw(st.sampled_from(kinds))
        if kind == "aufs":
            name = f"{PSEUDO_LINKS}/{draw(st.sampled_from(NAMES))}"
        if kind in ("file", "aufs"):
            files.append(name)
        made.append(
            (
                name,
                {
                    "kind": kind,
                    "target": PSEUDO_LINKS if is_way else draw(st.sampled_from(files if kind == "link" else TARGETS)),
                    "mode": draw(st.sampled_from([0o644, 0o755, 0o4711, 0])),
                    "uid": draw(st.sampled_from([0, 7])),
                    "mtime": draw(st.sampled_from([0, 5, 1.5])),
                    "size": draw(st.sampled_from([0, 1, 600])),
                    "xattrs": draw(
                        st.sampled_from([{}, {}, {"user.a": "1"}, {"user.a": ""}, {"trusted.t": "1"}, CAPABLE, BOUND])
                    ),
                },
            )
        )
    return with_parents(made) if closed else made


def with_parents(made: Entries) -> Entries:
    """The entries with those of the directories above them that are missing."""
    done: Entries = []
    kinds: dict[str, str] = {}
    for name, facts in made:
        parts = [] if facts["kind"] == "aufs" else name.split("/")
        above = ["/".join(parts[:depth]) for depth in range(1, len(parts))]
        for path in above:
            if kinds.get(path) != "dir":
                done.append((path, {**facts, "kind": "dir"}))
                kinds[path] = "dir"
        done.append((name, facts))
        if facts["kind"] not in ("hide", "opaque", "aufs"):
            kinds = {path: kind for path, kind in kinds.items() if path != name and not path.startswith(name + "/")}
            kinds[name] = facts["kind"]
    return done


CAPABLE, BOUND = {"security.capability": CAPABILITY}, {"security.capability": CAPABILITY_OF_ROOT}
KINDS = {
    "file": tarfile.REGTYPE,
    "aufs": tarfile.REGTYPE,
    "dir": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "link": tarfile.LNKTYPE,
    "fifo": tarfile.FIFOTYPE,
    "char": tarfile.CHRTYPE,
}


def tar_of(made: Entries) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, facts in made:
            parent, _, last = name.rpartition("/")
            kind = facts["kind"]
            if kind in ("hide", "opaque"):
                last = ".wh." + last if kind == "hide" else ".wh..wh..opq"
                tar.addfile(tarfile.TarInfo(f"{parent}/{last}" if parent else last))
                continue
            info = tarfile.TarInfo(name)
            info.type = KINDS[kind]
            info.mode, info.uid, info.mtime = facts["mode"], facts["uid"], facts["mtime"]
            info.linkname = facts["target"] if kind in ("symlink", "link") else ""
            info.devmajor, info.devminor = (1, 3) if kind == "char" else (0, 0)
            info.pax_headers = {f"SCHILY.xattr.{key}": value for key, value in facts["xattrs"].items()}
            data = b"x" * (facts["size"] if kind in ("file", "aufs") else 0)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return archive.getvalue()
