"""`frozen`: `dataclass(frozen=True, slots=True)` for the classes that every cold shim defines.

The library writes the methods of each class as text and compiles it, which takes 0.3 to 0.5 ms for
a class; all of ours were a tenth of a cold shim's first answer.  Here all classes have the same
few methods.

Promises: `fields`, `replace`, `asdict`, patterns, `copy`, `pickle` and `inspect.signature` work,
and equality, hash, repr and errors are the library's.  To make one takes some microseconds more,
so this is not for what every call makes.
"""

from __future__ import annotations

from dataclasses import MISSING, Field, FrozenInstanceError, dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar, dataclass_transform

if TYPE_CHECKING:
    from inspect import Signature

__all__ = ["frozen"]

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: type[T]) -> type[T]:
    """Make the class one of values that do not change."""
    made: Any = dataclass(init=False, repr=False, eq=False, slots=True)(cls)
    made.__dataclass_params__.frozen = True  # what derives from it has to be

    def refuse(self: object, name: str, verb: str) -> None:
        if type(self) is made or name in made.__dataclass_fields__:
            raise FrozenInstanceError(f"cannot {verb} field {name!r}")

    def set_attribute(self: object, name: str, value: object) -> None:
        refuse(self, name, "assign to")
        super(made, self).__setattr__(name, value)

    def delete_attribute(self: object, name: str) -> None:
        refuse(self, name, "delete")
        super(made, self).__delattr__(name)

    made.__setattr__, made.__delattr__ = set_attribute, delete_attribute
    made.__init__, made.__repr__ = _init, _repr
    made.__eq__, made.__hash__ = _eq, _hash
    made.__getstate__, made.__setstate__ = _getstate, _setstate
    made.__signature__ = _SIGNATURE
    checked: type[T] = made
    return checked


def _init(self: Any, /, *given: object, **named: object) -> None:
    known = self.__match_args__
    values = dict(zip(known, given, strict=False))
    call = f"{type(self).__qualname__}.__init__()"
    if len(given) > len(known):
        raise TypeError(f"{call} takes {len(known)} values, {len(given)} were given")
    for name in named:
        if name in values:
            raise TypeError(f"{call} got multiple values for argument {name!r}")
        if name not in known:
            raise TypeError(f"{call} got an unexpected keyword argument {name!r}")
    values |= named
    for each in fields(self):
        found = values[each.name] if each.name in values else _default(each)
        if found is MISSING:
            raise TypeError(f"{call} missing 1 required argument: {each.name!r}")
        object.__setattr__(self, each.name, found)


def _default(each: Field[object]) -> object:
    return each.default if each.default_factory is MISSING else each.default_factory()


def _repr(self: Any) -> str:
    shown = (f"{each.name}={getattr(self, each.name)!r}" for each in fields(self) if each.repr)
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _compared(self: Any) -> tuple[object, ...]:
    return tuple(getattr(self, each.name) for each in fields(self) if each.compare)


def _eq(self: object, other: object) -> object:
    if type(other) is not type(self):
        return NotImplemented
    return _compared(self) == _compared(other)


def _hash(self: object) -> int:
    return hash(_compared(self))


def _getstate(self: Any) -> list[object]:
    return [getattr(self, each.name) for each in fields(self)]


def _setstate(self: Any, state: list[object]) -> None:
    for each, found in zip(fields(self), state, strict=True):
        object.__setattr__(self, each.name, found)


class _SignatureOf:
    """What `inspect` shows of the class: made when somebody looks."""

    def __get__(self, _: object, owner: Any) -> Signature:
        import inspect

        if owner.__init__ is not _init:
            raise AttributeError("__signature__")
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        shown = []
        for each in fields(owner):
            default = _default(each)
            default = inspect.Parameter.empty if default is MISSING else default
            shown.append(inspect.Parameter(each.name, kind, default=default, annotation=each.type))
        return inspect.Signature(shown, return_annotation=None)


_SIGNATURE = _SignatureOf()
