"""Squash by hand: what stays of layers, what of the base is gone, and in which order contents are read."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest

from ocidiff.errors import (
    Cancelled,
    LimitExceededError,
    MalformedLayerError,
    OcidiffError,
    UnrepresentableError,
    UnsafeLayerError,
    UnsupportedError,
)
from ocidiff.layer.engine import Engine
from ocidiff.layer.limits import Limits
from ocidiff.layer.monitor import Cancellation, Monitor
from ocidiff.layer.options import Compression, LayerOptions
from support import trees, verbs
from support.archives import Member, directory, file, hard_link, symlink, tar, whiteout

OPAQUE = b".wh..wh..opq"


def names(engine: Engine, *layers: bytes, onto_base: bool) -> list[str]:
    """Type and name of each entry of the merged layer, with the target of a link."""
    _, merged, _ = verbs.squash(engine, layers, onto_base=onto_base)
    found = []
    for entry in trees.read_layer(merged):
        target = f" {entry['linkname']}" if "linkname" in entry else ""
        found.append(f"{entry['type']} {entry['name']}{target}")
    return found


@pytest.mark.parametrize(
    ("layers", "onto_nothing", "onto_base"),
    [
        pytest.param([[file(b"a")], [whiteout(b"a")]], [], ["0 .wh.a"], id="file-gone"),
        pytest.param([[whiteout(b"a")], [file(b"a")]], ["0 a"], ["0 a"], id="file-made-again"),
        pytest.param(
            [[directory(b"d"), file(b"d/x")], [whiteout(b"d")]],
            [],
            ["0 .wh.d"],
            id="directory-gone",
        ),
        pytest.param(
            [[whiteout(b"d")], [directory(b"d"), file(b"d/x")]],
            ["5 d/", "0 d/x"],
            ["5 d/", "0 d/.wh..wh..opq", "0 d/x"],
            id="directory-made-again",
        ),
        pytest.param(
            [[file(b"d")], [directory(b"d"), file(b"d/x")]],
            ["5 d/", "0 d/x"],
            ["5 d/", "0 d/.wh..wh..opq", "0 d/x"],
            id="file-becomes-directory",
        ),
        pytest.param([[directory(b"d"), file(b"d/x")], [file(b"d")]], ["0 d"], ["0 d"], id="directory-becomes-file"),
        pytest.param(
            [[directory(b"d"), whiteout(b"d/x")], [directory(b"d"), file(b"d/y")]],
            ["5 d/", "0 d/y"],
            ["5 d/", "0 d/.wh.x", "0 d/y"],
            id="whiteouts-take-the-place-of-the-name",
        ),
        pytest.param(
            [[directory(b"d"), whiteout(b"d/x")], [directory(b"d"), file(b"d/" + OPAQUE)]],
            ["5 d/"],
            ["5 d/", "0 d/.wh..wh..opq"],
            id="an-opaque-mark-needs-no-whiteouts",
        ),
        pytest.param(
            [[directory(b"d"), file(b"d/" + OPAQUE)], [directory(b"d"), directory(b"d/e")]],
            ["5 d/", "5 d/e/"],
            ["5 d/", "0 d/.wh..wh..opq", "5 d/e/"],
            id="one-opaque-mark-is-enough",
        ),
        pytest.param(
            [[directory(b"d"), file(b"d/" + OPAQUE)], [directory(b"d"), whiteout(b"d/x")]],
            ["5 d/"],
            ["5 d/", "0 d/.wh..wh..opq"],
            id="nothing-to-hide-in-an-opaque-directory",
        ),
        pytest.param([[file(b"a")], [file(OPAQUE)]], [], ["0 .wh..wh..opq"], id="everything-gone"),
        pytest.param([[file(b"d/x")]], ["5 d/", "0 d/x"], ["0 d/x"], id="a-directory-that-no-entry-describes"),
        pytest.param(
            [[whiteout(b"d/x")], [whiteout(b"d/y")]], [], ["0 d/.wh.x", "0 d/.wh.y"], id="in-a-directory-of-the-base"
        ),
        pytest.param(
            [[whiteout(b"d")], [whiteout(b"d/x"), file(b"e")]], ["0 e"], ["0 .wh.d", "0 e"], id="in-a-directory-that-is-gone"
        ),
        pytest.param(
            [[file(b"b", b"1")], [hard_link(b"a", b"b")], [whiteout(b"b")]],
            ["0 a"],
            ["0 a", "0 .wh.b"],
            id="a-link-is-all-that-is-left",
        ),
        pytest.param(
            [[file(b"b", b"1")], [hard_link(b"a", b"b"), hard_link(b"c", b"a")]],
            ["0 a", "1 b a", "1 c a"],
            ["0 a", "1 b a", "1 c a"],
            id="the-first-name-has-the-content",
        ),
        pytest.param(
            [[symlink(b"l", b"d"), directory(b"d")], [file(b"l/x")]],
            ["5 d/", "0 d/x", "2 l d"],
            ["5 d/", "0 d/x", "2 l d"],
            id="through-a-symbolic-link",
        ),
        pytest.param(
            [[directory(b"./", mode=0o700)], [file(b"a")]], ["5 ./", "0 a"], ["5 ./", "0 a"], id="the-root-has-an-entry"
        ),
    ],
)
def test_what_is_left(engine: Engine, layers: list[list[Member]], onto_nothing: list[str], onto_base: list[str]) -> None:
    blobs = [tar(*members) for members in layers]
    assert names(engine, *blobs, onto_base=False) == onto_nothing
    assert names(engine, *blobs, onto_base=True) == onto_base


def test_an_implied_directory_has_the_time_0(engine: Engine) -> None:
    (_, merged, _) = verbs.squash(engine, [tar(file(b"d/x"))])
    (entry, _) = trees.read_layer(merged)
    assert (entry["mode"], entry["uid"], entry["gid"], entry["mtime"]) == ("0755", 0, 0, 0)


def test_attributes_are_those_that_an_apply_sets(engine: Engine) -> None:
    def described(**xattrs: str) -> bytes:
        headers = {f"SCHILY.xattr.{key.replace('_', '.', 1)}": value for key, value in xattrs.items()}
        return tar(directory(b"d", pax_headers=headers))

    first = described(user_a="1", user_b="2", security_selinux="x", trusted_t="3")
    summary, merged, _ = verbs.squash(engine, [first, described(user_b="")], onto_base=True)
    (entry,) = trees.read_layer(merged)
    # Those of files are replaced as a whole; that of the host stays, as an apply would leave it.
    assert entry["xattrs"] == {"user.b": "", "security.selinux": b"x".hex()}
    assert summary.skipped == {"xattrs.trusted": 1}
    noted = tar(file(b"f", pax_headers={"SCHILY.xattr.user.containers.override_stat": "1:2:0755"}))
    summary, merged, _ = verbs.squash(engine, [noted])
    assert "xattrs" not in trees.read_layer(merged)[0]
    assert summary.skipped == {"xattrs.user": 1}


def test_contents_come_from_any_place_of_any_layer(engine: Engine) -> None:
    contents = {f"{number:02}".encode(): os.urandom(1000 + number * 997) for number in range(40)}
    contents[b"20"] = b"1" + bytes(700_000) + b"1"
    contents[b"21"] = bytes(300_000)
    layers: list[list[Member]] = [[] for _ in range(7)]
    # Each layer has its names from the last to the first, and a name of each of the others that does not count.
    for number, (name, content) in enumerate(sorted(contents.items(), reverse=True)):
        layers[number % 7].append(file(name, content))
        if number % 7:
            layers[0].append(file(name, b"old"))
    _, merged, _ = verbs.squash(engine, [tar(*members) for members in layers])
    with tempfile.TemporaryDirectory() as target:
        verbs.apply(engine, merged, target)
        assert {name: Path(target, os.fsdecode(name)).read_bytes() for name in contents} == contents
    assert [entry["name"] for entry in trees.read_layer(merged)] == sorted(name.decode() for name in contents)


def test_a_sparse_file_is_written_in_full(engine: Engine) -> None:
    records = {"GNU.sparse.map": "0,3,4093,3", "GNU.sparse.size": "5000", "GNU.sparse.numblocks": "2"}
    sparse = tar(file(b"b", b"abcdef", pax_headers=records), file(b"a", b"x"))
    for onto_base in (False, True):
        _, merged, _ = verbs.squash(engine, [sparse], onto_base=onto_base)
        with tempfile.TemporaryDirectory() as target:
            verbs.apply(engine, merged, target)
            expected = b"abc" + bytes(4090) + b"def" + bytes(904)
            assert Path(target, "b").read_bytes() == expected


@pytest.mark.parametrize("compression", list(Compression))
def test_any_compression_has_the_same_diff_id(engine: Engine, compression: Compression) -> None:
    blobs = [gzip.compress(tar(file(b"a", b"1" * 100_000))), tar(file(b"b", b"2" * 100_000))]
    plain, tar_bytes, _ = verbs.squash(engine, blobs)
    for threads in (1, 3):
        summary, blob, measures = verbs.squash(engine, blobs, compression=compression, threads=threads)
        assert summary.diff_id == plain.diff_id
        assert summary.size == len(blob)
        assert (summary.uncompressed_size, summary.entries, summary.whiteouts) == (len(tar_bytes), 2, 0)
        assert [measure.entries for measure in measures] == [1, 1]


@pytest.mark.parametrize(
    ("layer", "onto_base", "error"),
    [
        (tar(hard_link(b"a", b"b")), True, UnsupportedError),
        (tar(hard_link(b"a", b"b")), False, MalformedLayerError),
        (tar(directory(b"d"), hard_link(b"a", b"d")), True, MalformedLayerError),
        (tar(file(b".wh..")), True, MalformedLayerError),
        (tar(file(b".wh.d/x")), False, UnrepresentableError),
        (tar(file(b"a", uid=1 << 33)), True, UnsafeLayerError),
        (tar(), True, None),
        (tar(file(b"a", b"x" * 100))[:520], True, MalformedLayerError),
        (b"\x1f\x8b\x08junk", True, MalformedLayerError),
        (tar(symlink(b"a", b"b"), symlink(b"b", b"a"), file(b"a/x")), True, UnsafeLayerError),
        (tar(file(b"n" * 256)), False, OSError),
    ],
)
def test_what_is_refused(
    rust: Engine, pure: Engine, layer: bytes, *, onto_base: bool, error: type[Exception] | None
) -> None:
    if error is None:
        assert names(rust, layer, onto_base=onto_base) == []
        return
    said = set()
    for engine in (rust, pure):
        with pytest.raises(error) as raised:
            verbs.squash(engine, [layer], onto_base=onto_base)
        said.add(str(raised.value))
    assert len(said) == 1


def test_layers_have_limits(engine: Engine) -> None:
    squash = engine.squash(onto_base=False)
    with tempfile.TemporaryFile() as source:
        source.write(tar(file(b"a", b"x" * 5000)))
        for limits in (Limits(max_bytes=1000), Limits(max_entries=0)):
            source.seek(0)
            with pytest.raises(LimitExceededError):
                squash.add(source.fileno(), limits, Monitor())


@pytest.mark.parametrize("now", [tar(file(b"a", b"22")), tar(file(b"b", b"2222"), file(b"a", b"2")), tar()])
def test_a_layer_that_is_another_one_the_second_time_is_refused(engine: Engine, now: bytes) -> None:
    squash = engine.squash(onto_base=False)
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as sink:
        source.write(tar(file(b"a", b"1")))
        source.seek(0)
        squash.add(source.fileno(), Limits(), Monitor())
        source.seek(0)
        source.truncate()
        source.write(now)
        source.seek(0)
        with pytest.raises(OcidiffError, match=r"another entry than when the layer was read first|unexpected end"):
            squash.write([source.fileno()], sink.fileno(), LayerOptions(compression=Compression.NONE), Monitor())


def test_it_can_be_stopped(engine: Engine) -> None:
    cancel = Cancellation()
    cancel.cancel()
    squash = engine.squash(onto_base=False)
    source, sink = os.pipe()
    try:
        # The rest never comes.
        os.write(sink, tar(file(b"a", b"x" * 1000))[:1024])
        with pytest.raises(Cancelled):
            squash.add(source, Limits(), Monitor(cancel=cancel))
    finally:
        os.close(source)
        os.close(sink)


# In a process of its own, which tells its peak.
_MEASURED = """
import pathlib, sys
from ocidiff.layer.engine import select_engine
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.limits import Limits
from ocidiff.layer.options import LayerOptions
squash = select_engine(sys.argv[1]).squash(onto_base=False)
layers = [open(path, "rb", buffering=0) for path in sys.argv[3:]]
for layer in layers:
    squash.add(layer.fileno(), Limits(), Monitor())
    layer.seek(0)
with open("/dev/null", "wb") as sink:
    options = LayerOptions(compression="none", threads=1, spool=sys.argv[2])
    squash.write([layer.fileno() for layer in layers], sink.fileno(), options, Monitor())
print(next(line.split()[1] for line in pathlib.Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line))
"""


def test_memory_does_not_grow_with_contents(engine_name: str, tmp_path: Path) -> None:
    def peak_mib(mib: int) -> float:
        paths = []
        for number in range(6):
            # In an order that has every content set aside.
            with tarfile.open(tmp_path / f"{number}-{mib}", "w") as archive:
                for name in ("b", "a"):
                    info = tarfile.TarInfo(f"{name}{number}")
                    info.size = mib << 20
                    with open("/dev/urandom", "rb") as noise:
                        archive.addfile(info, noise)
            paths.append(str(tmp_path / f"{number}-{mib}"))
        command = [sys.executable, "-c", _MEASURED, engine_name, str(tmp_path), *paths]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) / 1024

    small, large = peak_mib(4), peak_mib(16)
    assert large < small + 40, (small, large)
    assert large < 200
