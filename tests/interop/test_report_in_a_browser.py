"""The report as a real browser sees it: it fits small and large screens, asks for nothing, and names stay text."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from interop.tools import Tool
from ocidiff.store import Store

pytestmark = pytest.mark.interop

NAMES = ["<script>document.title='run'</script>".replace("/", "|"), "<img src=x onerror=document.title='run'>", "n" * 255]


@pytest.fixture
def page(tmp_path: Path, store: Store) -> Path:
    for layer in range(3):
        for name in NAMES:
            place = tmp_path / "tree/tmp" / f"d{layer}" / ("d" * 200)
            place.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(b"x" * (1000 * layer + 1000))
        (tmp_path / "tree/replaced").write_bytes(b"y" * (layer + 5000))
        store.commit(tmp_path / "tree", f"app:{layer}", base=f"app:{layer - 1}" if layer else None, created_by="w" * 300)
    store.report("app:2", tmp_path / "report.html")
    return tmp_path / "report.html"


@pytest.fixture
def browse(tool: Callable[[str], Tool]) -> Callable[..., str]:
    chromium = tool("chromium")
    words = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr", "--log-level=0")

    def run(path: Path, *more: str) -> str:
        done = chromium.attempt(*words, *more, f"file://{path}")
        assert done.returncode == 0, done.stderr
        # All messages of the page, refused requests and scripts included.
        assert "CONSOLE" not in done.stderr, done.stderr
        return str(done.stdout)

    return run


def test_no_name_becomes_an_element_or_a_script(page: Path, browse: Callable[..., str]) -> None:
    seen = browse(page, "--dump-dom")
    assert "<title>Report on app:2</title>" in seen
    assert not re.search(r"<(script|img|iframe|link)\b", seen)
    # The browser closes and opens nothing that the page does not.
    written = page.read_text()
    for tag in ("div", "tr", "td", "th", "section", "table", "details", "li"):
        assert len(re.findall(rf"<{tag}\b", seen)) == len(re.findall(rf"<{tag}\b", written)), tag


@pytest.mark.parametrize(("width", "view"), [(400, "directory"), (400, "layer"), (900, "directory"), (1600, "layer")])
def test_the_page_fits_the_screen(page: Path, browse: Callable[..., str], width: int, view: str) -> None:
    """Measured by a script in a copy that allows it, in a frame, since a browser's window has a least width."""
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text())
    text = text.replace('id="by-directory" checked', 'id="by-directory"').replace(
        f'id="by-{view}"', f'id="by-{view}" checked'
    )
    measure = (
        "<script>const m=document.getElementById('map-VIEW').getBoundingClientRect();"
        "document.title=[document.body.scrollWidth,document.body.clientWidth,m.width,m.height].join(' ')</script>"
    ).replace("VIEW", view)
    frame = page.with_name("frame.html")
    inner = page.with_name("inner.html")
    inner.write_text(text.replace("</body>", measure + "</body>"))
    frame.write_text(
        f'<iframe src="inner.html" style="width:{width}px;height:900px;border:0" '
        'onload="document.title=this.contentDocument.title"></iframe>'
    )
    seen = browse(frame, "--dump-dom", "--allow-file-access-from-files", f"--window-size={width + 40},1000")
    found = re.search(r"<title>([\d. ]+)</title>", seen)
    assert found, seen
    content, screen, map_width, map_height = map(float, found[1].split())
    assert content <= screen == width
    assert map_width > 0.8 * min(width, 1240)
    assert map_height >= 400


def test_a_picture_of_it_is_not_blank(page: Path, browse: Callable[..., str]) -> None:
    picture = page.with_suffix(".png")
    browse(page, f"--screenshot={picture}", "--window-size=900,1200")
    data = picture.read_bytes()
    assert struct.unpack(">II", data[16:24]) == (900, 1200)
    assert len(data) > 30_000
