"""FrozenMapping: what values hold in place of dictionaries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

_Key = TypeVar("_Key")
_Value_co = TypeVar("_Value_co", covariant=True)


class FrozenMapping(Mapping[_Key, _Value_co]):
    """A mapping that cannot be changed. It can be hashed, pickled and copied, which a `mappingproxy` cannot.

    Args:
        items: A mapping, or pairs; they are copied.
    """

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[_Key, _Value_co] | Iterable[tuple[_Key, _Value_co]] = ()) -> None:
        self._items = dict(items)

    def __getitem__(self, key: _Key) -> _Value_co:
        return self._items[key]

    def __iter__(self) -> Iterator[_Key]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, key: object) -> bool:
        return key in self._items

    def __repr__(self) -> str:
        return repr(self._items)

    def __hash__(self) -> int:
        # Of the keys alone, since a value may be a list of JSON.
        return hash(frozenset(self._items))

    def __reduce__(self) -> tuple[type[FrozenMapping[_Key, _Value_co]], tuple[dict[_Key, _Value_co]]]:
        return FrozenMapping, (self._items,)
