"""Pages: reports in HTML, taken apart."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "br", "input"}
ATTRIBUTES = frozenset(
    {
        *("lang", "charset", "http-equiv", "content", "name", "class", "id", "href", "style", "title", "role", "scope"),
        *("aria-label", "aria-labelledby", "type", "checked", "for", "open"),
    }
)
PLOT_ATTRIBUTES = frozenset(
    {"height", "width", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "rx", "text-anchor", "overflow"}
)
"""Attributes that a page with plots has too."""


class Page(HTMLParser):
    """A page taken apart: every element is closed, in order, and has known attributes only.

    Args:
        data: The page.
        known: Attributes that it may have.
    """

    def __init__(self, data: bytes, known: frozenset[str] = ATTRIBUTES) -> None:
        super().__init__()
        self.known = known
        self.way: list[str] = []
        self.tags: list[str] = []
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.texts: list[str] = []
        self.titles: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.feed(data.decode("utf-8"))
        self.close()
        assert not self.way

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert {name for name, _ in attrs} <= self.known, attrs
        self.tags.append(tag)
        values = dict(attrs)
        self.ids |= {values["id"] or ""} if "id" in values else set()
        self.links += [values["href"] or ""] if "href" in values else []
        self.titles += [values["title"] or ""] if "title" in values else []
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in {"td", "th"}:
            self.tables[-1][-1].append("")
        if tag not in VOID:
            self.way.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.way.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if "td" in self.way or ("th" in self.way):
            self.tables[-1][-1][-1] += data

    def table(self, *heads: str) -> list[list[str]]:
        """The rows of the table with these heads."""
        return next(table[1:] for table in self.tables if table[0] == list(heads))
