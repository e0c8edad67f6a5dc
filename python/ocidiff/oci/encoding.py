"""JSON of OCI documents: strict when read, Go's bytes when written. No I/O.

What two readers could understand in two ways is refused: duplicate members, members that differ from known ones only by case
(Go takes them for the known ones), NaN, lone surrogates, a byte order mark.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NoReturn, TypeVar

from ocidiff.errors import DocumentError
from ocidiff.frozen import FrozenMapping

# containerd's import reads at most this much JSON; registries commonly take 4 MiB of manifest.
MAX_DOCUMENT_BYTES: Final = 20 << 20
# Real documents nest about eight deep.
MAX_DEPTH: Final = 64
# Sizes are int64 in every other implementation.
MAX_SIZE: Final = (1 << 63) - 1

# Of manifests and indexes.
SCHEMA_VERSION: Final = 2
# The lowest limit of digits that Python can be told to convert; a number that means anything has fewer.
_MOST_DIGITS: Final = 640
# A message holds at most this much of what a document says.
_SHOWN: Final = 100

NO_MEMBERS: Final[Mapping[str, object]] = FrozenMapping({})
NO_TEXTS: Final[Mapping[str, str]] = FrozenMapping({})

_T = TypeVar("_T")

# None of these characters occurs in JSON outside of strings, so they may be replaced in the finished text.
_GO_ESCAPES: Final = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


def parse_object(data: bytes, where: str) -> dict[str, object]:
    """The JSON object that `data` holds.

    Args:
        data: The document as stored.
        where: What is read, for messages.

    Raises:
        DocumentError: It is too large, not UTF-8, not JSON, ambiguous, nested too deeply, or not an object.
    """
    value = _parse(data, where)
    if not isinstance(value, dict):
        raise DocumentError(f"{where}: not a JSON object")
    return value


def parse_list(data: bytes, where: str) -> list[object]:
    """The JSON list that `data` holds; arguments and errors as in `parse_object`."""
    value = _parse(data, where)
    if not isinstance(value, list):
        raise DocumentError(f"{where}: not a JSON list")
    return value


def compact(document: Mapping[str, object]) -> bytes:
    """The document in one line, as Go's `json.Marshal` writes it."""
    return _write(document, separators=(",", ":"), indent=None)


def indented(document: Mapping[str, object]) -> bytes:
    """The document indented by four spaces, as Go's `json.MarshalIndent` writes it."""
    return _write(document, separators=(",", ": "), indent=4)


def present(members: Iterable[tuple[str, object]]) -> dict[str, object]:
    """The members that are not empty, in order: Go's `omitempty`."""
    return {name: value for name, value in members if value}


def in_key_order(mapping: Mapping[str, object]) -> dict[str, object]:
    """The mapping as Go writes its maps: sorted by key."""
    return dict(sorted(mapping.items()))


