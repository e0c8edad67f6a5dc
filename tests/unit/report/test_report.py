"""The page on an image: its figures are right, hostile names stay text, and its size has a bound."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import ocidiff
from ocidiff.cli.main import main
from ocidiff.image.rootfs import Stored
from ocidiff.layer.pure.sketch import Inode, _Child
from ocidiff.report import survey as surveys
from ocidiff.report.document import shown
from ocidiff.report.page import page_of
from ocidiff.report.style import DARK, LIGHT
from ocidiff.report.tree import GROUPS, Contents
from ocidiff.report.treemap import Rectangle, squarified
from support.pages import Page


@pytest.fixture
def reported(tmp_path: Path) -> Callable[..., Page]:
    """Commits trees one upon the other, and returns the page on the last one."""

    def report(*trees: dict[str, bytes], **arguments: object) -> Page:
        with ocidiff.Store.open(tmp_path / "store") as store:
            base = None
            for number, files in enumerate(trees):
                tree = tmp_path / f"tree{number}"
                for name, content in files.items():
                    (tree / name).parent.mkdir(parents=True, exist_ok=True)
                    (tree / name).write_bytes(content)
                    os.utime(tree / name, (1, 1))
                store.commit(tree, f"app:{number}", base=base, **arguments)  # type: ignore[arg-type]
                base = f"app:{number}"
            assert base is not None
            store.report(base, tmp_path / "report.html")
        return Page((tmp_path / "report.html").read_bytes())

    return report


def test_the_figures_are_those_of_the_layers(reported: Callable[..., Page]) -> None:
    page = reported(
        {"kept": b"k" * 3000, "replaced": b"r" * 2000, "sub/deleted": b"d" * 1000},
        {"kept": b"k" * 3000, "replaced": b"n" * 500},
        created_by="step",
    )
    assert page.table("File", "Size", "Layer") == [
        ["/kept", "3.0 kB", "1"],
        ["/replaced", "500 B", "2"],
    ]
    assert page.table("File", "Size", "Layer", "Then") == [
        ["/replaced", "2.0 kB", "1", "replaced by layer 2"],
        ["/sub/deleted", "1.0 kB", "1", "deleted"],
    ]
    layers = page.table("Layer", "Made by", "Files", "Content", "Sent", "Wasted")
    assert [(row[0], row[2], row[3], row[5]) for row in layers] == [
        ("2", "1", "500 B", "0 B"),
        ("1", "3", "6.0 kB", "3.0 kB"),
    ]
    assert all(row[1].startswith("step") for row in layers)


def test_a_secret_is_told_even_where_a_later_layer_deletes_it(reported: Callable[..., Page]) -> None:
    page = reported(
        {"app/token": f"{'ghp'}_{'a' * 36}\n".encode(), "x": b"x", "tmp/left": b"y"},
        {"x": b"x", "tmp/left": b"y"},
    )
    assert page.table("File", "Size", "Layer", "In the tree") == [["/app/token", "41 B", "1", "deleted"]]
    assert any(table[1:] == [["/tmp/left", "1 B", "1", "yes"]] for table in page.tables)
    assert "token of GitHub" in page.texts
    assert "temporary file" in page.texts


def test_a_file_of_several_names_counts_once(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/a").write_bytes(b"a" * 700)
    os.link(tmp_path / "tree/a", tmp_path / "tree/b")
    with ocidiff.Store.open(tmp_path / "store") as store:
        image = store.commit(tmp_path / "tree", "app")
        found = store.report(image, tmp_path / "report.html")
    assert (found.tree.size, found.tree.files, found.wasted_bytes) == (700, 1, 0)


def test_the_same_image_gives_the_same_page_with_both_engines(reported: Callable[..., Page], tmp_path: Path) -> None:
    reported({"a": b"a" * 10, "b/c": b"c" * 10, "b/d": b"d" * 10}, {"a": b"b" * 10})
    with ocidiff.Store.open(tmp_path / "store") as store:
        for engine in ("rust", "pure"):
            store.report("app:1", tmp_path / engine, engine=engine)
    pages = {(tmp_path / name).read_bytes() for name in ("report.html", "rust", "pure")}
    assert len(pages) == 1


HOSTILE = [
    b"<script>alert(1)</script>",
    b'"><img src=x onerror=alert(1)>',
    b"' onmouseover='alert(1)",
    b"&lt;script&gt;",
    b"</title></style><script>",
    b"-->",
    b"\xff\xfe<b>",
    b"line\nbreak\ttab\x1b[31m",
    "\u202egnp.exe\u2066".encode(),
    b"javascript:alert(1)",
    b"z" * 255,
]


def test_hostile_names_are_text_and_nothing_else(reported: Callable[..., Page], tmp_path: Path) -> None:
    plain = reported({"tmp/plain": b"x" * 100})
    files = {os.fsdecode(b"tmp/" + name.replace(b"/", b"|")): b"x" * 100 for name in HOSTILE}
    page = reported(files, message="<script>alert(2)</script>", created_by="<script>alert(3)</script>")
    data = (tmp_path / "report.html").read_bytes()
    assert set(page.tags) == set(plain.tags)
    assert set(page.tags).isdisjoint({"script", "img", "link", "iframe", "object"})
    assert page.links == ["#suspicious", "#map", "#layers", "#largest", "#wasted", "#directories"]
    assert {link[1:] for link in page.links} <= page.ids
    assert not re.search(rb"url\(|@import|//[a-z]", data)
    files_shown = [row[0] for row in page.table("File", "Size", "Layer")]
    assert "/tmp/<script>alert(1)<|script>" in files_shown
    assert "/tmp/\\xff\\xfe<b>" in files_shown
    assert "/tmp/\\u202egnp.exe\\u2066" in files_shown
    assert "/tmp/line\\nbreak\\ttab\\x1b[31m" in files_shown
    assert all(text.isprintable() for text in files_shown)


def test_a_long_name_is_shortened_in_the_middle() -> None:
    text = shown("/" + "&" * 4096 + "end")
    assert text.endswith("end")
    assert len(text) < 1300


def model(directories: int, files: int, *, depth: int = 1) -> Inode:
    """Return a model tree; nothing is on disk."""
    root = Inode(0o040000)
    for number in range(directories):
        here = root
        for level in range(depth):
            below = Inode(0o040000)
            here.children[b"'" * 200 + b"%04d" % (number if level == 0 else 0)] = _Child(below, 1)
            here = below
        for name in range(files):
            stored = Stored(1, -1, 0, ())
            inode = Inode(0o100000, size=1, stored=stored, origin=(1, number * files + name))
            here.children[b"'" * 246 + b"%06d" % name] = _Child(inode, 1)
    return root


@pytest.mark.parametrize(("directories", "files", "depth"), [(2000, 20, 1), (1, 40_000, 1), (3, 2000, 1500)])
def test_a_page_has_a_bound_however_many_files_there_are(
    directories: int, files: int, depth: int, reported: Callable[..., Page], tmp_path: Path
) -> None:
    reported({"a": b"a"})
    with ocidiff.Store.open(tmp_path / "store") as store:
        found = store.report("app:0", tmp_path / "report.html")
    contents = Contents(model(directories, files, depth=depth))
    tree, largest = contents.tree([0])
    assert tree.size == tree.files == directories * files == sum(contents.sizes.values())
    rows = tuple(surveys.File("/" + os.fsdecode(path), size, layer) for size, path, layer in largest)
    data = page_of(replace(found, tree=tree, largest=rows))
    page = Page(data)
    assert len(data) < 3_000_000
    assert any(f"and {tree.files - 50:,} smaller files" in text for text in page.texts)


def test_the_areas_of_a_treemap_are_as_its_sizes_and_fill_it() -> None:
    sizes = [600, 300, 80, 10, 5, 5]
    places = squarified(sizes, Rectangle(0, 0, 100, 50))
    for size, place in zip(sizes, places, strict=True):
        assert place.width * place.height == pytest.approx(5 * size)
        assert place.left >= 0
        assert place.left + place.width <= 100.0001
        assert place.top + place.height <= 50.0001
    overlap = [
        (one, other)
        for one in places
        for other in places
        if one is not other
        and one.left + 1e-6 < other.left + other.width
        and other.left + 1e-6 < one.left + one.width
        and one.top + 1e-6 < other.top + other.height
        and other.top + 1e-6 < one.top + one.height
    ]
    assert overlap == []


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(("text", "colours"), [("#14181f", LIGHT), ("#ffffff", DARK)])
def test_labels_stand_out_from_every_colour(text: str, colours: tuple[str, ...]) -> None:
    assert len(colours) == GROUPS
    for colour in colours:
        dark, light = sorted((_luminance(text), _luminance(colour)))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, colour


def test_an_image_without_content_has_a_page(reported: Callable[..., Page]) -> None:
    page = reported({"empty": b""})
    assert "No file has content." in page.texts


def test_more_layers_than_colours_share_the_last(reported: Callable[..., Page]) -> None:
    trees: list[dict[str, bytes]] = []
    files: dict[str, bytes] = {}
    for number in range(GROUPS + 3):
        files = {**files, f"f{number}": b"x" * (100 + number)}
        trees.append(files)
    page = reported(*trees)
    assert "all other layers" in page.texts
    assert len(page.table("Layer", "Made by", "Files", "Content", "Sent", "Wasted")) == GROUPS + 3


@pytest.fixture
def _room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OCIDIFF_STORE", str(tmp_path / "store"))
    Path("tree").mkdir()
    Path("tree/file").write_bytes(b"x" * 100)


@pytest.mark.usefixtures("_room")
def test_commit_and_inspect_write_the_same_page_in_place_of_another(capsys: pytest.CaptureFixture[str]) -> None:
    Path("report.html").write_text("old")
    assert main(["commit", "./tree", "app:1", "--report", "report.html"]) == 0
    digest = capsys.readouterr().out.strip()
    assert main(["inspect", "app:1", "--report", "again.html", "-v"]) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert "again.html: 0 secrets, 0 suspicious files, 0 B wasted" in told.err
    data = Path("report.html").read_bytes()
    assert data == Path("again.html").read_bytes()
    assert digest.encode() in data


@pytest.mark.usefixtures("_room")
def test_a_report_that_cannot_be_written_is_refused_before_the_commit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["commit", "./tree", "app:1", "--report", "missing/report.html"]) == 1
    assert "missing: No such file or directory" in capsys.readouterr().err
    assert main(["commit", "./tree", "app:1", "--report", "tree"]) == 1
    assert main(["images", "-q"]) != 0 or capsys.readouterr().out == ""


@pytest.mark.usefixtures("_room")
def test_a_report_that_fails_leaves_the_image_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["commit", "./tree", "app:1", "--report", "/dev/full"]) == 1
    told = capsys.readouterr()
    assert told.out.startswith("sha256:")
    assert told.err == (
        "ocidiff: commit: /dev/full: No space left on device; image app:1 is committed, and only the report is missing\n"
    )
    assert main(["inspect", "app:1"]) == 0


@pytest.mark.usefixtures("_room")
@pytest.mark.parametrize(
    "words",
    [["commit", "./tree", "app:1", "--dry-run", "--report", "r"], ["inspect", "app:1", "--tree", "--report", "r"]],
)
def test_a_report_needs_an_image_and_is_a_form_of_its_own(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert "--report" in capsys.readouterr().err
    assert not Path("r").exists()


@pytest.mark.usefixtures("_room")
def test_a_failure_leaves_the_old_page_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    Path("report.html").write_text("old")
    assert main(["commit", "./tree", "app:1", "-q"]) == 0
    for blob in Path("store/blobs/sha256").iterdir():
        if blob.read_bytes()[:2] == b"\x1f\x8b":
            blob.write_bytes(blob.read_bytes()[:-1] + b"?")
    before = sorted(os.listdir())
    assert main(["inspect", "app:1", "--report", "report.html"]) == 1
    assert Path("report.html").read_text() == "old"
    assert sorted(os.listdir()) == before
