"""A value's class behaves as the one that the standard library makes of the same fields."""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import pickle
import re
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ocidiff
from ocidiff.values import dataclass

PACKAGE = Path(ocidiff.__file__).parent
NAMES = ("self", "kind", "path", "cls", "names", "value")
ABSENT = object()

names = st.sampled_from(NAMES)
few_values = st.one_of(st.integers(0, 2), st.sampled_from(["", "text", (), (1, "a")]))


@st.composite
def bodies(draw: st.DrawFn) -> dict[str, Any]:
    """What stands in a class: fields without defaults, then some with one; perhaps a check, perhaps its own text."""
    chosen = draw(st.lists(names, unique=True, max_size=4))
    needed = draw(st.integers(0, len(chosen)))
    body: dict[str, Any] = {"__doc__": "Something.", "__annotations__": dict.fromkeys(chosen, "object")}
    for name in chosen[needed:]:
        default = draw(few_values)
        body[name] = (
            dataclasses.field(default_factory=functools.partial(list, [default])) if draw(st.booleans()) else default
        )
    if draw(st.booleans()):
        body["__post_init__"] = _refuse_two
    if draw(st.booleans()):
        body["__repr__"] = lambda _: "its own"
    if draw(st.booleans()):
        body["__hash__"] = lambda _: 7
    return body


def _refuse_two(value: object) -> None:
    for field in dataclasses.fields(value):  # type: ignore[arg-type]
        if getattr(value, field.name) == 2:
            raise ValueError(f"{field.name} is 2")


def both(body: Mapping[str, Any]) -> tuple[type[Any], type[Any]]:
    """The class as the standard library makes it, and ours."""
    plain = [type("Thing", (), {**body, "__module__": __name__, "__qualname__": "Outer.Thing"}) for _ in range(2)]
    return dataclasses.dataclass(frozen=True, slots=True)(plain[0]), dataclass(frozen=True, slots=True)(plain[1])


def outcome(call: Callable[[], object]) -> object:
    """The result of a call, or what it raised."""
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - whatever it is, the other one has to raise it too
        return type(error), str(error)


def content(value: object) -> object:
    """What distinguishes results of the two classes but for the class itself."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name, ABSENT) for field in dataclasses.fields(value)], outcome(lambda: repr(value))
    return value


@given(
    bodies(), st.lists(few_values, max_size=5), st.dictionaries(st.one_of(names, st.just("other")), few_values, max_size=4)
)
def test_any_call_makes_the_same_or_fails_in_the_same_words(
    body: dict[str, Any], positional: list[Any], named: dict[str, Any]
) -> None:
    standard, ours = both(body)
    made = [outcome(lambda cls=cls: cls(*positional, **named)) for cls in (standard, ours)]  # type: ignore[misc]
    assert content(made[0]) == content(made[1])


@given(bodies(), st.data())
def test_values_compare_hash_show_and_copy_the_same(body: dict[str, Any], data: st.DataObject) -> None:
    pairs = []
    fields = body["__annotations__"]
    drawn = [data.draw(st.lists(st.sampled_from([0, 1, "a"]), min_size=len(fields), max_size=len(fields))) for _ in range(2)]
    changed = data.draw(st.dictionaries(names, st.sampled_from([0, "b"]), max_size=2))
    for cls in both(body):
        one, other = (cls(*values) for values in drawn)
        pairs.append(
            (
                one == other,
                one != other,
                one == drawn[0],
                hash(one) == hash(other),
                hash(one),
                repr(one),
                dataclasses.asdict(one),
                dataclasses.astuple(one),
                content(copy.copy(one)),
                content(copy.deepcopy(one)),
                content(outcome(lambda one=one: dataclasses.replace(one, **changed))),  # type: ignore[misc]
                one.__getstate__(),
            )
        )
    assert pairs[0] == pairs[1]


@given(bodies())
def test_the_class_tells_the_same_of_itself(body: dict[str, Any]) -> None:
    standard, ours = both(body)
    assert_same_class(standard, ours)


def signature(kind: type[Any]) -> str:
    """Return the signature as text; a default that is a function has another place in memory in each module."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(inspect.signature(kind)))


def assert_same_class(standard: type[Any], ours: type[Any]) -> None:
    """Fails unless all that can be asked of the classes is the same."""
    # As text: a default that is a value of the same module is of the class that was made once more.
    assert signature(standard) == signature(ours)
    assert repr(standard.__dataclass_params__) == repr(ours.__dataclass_params__)
    assert described_fields(standard) == described_fields(ours)
    for name in ("__slots__", "__match_args__", "__doc__", "__module__", "__name__", "__qualname__", "__annotations__"):
        assert getattr(standard, name) == getattr(ours, name), name
    assert set(vars(ours)) == {*vars(standard), "__signature__"}


