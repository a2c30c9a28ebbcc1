"""`frozen` beside the library's dataclass: who sees a value cannot tell which of them made it."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from dataclasses import (
    FrozenInstanceError,
    asdict,
    astuple,
    dataclass,
    field,
    fields,
    is_dataclass,
    replace,
)
from typing import Any

import pytest

from trioshim._frozen import frozen


@frozen
class Ours:
    """Three fields of the three kinds."""

    name: str
    size: int = 0
    more: dict[str, int] = field(default_factory=dict, compare=False, repr=False)

    @property
    def doubled(self) -> int:
        return 2 * self.size


@dataclass(frozen=True, slots=True)
class Library:
    """The same."""

    name: str
    size: int = 0
    more: dict[str, int] = field(default_factory=dict, compare=False, repr=False)

    @property
    def doubled(self) -> int:
        return 2 * self.size


@frozen
class Twin:
    """Another class with such fields."""

    name: str
    size: int = 0


TWIN = Twin("twin")
BOTH = pytest.mark.parametrize("cls", [Ours, Library])


@BOTH
def test_values_are_given_by_place_or_by_name(cls: Any) -> None:
    """What is not given has its default, and a factory's is made for each."""
    assert cls("a", 2).doubled == cls(size=2, name="a").doubled == 4
    assert (cls("a").name, cls("a").size, cls("a").more) == ("a", 0, {})
    assert cls("a").more is not cls("a").more


@BOTH
@pytest.mark.parametrize(
    ("given", "named"),
    [((), {}), (("a", 1, {}, 4), {}), (("a",), {"name": "b"}), (("a",), {"colour": "red"})],
    ids=["missing", "too many", "twice", "unknown"],
)
def test_wrong_values_are_refused(
    cls: Any, given: tuple[object, ...], named: dict[str, object]
) -> None:
    """As with any function."""
    with pytest.raises(TypeError, match=r"__init__\(\)"):
        cls(*given, **named)


@BOTH
def test_equal_are_values_of_one_class(cls: Any) -> None:
    """What is not compared makes no difference, neither to the hash."""
    assert cls("a", 1, {"x": 1}) == cls("a", 1)
    assert hash(cls("a", 1, {"x": 1})) == hash(cls("a", 1)) == hash(("a", 1))
    assert cls("a", 1) != cls("a", 2)
    assert cls("a", 1) != ("a", 1)
    assert cls("a", 1) != replace(TWIN, name="a", size=1)


@BOTH
def test_nothing_changes(cls: Any) -> None:
    """Of its fields."""
    it = cls("a")
    with pytest.raises(FrozenInstanceError, match="cannot assign to field 'size'"):
        it.size = 1
    with pytest.raises(FrozenInstanceError, match="cannot delete field 'size'"):
        del it.size
    assert not hasattr(it, "__dict__")


def test_nothing_is_added() -> None:
    """The library says so in a strange way: its `super` is of a class that is no more."""
    it: Any = Ours("a")
    with pytest.raises(FrozenInstanceError):
        it.other = 1


@BOTH
@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))]
)
def test_copies_are_equal(cls: Any, again: Callable[[Any], Any]) -> None:
    """A copy, a deep one, and what comes out of a pickle."""
    it = cls("a", 1, {"x": 1})
    assert asdict(again(it)) == asdict(it)


@BOTH
def test_it_is_a_dataclass(cls: Any) -> None:
    """The functions of the library work, and so do patterns."""
    it = cls("a", 1)
    assert is_dataclass(cls)
    assert astuple(replace(it, size=2)) == ("a", 2, {})
    assert [each.name for each in fields(it)] == ["name", "size", "more"]
    match it:
        case Ours(name, 1) | Library(name, 1):
            assert name == "a"
        case _:
            pytest.fail("no pattern matches")


def test_both_look_the_same() -> None:
    """In a text and to who asks for the signature."""
    assert repr(Ours("a", 1)).removeprefix("Ours") == repr(Library("a", 1)).removeprefix("Library")
    ours, library = inspect.signature(Ours), inspect.signature(Library)
    assert list(ours.parameters) == list(library.parameters)
    assert ours.parameters["size"] == library.parameters["size"]
    assert ours.parameters["name"] == library.parameters["name"]


@BOTH
def test_a_dataclass_can_derive_from_it(cls: Any) -> None:
    """It has to be frozen, and adds its fields."""
    body = {"__annotations__": {"last": int}, "last": 3}
    more: Any = dataclass(frozen=True)(type("More", (cls,), body))
    assert asdict(more("a")) == {"name": "a", "size": 0, "more": {}, "last": 3}
    assert list(inspect.signature(more).parameters) == ["name", "size", "more", "last"]
    with pytest.raises(TypeError, match="non-frozen"):
        dataclass(type("More", (cls,), body))


def test_a_plain_class_can_derive_from_it() -> None:
    """What it adds can change."""

    class Plain(Ours):
        note: str

        def __init__(self, first: str) -> None:
            super().__init__(first)

    assert list(inspect.signature(Plain).parameters) == ["first"]
    it: Any = Plain("a")
    it.note = "b"
    assert it.note == "b"
    with pytest.raises(FrozenInstanceError):
        it.name = "b"
