"""Survey: what takes the space of an image, what of it is wasted, and what should not be there."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ocidiff.image.image import Image
from ocidiff.image.rootfs import ImagePath, Stored, model_of, open_rootfs
from ocidiff.largest import Largest
from ocidiff.layer.engine import Engine
from ocidiff.layer.limits import Limits
from ocidiff.layer.monitor import Monitor
from ocidiff.layer.pure.tar_reader import TarReader
from ocidiff.layer.tar_file import FileBytes
from ocidiff.report.findings import Finding, findings_of
from ocidiff.report.rules import Rule
from ocidiff.report.tree import GROUPS, Contents, Node
from ocidiff.services.content import Provider
from ocidiff.values import dataclass

if TYPE_CHECKING:
    from ocidiff.layer.pure.sketch import Inode
    from ocidiff.layer.pure.tar_reader import Entry

_WASTED: Final = 50
_SECRETS: Final = 20
_SUSPECTS: Final = 10
# The layers have passed the limits of the caller when they were read for the tree.
_ANY: Final = Limits(max_bytes=None, max_entries=None, max_ratio=None)


@dataclass(frozen=True, slots=True)
class File:
    """A file with content.

    Attributes:
        path: Absolute path within the image.
        size: Bytes of content.
        layer: Number of its layer, from 1 on.
        later: What has become of it, if it is not in the tree any more.
    """

    path: str
    size: int
    layer: int
    later: str = ""


@dataclass(frozen=True, slots=True)
class LayerSizes:
    """The sizes of a layer.

    Attributes:
        number: From 1 on.
        digest: Digest of the blob.
        blob_bytes: Length of the blob.
        files: Files with content.
        content_bytes: Bytes of their content.
        wasted_bytes: Bytes of those that are not in the tree any more.
        created_by: Its entry in the history.
        group: Its group, by which it is coloured.
    """

    number: int
    digest: str
    blob_bytes: int
    files: int
    content_bytes: int
    wasted_bytes: int
    created_by: str
    group: int


@dataclass(frozen=True, slots=True)
class Found:
    """The files that break one rule.

    Attributes:
        rule: The rule.
        files: How many there are.
        content_bytes: Bytes of their content.
        shown: The largest of them.
    """

    rule: Rule
    files: int
    content_bytes: int
    shown: tuple[File, ...]


@dataclass(frozen=True, slots=True)
class Survey:
    """The findings on an image.

    Attributes:
        image: The image.
        layers: Its layers, the first one first.
        tree: The large directories and files of the tree.
        largest: Its largest files, largest first.
        wasted: The largest files that are in a layer, and not in the tree.
        found: What breaks rules, secrets first.
    """

    image: Image
    layers: tuple[LayerSizes, ...]
    tree: Node
    largest: tuple[File, ...]
    wasted: tuple[File, ...]
    found: tuple[Found, ...]

    @property
    def wasted_bytes(self) -> int:
        """Bytes of content that no tree shows."""
        return sum(layer.wasted_bytes for layer in self.layers)

    def files(self, *, secret: bool) -> int:
        """Return how many secrets were found, or how many other findings."""
        return sum(found.files for found in self.found if found.rule.is_secret == secret)


def survey(
    content: Provider, image: Image, spool: str | None, *, engine: Engine, limits: Limits, monitor: Monitor
) -> Survey:
    """Read all layers of an image, and return what is in them; arguments and errors as in `open_rootfs`.

    Memory grows with the number of names in the tree, as there; what is kept beside that is bounded.
    """
    entries = _Entries()
    with open_rootfs(content, image, spool, engine=engine, limits=limits, monitor=monitor, seen=entries.take) as root:
        contents = Contents(model_of(root))
        groups = _groups(entries.sizes, len(image.manifest.layers))
        tree, largest = contents.tree(groups)
        wasted = entries.wasted(contents, root, monitor)
        found = tuple(
            Found(rule, entries.broken[rule], entries.broken_bytes[rule], tuple(_fate(root, one) for one in files))
            for rule, files in entries.found()
        )
    steps = [step.created_by for step, layer in image.steps() if layer is not None]
    layers = [
        LayerSizes(
            number,
            layer.digest,
            layer.size,
            entries.counts[number],
            entries.sizes[number],
            entries.sizes[number] - contents.sizes[number],
            steps[number - 1],
            groups[number - 1],
        )
        for number, layer in enumerate(image.manifest.layers, 1)
    ]
    shown = tuple(File(os.fsdecode(path), size, layer) for size, path, layer in largest)
    return Survey(image, tuple(layers), tree, shown, wasted, found)


class _Entries:
    """Counts the entries of all layers, and judges them by the rules.

    Attributes:
        sizes, counts: Bytes of content and number of the files that have some, by layer.
        broken, broken_bytes: Number and bytes of the files that break a rule.
    """

    def __init__(self) -> None:
        self.sizes, self.counts = Counter[int](), Counter[int]()
        self.broken, self.broken_bytes = Counter[Rule](), Counter[Rule]()
        self._tars: dict[int, int] = {}
        self._found: dict[Rule, Largest[tuple[int, str, int]]] = {}

    def take(self, layer: int, entry: Entry, made: Inode | None) -> None:
        """Count an entry. See `open_rootfs`."""
        if made is None:
            return
        stored = made.stored
        if isinstance(stored, Stored):
            self.sizes[layer] += entry.size
            self.counts[layer] += 1
            self._tars[layer] = stored.file
            findings = findings_of(entry, layer, stored.file, stored.offset, stored.segments)
        else:
            findings = findings_of(entry, layer, -1, 0, ())
        for finding in findings:
            self._add(finding, entry.size)

    def _add(self, finding: Finding, size: int) -> None:
        rule = finding.rule
        self.broken[rule] += 1
        self.broken_bytes[rule] += size
        kept = self._found.setdefault(rule, Largest(_SECRETS if rule.is_secret else _SUSPECTS))
        kept.add((size, finding.path, finding.layer))

    def found(self) -> list[tuple[Rule, list[File]]]:
        """Return the files that were kept for each rule, secrets first, then most bytes first."""
        rules = sorted(self._found, key=lambda rule: (not rule.is_secret, -self.broken_bytes[rule], rule.name))
        return [
            (rule, [File(path, size, layer) for size, path, layer in sorted(self._found[rule].kept, reverse=True)])
            for rule in rules
        ]

    def wasted(self, contents: Contents, root: ImagePath, monitor: Monitor) -> tuple[File, ...]:
        """Return the largest files that are in no tree. The headers of their layers are read once more for their names."""
        largest = Largest[tuple[int, str, int]](_WASTED)
        for layer, tar in self._tars.items():
            if self.sizes[layer] == contents.sizes[layer]:
                continue
            alive = contents.offsets(layer)
            for entry in TarReader(FileBytes(tar), _ANY).entries():
                monitor.check()
                if entry.size and entry.offset not in alive:
                    largest.add((entry.size, "/" + os.fsdecode(entry.path), layer))
        ordered = sorted(largest.kept, key=lambda one: (-one[0], one[1], one[2]))
        return tuple(_fate(root, File(path, size, layer), is_gone=True) for size, path, layer in ordered)


def _fate(root: ImagePath, file: File, *, is_gone: bool = False) -> File:
    """Return a file with what has become of it in the tree."""
    path = root / file.path
    try:
        layer = path.layer
    except OSError:
        return replace(file, later="deleted")
    # Of an object without content the layer is not known.
    if not is_gone and layer == (file.layer if file.size else 0):
        return file
    return replace(file, later=f"replaced by layer {layer}" if layer else "replaced")


def _groups(sizes: Counter[int], layers: int) -> list[int]:
    """Return the group of each layer: the largest have one each, in their order, and all others the last."""
    numbers = range(1, layers + 1)
    if layers <= GROUPS:
        return [number - 1 for number in numbers]
    largest = sorted(sorted(numbers, key=lambda number: (-sizes[number], number))[: GROUPS - 1])
    return [largest.index(number) if number in largest else GROUPS - 1 for number in numbers]