def described_fields(cls: type[Any]) -> list[str]:
    """All that a field has, but for where a factory is in memory."""
    return [re.sub(" at 0x[0-9a-f]+", "", repr(field)) for field in dataclasses.fields(cls)]


@given(bodies())
def test_no_attribute_can_be_set_or_deleted(body: dict[str, Any]) -> None:
    for name in body["__annotations__"]:
        values = [cls(*[0] * len(body["__annotations__"])) for cls in both(body)]
        for change in (lambda value: setattr(value, name, 1), lambda value: delattr(value, name)):  # noqa: B023
            standard, ours = (outcome(functools.partial(change, value)) for value in values)
            assert ours == standard
            assert isinstance(ours, tuple)
            assert ours[0] is dataclasses.FrozenInstanceError


@dataclass(frozen=True, slots=True)
class Point:
    """A place."""

    x: int
    y: int = 0


class NamedPoint(Point):
    """One with slots of its own and a dictionary."""

    name = ""


@dataclasses.dataclass(frozen=True)
class Solid(Point):
    z: int = 5


def test_values_are_pickled_in_every_protocol() -> None:
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(Point(1, 2), protocol)) == Point(1, 2)


def test_an_attribute_that_is_no_field_is_refused_too() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'z'"):
        Point(1).z = 2  # type: ignore[attr-defined]


def test_values_are_matched_by_position() -> None:
    match Point(1, 2):
        case Point(x, y):
            assert (x, y) == (1, 2)


def test_a_subclass_may_have_more_attributes_but_its_fields_stay() -> None:
    point = NamedPoint(1)
    point.name = "a"
    assert (point.name, repr(point)) == ("a", "NamedPoint(x=1, y=0)")
    assert point != Point(1)
    del point.name
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'x'"):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot delete field 'x'"):
        del point.x
    assert inspect.signature(NamedPoint) == inspect.signature(Point)


def test_a_subclass_has_the_last_word_on_what_is_checked() -> None:
    base = both({"__doc__": "", "__annotations__": {"x": "int"}, "__post_init__": _refuse_two})[1]
    with pytest.raises(ValueError, match="x is 2"):
        base(2)
    assert type("Lenient", (base,), {"__post_init__": lambda _: None})(2).x == 2


def test_the_standard_library_extends_them() -> None:
    assert repr(Solid(1, z=2)) == "Solid(x=1, y=0, z=2)"
    assert list(inspect.signature(Solid).parameters) == ["x", "y", "z"]
    with pytest.raises(TypeError, match="non-frozen"):
        dataclasses.dataclass(type("Loose", (Point,), {}))


def test_an_error_of_a_default_is_told_as_it_is() -> None:
    def fail() -> int:
        raise KeyError("its own")

    cls = both({"__doc__": "", "__annotations__": {"x": "int"}, "x": dataclasses.field(default_factory=fail)})[1]
    with pytest.raises(KeyError, match="its own"):
        cls()


@pytest.mark.parametrize(
    "options", [{"kw_only": True}, {"repr": False}, {"compare": False}, {"hash": True}, {"init": False}]
)
def test_what_is_not_made_here_is_refused(options: dict[str, bool]) -> None:
    body = {"__annotations__": {"x": "int"}, "x": dataclasses.field(default=0, **options)}  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="Thing: a field has options"):
        dataclass(frozen=True, slots=True)(type("Thing", (), body))
    with pytest.raises(TypeError, match="only frozen"):
        dataclass(frozen=False, slots=True)


def modules() -> list[ModuleType]:
    files = (path.relative_to(PACKAGE.parent).with_suffix("") for path in sorted(PACKAGE.rglob("*.py")))
    return [import_module(".".join(file.parts)) for file in files if file.name not in {"__init__", "__main__"}]


def values_of_the_package() -> list[type[Any]]:
    found = {value for module in modules() for value in vars(module).values() if isinstance(value, type)}
    return sorted((cls for cls in found if "__signature__" in vars(cls) and cls.__module__.startswith("ocidiff.")), key=repr)


@pytest.mark.parametrize("cls", values_of_the_package(), ids=lambda cls: cls.__qualname__)
def test_every_value_of_the_package_is_what_the_standard_library_makes_of_it(
    cls: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The module once more, with the other decorator.
    monkeypatch.setattr("ocidiff.values.dataclass", dataclasses.dataclass)
    monkeypatch.delitem(sys.modules, cls.__module__)
    package, _, last = cls.__module__.rpartition(".")
    monkeypatch.setattr(sys.modules[package], last, sys.modules.get(cls.__module__))
    assert_same_class(getattr(import_module(cls.__module__), cls.__name__), cls)
