"""Law: the index of layers is the index of the tree that they unpack to; and what cannot be unpacked has none."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
from typing import Any

import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st

from ocidiff.errors import OcidiffError
from ocidiff.layer.engine import Engine
from support import verbs

pytestmark = [pytest.mark.root, pytest.mark.timeout(3600)]

NAMES = ("a", "b", "c", "d", "l")
PSEUDO_LINKS = ".wh..wh.plnk"
TARGETS = ("a", "b/a", "..", "../b", "/c", "/", "l", "/a/./b/../b", "missing/x")
CAPABILITY = "\x01\x00\x00\x02" + "\x01" * 16
CAPABILITY_OF_ROOT = "\x01\x00\x00\x03" + "\x01" * 16 + "\x00" * 4


@given(pair=strategies.pairs(), sha256=st.booleans())
def test_layers_of_trees(rust: Engine, pure: Engine, *, pair: strategies.Pair, sha256: bool) -> None:
    strategies.RAN["index of layers = index of the unpacked tree"] += 1
    with strategies.build(pair) as (lower, upper, _):
        blobs = [verbs.diff(rust, None, lower)[1], verbs.diff(rust, lower, upper)[1]]
        assert_index_of(rust, pure, blobs, sha256=sha256)


@st.composite
def entries(draw: st.DrawFn) -> list[tuple[str, dict[str, Any]]]:
    """Entries of one layer: few names, so that they meet."""
    path = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4).map("/".join)
    made, files = [], ["a"]
    # Some layers reach by a link into the directory in which AUFS keeps names.
    reaches = draw(st.integers(0, 2)) == 0
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
    return made


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


def tar_of(made: list[tuple[str, dict[str, Any]]]) -> bytes:
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


@given(layers=st.lists(entries(), min_size=1, max_size=4))
def test_layers_of_anything(rust: Engine, pure: Engine, layers: list[list[tuple[str, dict[str, Any]]]]) -> None:
    strategies.RAN["index of any layers = index of the unpacked tree"] += 1
    assert_index_of(rust, pure, [tar_of(layer) for layer in layers], sha256=False)


def assert_index_of(rust: Engine, pure: Engine, blobs: list[bytes], *, sha256: bool) -> None:
    with tempfile.TemporaryDirectory() as tree:
        os.chmod(tree, 0o755)
        try:
            applied = [verbs.apply(rust, blob, tree, same_owner=True) for blob in blobs]
        except (OcidiffError, OSError) as error:
            for engine in (rust, pure):
                with pytest.raises(OcidiffError if isinstance(error, OcidiffError) else OSError):
                    verbs.index_of_layers(engine, blobs)
            return
        expected = verbs.index(rust, tree, sha256=sha256)
    for engine in (rust, pure):
        found, measures = verbs.index_of_layers(engine, blobs, sha256=sha256)
        assert found == expected
        assert [(one.digest, one.diff_id) for one in measures] == [(one.digest, one.diff_id) for one in applied]
