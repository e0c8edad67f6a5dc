"""Frozen dataclasses that take next to no time to define, in place of the standard library's.

That one compiles six methods anew for every class, which is a millisecond each on a slow machine, and forty classes are
defined whenever a command starts. Here the methods are closures. Law: a value behaves as the standard library's does.
"""

from __future__ import annotations

from dataclasses import MISSING, Field, FrozenInstanceError, field, fields, make_dataclass
from dataclasses import dataclass as _standard
from operator import attrgetter, methodcaller
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from dataclasses import dataclass
    from inspect import Signature

    # Of the slots of a class, past what refuses to set them.
    _Setters = list[Callable[[object, object], None]]
else:

    def dataclass(*, frozen: bool, slots: bool) -> Callable[[type], type]:
        """A frozen dataclass with slots. The class has a docstring and extends no other value, fields have defaults at most.

        Raises:
            TypeError: What is asked for is another dataclass, or a field has options: the standard library makes these.
        """
        if not (frozen and slots):
            raise TypeError("only frozen dataclasses with slots are made here")
        return _with_shared_methods


__all__ = ["dataclass"]


def _with_shared_methods(plain: type[Any]) -> type[Any]:
    own = vars(plain).keys()
    cls = _standard(init=False, repr=False, eq=False, slots=True)(plain)
    known = fields(cls)
    if not all(one.init and one.repr and one.compare and one.hash is None and not one.kw_only for one in known):
        raise TypeError(f"{cls.__qualname__}: a field has options")
    parameters = cls.__dataclass_params__
    parameters.init = parameters.repr = parameters.eq = parameters.frozen = True
    names = tuple([one.name for one in known])
    setters = [getattr(cls, name).__set__ for name in names]
    for method in (_init(cls, known, names, setters), *_methods(cls, names, setters)):
        if method.__name__ not in own:
            method.__qualname__ = f"{cls.__qualname__}.{method.__name__}"
            setattr(cls, method.__name__, method)
    cls.__signature__ = _LazySignature()
    return cls


def _init(cls: type[Any], known: tuple[Field[Any], ...], names: tuple[str, ...], setters: _Setters) -> Callable[..., None]:
    defaults = {one.name: one.default for one in known if one.default is not MISSING}
    factories = {one.name: one.default_factory for one in known if one.default_factory is not MISSING}
    count = len(names)
    check = methodcaller("__post_init__") if hasattr(cls, "__post_init__") else None

    def __init__(self: object, /, *positional: object, **named: object) -> None:  # noqa: N807 - becomes a method
        values, surplus = positional, named
        if len(positional) < count:
            surplus = named.copy()
            try:  # noqa: SIM105 - which takes time
                values += tuple(
                    [
                        surplus.pop(name) if name in surplus else defaults[name] if name in defaults else factories[name]()
                        for name in names[len(positional) :]
                    ]
                )
            except KeyError:
                pass
        if surplus or len(values) != count:
            # Wrong, and the standard library says how.
            _standard_init(cls)(self, *positional, **named)
            return
        for set_value, value in zip(setters, values):  # noqa: B905 - of one length, and strict is slower
            set_value(self, value)
        if check is not None:
            check(self)

    return __init__


def _methods(cls: type[Any], names: tuple[str, ...], setters: _Setters) -> Iterator[Callable[..., Any]]:
    # A getter of less than two makes no tuple.
    values_of = attrgetter(*names) if len(names) > 1 else _tuple_of(names)

    def __repr__(self: object) -> str:  # noqa: N807
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"{self.__class__.__qualname__}({shown})"

    def __eq__(self: object, other: object) -> bool:  # noqa: N807
        if other.__class__ is self.__class__:
            return bool(values_of(self) == values_of(other))
        return NotImplemented

    def __hash__(self: object) -> int:  # noqa: N807
        return hash(values_of(self))

    def __setattr__(self: object, name: str, value: object) -> None:  # noqa: N807
        if type(self) is cls or name in names:
            raise FrozenInstanceError(f"cannot assign to field {name!r}")
        super(cls, self).__setattr__(name, value)

    def __delattr__(self: object, name: str) -> None:  # noqa: N807
        if type(self) is cls or name in names:
            raise FrozenInstanceError(f"cannot delete field {name!r}")
        super(cls, self).__delattr__(name)

    def __getstate__(self: object) -> list[object]:  # noqa: N807
        return [getattr(self, name) for name in names]

    def __setstate__(self: object, state: list[object]) -> None:  # noqa: N807
        for set_value, value in zip(setters, state):  # noqa: B905
            set_value(self, value)

    yield from (__repr__, __eq__, __hash__, __setattr__, __delattr__, __getstate__, __setstate__)


def _tuple_of(names: tuple[str, ...]) -> Callable[[object], tuple[object, ...]]:
    return lambda value: tuple(getattr(value, name) for name in names)


def _standard_init(cls: type[Any]) -> Callable[..., None]:
    """The `__init__` that the standard library compiles for these fields."""
    same = [(one.name, one.type, field(default=one.default, default_factory=one.default_factory)) for one in fields(cls)]
    checked = {"__post_init__": cls.__post_init__} if hasattr(cls, "__post_init__") else {}
    init: Callable[..., None] = vars(make_dataclass(cls.__name__, same, namespace=checked, frozen=True))["__init__"]
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    return init


class _LazySignature:
    """The signature of a class for `inspect.signature` and `help`, made on demand."""

    def __get__(self, value: object, cls: type[Any]) -> Signature:
        import inspect

        defining = next(base for base in cls.__mro__ if "__init__" in vars(base))
        if value is not None or vars(defining).get("__signature__") is not self:
            raise AttributeError("__signature__")
        signature = inspect.signature(_standard_init(defining))
        return signature.replace(parameters=list(signature.parameters.values())[1:])
