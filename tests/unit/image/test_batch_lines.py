"""Lines of a batch are read in bounded memory, whatever they hold; names, shards and stamps tell what they should."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest

from ocidiff.errors import DocumentError, UsageError
from ocidiff.image import stamp
from ocidiff.image.batch_lines import MAX_LINE_BYTES, Line, Shard, numbered_lines
from ocidiff.image.stamp import Stamp
from support.peaks import peak_growth


def lines_of(data: bytes) -> list[tuple[int, bytes | None]]:
    reader, writer = os.pipe()

    def write() -> None:
        with os.fdopen(writer, "wb") as file:
            file.write(data)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        return list(numbered_lines(reader, lambda: False))
    finally:
        thread.join()
        os.close(reader)


def test_lines_are_numbered_whatever_ends_them() -> None:
    assert lines_of(b"a\nb\r\n\nc") == [(1, b"a"), (2, b"b\r"), (3, b""), (4, b"c")]
    assert lines_of(b"") == []
    assert lines_of(b"a\n") == [(1, b"a")]


@pytest.mark.parametrize("length", [MAX_LINE_BYTES, MAX_LINE_BYTES + 1, 5 * MAX_LINE_BYTES])
def test_a_long_line_is_skipped_and_the_next_one_is_read(length: int) -> None:
    whole = b"x" * length
    kept = whole if length <= MAX_LINE_BYTES else None
    assert lines_of(whole + b"\nnext\n" + whole) == [(1, kept), (2, b"next"), (3, kept)]


def test_a_line_of_any_length_takes_no_memory(tmp_path: Path) -> None:
    with (tmp_path / "lines").open("wb") as file:
        file.truncate(400 << 20)
        file.seek(0, os.SEEK_END)
        file.write(b"\nnext\n")
    before = "import sys; from ocidiff.image.batch_lines import numbered_lines"
    work = """
with open(sys.argv[1], "rb") as file:
    assert list(numbered_lines(file.fileno(), lambda: False)) == [(1, None), (2, b"next")]
"""
    assert peak_growth(before, work, tmp_path / "lines") < 4 << 20


def test_a_reader_that_waits_can_be_stopped() -> None:
    reader, writer = os.pipe()
    stopped: list[bool] = []
    threading.Timer(0.2, lambda: stopped.append(True)).start()
    started = time.monotonic()
    assert list(numbered_lines(reader, lambda: bool(stopped))) == []
    assert time.monotonic() - started < 5
    os.close(reader)
    os.close(writer)


def test_a_line_says_what_to_commit() -> None:
    line = Line.parse(7, json.dumps({"upper": "dir", "name": "app:1", "changes": ["ENV A=1", "CMD x"]}).encode())
    assert line == Line(7, "dir", "", "app:1", ("ENV A=1", "CMD x"))
    assert Line.parse(1, b'{"source": "work", "name": "app", "upper": null}') == Line(1, "", "work", "app", ())


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"name": "a", "upper": "\xff"}',
        b'{"name": "a"}',
        b'{"upper": "a"}',
        b'{"upper": "a", "source": "b", "name": "c"}',
        b'{"upper": "a", "name": ""}',
        b'{"upper": "a", "name": "b", "extra": 1}',
        b'{"upper": "a", "name": "b", "Name": "c"}',
        b'{"upper": "a", "name": "b", "name": "c"}',
        b'{"upper": "a", "name": NaN}',
        b'{"upper": "a", "name": 1}',
        b'{"upper": "a", "name": "b", "changes": "ENV A=1"}',
        b'{"upper": "a", "name": "b", "changes": [1]}',
        b'{"upper": "a", "name": "b", "changes": [1e999]}',
        b'{"upper": "a\\u0000b", "name": "b"}',
        b'{"upper": "\\ud800", "name": "b"}',
        b'{"upper": "a", "name": "b", "changes": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"[" * 500_000,
    ],
)
def test_a_hostile_line_is_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(DocumentError) as caught:
        Line.parse(1, data)
    assert str(caught.value).startswith("line: ")
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


def test_a_shard_takes_every_nth_line() -> None:
    shards = [Shard.of(f"{index}/3") for index in range(3)]
    assert [[number for number in range(1, 8) if shard.has(number)] for shard in shards] == [[1, 4, 7], [2, 5], [3, 6]]
    assert all(Shard().has(number) for number in range(1, 9))


def test_a_pod_of_an_indexed_job_knows_its_shard() -> None:
    assert Shard.of("/4", {"JOB_COMPLETION_INDEX": "3"}) == Shard(3, 4)
    assert Shard.of("0/4", {"JOB_COMPLETION_INDEX": "3"}) == Shard(0, 4)


@pytest.mark.parametrize("text", ["", "1", "/", "/4", "4/4", "0/0", "-1/4", "1/x", "0x1/4", "1/4/", "9999999999/9999999999"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="shard"):
        Shard.of(text, {})


@pytest.mark.parametrize("index", ["", " ", "x", "-1", "4", "1" * 10])
def test_what_is_no_index_of_a_pod_is_refused(index: str) -> None:
    with pytest.raises(UsageError, match="shard"):
        Shard.of("/4", {"JOB_COMPLETION_INDEX": index})


def test_names_take_32_bytes_each() -> None:
    before = "from ocidiff.image.batch_lines import NameSet; names = NameSet()"
    work = """
assert all(names.add(f"app:{number}") for number in range(300_000))
assert not any(names.add(f"app:{number}") for number in range(0, 300_000, 997))
"""
    # 8 MiB, and half as much that it grew from.
    assert peak_growth(before, work) < 14 << 20


def test_a_stamp_changes_with_the_tree(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "d").mkdir(parents=True)
    (tree / "d" / "f").write_text("1")

    def taken() -> str:
        return Stamp.of(os.fsencode(tree)).digest

    seen = [taken()]
    assert taken() == seen[0]
    info = (tree / "d" / "f").stat()

    def same_length() -> None:
        (tree / "d" / "f").write_text("2")
        os.utime(tree / "d" / "f", ns=(info.st_atime_ns, info.st_mtime_ns))

    for change in (
        same_length,
        lambda: (tree / "d" / "f").chmod(0o600),
        lambda: os.setxattr(tree / "d", "user.a", b"1"),
        lambda: (tree / "d" / "f").rename(tree / "f"),
        lambda: (tree / "g").symlink_to("f"),
        (tree / "g").unlink,
        lambda: os.utime(tree, (1, 1)),
    ):
        time.sleep(0.02)
        change()
        seen.append(taken())
    assert len(set(seen)) == len(seen)


def test_names_and_places_do_not_run_together(tmp_path: Path) -> None:
    shapes = {"one": ["a/b"], "two": ["a", "b"]}
    for name, paths in shapes.items():
        for path in paths:
            (tmp_path / name / path).mkdir(parents=True)
    assert Stamp.of(os.fsencode(tmp_path / "one")).digest != Stamp.of(os.fsencode(tmp_path / "two")).digest


def test_a_fresh_change_is_not_settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not Stamp.of(os.fsencode(tmp_path)).settled
    monkeypatch.setattr(stamp, "_TICK_NS", 0)
    time.sleep(0.02)
    assert Stamp.of(os.fsencode(tmp_path)).settled
