"""Index: descriptors of images, as `index.json` and multi-platform images have them. Spec: image-spec image-index.md.

Other tools put in what we do not understand: artifacts, digests of other algorithms, members of their own. An entry is
therefore kept as its source text. An entry that is not understood is an error only for those who ask for it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final, Self

from ocidiff.errors import DocumentError, UnsupportedError
from ocidiff.oci import media_type
from ocidiff.oci.descriptor import Descriptor
from ocidiff.oci.encoding import MAX_DOCUMENT_BYTES, indented, members_of_kind, parse_object, whole_number
from ocidiff.values import dataclass

REF_NAME: Final = "org.opencontainers.image.ref.name"

_ENTRIES: Final = "manifests"
_SHOWN: Final = 100
_KNOWN: Final = frozenset({"schemaversion", "mediatype", _ENTRIES, "layers"})
_SPACE: Final = re.compile(r"[ \t\n\r]*")
# Tokens that matter for the end of a value: a string, perhaps without its end, or a bracket.
_TOKEN: Final = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
# Numbers are not converted, which would be an error for long ones.
_scan: Final = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str).raw_decode


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of an index.

    Attributes:
        text: Its JSON as its author wrote it.
        name: The image name in its annotations; None if there is none.
        digest: Its digest as it stands; None if there is none.
        descriptor: What it says; None if it is not understood.
        problem: Why it is not understood; empty if it is.
    """

    text: str
    name: str | None
    digest: str | None
    descriptor: Descriptor | None
    problem: str = ""

    @classmethod
    def of(cls, descriptor: Descriptor) -> Self:
        """Return the entry that we write for a descriptor."""
        text = indented(descriptor.document()).decode().replace("\n", "\n" + 8 * " ")
        return cls(text, descriptor.annotations.get(REF_NAME), descriptor.digest, descriptor)

    @classmethod
    def parse(cls, text: str, where: str) -> Self:
        """Return the entry with this source text, which is JSON."""
        try:
            descriptor = Descriptor.parse(parse_object(_encoded(text), where), where)
        except (DocumentError, UnsupportedError) as error:
            return cls(text, *_name_and_digest(text), None, str(error))
        return cls(text, descriptor.annotations.get(REF_NAME), descriptor.digest, descriptor)


@dataclass(frozen=True, slots=True)
class Index:
    """The entries of an index, in order, and its other members as source text.

    Attributes:
        entries: The entries, also those that are not understood.
        before: Names and values of the members before the entries.
        after: Those of the members after the entries.
    """

    entries: tuple[Entry, ...] = ()
    before: tuple[tuple[str, str], ...] = (('"schemaVersion"', "2"), ('"mediaType"', f'"{media_type.INDEX}"'))
    after: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, data: bytes, expected: str, where: str) -> Self:
        """Return the index that a blob or `index.json` holds.

        Args:
            data: The document.
            expected: Media type of the descriptor that led here.
            where: What is read, for messages.

        Raises:
            DocumentError: It is no index, is of another type than expected, or could be taken for a manifest too.
        """
        if len(data) > MAX_DOCUMENT_BYTES:
            raise DocumentError(f"{where}: {len(data)} bytes of JSON, limit {MAX_DOCUMENT_BYTES}")
        # Bytes that are not UTF-8 are kept; the entry that they are in is not understood.
        text = data.decode(errors="surrogateescape")
        before: list[tuple[str, str]] = []
        after: list[tuple[str, str]] = []
        entries: tuple[Entry, ...] = ()
        known: dict[str, object] = {}
        seen: set[str] = set()
        members = before
        try:
            for key, value in _parts(text, "{}"):
                name = json.loads(key)
                if name in seen:
                    raise DocumentError(f"{where}: not JSON: member {name[:_SHOWN]!r} occurs twice")
                seen.add(name)
                if name == _ENTRIES:
                    sources = [] if value == "null" else [part for _, part in _parts(value, "[]")]
                    entries = tuple(Entry.parse(part, f"{where}: manifests[{at}]") for at, part in enumerate(sources))
                    members = after
                else:
                    members.append((key, value))
                if name.casefold() in _KNOWN:
                    known[name] = None if name == _ENTRIES else json.loads(value, parse_int=whole_number)
        except _NotThisKindError as error:
            raise DocumentError(f"{where}: {error}") from None
        except (ValueError, RecursionError) as error:
            raise DocumentError(f"{where}: not JSON: {error}") from None
        checked = members_of_kind(known, expected, where, foreign="layers")
        checked.object_map(_ENTRIES)
        checked.rest()
        return cls(entries, tuple(before), tuple(after))

    @property
    def manifests(self) -> tuple[Descriptor, ...]:
        """The descriptors that are understood, in order."""
        return tuple(entry.descriptor for entry in self.entries if entry.descriptor is not None)

    def named(self, name: str) -> tuple[Entry, ...]:
        """Return the entries that `name` means: images, or what else has the name where no image has it."""
        found = tuple(entry for entry in self.entries if entry.name == name)
        return tuple(filter(_is_image, found)) or found

    def with_name(self, name: str, descriptor: Descriptor) -> Self:
        """Return the index in which `name` means this descriptor and no other."""
        return self.with_names({name: descriptor})

    def with_names(self, names: Mapping[str, Descriptor]) -> Self:
        """Return the index in which each name means its descriptor and no other."""
        sharing: dict[str, list[Entry]] = {}
        for entry in self.entries:
            if entry.name is not None and entry.name in names:
                sharing.setdefault(entry.name, []).append(entry)
        taken = {id(entry) for found in sharing.values() for entry in list(filter(_is_image, found)) or found}
        kept = (entry for entry in self.entries if id(entry) not in taken)
        new = (
            Entry.of(replace(descriptor, annotations={**descriptor.annotations, REF_NAME: name}))
            for name, descriptor in names.items()
        )
        return replace(self, entries=(*kept, *new))

    def without(self, dropped: Entry) -> Self:
        """Return the index without the entries that are the same as `dropped`."""
        return replace(self, entries=tuple(entry for entry in self.entries if entry != dropped))

    def encode(self) -> bytes:
        """Return the bytes to store: entries and other members as they were written, between them our spaces."""
        separator = ",\n" + 8 * " "
        texts = separator.join(entry.text for entry in self.entries)
        entries = f"[\n{8 * ' '}{texts}\n    ]" if texts else "[]"
        members = [*self.before, (f'"{_ENTRIES}"', entries), *self.after]
        return _encoded("{\n    " + ",\n    ".join(f"{key}: {value}" for key, value in members) + "\n}")


