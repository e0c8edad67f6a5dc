"""Page: a survey as one HTML page, without scripts and without a second file. Pure.

Every name in it was given by others. They go through `shown`, and through `shortened` and `html.escape` in `map`.
Each list has a length that no image can pass, and says what it leaves out.
"""

from __future__ import annotations

import html
import os
from collections.abc import Iterator, Sequence
from typing import Final

from ocidiff.report.document import LONGEST, cards, document, shown, table
from ocidiff.report.map import maps
from ocidiff.report.survey import File, Found, LayerSizes, Survey
from ocidiff.report.tree import GROUPS, Node
from ocidiff.sizes import counted, size

_LAYERS: Final = 60
_DIRECTORIES: Final = 40
_DEEPEST: Final = 4
_PARTS: Final = (
    ("suspicious", "Suspicious files"),
    ("map", "What takes the space"),
    ("layers", "Layers"),
    ("largest", "Largest files"),
    ("wasted", "Wasted bytes"),
    ("directories", "Directories"),
)


def page_of(survey: Survey) -> bytes:
    """Return the page. The same survey gives the same bytes."""
    return "".join(_page(survey)).encode()


def _page(survey: Survey) -> Iterator[str]:
    image = survey.image
    about = f"{shown(str(image.config.platform))} · {_date(image.config.created)}<code>{image.digest}</code>"
    bodies = (
        _suspicious(survey.found),
        _map(survey),
        _layers(survey.layers),
        _largest(survey.largest, survey.tree),
        _wasted(survey),
        _directories(survey.tree),
    )
    yield from document(
        f"Report on {shown(image.name)}",
        ("Image report", shown(image.name)),
        about,
        _cards(survey),
        [(key, title, body) for (key, title), body in zip(_PARTS, bodies, strict=True)],
        "Sizes of files are those of their content, uncompressed; a file of several names counts once. "
        f"Names are escaped, and shortened in the middle past {LONGEST} characters. Written by ocidiff.",
    )


def _date(created: str) -> str:
    return f"{shown(created[:10])} · " if created else ""


def _cards(survey: Survey) -> str:
    written = sum(layer.content_bytes for layer in survey.layers)
    sent = sum(layer.blob_bytes for layer in survey.layers)
    share = 100 * survey.wasted_bytes / written if written else 0
    secrets, others = survey.files(secret=True), survey.files(secret=False)
    return cards(
        ("To download", size(sent), counted(len(survey.layers), "layer"), ""),
        ("Unpacked", size(survey.tree.size), counted(survey.tree.files, "file") + " with content", ""),
        ("Wasted", size(survey.wasted_bytes), f"{share:.1f} % of what the layers hold", "warn" if share >= 5 else ""),
        ("Secrets", f"{secrets:,}", "keys, tokens and passwords", "bad" if secrets else "good"),
        ("Suspicious", f"{others:,}", "caches, histories, temporary files", "warn" if others else "good"),
    )


def _suspicious(found: Sequence[Found]) -> Iterator[str]:
    if not found:
        yield "<p>No secrets or suspicious files found.</p>\n"
        return
    yield (
        "<p>Secrets are in a layer, and are published with it, even where a later layer deletes them. "
        "Change those that were published already.</p>\n"
    )
    for one in found:
        kind, word = ("bad", "secret") if one.rule.is_secret else ("warn", "check")
        count = f"{counted(one.files, 'file')}, {size(one.content_bytes)}"
        yield (
            f"<details{' open' if one.rule.is_secret else ''}><summary>"
            f'<span class="tag {kind}">{word}</span><b>{html.escape(one.rule.name)}</b>'
            f'<span class="soft">{count}</span></summary>\n'
        )
        yield from table(
            f"Files: {html.escape(one.rule.name)}", "File|Size.n|Layer.n|In the tree", map(_found_row, one.shown)
        )
        if one.files > len(one.shown):
            yield f"<p>and {counted(one.files - len(one.shown), 'smaller file')}</p>\n"
        yield "</details>\n"


def _found_row(file: File) -> str:
    return f"{_path(file.path)}{_size(file.size)}{_number(file.layer)}<td>{file.later or 'yes'}</td>"