class Members:
    """The members of one JSON object, taken one by one with their types checked; null counts as absent, as in Go.

    Args:
        value: What shall be an object.
        where: What is read, for messages.

    Raises:
        DocumentError: It is not an object; later, that a member has another type than asked for.
    """

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, Mapping):
            raise DocumentError(f"{where}: not a JSON object")
        self._left = {name: member for name, member in value.items() if member is not None}
        self._asked: set[str] = set()
        self._where = where

    def fail(self, name: str, problem: str) -> NoReturn:
        """Raise the error that says what is wrong with a member."""
        raise DocumentError(f"{self._where}: {name} {problem}")

    def text(self, name: str) -> str:
        """A string; empty when absent."""
        return self._take(name, str, "is not a string") or ""

    def required_text(self, name: str) -> str:
        """A string that may not be absent or empty."""
        return self.text(name) or self.fail(name, "is missing")

    def flag(self, name: str) -> bool:
        """A boolean; false when absent."""
        return self._take(name, bool, "is not a boolean") or False

    def size(self, name: str) -> int:
        """A length in bytes."""
        value = self._pop(name)
        if type(value) is not int or not 0 <= value <= MAX_SIZE:
            self.fail(name, "is not a size")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings; empty when absent."""
        return tuple(
            item if isinstance(item, str) else self.fail(name, "holds what is not a string") for item in self._list(name)
        )

    def text_map(self, name: str) -> Mapping[str, str]:
        """A map of strings to strings; empty when absent."""
        value = self.object_map(name)
        return FrozenMapping(
            {
                key: item if isinstance(item, str) else self.fail(name, "holds what is not a string")
                for key, item in value.items()
            }
        )

    def object_map(self, name: str) -> Mapping[str, object]:
        """An object as it is; empty when absent."""
        value = self._take(name, dict, "is not an object")
        return NO_MEMBERS if value is None else FrozenMapping(value)

    def each(self, name: str, parse: Callable[[object, str], _T]) -> tuple[_T, ...]:
        """A list whose items `parse` understands; empty when absent."""
        return tuple(parse(item, f"{self._where}: {name}[{index}]") for index, item in enumerate(self._list(name)))

    def one(self, name: str, parse: Callable[[object, str], _T]) -> _T:
        """A member that `parse` understands and that may not be absent."""
        value = self._pop(name)
        if value is None:
            self.fail(name, "is missing")
        return parse(value, f"{self._where}: {name}")

    def rest(self) -> Mapping[str, object]:
        """The members that were not asked for.

        Raises:
            DocumentError: One differs from a known member only by case.
        """
        known = {name.casefold() for name in self._asked}
        for name in self._left:
            if name.casefold() in known:
                self.fail(repr(name[:_SHOWN]), "differs from a known member only by case")
        return FrozenMapping(self._left)

    def _pop(self, name: str) -> object:
        self._asked.add(name)
        return self._left.pop(name, None)

    def _take(self, name: str, kind: type[_T], problem: str) -> _T | None:
        value = self._pop(name)
        if value is not None and not isinstance(value, kind):
            self.fail(name, problem)
        return value

    def _list(self, name: str) -> list[object]:
        return self._take(name, list, "is not a list") or []


def members_of_kind(document: Mapping[str, object], expected: str, where: str, *, foreign: str) -> Members:
    """Return the members of a manifest or an index, once its kind is checked.

    Args:
        document: The JSON object.
        expected: Media type of the descriptor that led to it.
        where: What is read, for messages.
        foreign: A member that only the other kind has.

    Raises:
        DocumentError: It is of another type than expected, or could be taken for the other kind too.
    """
    if foreign in document:
        raise DocumentError(f"{where}: has {foreign!r}, so that it could be taken for another kind of document")
    members = Members(document, where)
    actual = members.text("mediaType")
    if actual not in ("", expected):
        members.fail("mediaType", f"is {actual[:_SHOWN]!r}, expected {expected!r}")
    if members.size("schemaVersion") != SCHEMA_VERSION:
        members.fail("schemaVersion", f"is not {SCHEMA_VERSION}")
    return members


def _parse(data: bytes, where: str) -> object:
    if len(data) > MAX_DOCUMENT_BYTES:
        raise DocumentError(f"{where}: {len(data)} bytes of JSON, limit {MAX_DOCUMENT_BYTES}")
    try:
        value: object = json.loads(
            data.decode(), object_pairs_hook=_unique, parse_int=whole_number, parse_constant=_no_constant
        )
    except RecursionError:
        raise DocumentError(f"{where}: nested too deeply") from None
    except ValueError as error:
        raise DocumentError(f"{where}: not JSON: {error}") from None
    _check_values(value, where)
    return value


def whole_number(text: str) -> int:
    """Return an integer of a JSON document, for `parse_int` of `json.loads`.

    Raises:
        ValueError: It has more than 640 digits, which Python may refuse to convert.
    """
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"a number has more than {_MOST_DIGITS} digits")
    return int(text)


def _write(document: Mapping[str, object], separators: tuple[str, str], indent: int | None) -> bytes:
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=separators, indent=indent, default=_plain)
    return text.translate(_GO_ESCAPES).encode()


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"no JSON for {type(value).__name__}")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"member {name[:_SHOWN]!r} occurs twice")
            seen.add(name)
    return members


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _check_values(value: object, where: str) -> None:
    """Refuse what Python's parser lets through: deep nesting, lone surrogates, numbers beyond a double."""
    level = [value]
    for _ in range(MAX_DEPTH):
        below: list[object] = []
        for item in level:
            if isinstance(item, dict):
                below += item.keys()
                below += item.values()
            elif isinstance(item, list):
                below += item
            elif isinstance(item, str) and not item.isascii():
                try:
                    item.encode()
                except UnicodeEncodeError:
                    raise DocumentError(f"{where}: a string holds half a surrogate pair") from None
            elif isinstance(item, float) and item in (float("inf"), float("-inf")):
                raise DocumentError(f"{where}: a number is too large")
        if not below:
            return
        level = below
    raise DocumentError(f"{where}: nested more than {MAX_DEPTH} deep")