def _is_image(entry: Entry) -> bool:
    return entry.descriptor is not None and entry.descriptor.media_type in media_type.MANIFESTS | media_type.INDEXES


class _NotThisKindError(ValueError):
    """A value of JSON is of another kind than was looked for."""


def _encoded(text: str) -> bytes:
    # A lone surrogate that JSON spells as an escape is not in the source text.
    return text.encode(errors="surrogateescape")


def _name_and_digest(text: str) -> tuple[str | None, str | None]:
    """Return what can be told of an entry that is not understood."""
    try:
        # An integer may have more digits than Python converts.
        value = json.loads(text, parse_int=float)
    except (ValueError, RecursionError):
        return None, None
    members = value if isinstance(value, dict) else {}
    annotations = members.get("annotations")
    name = annotations.get(REF_NAME) if isinstance(annotations, dict) else None
    digest = members.get("digest")
    return name if isinstance(name, str) else None, digest if isinstance(digest, str) else None


def _parts(text: str, brackets: str) -> Iterator[tuple[str, str]]:
    """Yield the source texts of the members of an object, or of the items of a list with empty keys.

    Raises:
        ValueError: The text is not JSON, or something else than this.
    """
    opening, closing = brackets[0], brackets[1]
    at = _after_space(text, 0)
    if text[at : at + 1] != opening:
        raise _NotThisKindError("not a JSON object" if opening == "{" else f"{_ENTRIES} is not a list")
    at = _after_space(text, at + 1)
    more = text[at : at + 1] != closing
    while more:
        key = ""
        if opening == "{":
            end = _end(text, at)
            key = text[at:end]
            at = _after_space(text, end)
            if not key.startswith('"') or text[at : at + 1] != ":":
                raise ValueError(f"expected a member at character {at}")
            at = _after_space(text, at + 1)
        end = _end(text, at)
        yield key, text[at:end]
        at = _after_space(text, end)
        more = text[at : at + 1] == ","
        if more:
            at = _after_space(text, at + 1)
    if text[at : at + 1] != closing:
        raise ValueError(f"expected a comma or {closing} at character {at}")
    if _after_space(text, at + 1) != len(text):
        raise ValueError(f"Extra data at character {at + 1}")


def _after_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return at if match is None else match.end()


def _end(text: str, at: int) -> int:
    """Return where a value ends. One that nests too deeply for the parser ends with its last bracket."""
    try:
        return _scan(text, at)[1]
    except RecursionError:
        depth = 0
        for match in _TOKEN.finditer(text, at):
            depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(match[0], 0)
            if depth == 0:
                return match.end()
        raise ValueError("unexpected end") from None
