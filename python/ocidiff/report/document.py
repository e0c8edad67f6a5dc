"""Document: the frame of a report as one HTML page, without scripts and without a second file. Pure."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from ocidiff.printable import shortened
from ocidiff.report.style import STYLE

LONGEST: Final = 200
"""Longest text of others, in characters."""
# Nothing is loaded and nothing runs, whatever a name holds.
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def shown(text: str) -> str:
    """Return a text of others for HTML: one line, shortened in the middle, everything special escaped."""
    return html.escape(shortened(text, LONGEST))


def document(
    title: str,
    heading: tuple[str, str],
    about: str,
    figures: str,
    sections: Sequence[tuple[str, str, Iterator[str]]],
    footer: str,
    *,
    style: str = "",
) -> Iterator[str]:
    """Yield a page.

    Args:
        title: Its title.
        heading: What kind of report it is, and on what.
        about: A line below the heading, as HTML.
        figures: What `cards` gives.
        sections: Key, title and body of each section.
        footer: The last line, as HTML.
        style: Added to the style sheet.
    """
    yield (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{title}</title>\n<style>{STYLE}{style}</style>\n</head>\n<body>\n<main>\n<header>\n"
        f"<h1><span>{heading[0]}</span><bdi>{heading[1]}</bdi></h1>\n"
        f'<p class="id">{about}</p>\n'
        '<nav aria-label="Parts"><ul>'
    )
    yield "".join(f'<li><a href="#{key}">{name}</a></li>' for key, name, _ in sections)
    yield f"</ul></nav>\n{figures}</header>\n"
    for key, name, body in sections:
        yield f'<section id="{key}" aria-labelledby="{key}-title">\n<h2 id="{key}-title">{name}</h2>\n'
        yield from body
        yield "</section>\n"
    yield f"<footer>{footer}</footer>\n</main>\n</body>\n</html>\n"


def cards(*items: tuple[str, str, str, str]) -> str:
    """Return a row of cards: title, figure, note and class of each."""
    found = "".join(
        f'<div class="{kind}"><dt>{title}</dt><dd>{figure}</dd><dd>{note}</dd></div>' for title, figure, note, kind in items
    )
    return f'<dl class="cards">{found}</dl>\n'


def table(caption: str, heads: str, rows: Iterable[str]) -> Iterator[str]:
    """Yield a table. Each head may have a class behind a dot."""
    yield f"<table>\n<caption>{caption}</caption>\n<thead><tr>"
    for head in heads.split("|"):
        title, _, kind = head.partition(".")
        yield f'<th scope="col" class="{kind}">{title}</th>' if kind else f'<th scope="col">{title}</th>'
    yield "</tr></thead>\n<tbody>\n"
    for row in rows:
        yield f"<tr>{row}</tr>\n"
    yield "</tbody>\n</table>\n"