def _map(survey: Survey) -> Iterator[str]:
    if not survey.tree.size and not survey.wasted_bytes:
        yield "<p>No file has content.</p>\n"
        return
    yield (
        "<p>Areas are as sizes are. The colour of an area is that of the layer that has most of it. "
        "Hatched areas are wasted. The tables below have the same figures.</p>\n"
    )
    yield from maps(survey)
    labels = _labels(survey.layers)
    yield '<ul class="key" aria-label="Colours">'
    for group, label in sorted(labels.items()):
        yield f'<li><span class="chip g{group}"></span>{label}</li>'
    yield "</ul>\n"


def _labels(layers: Sequence[LayerSizes]) -> dict[int, str]:
    """Return what each colour stands for."""
    is_shared = len(layers) > GROUPS
    labels = {layer.group: f"layer {layer.number}" for layer in layers}
    return {**labels, GROUPS - 1: "all other layers"} if is_shared else labels


def _layers(layers: Sequence[LayerSizes]) -> Iterator[str]:
    most = max((layer.content_bytes for layer in layers), default=0)

    def row(layer: LayerSizes) -> str:
        step = shown(" ".join(layer.created_by.split())) or "no entry in the history"
        return (
            f'<th scope="row" class="n"><span class="chip g{layer.group}"></span>{layer.number}</th>'
            f'<td class="path"><bdi>{step}</bdi><br><code class="soft">{layer.digest[:19]}</code></td>'
            f'<td class="n wide">{layer.files:,}</td>{_size(layer.content_bytes, most)}'
            f'<td class="n">{size(layer.blob_bytes)}</td><td class="n">{size(layer.wasted_bytes)}</td>'
        )

    rows = map(row, reversed(layers[-_LAYERS:]))
    yield from table("Layers, newest first", "Layer.n|Made by|Files.n wide|Content.n|Sent.n|Wasted.n", rows)
    if len(layers) > _LAYERS:
        rest = layers[:-_LAYERS]
        yield f"<p>and {counted(len(rest), 'older layer')}, {size(sum(layer.content_bytes for layer in rest))}</p>\n"


def _largest(files: Sequence[File], tree: Node) -> Iterator[str]:
    most = files[0].size if files else 0
    rows = (f"{_path(file.path)}{_size(file.size, most)}{_number(file.layer)}" for file in files)
    yield from table("Largest files of the tree", "File|Size.n|Layer.n", rows)
    if tree.files > len(files):
        rest = tree.size - sum(file.size for file in files)
        yield f"<p>and {counted(tree.files - len(files), 'smaller file')}, {size(rest)}</p>\n"


def _wasted(survey: Survey) -> Iterator[str]:
    files = survey.wasted
    if not survey.wasted_bytes:
        yield "<p>Every file of every layer is in the tree.</p>\n"
        return
    yield (
        "<p>A later layer deletes or replaces these files, and they are downloaded all the same. Delete a file in the step "
        "that makes it, or squash the layers.</p>\n"
    )
    rows = (
        f"{_path(file.path)}{_size(file.size, files[0].size)}{_number(file.layer)}<td>{file.later}</td>" for file in files
    )
    yield from table("Largest wasted files", "File|Size.n|Layer.n|Then", rows)
    rest = survey.wasted_bytes - sum(file.size for file in files)
    if rest > 0:
        yield f"<p>and smaller files, {size(rest)}</p>\n"


def _directories(tree: Node) -> Iterator[str]:
    if not tree.size:
        yield "<p>No file has content.</p>\n"
        return
    rows = sorted(_nodes(tree, b"", 1), key=lambda row: (-row[1].size, row[0]))
    listed = sorted(rows[:_DIRECTORIES])
    yield f"<p>The {counted(len(listed), 'largest directory', 'largest directories')}, with what is below them.</p>\n"
    cells = (f"{_path(os.fsdecode(path))}{_number(node.files)}{_size(node.size, tree.size)}" for path, node in listed)
    yield from table("Largest directories", "Directory|Files.n|Size.n", cells)


def _nodes(node: Node, path: bytes, depth: int) -> Iterator[tuple[bytes, Node]]:
    for child in node.children:
        if child.is_directory:
            below = path + b"/" + child.name
            yield below, child
            if depth < _DEEPEST:
                yield from _nodes(child, below, depth + 1)


def _path(path: str) -> str:
    return f'<th scope="row" class="path"><bdi>{shown(path)}</bdi></th>'


def _size(count: int, most: int = 0) -> str:
    share = f' style="--p:{100 * count / most:.1f}%"' if most else ""
    return f'<td class="n size"{share}>{size(count)}</td>'


def _number(number: int) -> str:
    return f'<td class="n">{number:,}</td>'
